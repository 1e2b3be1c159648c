"""What callers are told about operations: durable orchestrations without their internals and management URLs."""

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Iterable
from datetime import datetime
from math import ceil
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field

from shared.business.api import Deferred, Posted, Rejected
from shared.delivery.batches import PAGE_SIZE, Batch, BatchProgress, ItemResult
from shared.delivery.records import Cancelled, DeliveryOrder, GaveUp, Progress
from shared.operations.problems import RequestError

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

DELIVERY = "PostBusinessOrchestrator"
BATCH = "PostBatchOrchestrator"
CANCEL = "Cancel"

_UNFINISHED: frozenset[State] = frozenset({"pending", "running", "deferred", "suspended"})
_OPERATION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_POLL_SECONDS = 1.0
_WAIT_STEP_SECONDS = 0.25


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

    def __bool__(self) -> bool: ...


class OrchestrationClient(Protocol):
    """The part of `DurableOrchestrationClient` that is used here."""

    def start_new(self, orchestration_function_name: str, instance_id: str, client_input: Any) -> Awaitable[str]:
        """Start an instance; raises `Exception` if one with this id is running."""

    def get_status(self, instance_id: str, *, show_input: bool = False) -> Awaitable[OrchestrationStatus]:
        """Look an instance up."""

    def get_status_by(
        self, created_time_from: datetime, created_time_to: datetime | None = None
    ) -> Awaitable[Iterable[OrchestrationStatus]]:
        """List the instances that were created in a span of time."""

    def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> Awaitable[None]:
        """Send an external event."""


class Operation(BaseModel):
    """The delivery of one record or of a batch.

    Attributes:
        attempt: Number of the last finished attempt, 0 before that; of a batch, its rounds.
        next_attempt_at: UTC; None unless deferred.
        outcome: Of the last attempt; None before that, of a batch, and if the orchestration itself failed.
        batch: How many records of a batch are where; None for a single record.
        skipped: Of a batch that was just started, what was wrong with the records that were left out.
    """

    id: str
    state: State
    attempt: int = 0
    next_attempt_at: datetime | None = None
    outcome: Annotated[Posted | Rejected | Deferred | GaveUp | Cancelled, Field(discriminator="outcome")] | None = None
    batch: BatchProgress | None = None
    skipped: list[dict[str, Any]] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state not in _UNFINISHED

    @property
    def poll_after(self) -> float | None:
        """Seconds after which it is worth to look again; None once the operation is finished."""
        return None if self.finished else _POLL_SECONDS

    @property
    def entity_tag(self) -> str:
        """Changes whenever the operation does (RFC 9110, section 8.8.3)."""
        return f'"{hashlib.sha256(self.model_dump_json(exclude={"updated_at"}).encode()).hexdigest()[:16]}"'


class OperationPage(BaseModel):
    """Operations, the latest first."""

    page: int
    pages: int
    operations: list[Operation]


class ResultPage(BaseModel):
    """What has become of the records of a batch, in the order in which they were sent."""

    page: int
    pages: int
    results: list[ItemResult]


