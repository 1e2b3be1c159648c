"""The HTTP resource: operations are started, looked up, cancelled, retried and erased by the durable client."""

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

from shared.delivery import outcomes
from shared.delivery.batches import Batch
from shared.delivery.bounds import stored
from shared.delivery.records import Delivery
from shared.delivery.results import ItemOutcome
from shared.settings import BatchSettings, DeliverySettings

from .bulk import Bulk
from .model import Operation
from .problems import RequestError
from .requests import MAX_ERRORS, Corrections
from .status import (
    BATCH,
    BULK,
    CANCEL,
    DELIVERY,
    OrchestrationClient,
    OrchestrationStatus,
    batch_of,
    describe,
    has_ended,
    input_of,
    is_operation,
    mark_of,
    progress_of,
)

_OPERATION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_WHOLE = {"show_input": True, "show_history": True, "show_history_output": True}
_MAY_BE_STORED = "may be stored: the fate of one attempt is unknown; if you know that it is not, say ?not_stored=true"
_WAIT_STEP_SECONDS = 0.25
_CONFIRM_SECONDS = 30.0


class Operations:
    """The operations of this app, found through the durable client binding of a function.

    Args:
        client: Of the binding.
        announced: The path of the operations, if the ends of those that are started are to be announced.
    """

    def __init__(self, client: OrchestrationClient, *, announced: str = "") -> None:
        self._client = client
        self._announced = announced

    async def start(self, operation_id: str, started: Delivery | Batch | Bulk) -> Operation:
        """Start an operation, or find the one that the same request has started before.

        Raises:
            RequestError: 422, the operation exists with another body; 413, the durable backend cannot take the batch.
        """
        orchestrator = _orchestrator(started)
        status = await self._find(operation_id, show_input=True)
        if status is None:
            if isinstance(started, Batch):
                started = _with_room(started)
            update = {"instance": operation_id, "announced": self._announced}
            update |= {} if isinstance(started, Bulk) else {"key": operation_id}
            try:
                await self._client.start_new(orchestrator, operation_id, stored(started.model_copy(update=update)))
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

    async def outcomes(self, operation_id: str) -> list[ItemOutcome]:
        """What has become of each record of a batch so far, in the order in which they were sent.

        Raises:
            RequestError: 404, there is no such batch.
        """
        status = await self._get(operation_id, **_WHOLE)
        if status.name != BATCH:
            raise RequestError(404, "Not Found", "this operation is no batch: its outcome is in the operation itself")
        return batch_of(status).outcomes

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
                await self._raise_cancel(operation_id)
        raise RequestError(
            503, "Service Unavailable", "the operation has not seen yet that it is cancelled", retry_after=1.0
        )

    async def _raise_cancel(self, operation_id: str) -> None:
        try:
            await self._client.raise_event(operation_id, CANCEL)
        except Exception:  # the SDK raises nothing narrower where the instance has just ended
            if not has_ended(await self._get(operation_id)):
                raise

    async def _seconds(self) -> AsyncIterator[float]:
        """Look again and again, until the limit of a request: yields the seconds that have passed, in even steps."""
        for step in range(int(_CONFIRM_SECONDS / _WAIT_STEP_SECONDS)):
            yield step * _WAIT_STEP_SECONDS
            await asyncio.sleep(_WAIT_STEP_SECONDS)

    async def retry(
        self,
        operation_id: str,
        corrections: Corrections,
        settings: DeliverySettings,
        *,
        not_stored: bool = False,
        mark: str = "",
    ) -> Operation:
        """Deliver again what was not posted. The operation keeps its id.

        Args:
            operation_id: Of the operation.
            corrections: What to send instead.
            settings: By which what is corrected is sent, and a batch.
            not_stored: The caller knows that the API has not got what may be stored for all that the operation knows.
            mark: Of this start; asked for again under the same mark, it has been made. By default, a new one.

        Raises:
            RequestError: 400, a correction is not valid; 404, there is no such operation; 409, it has not ended, or
                nothing is left to be sent, or what is to be corrected may have been stored; 413, the durable backend
                cannot take the batch.
        """
        status = await self._get(operation_id, **_WHOLE)
        if status.name == BULK:
            raise RequestError(409, "Conflict", "the work on many operations is not retried: start it anew")
        if mark and input_of(status).get("mark") == mark:
            return describe(status)
        if status.name == BATCH:
            return await self._retry_batch(status, corrections, settings, not_stored=not_stored, mark=mark)
        operation = describe(status)
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
        business = corrections.record()
        corrected = None if business is None else Delivery.of(business, settings)
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
        return await self._restart(status, delivery, mark)

    async def _retry_batch(
        self,
        status: OrchestrationStatus,
        corrections: Corrections,
        settings: DeliverySettings,
        *,
        not_stored: bool,
        mark: str,
    ) -> Operation:
        operation = describe(status)
        if not operation.finished:
            raise RequestError(409, "Conflict", f"only a batch that has ended is retried: {operation.state}")
        batch = batch_of(status, whatever_came=True)
        corrected, known = corrections.records(batch.total), batch.outcomes
        errors: list[dict[str, Any]] = []
        for index in sorted(corrected):
            if known[index].outcome == "posted" and not (getattr(known[index], "warning", None) and not_stored):
                errors.append({"index": index, "field": "index", "detail": "the API has this record"})
            elif outcomes.may_be_stored(known[index]) and not not_stored:
                errors.append({"index": index, "field": "index", "detail": _MAY_BE_STORED})
        if errors:
            detail = f"{len(errors)} of {len(corrected)} records cannot be corrected, nothing was started"
            raise RequestError(409, "Conflict", detail, errors=errors[:MAX_ERRORS], errors_total=len(errors))
        again = batch.again(corrected, not_stored=not_stored).model_copy(update={"settings": settings})
        if again.counts.posted + again.counts.invalid == again.total:
            raise RequestError(409, "Conflict", "nothing is left to be sent: every valid record is posted")
        return await self._restart(status, _with_room(again), mark)

    async def _restart(self, ended: OrchestrationStatus, started: Delivery | Batch, mark: str) -> Operation:
        """Start an instance that has ended again, and return once it runs with this input.

        The engine does not start an ended instance atomically: of two starts at once both may succeed, and one counts.

        Raises:
            RequestError: 409, somebody else has started it again; 503, nobody knows in time.
        """
        operation_id, before = ended.instance_id or "", mark_of(ended)
        update = {"instance": operation_id, "mark": mark or uuid.uuid4().hex, "announced": self._announced}
        started = started.model_copy(update=update)
        conflict = RequestError(409, "Conflict", "somebody else retries the operation at the same time")
        if mark_of(await self._get(operation_id)) != before:
            raise conflict  # theirs has begun since `ended` was looked up, which no longer tells all
        try:
            await self._client.start_new(_orchestrator(started), operation_id, stored(started))
        except Exception:  # the SDK raises nothing narrower where the instance runs
            status = await self._get(operation_id)
            if has_ended(status) and mark_of(status) == before:  # else it ran, and has ended by now
                raise
            raise conflict from None
        async for _ in self._seconds():
            shown = mark_of(await self._get(operation_id))
            if shown == started.mark:
                doubt = started.may_be_stored if isinstance(started, Delivery) else bool(started.doubts)
                return Operation(id=operation_id, state="pending", may_be_stored=doubt)
            if shown not in {"", before}:
                raise conflict
        raise RequestError(
            503, "Service Unavailable", "the operation has not begun again yet: look at its state", retry_after=1.0
        )

    async def erase(self, operation_id: str) -> None:
        """Forget a finished operation, with its records.

        Raises:
            RequestError: 404, there is no such operation; 409, it has not ended, or somebody starts it again meanwhile.
        """
        if not has_ended(status := await self._get(operation_id)):
            state = describe(status).state
            raise RequestError(409, "Conflict", f"only what has ended is erased, this is {state}")
        try:
            await self._client.purge_instance_history(operation_id)
        except Exception:  # the SDK raises nothing narrower for an instance that runs
            if (left := await self._find(operation_id)) is not None and has_ended(left):
                raise
        if await self._find(operation_id) is not None:
            raise RequestError(409, "Conflict", "the operation was started again meanwhile")

    async def _get(self, operation_id: str, **shown: bool) -> OrchestrationStatus:
        status = await self._find(operation_id, **shown)
        if status is None:
            raise RequestError(404, "Not Found", "there is no operation with this id")
        return status

    async def _find(self, operation_id: str, **shown: bool) -> OrchestrationStatus | None:
        # The SDK puts the id into a URL as it is: what could not be an id must not get there.
        if not _OPERATION_ID.fullmatch(operation_id):
            return None
        status = await self._client.get_status(operation_id, **shown)
        return status if is_operation(status) else None


def _with_room(batch: Batch) -> Batch:
    """The batch as the backend can take it, or a refusal now of what would fail later, in the middle of its work."""
    limit = BatchSettings.from_environment().max_bytes
    if limit is None:
        return batch
    if (size := batch.least_size) > limit:
        raise RequestError(
            413,
            "Content Too Large",
            f"expected a batch that takes at most {limit} bytes in the task hub, and these {batch.total} records "
            f"may take {size}: send them as several batches",
        )
    return batch.within(limit)


def _orchestrator(started: Delivery | Batch | Bulk) -> str:
    return {Delivery: DELIVERY, Batch: BATCH, Bulk: BULK}[type(started)]
