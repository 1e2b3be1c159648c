"""The HTTP resource: operations are started, looked up, cancelled, retried and erased by the durable client."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from math import ceil

from shared.delivery.batches import PAGE_SIZE, Batch, ItemResult
from shared.delivery.bounds import stored
from shared.delivery.records import Delivery, Progress
from shared.settings import BatchSettings

from .model import Operation, ResultPage
from .problems import RequestError
from .status import (
    BATCH,
    CANCEL,
    DELIVERY,
    OrchestrationClient,
    OrchestrationStatus,
    describe,
    has_ended,
    input_of,
    is_operation,
    progress_of,
)

_OPERATION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_WAIT_STEP_SECONDS = 0.25
_CONFIRM_SECONDS = 30.0


class Operations:
    """The operations of this app, found through the durable client binding of a function."""

    def __init__(self, client: OrchestrationClient) -> None:
        self._client = client

    async def start(self, operation_id: str, started: Delivery | Batch) -> Operation:
        """Start an operation, or find the one that the same request has started before.

        Raises:
            RequestError: 422, the operation exists with another body; 413, the durable backend cannot take the batch.
        """
        orchestrator = DELIVERY if isinstance(started, Delivery) else BATCH
        status = await self._find(operation_id, show_input=True)
        if status is None:
            if isinstance(started, Batch):
                started = _with_room(started)
            keyed = started.model_copy(update={"key": operation_id})
            try:
                await self._client.start_new(orchestrator, operation_id, stored(keyed))
            except Exception:  # the SDK raises nothing narrower when a request at the same instant came first
                status = await self._find(operation_id, show_input=True)
                if status is None:
                    raise
            else:
                return Operation(id=operation_id, state="pending")
        if status.name != orchestrator or input_of(status).get("fingerprint") != started.fingerprint:
            raise RequestError(422, "Idempotency-Key reused", "this Idempotency-Key was used before with another body")
        return describe(status)

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
            operation = describe(await self._get(operation_id))
            remaining = deadline - loop.time()
            if operation.finished or remaining <= 0:
                return operation
            await asyncio.sleep(min(_WAIT_STEP_SECONDS, remaining))

    async def results(
        self, operation_id: str, *, warning: bool = False, may_be_stored: bool = False, page: int = 1
    ) -> ResultPage:
        """What has become of the records of a batch, one page of a hundred; while it runs, as of its last round.

        Args:
            operation_id: Of the batch.
            warning: Only the records that the API took with an answer that could not be read.
            may_be_stored: Only the records that were not posted, and that the API may have all the same.
            page: From 1.

        Raises:
            RequestError: 404, there is no such batch or page.
        """
        status = await self._get(operation_id, show_input=True)
        if status.name != BATCH:
            raise RequestError(404, "Not Found", "this operation is no batch: its outcome is in the operation itself")
        completed = status.runtime_status.name == "Completed"
        batch = Batch.model_validate(status.output if completed else input_of(status))
        if has_ended(status) and not completed:
            batch = batch.cut_short()
        results = [
            ItemResult(index=index, result=result)
            for index, result in enumerate(batch.results)
            if (getattr(result, "warning", None) or not warning)
            and (getattr(result, "may_be_stored", False) or not may_be_stored)
        ]
        return ResultPage(page=page, pages=_pages(len(results), page), results=_page(results, page))

    async def cancel(self, operation_id: str) -> Operation:
        """Have nothing more sent; what is under way comes to its end. Returns once the orchestration has seen it.

        The engine may drop an event, so that it is raised again until it has been seen; twice does no harm.

        Raises:
            RequestError: 404, there is no such operation; 409, it has ended; 503, it has not seen it in time.
        """
        async for second in self._seconds():
            status = await self._get(operation_id)
            operation = describe(status)
            if operation.cancelling or (operation.state == "cancelled" and second):
                return operation
            if operation.finished:
                raise RequestError(409, "Conflict", f"the operation has ended: {operation.state}")
            if second == int(second):
                await self._raise_cancel(status)
        raise RequestError(
            503, "Service Unavailable", "the operation has not seen yet that it is cancelled", retry_after=1.0
        )

    async def _raise_cancel(self, status: OrchestrationStatus) -> None:
        """Send the event to a delivery, or to a batch, its section, and the section's own."""
        running: str | None = status.instance_id
        while running is not None and status:
            try:
                await self._client.raise_event(running, CANCEL)
            except Exception:  # the SDK raises nothing narrower where an instance has just ended
                if (left := await self._client.get_status(running)) and not has_ended(left):
                    raise
            running = (status.custom_status or {}).get("section")
            status = await self._client.get_status(running) if running else status

    async def _seconds(self) -> AsyncIterator[float]:
        """Look again and again, until the limit of a request: yields the seconds that have passed, in even steps."""
        for step in range(int(_CONFIRM_SECONDS / _WAIT_STEP_SECONDS)):
            yield step * _WAIT_STEP_SECONDS
            await asyncio.sleep(_WAIT_STEP_SECONDS)

    async def retry(self, operation_id: str, corrected: Delivery | None, *, not_stored: bool = False) -> Operation:
        """Deliver a record again that was not posted.

        Args:
            operation_id: Of the operation, which keeps its id.
            corrected: The record to send instead, with the settings to send it by; None sends the same one again.
            not_stored: The caller knows that the API has not got the record, though it may be stored for all that the
                operation knows.

        Raises:
            RequestError: 404, there is no such operation; 409, it has not ended, or the record may have been stored.
        """
        operation = describe(status := await self._get(operation_id, show_input=True))
        if status.name != DELIVERY:
            raise RequestError(
                409,
                "Conflict",
                "a batch is not retried: send those of its records again that were not posted and are certainly not "
                "stored, in a new batch",
            )
        mistaken_for_posted = operation.warned and not_stored
        if not operation.finished or (operation.state == "posted" and not mistaken_for_posted):
            hint = ", with a warning: if you know that the API has not got it, say ?not_stored=true"
            raise RequestError(
                409,
                "Conflict",
                f"only a delivery that ended unposted is retried: {operation.state}{hint if operation.warned else ''}",
            )
        delivery = Delivery.model_validate(input_of(status))
        if (progress := progress_of(status)) is not None:
            delivery = delivery.model_copy(update={"revision": max(delivery.revision, progress.revision)})
        may_be_stored = (operation.may_be_stored or delivery.may_be_stored) and not not_stored
        if corrected is not None and delivery.is_corrected_by(corrected):
            if may_be_stored:
                raise RequestError(
                    409,
                    "Conflict",
                    f"{operation.state}, but the API may have stored the record: the fate of one attempt is unknown. "
                    "So only the same record can be sent again, unless you know that the API has not got it, and say "
                    "so with ?not_stored=true",
                )
            delivery = delivery.corrected(corrected)
        else:
            was_refused = operation.state == "rejected" and not may_be_stored
            delivery = delivery.model_copy(update={"may_be_stored": may_be_stored, "was_refused": was_refused})
        delivery = delivery.model_copy(update={"mark": uuid.uuid4().hex})
        return await self._restart(status, delivery)

    async def _restart(self, ended: OrchestrationStatus, delivery: Delivery) -> Operation:
        """Start an instance that has ended again, and return once it runs with this input.

        The engine does not start an ended instance atomically: of two starts at once both may succeed, and one counts.

        Raises:
            RequestError: 409, somebody else has started it again; 503, nobody knows in time.
        """
        operation_id, before = ended.instance_id or "", progress_of(ended)
        conflict = RequestError(409, "Conflict", "somebody else retries the operation at the same time")
        try:
            await self._client.start_new(DELIVERY, operation_id, stored(delivery))
        except Exception:  # the SDK raises nothing narrower where the instance runs
            if has_ended(await self._get(operation_id)):
                raise
            raise conflict from None
        async for _ in self._seconds():
            status = await self._get(operation_id)
            progress = progress_of(status) or Progress()
            if progress.mark == delivery.mark:
                return Operation(id=operation_id, state="pending", may_be_stored=delivery.may_be_stored)
            if progress.mark and (before is None or progress.mark != before.mark):
                raise conflict
        raise RequestError(
            503, "Service Unavailable", "the operation has not begun again yet: look at its state", retry_after=1.0
        )

    async def erase(self, operation_id: str) -> None:
        """Forget a finished operation, with its record and the parts of a batch; returns when none of it is left.

        Raises:
            RequestError: 404, there is no such operation; 409, it has not ended, or a part of it has not, or somebody
                starts it again meanwhile.
        """
        if not has_ended(status := await self._get(operation_id)):
            state = describe(status).state
            raise RequestError(409, "Conflict", f"only what has ended is erased, this is {state}")
        # The parts of a batch go first: while any is there, so is the operation to be erased again.
        while parts := list(await self._client.get_status_by(instance_id_prefix=f"{operation_id}-")):
            if not all(has_ended(part) for part in parts):
                raise RequestError(409, "Conflict", "a part of the batch is still under way")
            await asyncio.gather(*(self._client.purge_instance_history(part.instance_id or "") for part in parts))
        try:
            await self._client.purge_instance_history(operation_id)
        except Exception:  # the SDK raises nothing narrower for an instance that runs
            if (left := await self._find(operation_id)) is not None and has_ended(left):
                raise
        if await self._find(operation_id) is not None:
            raise RequestError(409, "Conflict", "the operation was started again meanwhile")

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
        return status if is_operation(status) else None


def _with_room(batch: Batch) -> Batch:
    """The batch as the backend can take it, or a refusal now of what would fail later, in the middle of its work."""
    limit = BatchSettings.from_environment().max_bytes
    if limit is None:
        return batch
    if (size := batch.stored_size) > limit:
        raise RequestError(
            413,
            "Content Too Large",
            f"expected a batch that takes at most {limit} bytes in the task hub, and these {len(batch.items)} records "
            f"may take {size}: send them as several batches",
        )
    return batch.within(limit)


def _pages(length: int, page: int) -> int:
    pages = max(1, ceil(length / PAGE_SIZE))
    if not 1 <= page <= pages:
        raise RequestError(404, "Not Found", f"there is no page {page}: expected 1 to {pages}")
    return pages


def _page[T](items: list[T], page: int) -> list[T]:
    return items[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
