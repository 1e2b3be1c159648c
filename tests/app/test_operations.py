"""Starting an operation once however often it is asked for, and telling what has become of it."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest

from shared.business.api import Business
from shared.delivery.records import DeliveryOrder
from shared.operations.problems import RequestError
from shared.operations.resource import Operations

ORDER = DeliveryOrder(
    business=Business(registration_number="HRB 1", name="Acme", country="DE"), fingerprint="of the first"
)
OTHER = DeliveryOrder(
    business=Business(registration_number="HRB 2", name="Acme", country="DE"), fingerprint="of the other"
)
NEVER = datetime(1, 1, 1, tzinfo=UTC)
POSTED = {"attempt": 2, "outcome": {"outcome": "posted", "business": {**ORDER.business.model_dump(), "id": "b-1"}}}
DEFERRED = {
    "attempt": 1,
    "outcome": {"outcome": "deferred", "reason": "the API answered 503"},
    "next_attempt_at": "2026-01-01T00:00:05Z",
}


class RuntimeStatus(Enum):
    """Names and meaning as in the durable SDK."""

    Running = "Running"
    Completed = "Completed"
    Failed = "Failed"
    Terminated = "Terminated"
    Pending = "Pending"
    Suspended = "Suspended"


@dataclass
class Status:
    instance_id: str | None
    input_: Any = None
    runtime_status: RuntimeStatus = RuntimeStatus.Running
    custom_status: Any = None
    output: Any = None
    name: str | None = "PostBusinessOrchestrator"
    created_time: datetime | None = datetime(2026, 1, 1, tzinfo=UTC)
    last_updated_time: datetime | None = datetime(2026, 1, 1, tzinfo=UTC)

    def __bool__(self) -> bool:
        return self.created_time is not None


@dataclass
class TaskHub:
    """A durable client whose instances are just remembered; it refuses to start a running one, as the host does."""

    instances: dict[str, Status] = field(default_factory=dict)
    blind_look_ups: int = 0
    asked_for: list[str] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)

    async def start_new(self, orchestration_function_name: str, instance_id: str, client_input: Any) -> str:
        if instance_id in self.instances:
            raise Exception("An Orchestration instance with the status Running already exists.")  # noqa: TRY002
        encoded = json.dumps(json.dumps(client_input))
        self.instances[instance_id] = Status(instance_id, encoded, name=orchestration_function_name)
        return instance_id

    async def get_status(self, instance_id: str, *, show_input: bool = False) -> Status:
        self.asked_for.append(instance_id)
        if self.blind_look_ups:
            self.blind_look_ups -= 1
            return Status(None, created_time=None)
        return self.instances.get(instance_id, Status(None, created_time=None))

    async def get_status_by(self, created_time_from: datetime, created_time_to: datetime | None = None) -> list[Status]:
        return [status for status in self.instances.values() if (status.created_time or NEVER) >= created_time_from]

    async def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> None:
        self.events.append((instance_id, event_name))


async def test_the_same_request_again_finds_the_same_operation() -> None:
    hub = TaskHub()
    operations = Operations(hub)
    first = await operations.start("abc", ORDER)
    again = await operations.start("abc", ORDER)
    assert (first.id, again.id, len(hub.instances)) == ("abc", "abc", 1)


async def test_another_record_under_the_same_key_is_a_422() -> None:
    operations = Operations(TaskHub())
    await operations.start("abc", ORDER)
    with pytest.raises(RequestError) as raised:
        await operations.start("abc", OTHER)
    assert raised.value.status == 422


async def test_of_two_requests_at_the_same_instant_the_second_finds_the_first() -> None:
    hub = TaskHub()
    operations = Operations(hub)
    await operations.start("abc", ORDER)
    hub.blind_look_ups = 1  # the second looked before the first had started
    assert (await operations.start("abc", ORDER)).id == "abc"
    hub.blind_look_ups = 1
    with pytest.raises(RequestError):
        await operations.start("abc", OTHER)


async def test_a_host_that_cannot_start_is_not_taken_for_a_repeated_request() -> None:
    class Unavailable(TaskHub):
        async def start_new(self, orchestration_function_name: str, instance_id: str, client_input: Any) -> str:
            raise ConnectionError("storage is down")

    with pytest.raises(ConnectionError):
        await Operations(Unavailable()).start("abc", ORDER)


@pytest.mark.parametrize(
    ("runtime_status", "custom_status", "output", "state", "attempt"),
    [
        (RuntimeStatus.Pending, None, None, "pending", 0),
        (RuntimeStatus.Running, None, None, "running", 0),
        (RuntimeStatus.Running, DEFERRED, None, "deferred", 1),
        (RuntimeStatus.Suspended, DEFERRED, None, "suspended", 1),
        (RuntimeStatus.Completed, POSTED, POSTED, "posted", 2),
        (RuntimeStatus.Failed, DEFERRED, "Exception: boom", "failed", 1),
        (RuntimeStatus.Terminated, DEFERRED, "because", "cancelled", 1),
    ],
)
async def test_the_state_is_told_in_the_callers_words(
    runtime_status: RuntimeStatus, custom_status: Any, output: Any, state: str, attempt: int
) -> None:
    hub = TaskHub({"abc": Status("abc", None, runtime_status, custom_status, output)})
    operation = await Operations(hub).get("abc")
    assert (operation.state, operation.attempt) == (state, attempt)
    assert (operation.poll_after is None) == (state in {"posted", "failed", "cancelled"})


@pytest.mark.parametrize("operation_id", ["unknown", "../orchestrators/x", "a?b", "a b", "é", "x" * 101])
async def test_an_id_that_is_none_is_a_404(operation_id: str) -> None:
    with pytest.raises(RequestError) as raised:
        await Operations(TaskHub()).get(operation_id)
    assert raised.value.status == 404


async def test_what_could_leave_the_path_never_reaches_the_durable_client() -> None:
    hub = TaskHub()
    with pytest.raises(RequestError):
        await Operations(hub).get("../instances")
    assert hub.asked_for == []


async def test_instances_of_other_orchestrators_are_not_shown() -> None:
    hub = TaskHub({"abc": Status("abc", name="SomethingElse")})
    with pytest.raises(RequestError):
        await Operations(hub).get("abc")