class Operations:
    """The operations of this app, found through the durable client binding of a function."""

    def __init__(self, client: OrchestrationClient) -> None:
        self._client = client

    async def start(self, operation_id: str, order: DeliveryOrder | Batch) -> Operation:
        """Start an operation, or find the one that the same request has started before.

        Raises:
            RequestError: 422, the operation exists with another body.
        """
        orchestrator = DELIVERY if isinstance(order, DeliveryOrder) else BATCH
        status = await self._find(operation_id, show_input=True)
        if status is None:
            try:
                await self._client.start_new(orchestrator, operation_id, order.model_dump(mode="json"))
            except Exception:  # the SDK raises nothing narrower when a request at the same instant came first
                status = await self._find(operation_id, show_input=True)
                if status is None:
                    raise
            else:
                return Operation(id=operation_id, state="pending")
        if status.name != orchestrator or _input(status).get("fingerprint") != order.fingerprint:
            raise RequestError(422, "Idempotency-Key reused", "this Idempotency-Key was used before with another body")
        return _describe(status)

    async def get(self, operation_id: str, *, wait: float = 0.0) -> Operation:
        """Look an operation up.

        Args:
            operation_id: As `start` returned it.
            wait: Seconds to wait for the end of the operation, if it has not ended yet.

        Raises:
            RequestError: 404, there is none with this id.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        while True:
            operation = _describe(await self._get(operation_id))
            remaining = deadline - loop.time()
            if operation.finished or remaining <= 0:
                return operation
            await asyncio.sleep(min(_WAIT_STEP_SECONDS, remaining))

    async def list(self, *, since: datetime, state: State | None = None, page: int = 1) -> OperationPage:
        """The operations that began at or after a time, one page of a hundred.

        Raises:
            RequestError: 404, there is no such page.
        """
        statuses = await self._client.get_status_by(created_time_from=since)
        found = [_describe(status) for status in statuses if status and status.name in (DELIVERY, BATCH)]
        matching = [operation for operation in found if state is None or operation.state == state]
        matching.sort(key=lambda operation: (operation.created_at or since, operation.id), reverse=True)
        return OperationPage(page=page, pages=_pages(len(matching), page), operations=_page(matching, page))

    async def results(self, operation_id: str, *, page: int = 1) -> ResultPage:
        """What has become of the records of a batch, one page of a hundred; while it runs, as of its last round.

        Raises:
            RequestError: 404, there is no such batch or page.
        """
        status = await self._get(operation_id, show_input=True)
        if status.name != BATCH:
            raise RequestError(404, "Not Found", "this operation is no batch: its outcome is in the operation itself")
        batch = Batch.model_validate(status.output if status.runtime_status.name == "Completed" else _input(status))
        results = [ItemResult(index=index, result=result) for index, result in enumerate(batch.results)]
        return ResultPage(page=page, pages=_pages(len(results), page), results=_page(results, page))

    async def cancel(self, operation_id: str) -> Operation:
        """Ask that nothing more be sent; what is under way comes to its end.

        Raises:
            RequestError: 404, there is no such operation; 409, it has ended.
        """
        operation = _describe(status := await self._get(operation_id))
        if operation.finished:
            raise RequestError(409, "Conflict", f"the operation has ended: {operation.state}")
        running: str | None = operation_id
        while running is not None and status:  # the batch, its section, and the section's own
            await self._client.raise_event(running, CANCEL)
            running = (status.custom_status or {}).get("section")
            status = await self._client.get_status(running) if running else status
        return operation

    async def retry(self, operation_id: str, corrected: DeliveryOrder | None) -> Operation:
        """Deliver a record again that was not posted.

        Args:
            operation_id: Of the operation, which keeps its id.
            corrected: The record to send instead, with the settings to send it by; None sends the same one again.

        Raises:
            RequestError: 404, there is no such operation; 409, it has not ended, or the record may have been stored.
        """
        operation = _describe(status := await self._get(operation_id, show_input=True))
        if status.name != DELIVERY:
            raise RequestError(409, "Conflict", "a batch is not retried: send its records that were not posted again")
        if not operation.finished or operation.state == "posted":
            raise RequestError(409, "Conflict", f"only a delivery that ended unposted is retried: {operation.state}")
        order = DeliveryOrder.model_validate(_input(status))
        if corrected is not None and corrected.business != order.business:
            if operation.state != "rejected":
                raise RequestError(
                    409,
                    "Conflict",
                    f"{operation.state}: the API may have stored the record, so only the same one can be sent again",
                )
            update = {"business": corrected.business, "revision": order.revision + 1, "settings": corrected.settings}
            order = order.model_copy(update=update)
        await self._client.start_new(DELIVERY, operation_id, order.model_dump(mode="json"))
        return Operation(id=operation_id, state="pending")

    async def _get(self, operation_id: str, *, show_input: bool = False) -> OrchestrationStatus:
        status = await self._find(operation_id, show_input=show_input)
        if status is None:
            raise RequestError(404, "Not Found", "there is no operation with this id")
        return status

    async def _find(self, operation_id: str, *, show_input: bool = False) -> OrchestrationStatus | None:
        # The SDK puts the id into a URL as it is: what could not be an id must not get there.
        if not _OPERATION_ID.fullmatch(operation_id):
            return None
        status = await self._client.get_status(operation_id, show_input=show_input)
        return status if status and status.name in (DELIVERY, BATCH) else None


def _pages(length: int, page: int) -> int:
    pages = max(1, ceil(length / PAGE_SIZE))
    if not 1 <= page <= pages:
        raise RequestError(404, "Not Found", f"there is no page {page}: expected 1 to {pages}")
    return pages


def _page[T](items: list[T], page: int) -> list[T]:
    return items[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]


def _input(status: OrchestrationStatus) -> dict[str, Any]:
    document = status.input_
    while isinstance(document, str):  # the SDK encodes the input of a start twice
        document = json.loads(document)
    return document if isinstance(document, dict) else {}


def _describe(status: OrchestrationStatus) -> Operation:
    runtime_status = status.runtime_status.name
    operation = Operation(
        id=status.instance_id or "",
        state="running",
        created_at=status.created_time,
        updated_at=status.last_updated_time,
    )
    if status.name == BATCH:
        if status.custom_status:
            batch = BatchProgress.model_validate(status.custom_status)
            cancelled = runtime_status == "Completed" and batch.tally.cancelled > 0
            operation.batch = batch.model_copy(update={"section": None})
            operation.attempt = batch.round
            operation.next_attempt_at = batch.next_round_at
            operation.state = "cancelled" if cancelled else "deferred" if batch.next_round_at else "running"
        if runtime_status == "Completed" and operation.state == "running":
            operation.state = "completed"
    else:
        reported = status.output if runtime_status == "Completed" else status.custom_status
        if reported:
            progress = Progress.model_validate(reported)
            operation.attempt = progress.attempt
            operation.next_attempt_at = progress.next_attempt_at
            operation.outcome = progress.outcome
            operation.state = progress.outcome.outcome
    overriding: dict[str, State] = {
        "Pending": "pending",
        "Suspended": "suspended",
        "Failed": "failed",
        "Terminated": "cancelled",
        "Canceled": "cancelled",
    }
    operation.state = overriding.get(runtime_status, operation.state)
    return operation
