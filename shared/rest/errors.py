"""What a call raises, or an `ApiResponse` holds, when it got no answer or not the one that was asked for."""

import math
from collections.abc import Callable
from typing import Any, Self

import httpx
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)
from pydantic_core import from_json

from shared.http.media_types import BYTE_ORDER_MARK, media_type
from shared.http.printable import printable
from shared.http.request_ids import request_id
from shared.http.retry_after import parse_retry_after

BODY_LIMIT = 2**16
"""Bytes of the response body that an error keeps, and that are read at all unless the status is 2xx."""

_REASON_LIMIT = 1000

_PROBLEM_MEDIA_TYPE = "application/problem+json"
_RETRYABLE_CLIENT_ERRORS = frozenset(
    {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY, httpx.codes.TOO_MANY_REQUESTS}
)


class ProblemDetails(BaseModel):
    """A problem as RFC 9457 describes it.

    Attributes:
        model_extra: The extension members.
        type: URI of the problem type.
        title: What kind of problem this is, the same for each occurrence.
        status: HTTP status.
        detail: What happened this time.
        instance: URI of this occurrence.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    type: str = "about:blank"
    title: str | None = None
    status: int | None = None
    detail: str | None = None
    instance: str | None = None

    @field_validator("*", mode="wrap")
    @classmethod
    def _ignore_wrong_types(cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        """RFC 9457 §3.1: a member whose type does not match is ignored."""
        try:
            return handler(value)
        except ValidationError:
            return cls.model_fields[str(info.field_name)].default

    @classmethod
    def of(cls, headers: httpx.Headers, body: bytes, *, cut: bool = False) -> Self | None:
        """The problem that a response describes; None if it describes none.

        Args:
            headers: Of the response.
            body: Of the response.
            cut: Whether there is more of the body: then the problem is read as far as it goes.
        """
        if media_type(headers.get("Content-Type")) != _PROBLEM_MEDIA_TYPE:
            return None
        try:
            document = from_json(
                body.removeprefix(BYTE_ORDER_MARK),
                allow_inf_nan=False,
                allow_partial="trailing-strings" if cut else False,
            )
            return cls.model_validate(_finite(document))
        except ValueError:
            return None


def _finite(value: Any) -> Any:
    """JSON without numbers beyond float, such as 1e999, which no JSON can be written of: null stands for them."""
    match value:
        case dict():
            return {name: _finite(member) for name, member in value.items()}
        case list():
            return [_finite(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case _:
            return value


class ApiError(Exception):
    """A call failed. `str()` names method, URL and reason, on one line that a log can take.

    It holds no value of the query, no header, and of the body the title and the type of a problem at most.

    Attributes:
        reason: What went wrong, in words; printable, and of at most 1000 characters.
        method: HTTP method.
        url: With the values of the query masked.
        status: HTTP status; None without a response.
        headers: Of the response; empty without one.
        body: The response's body as far as it came, at most 64 KiB of it.
        problem: What the response says in the way of RFC 9457.
        retryable: Whether the same request can succeed later. Whether it may be sent twice, only the caller knows.
        retry_after: Seconds to wait before that, if the server named them.
        sent: False if the request certainly did not reach the server.
    """

    def __init__(
        self,
        reason: str,
        *,
        method: str,
        url: str,
        status: int | None = None,
        headers: httpx.Headers | None = None,
        body: bytes = b"",
        problem: ProblemDetails | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> None:
        reason = printable(reason, _REASON_LIMIT)
        super().__init__(f"{method} {url}: {reason}")
        self.reason = reason
        self.method = method
        self.url = url
        self.status = status
        self.headers = httpx.Headers() if headers is None else headers
        self.body = body[:BODY_LIMIT]
        self.problem = problem
        self.retryable = retryable
        self.retry_after = retry_after
        self.sent = sent

    @property
    def request_id(self) -> str | None:
        """How the server calls this request; its operators will ask for it."""
        return request_id(self.headers)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, vars(self).copy())


def _restored[Error: ApiError](kind: type[Error], args: tuple[str], state: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class ApiResponseError(ApiError):
    """The API answered with another status than 2xx."""


class ApiDecodeError(ApiError):
    """The API answered with 2xx, but not with what the method promises to return."""


class ApiTransportError(ApiError):
    """There is no response: no connection, or one that broke before status and headers were there."""


class ApiTimeoutError(ApiTransportError):
    """There is no response in time."""


class ApiPausedError(ApiTransportError):
    """The request was not sent, since the client's gate did not admit it in time; `retry_after` tells when to try."""


def response_error(
    response: httpx.Response, body: bytes, *, cut: bool, method: str, url: str, now: Callable[[], float]
) -> ApiResponseError:
    """The error for a response whose status is not 2xx.

    Args:
        response: Status and headers.
        body: As far as it was read.
        cut: Whether there is more of it.
        method: Of the request.
        url: Of the request, masked.
        now: Seconds since 1970.
    """
    status, headers = response.status_code, response.headers
    problem = ProblemDetails.of(headers, body, cut=cut)
    phrase = httpx.codes.get_reason_phrase(status)
    return ApiResponseError(
        f"{status} {phrase}".rstrip() + _kind(problem, phrase),
        method=method,
        url=url,
        status=status,
        headers=headers,
        body=body,
        problem=problem,
        retryable=status in _RETRYABLE_CLIENT_ERRORS or status >= 500,
        retry_after=parse_retry_after(headers.get("Retry-After"), now=now()),
    )


def _kind(problem: ProblemDetails | None, phrase: str) -> str:
    """Which kind of problem it is, if the status does not say it all; its detail may quote what was sent."""
    if problem is None:
        return ""
    title = "" if problem.title == phrase else printable(problem.title or "")
    kind = "" if problem.type == "about:blank" else f"({printable(problem.type)})"
    told = f"{title} {kind}".strip()
    return f": {told}" if told else ""
