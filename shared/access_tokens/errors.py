"""The one error of this package: an access token could not be obtained."""

import re
from typing import Self

from shared.http.printable import printable

_DESCRIPTION_LIMIT = 500
_CREDENTIAL_LIKE = re.compile(r"[A-Za-z0-9_\-.~+=]{40,}")


class TokenError(Exception):
    """No access token could be obtained, so the request that needed it was not sent.

    The description never holds a token, a secret or a response body. It and the error code are printable, whoever
    wrote them. The error pickles, since it crosses processes.

    Attributes:
        status: HTTP status of the token endpoint's answer; None if there was no answer.
        error: Error code of RFC 6749, section 5.2, such as `invalid_client`; None if the answer had none.
        description: What happened, for people.
        retryable: Whether the same request may succeed later with nothing changed on this side.
        retry_after: Seconds that the server asked to wait for; None if it did not ask.
    """

    def __init__(
        self,
        status: int | None = None,
        error: str | None = None,
        description: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        error = None if error is None else printable(error)
        description = printable(description, _DESCRIPTION_LIMIT)
        super().__init__(status, error, description, retryable, retry_after)
        self.status = status
        self.error = error
        self.description = description
        self.retryable = retryable
        self.retry_after = retry_after

    def __str__(self) -> str:
        answer = " ".join(str(part) for part in (self.status, self.error) if part is not None)
        return ": ".join(part for part in ("no access token", answer, self.description) if part)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(status={self.status!r}, error={self.error!r}, description={self.description!r}, "
            f"retryable={self.retryable!r}, retry_after={self.retry_after!r})"
        )

    def again(self) -> Self:
        """An equal error without traceback: callers that wait for one token request must not share an exception."""
        error = type(self)(self.status, self.error, self.description, self.retryable, self.retry_after)
        error.__cause__ = self.__cause__
        return error


def readable(text: str) -> str:
    """Make text of a remote party fit for a description: one line, bounded, without anything like a credential."""
    # What is like a credential is masked first: a cut one might be too short to be recognised.
    return printable(_CREDENTIAL_LIKE.sub("***", text), _DESCRIPTION_LIMIT)
