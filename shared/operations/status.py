"""Reads the durable status of an orchestration as the operation that it is to callers."""

import json
from collections.abc import Awaitable
from datetime import UTC, datetime
from typing import Any, Protocol

from shared.delivery.batches import Batch, BatchProgress, BatchStatus
from shared.delivery.chunks import Report
from shared.delivery.outcomes import Cancelled, Deferred, may_be_stored
from shared.delivery.records import Progress
from shared.delivery.rounds import Round

from .model import BulkProgress, BulkStatus, Operation, State

DELIVERY = "PostBusinessOrchestrator"
BATCH = "PostBusinessesOrchestrator"
BULK = "ChangeOperationsOrchestrator"
CHUNK = "PostBusinesses"
CANCEL = "Cancel"
"""The names of the orchestrators whose instances are operations, of the activity of a batch, and of the event that
cancels an operation."""

_OVERRIDING: dict[str, State] = {
    "Pending": "pending",
    "Suspended": "suspended",
    "Failed": "failed",
    "Terminated": "cancelled",
    "Canceled": "cancelled",
}


_CUT_SHORT = frozenset({"Failed", "Terminated", "Canceled"})


class OrchestrationStatus(Protocol):
    """The part of `DurableOrchestrationStatus` that is read here; false if there is no such instance.

    `runtime_status` is an enumeration whose names are those of the Durable Task protocol.
    """

    name: str | None
    instance_id: str | None
    runtime_status: Any
    created_time: datetime | None
    last_updated_time: datetime | None
    custom_status: Any
    input_: Any
    output: Any
    history: list[dict[str, Any]] | None

    def __bool__(self) -> bool: ...


class OrchestrationClient(Protocol):
    """The part of `DurableOrchestrationClient` that the operations use.

    The SDK's own client satisfies it as far as signatures go, but lists no more than a hundred instances.
    """

    def start_new(self, orchestrator: str, instance_id: str, started_with: Any, /) -> Awaitable[str]:
        """Start an instance; raises `Exception` if one with this id is running."""

    def get_status(
        self,
        instance_id: str,
        *,
        show_history: bool = False,
        show_history_output: bool = False,
        show_input: bool = False,
    ) -> Awaitable[OrchestrationStatus]:
        """Look an instance up."""

    def purge_instance_history(self, instance_id: str) -> Awaitable[object]:
        """Delete an instance that has ended; raises `Exception` if it has not."""

    def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> Awaitable[None]:
        """Send an external event; raises `Exception` if the instance has ended or is unknown."""


def has_ended(status: OrchestrationStatus) -> bool:
    """Whether the engine would purge the instance."""
    return status.runtime_status.name in {"Completed", "Failed", "Terminated", "Canceled"}


def is_operation(status: OrchestrationStatus) -> bool:
    """Whether there is such an instance, and callers know it."""
    return is_of_records(status) or (bool(status) and status.name == BULK)


def is_of_records(status: OrchestrationStatus) -> bool:
    """Whether there is such an instance, and it is about records rather than other operations."""
    return bool(status) and status.name in (DELIVERY, BATCH)


def input_of(status: OrchestrationStatus) -> dict[str, Any]:
    """What the instance was started with; empty if the status was asked for without it."""
    return _decoded(status.input_)


def _decoded(started_with: Any) -> dict[str, Any]:
    while isinstance(started_with, str):  # the SDK encodes the input of a start twice
        started_with = json.loads(started_with)
    return started_with if isinstance(started_with, dict) else {}


def progress_of(status: OrchestrationStatus) -> Progress | None:
    """How far the delivery of a single record is; None before it says so."""
    reported = status.output if status.runtime_status.name == "Completed" else status.custom_status
    return Progress.model_validate(reported) if reported else None


def mark_of(status: OrchestrationStatus) -> str:
    """Which start of the operation the orchestration says that it is; empty before it says so."""
    reported = status.output if status.runtime_status.name == "Completed" else status.custom_status
    return reported.get("mark", "") if isinstance(reported, dict) else ""


