"""What has become of a record: the outcome of an attempt, or the end of its delivery."""

import operator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from shared.business import Record
from shared.rest import ProblemDetails

from .reading import UNTOLD


class _Outcome(BaseModel):
    """Attributes of all outcomes.

    Attributes:
        truncated: True if the API answered more than is kept; None if not.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    truncated: Literal[True] | None = None


class Posted(_Outcome):
    """The API has the record.

    Attributes:
        id: By which the API knows it; None if the API did not say.
        business: The record as the API has it, as plain JSON; None if the API did not say, or more than is kept.
        replayed: Whether an earlier attempt, whose answer was lost, had brought it there.
        warning: What of the API's answer could not be read. Somebody should look whether it came from the API at all.
    """

    outcome: Literal["posted"] = "posted"
    id: str | None = None
    business: Record | None = None
    replayed: bool = False
    warning: str | None = None


class _NotPosted(_Outcome):
    """Attributes of all outcomes but `Posted`.

    Attributes:
        may_be_stored: Whether the API may have the record all the same, since the fate of an attempt is unknown.
        problem: What the API said is wrong. It may quote the record, so that it is shown, but not logged.
        excerpt: The beginning of what the API answered, if it is no problem document; shown, but not logged.
    """

    may_be_stored: Annotated[bool, Field(exclude_if=operator.not_)] = False
    problem: ProblemDetails | None = None
    excerpt: str | None = None


class Rejected(_NotPosted):
    """The API refused the record for good; sending it again would not help."""

    outcome: Literal["rejected"] = "rejected"
    status: int


class Deferred(_NotPosted):
    """Not posted yet, for a reason that may pass.

    Attributes:
        reason: For callers and logs; of what the API said it holds title and type of a problem only.
        retry_after: The server's wish in seconds, if it had one.
        limited: Whether the API said no more than that it is asked too much; of use only in the moment.
    """

    outcome: Literal["deferred"] = "deferred"
    reason: str
    retry_after: float | None = None
    limited: Annotated[bool, Field(exclude=True)] = False


class _EndedUnposted(_NotPosted):
    """Attributes of the ends without the API's word; all that is told is of the last attempt."""

    reason: str

    @classmethod
    def after(cls, last: Deferred) -> Self:
        """The end of a record that was deferred before."""
        return cls.model_validate(last.model_dump(exclude={"outcome", "retry_after"}))


class GaveUp(_EndedUnposted):
    """The deadline came before the API took or refused the record."""

    outcome: Literal["gave_up"] = "gave_up"


class Cancelled(_EndedUnposted):
    """Somebody cancelled the delivery before the API took or refused the record."""

    outcome: Literal["cancelled"] = "cancelled"


type AttemptOutcome = Annotated[Posted | Rejected | Deferred, Field(discriminator="outcome"), UNTOLD]
"""What one attempt has led to."""

type Outcome = Annotated[Posted | Rejected | Deferred | GaveUp | Cancelled, Field(discriminator="outcome"), UNTOLD]
"""What a delivery has led to so far: the outcome of its last attempt, or its end without the API's word."""


def may_be_stored(result: BaseModel | None) -> bool:
    """Whether the API may have a record that was not posted."""
    return getattr(result, "may_be_stored", False)


def doubted[T: BaseModel](outcome: T, *, before: bool) -> T:
    """The outcome of an attempt that came after others.

    Once the record may be stored, nothing but the API's yes ends the doubt.

    Args:
        outcome: Of the last attempt.
        before: Whether one of those before it may have brought the record to the API.
    """
    if before and "may_be_stored" in type(outcome).model_fields:
        return outcome.model_copy(update={"may_be_stored": True})
    return outcome
