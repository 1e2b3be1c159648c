"""What callers are told about an operation: the delivery of one record or of a batch."""

import hashlib
import operator
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from shared.delivery.batches import BatchProgress
from shared.delivery.outcomes import Outcome, Posted
from shared.delivery.results import ItemResult
from shared.http.printable import printable

type State = Literal[
    "pending",
    "running",
    "deferred",
    "suspended",
    "posted",
    "rejected",
    "gave_up",
    "completed",
    "cancelled",
    "failed",
]

UNFINISHED: frozenset[State] = frozenset({"pending", "running", "deferred", "suspended"})
"""The states in which something may yet happen by itself."""

_POLL_SECONDS = 1.0
_LONGEST_ID, _LONGEST_DETAIL = 100, 200
_REFUSALS = 10
"""How many refusals are kept."""


class Skipped(BaseModel):
    """A record of a batch that is not valid: its index, from 0, and the first of its errors.

    Attributes:
        line: The physical line on which the record begins, from 1; None if it was sent in a JSON array.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    index: int
    line: int | None = None
    field: str
    detail: str


class Validation(BaseModel):
    """What a start would take, if it were one.

    Attributes:
        valid: How many records would be sent.
        skipped: Of a batch, the first hundred of the records that would be left out.
        skipped_total: How many would be left out; None if none would.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    valid: int
    skipped: list[Skipped] | None = None
    skipped_total: int | None = None


class BulkRefusal(BaseModel):
    """An operation that could not be retried or cancelled, and why."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str
    detail: str

    @classmethod
    def of(cls, operation_id: str, detail: str) -> Self:
        """A refusal short enough for a custom status; an operator may have started an instance under a long id."""
        return cls(id=printable(operation_id, _LONGEST_ID), detail=detail[:_LONGEST_DETAIL])


class BulkProgress(BaseModel):
    """How far the work on many operations is.

    Attributes:
        filter: Which operations, as the query of the list says it.
        changed: How many were retried or cancelled.
        refused: How many could not be.
        refusals: The first ten of these.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    action: Literal["retry", "cancel"]
    filter: str
    changed: int = 0
    refused: int = 0
    refusals: tuple[BulkRefusal, ...] = ()

    def __str__(self) -> str:
        return f"{self.action} {self.filter}: {self.changed} changed, {self.refused} refused"


class BulkStatus(BulkProgress):
    """Custom status of the orchestration that does the work, and in the end its output.

    Attributes:
        cancelling: Whether the orchestration has seen that somebody cancels, and waits for what is under way.
        cancelled: Whether it has ended for that reason.
    """

    cancelling: bool = False
    cancelled: bool = False

    def counting(self, changed: int, refusals: Sequence[BulkRefusal]) -> Self:
        """The status after some more operations were changed, or could not be."""
        update = {
            "changed": self.changed + changed,
            "refused": self.refused + len(refusals),
            "refusals": (*self.refusals, *refusals)[:_REFUSALS],
        }
        return self.model_copy(update=update)


class Operation(BaseModel):
    """The delivery of one record or of a batch, or the work on many such operations.

    Attributes:
        attempt: Number of the last finished attempt, 0 before that; of a batch, its rounds.
        next_attempt_at: UTC; None unless deferred.
        may_be_stored: Whether the API may have a record that is not posted: the fate of an attempt is unknown. Of a
            batch, whether that is so of any of its records.
        cancelling: Whether somebody has cancelled, and what is under way is waited for.
        outcome: Of the last attempt; None before that, of a batch, and if the orchestration itself failed.
        business_url: The path of the record that was posted; None before that, and if the API has not told its id.
        batch: How many records of a batch are where; None for anything else.
        bulk: How far the work on many operations is; None for anything else.
        skipped: Of a batch that was just started, the first hundred of the records that were left out; all of them are
            among its results.
        skipped_total: How many were left out; None if none was.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    id: str
    state: State
    attempt: int = 0
    next_attempt_at: datetime | None = None
    may_be_stored: Annotated[bool, Field(exclude_if=operator.not_)] = False
    cancelling: Annotated[bool, Field(exclude_if=operator.not_)] = False
    outcome: Outcome | None = None
    business_url: str | None = None
    batch: BatchProgress | None = None
    bulk: BulkProgress | None = None
    skipped: list[Skipped] | None = None
    skipped_total: int | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state not in UNFINISHED

    @property
    def business_id(self) -> str | None:
        """The id of the record that was posted, if the API has told it."""
        return self.outcome.id if isinstance(self.outcome, Posted) else None

    @property
    def warned(self) -> bool:
        """Whether the API took a record with an answer that could not be read."""
        return bool(getattr(self.outcome, "warning", None) or (self.batch and self.batch.warnings))

    @property
    def reason(self) -> str:
        """All that is told of why it was not posted."""
        texts = [getattr(self.outcome, "reason", None), getattr(self.outcome, "excerpt", None)]
        if (problem := getattr(self.outcome, "problem", None)) is not None:
            texts += [problem.title, problem.detail]
        if self.batch is not None:
            texts.append(self.batch.reason)
        return "\n".join(filter(None, texts))

    @property
    def poll_after(self) -> float | None:
        """Seconds after which it is worth to look again; None once the operation is finished."""
        return None if self.finished else _POLL_SECONDS

    @property
    def entity_tag(self) -> str:
        """Changes whenever the operation does (RFC 9110, section 8.8.3)."""
        told = self.model_dump_json(exclude={"updated_at", "business_url"})
        return f'"{hashlib.sha256(told.encode()).hexdigest()[:16]}"'


class OperationPage(BaseModel):
    """Operations, the latest first.

    Attributes:
        next: Path and query of the next page; None if there is no more.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    operations: list[Operation]
    next: str | None = None


class BulkPreview(BaseModel):
    """What retrying or cancelling many operations would change.

    Attributes:
        matching: How many operations.
        complete: Whether all were counted; there may be more than could be in the time of a request.
        operations: The latest ten of them.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    matching: int
    complete: bool
    operations: list[Operation]


class ResultPage(BaseModel):
    """What has become of the records of a batch, in the order in which they were sent."""

    model_config = ConfigDict(hide_input_in_errors=True)

    page: int
    pages: int
    results: list[ItemResult]