def batch_of(status: OrchestrationStatus, *, whatever_came: bool = False) -> Batch:
    """A batch as it stands: what its round began with, and what the activities of that round have returned since.

    The engine writes down all that it is brought. An activity that it has run twice has two results, of which the
    orchestrator takes the first, and so does what is told. The second one may say that the API has a record after all.

    Args:
        status: Asked for with its history, of which both is taken, since only so they belong together.
        whatever_came: Whether second results count, too: who sends something again is to know all that is known.
    """
    history = status.history or []
    began = next((event for event in history if event.get("EventType") == "ExecutionStarted"), {})
    now = status.created_time or datetime.now(UTC)
    batch = Batch.model_validate(_decoded(began.get("Input") or status.input_)).begun(status.instance_id or "", now)
    round_, told = Round(batch, now), set[int | None]()
    for event in history:
        if event.get("EventType") == "TaskCompleted" and event.get("FunctionName") == CHUNK:
            report = Report.model_validate(_decoded(event.get("Result")))
            if whatever_came or report.number is None or report.number not in told:
                round_.take_in(report, now)
            told.add(report.number)
    batch = round_.following(now)
    return batch.doubted() if status.runtime_status.name in _CUT_SHORT else batch


def ended_as(last: Progress | BatchStatus | BulkStatus) -> State:
    """How an operation has ended whose orchestrator, which has come to its end, says this last."""
    match last:
        case BulkStatus():
            return "cancelled" if last.cancelled else "completed"
        case BatchStatus():
            return "cancelled" if last.tally.cancelled else "completed"
        case Progress():
            return last.outcome.outcome if last.outcome else "failed"


def describe(status: OrchestrationStatus) -> Operation:
    """The operation in the callers' words."""
    runtime_status = status.runtime_status.name
    ended = runtime_status == "Completed"
    operation = Operation(
        id=status.instance_id or "",
        state="running",
        created_at=status.created_time,
        updated_at=status.last_updated_time,
    )
    if status.name == BULK:
        if status.custom_status:
            bulk = BulkStatus.model_validate(status.custom_status)
            operation.bulk, operation.cancelling = BulkProgress.model_validate(status.custom_status), bulk.cancelling
            operation.state = ended_as(bulk) if ended or bulk.cancelled else "running"
    elif status.name == BATCH:
        if status.custom_status:
            batch = BatchStatus.model_validate(status.custom_status)
            operation.batch = BatchProgress.model_validate(status.custom_status)
            operation.attempt = batch.round
            operation.next_attempt_at = batch.next_round_at
            operation.may_be_stored = batch.may_be_stored > 0
            operation.cancelling = batch.cancelling
            operation.state = ended_as(batch) if ended else "deferred" if batch.next_round_at else "running"
    elif (progress := progress_of(status)) is not None:
        operation.attempt = progress.attempt
        operation.next_attempt_at = progress.next_attempt_at
        operation.outcome = progress.outcome
        operation.may_be_stored = progress.may_be_stored or may_be_stored(progress.outcome)
        operation.cancelling = progress.cancelling
        operation.state = progress.outcome.outcome if progress.outcome else "running"
    if ended and status.name != DELIVERY and operation.state == "running":  # and has never said how far it is
        operation.state = "completed"
    operation.state = _OVERRIDING.get(runtime_status, operation.state)
    if runtime_status in _CUT_SHORT and status.name != BULK:
        # An attempt may have been under way when somebody terminated the orchestration, or when it failed.
        operation.may_be_stored = True
        operation.next_attempt_at = None
        if isinstance(operation.outcome, Deferred):
            operation.outcome = Cancelled.after(operation.outcome) if operation.state == "cancelled" else None
        if operation.batch:
            tally = operation.batch.tally
            doubtful = operation.batch.may_be_stored + tally.pending + tally.deferred  # at most: some are both
            update = {
                "next_round_at": None,
                "expected_end_at": None,
                "may_be_stored": min(doubtful, tally.total - tally.posted),
            }
            operation.batch = operation.batch.model_copy(update=update)
            operation.may_be_stored = operation.batch.may_be_stored > 0
    operation.cancelling = operation.cancelling and not operation.finished
    return operation
