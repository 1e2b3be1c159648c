"""What callers are told about an operation: the durable orchestration without its internals and management URLs."""

import json
import re
from collections.abc import Awaitable
from datetime import datetime
from typing import Annotated, Any, Literal, Protocol

from pydantic import BaseModel, Field

from shared.business import Deferred, Posted, Rejected
from shared.delivery import DeliveryOrder, GaveUp, Progress
from shared.problems import RequestError

type State = Literal[
    "pending", "running", "deferred", "suspended", "posted", "rejected", "gave_up", "failed", "cancelled"
]

_UNFINISHED: frozenset[State] = frozenset({"pending", "running", "deferred", "suspended"})
_OPERATION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
_POLL_SECONDS = 1.0


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


class Operation(BaseModel):
    """The delivery of one record.

    Attributes:
        attempt: Number of the last finished attempt; 0 before that.
        next_attempt_at: UTC; None unless deferred.
        outcome: Of the last attempt; None before that, and if the orchestration itself failed or was cancelled.
    """

    id: str
    state: State
    attempt: int = 0
    next_attempt_at: datetime | None = None
    outcome: Annotated[Posted | Rejected | Deferred | GaveUp, Field(discriminator="outcome")] | None = None
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def poll_after(self) -> float | None:
        """Seconds after which it is worth to look again; None once the operation is finished."""
        return _POLL_SECONDS if self.state in _UNFINISHED else None


class Operations:
    """The deliveries that one orchestrator function makes.

    Args:
        orchestrator: Name of the function; instances of others are not shown.
        client: Of the function's durable client binding.
    """

    def __init__(self, orchestrator: str, client: OrchestrationClient) -> None:
        self._orchestrator = orchestrator
        self._client = client

    async def start(self, operation_id: str, order: DeliveryOrder) -> Operation:
        """Start a delivery, or find the one that the same request has started before.

        Raises:
            RequestError: 422, the operation exists with another record.
        """
        status = await self._find(operation_id, show_input=True)
        if status is None:
            try:
                await self._client.start_new(self._orchestrator, operation_id, order.model_dump(mode="json"))
            except Exception:  # the SDK raises nothing narrower when a request at the same instant came first
                status = await self._find(operation_id, show_input=True)
                if status is None:
                    raise
            else:
                return Operation(id=operation_id, state="pending")
        if _order(status).business != order.business:
            raise RequestError(
                422, "Idempotency-Key reused", "this Idempotency-Key was used before with another record"
            )
        return _describe(status)

    async def get(self, operation_id: str) -> Operation:
        """Look an operation up.

        Raises:
            RequestError: 404, there is none with this id.
        """
        status = await self._find(operation_id)
        if status is None:
            raise RequestError(404, "Not Found", "there is no operation with this id")
        return _describe(status)

    async def _find(self, operation_id: str, *, show_input: bool = False) -> OrchestrationStatus | None:
        # The SDK puts the id into a URL as it is: what could not be an id must not get there.
        if not _OPERATION_ID.fullmatch(operation_id):
            return None
        status = await self._client.get_status(operation_id, show_input=show_input)
        return status if status and status.name == self._orchestrator else None


def _order(status: OrchestrationStatus) -> DeliveryOrder:
    document = status.input_
    while isinstance(document, str):  # the SDK encodes the input of a start twice
        document = json.loads(document)
    return DeliveryOrder.model_validate(document)


def _describe(status: OrchestrationStatus) -> Operation:
    reported = status.output if status.runtime_status.name == "Completed" else status.custom_status
    progress = Progress.model_validate(reported) if reported else None
    outcome = progress.outcome if progress else None
    state: State
    match status.runtime_status.name:
        case "Pending":
            state = "pending"
        case "Suspended":
            state = "suspended"
        case "Failed":
            state = "failed"
        case "Terminated" | "Canceled":
            state = "cancelled"
        case _:
            state = outcome.outcome if outcome else "running"
    return Operation(
        id=status.instance_id or "",
        state=state,
        attempt=progress.attempt if progress else 0,
        next_attempt_at=progress.next_attempt_at if progress else None,
        outcome=outcome,
        created_at=status.created_time,
        updated_at=status.last_updated_time,
    )
