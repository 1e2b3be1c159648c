"""What has become of a record: the outcome of an attempt, or the end of its delivery."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.business import Record
from shared.rest import ProblemDetails

from .reading import UNTOLD


class Posted(BaseModel):
    """The API has the record.

    Attributes:
        id: By which the API knows it; None if the API did not say.
        business: The record as the API has it, as plain JSON.
        replayed: Whether an earlier attempt, whose answer was lost, had brought it there.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["posted"] = "posted"
    id: str | None = None
    business: Record
    replayed: bool = False


class Rejected(BaseModel):
    """The API refused the record for good; sending it again would not help."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["rejected"] = "rejected"
    status: int
    problem: ProblemDetails


class Deferred(BaseModel):
    """Not posted yet, for a reason that may pass. `retry_after` is the server's wish in seconds, if it had one."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["deferred"] = "deferred"
    reason: str
    retry_after: float | None = None


class GaveUp(BaseModel):
    """The deadline came before the API took or refused the record; `reason` is that of the last attempt."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["gave_up"] = "gave_up"
    reason: str


class Cancelled(BaseModel):
    """Somebody cancelled the delivery before the API took or refused the record."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["cancelled"] = "cancelled"
    reason: str


type AttemptOutcome = Annotated[Posted | Rejected | Deferred, Field(discriminator="outcome"), UNTOLD]
"""What one attempt has led to."""

type Outcome = Annotated[Posted | Rejected | Deferred | GaveUp | Cancelled, Field(discriminator="outcome"), UNTOLD]
"""What a delivery has led to so far: the outcome of its last attempt, or its end without the API's word."""
