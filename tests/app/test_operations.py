"""Starting an operation once however often it is asked for, and telling what has become of it."""

from typing import Any

import pytest

from shared.business import NewBusiness, assigned, example
from shared.delivery.batches import Batch
from shared.delivery.records import Delivery
from shared.operations.problems import RequestError
from shared.operations.resource import Operations
from shared.settings import DeliverySettings

from .task_hub import RuntimeStatus, Status, TaskHub

FIRST = Delivery.of(NewBusiness.model_validate(example(1)), DeliverySettings())
OTHER = Delivery.of(NewBusiness.model_validate(example(2)), DeliverySettings())
POSTED = {"attempt": 2, "outcome": {"outcome": "posted", "id": "b-1", "business": assigned(1) | FIRST.record}}
DEFERRED = {
    "attempt": 1,
    "outcome": {"outcome": "deferred", "reason": "the API answered 503"},
    "next_attempt_at": "2026-01-01T00:00:05Z",
}


async def test_the_same_request_again_finds_the_same_operation() -> None:
    hub = TaskHub()
    operations = Operations(hub)
    first = await operations.start("abc", FIRST)
    again = await operations.start("abc", FIRST)
    assert (first.id, again.id, len(hub.instances)) == ("abc", "abc", 1)


async def test_another_record_under_the_same_key_is_a_422() -> None:
    operations = Operations(TaskHub())
    await operations.start("abc", FIRST)
    with pytest.raises(RequestError) as raised:
        await operations.start("abc", OTHER)
    assert raised.value.status == 422


async def test_of_two_requests_at_the_same_instant_the_second_finds_the_first() -> None:
    hub = TaskHub()
    operations = Operations(hub)
    await operations.start("abc", FIRST)
    hub.blind_look_ups = 1  # the second looked before the first had started
    assert (await operations.start("abc", FIRST)).id == "abc"
    hub.blind_look_ups = 1
    with pytest.raises(RequestError):
        await operations.start("abc", OTHER)


BATCH = Batch.of([NewBusiness.model_validate(example(1))] * 100, DeliverySettings())


@pytest.mark.parametrize(("spare", "started"), [(0, True), (-1, False)])
async def test_a_batch_that_the_backend_cannot_take_is_a_413_and_not_a_later_failure(
    spare: int, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_BYTES", str(BATCH.stored_size + spare))
    hub = TaskHub()
    if started:
        assert (await Operations(hub).start("abc", BATCH)).state == "pending"
        return
    with pytest.raises(RequestError) as raised:
        await Operations(hub).start("abc", BATCH)
    assert raised.value.status == 413
    assert f"at most {BATCH.stored_size - 1} bytes" in str(raised.value)
    assert not hub.instances


async def test_a_batch_that_was_taken_is_found_again_whatever_the_limit_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = Operations(TaskHub())
    await operations.start("abc", BATCH)
    monkeypatch.setenv("BATCH_MAX_BYTES", "10000")
    assert (await operations.start("abc", BATCH)).id == "abc"


async def test_a_host_that_cannot_start_is_not_taken_for_a_repeated_request() -> None:
    class Unavailable(TaskHub):
        async def start_new(self, orchestrator: str, instance_id: str, started_with: Any, /) -> str:
            raise ConnectionError("storage is down")

    with pytest.raises(ConnectionError):
        await Operations(Unavailable()).start("abc", FIRST)


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
