"""Starting an operation once however often it is asked for, and telling what has become of it."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.delivery.batches import Batch, ItemPosted, ItemResult
from shared.delivery.bounds import stored
from shared.delivery.records import Delivery
from shared.operations.list_query import ListQuery
from shared.operations.listing import list_operations
from shared.operations.problems import RequestError
from shared.operations.resource import Operations
from shared.operations.status import input_of
from shared.settings import DeliverySettings
from tests.sandboxed import business

from .task_hub import RuntimeStatus, Status, TaskHub

FIRST = Delivery.of(business(1), DeliverySettings())
OTHER = Delivery.of(business(2), DeliverySettings())
POSTED = {"attempt": 2, "outcome": {"outcome": "posted", "id": "b-1", "business": {**FIRST.record, "id": "b-1"}}}
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


BATCH = Batch.of([business(1)] * 100, DeliverySettings())


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


# Doubt: the API may have a record that was not posted


def ended(
    outcome: dict[str, Any] | None,
    runtime_status: RuntimeStatus = RuntimeStatus.Completed,
    *,
    earlier_doubt: bool = False,
) -> TaskHub:
    """A task hub with a delivery of `FIRST`, `abc`, that has ended so."""
    hub, progress = TaskHub(), {"attempt": 3, "outcome": outcome} if outcome else None
    output = progress if runtime_status is RuntimeStatus.Completed else "because"
    delivery = FIRST.model_copy(update={"key": "first", "may_be_stored": earlier_doubt})
    hub.add(Status("abc", None, runtime_status, progress, output), delivery.model_dump(mode="json"))
    return hub


REJECTED: dict[str, Any] = {"outcome": "rejected", "status": 422, "problem": {"title": "No"}}
GAVE_UP = {"outcome": "gave_up", "reason": "503"}
CANCELLED = {"outcome": "cancelled", "reason": "503"}
TAKEN = {"outcome": "posted", "id": "7"}
IN_DOUBT = {"may_be_stored": True}


@pytest.mark.parametrize(
    ("hub", "may_be_stored"),
    [
        (ended(REJECTED), False),
        (ended(REJECTED | IN_DOUBT), True),
        (ended(GAVE_UP), False),
        (ended(GAVE_UP | IN_DOUBT), True),
        (ended(CANCELLED), False),
        (ended(CANCELLED | IN_DOUBT), True),
        (ended(None, RuntimeStatus.Failed), True),
        (ended({"outcome": "deferred", "reason": "503"}, RuntimeStatus.Terminated), True),
    ],
)
async def test_a_corrected_record_is_sent_only_if_the_first_is_certainly_not_stored(
    hub: TaskHub, may_be_stored: bool
) -> None:
    operations = Operations(hub)
    assert (await operations.get("abc")).may_be_stored is may_be_stored
    before = hub.instances["abc"]
    if may_be_stored:
        with pytest.raises(RequestError, match="may have stored the record") as raised:
            await operations.retry("abc", OTHER)
        assert (raised.value.status, hub.instances["abc"]) == (409, before)
        retried = await operations.retry("abc", OTHER, not_stored=True)
    else:
        retried = await operations.retry("abc", OTHER)
    assert (retried.state, retried.may_be_stored) == ("pending", False)
    delivery = Delivery.model_validate(input_of(hub.instances["abc"]))
    assert (delivery.record, delivery.may_be_stored) == (OTHER.record, False)
    assert delivery.attempt("abc").idempotency_key == "first.1"


@pytest.mark.parametrize("corrected", [None, FIRST])
@pytest.mark.parametrize(
    ("hub", "not_stored", "may_be_stored"),
    [
        (ended(REJECTED), False, False),
        (ended(REJECTED | IN_DOUBT), False, True),
        (ended(REJECTED | IN_DOUBT), True, False),
        (ended(REJECTED, earlier_doubt=True), False, True),
        (ended(None, RuntimeStatus.Failed), False, True),
    ],
)
async def test_the_same_record_is_sent_again_under_its_key_and_with_its_doubt(
    corrected: Delivery | None, hub: TaskHub, not_stored: bool, may_be_stored: bool
) -> None:
    before = replace(hub.instances["abc"])
    retried = await Operations(hub).retry("abc", corrected, not_stored=not_stored)
    assert retried.may_be_stored is may_be_stored
    delivery = Delivery.model_validate(input_of(hub.instances["abc"]))
    assert (delivery.record, delivery.may_be_stored) == (FIRST.record, may_be_stored)
    assert delivery.attempt("abc").idempotency_key == "first"
    hub.instances["abc"] = before


@pytest.mark.parametrize(("outcome", "was_refused"), [(REJECTED, True), (REJECTED | IN_DOUBT, False), (GAVE_UP, False)])
async def test_a_record_that_was_refused_is_known_to_have_been(outcome: dict[str, Any], was_refused: bool) -> None:
    hub = ended(outcome)
    await Operations(hub).retry("abc", None)
    assert Delivery.model_validate(input_of(hub.instances["abc"])).was_refused is was_refused


async def test_a_key_that_a_refusal_has_raised_is_not_used_again() -> None:
    hub = ended(REJECTED)
    progress = {"attempt": 2, "outcome": REJECTED, "revision": 3}
    hub.add(replace(hub.instances["abc"], custom_status=progress, output=progress))
    await Operations(hub).retry("abc", OTHER)
    assert Delivery.model_validate(input_of(hub.instances["abc"])).attempt("abc").idempotency_key == "first.4"


async def test_of_two_retries_at_once_one_counts_and_the_other_is_told() -> None:
    """The engine takes both starts of an instance that has ended, and runs one of them."""
    hub = ended(REJECTED)
    hub.overtaken_by = "another start"
    with pytest.raises(RequestError, match="somebody else retries") as raised:
        await Operations(hub).retry("abc", OTHER)
    assert raised.value.status == 409


async def test_a_retry_that_comes_while_another_one_runs_is_a_409() -> None:
    hub = ended(REJECTED)
    first = await hub.get_status("abc", show_input=True)
    await Operations(hub).retry("abc", None)

    class Late(TaskHub):
        """Has looked the operation up before the first retry."""

        async def get_status(self, instance_id: str, *, show_input: bool = False) -> Status:
            looks.append(instance_id)
            return first if len(looks) == 1 else await super().get_status(instance_id, show_input=show_input)

    looks: list[str] = []
    with pytest.raises(RequestError, match="somebody else retries") as raised:
        await Operations(Late(hub.instances)).retry("abc", OTHER)
    assert raised.value.status == 409


def running(status: RuntimeStatus = RuntimeStatus.Running) -> TaskHub:
    return TaskHub({"abc": Status("abc", None, status, DEFERRED)})


@pytest.mark.parametrize(("deaf", "raised"), [(0, 1), (2, 1)])
async def test_a_cancel_is_raised_until_the_orchestration_has_seen_it(deaf: int, raised: int) -> None:
    hub = running()
    hub.deaf = deaf
    operation = await Operations(hub).cancel("abc")
    assert (operation.state, operation.cancelling) == ("deferred", True)
    assert hub.events == [("abc", "Cancel")] * raised


async def test_a_cancel_that_is_not_seen_in_time_is_a_503_to_try_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.operations.resource._CONFIRM_SECONDS", 0.5)
    hub = running()
    hub.deaf = 1000
    with pytest.raises(RequestError) as raised:
        await Operations(hub).cancel("abc")
    assert (raised.value.status, raised.value.retry_after) == (503, 1.0)


@pytest.mark.parametrize(("outcome", "status"), [(CANCELLED, 202), (TAKEN, 409), (REJECTED, 409)])
async def test_a_cancel_that_meets_the_end_tells_how_it_ended(outcome: dict[str, Any], status: int) -> None:
    hub = running()

    class Ending(TaskHub):
        """Ends between the look-up and the event."""

        async def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> None:
            self.instances |= ended(outcome).instances
            await super().raise_event(instance_id, event_name, event_data)

    operations = Operations(Ending(hub.instances))
    if status == 202:
        assert (await operations.cancel("abc")).state == "cancelled"
        return
    with pytest.raises(RequestError, match="the operation has ended") as raised:
        await operations.cancel("abc")
    assert raised.value.status == status


async def test_what_failed_or_was_terminated_tells_of_no_further_attempt() -> None:
    for status, state in ((RuntimeStatus.Failed, "failed"), (RuntimeStatus.Terminated, "cancelled")):
        operation = await Operations(TaskHub({"abc": Status("abc", None, status, DEFERRED, "why")})).get("abc")
        assert (operation.state, operation.next_attempt_at, operation.may_be_stored) == (state, None, True)
        assert operation.outcome is None or operation.outcome.outcome == "cancelled"


async def test_a_record_whose_answer_was_read_is_never_sent_again() -> None:
    for not_stored in (False, True):
        with pytest.raises(RequestError, match="only a delivery that ended unposted"):
            await Operations(ended(TAKEN)).retry("abc", None, not_stored=not_stored)


async def test_what_a_gateway_seems_to_have_answered_is_sent_again_if_the_caller_knows_that_it_is_not_stored() -> None:
    operations = Operations(ended({"outcome": "posted", "warning": "200: expected JSON, got text/html"}))
    with pytest.raises(RequestError, match="only a delivery that ended unposted"):
        await operations.retry("abc", None)
    assert (await operations.retry("abc", None, not_stored=True)).state == "pending"


async def test_the_key_of_a_started_operation_travels_in_its_input() -> None:
    hub = TaskHub()
    await Operations(hub).start("abc", FIRST)
    await Operations(hub).start("def", BATCH)
    assert Delivery.model_validate(input_of(hub.instances["abc"])).attempt("other").idempotency_key == "abc"
    batch = Batch.model_validate(input_of(hub.instances["def"]))
    (_, section), *_ = batch.sections("other")
    assert section.attempt(section.items[0]).idempotency_key == "def-0"


@pytest.mark.parametrize("runtime_status", [RuntimeStatus.Failed, RuntimeStatus.Terminated])
async def test_a_batch_that_was_cut_short_says_of_no_record_that_it_was_not_sent(
    runtime_status: RuntimeStatus,
) -> None:
    """Sections go on for a while, and nobody is there to whom they could tell."""
    hub = TaskHub()
    posted = BATCH.with_results([ItemResult(index=0, result=ItemPosted(id="7"))])
    shown = stored(posted.progress(datetime(2026, 1, 1, tzinfo=UTC)))
    hub.add(Status("abc", None, runtime_status, shown, "why", "PostBatchOrchestrator"), stored(posted))
    operations = Operations(hub)
    operation = await operations.get("abc")
    assert operation.batch is not None
    assert (operation.may_be_stored, operation.batch.may_be_stored) == (True, 99)
    assert [item.index for item in (await operations.results("abc", may_be_stored=True)).results] == [*range(1, 100)]
    assert len((await operations.results("abc")).results) == 100


async def test_operations_with_warnings_can_be_told_from_others() -> None:
    hub = ended(TAKEN)
    warned = {"attempt": 1, "outcome": {"outcome": "posted", "warning": "204: expected JSON, the body is empty"}}
    hub.add(Status("def", None, RuntimeStatus.Completed, warned, warned))
    progress = {"tally": {"total": 2, "posted": 2}, "round": 1, "rate": 0.0}
    for name, warnings in (("ghi", 1), ("jkl", 0)):
        hub.add(
            Status(name, None, RuntimeStatus.Completed, {**progress, "warnings": warnings}, {}, "PostBatchOrchestrator")
        )
    since = datetime(2025, 1, 1, tzinfo=UTC)
    listed, _ = await list_operations(hub, ListQuery(since=since, warning=True))
    assert {operation.id for operation in listed} == {"def", "ghi"}
    assert len((await list_operations(hub, ListQuery(since=since)))[0]) == 4


class WithoutInputs(TaskHub):
    """A hub in which nobody asks for an input, which is megabytes for a large batch."""

    async def get_status(self, instance_id: str, *, show_input: bool = False) -> Status:
        assert not show_input
        return await super().get_status(instance_id)


async def test_inputs_are_not_asked_for_where_nobody_needs_them() -> None:
    progress = {"tally": {"total": 2}, "round": 1, "rate": 0.0, "section": "abc-r1-s0"}
    hub = WithoutInputs({"abc": Status("abc", "big", custom_status=progress, name="PostBatchOrchestrator")})
    hub.add(Status("abc-r1-s0", "big", name="PostSectionOrchestrator"))
    hub.add(Status("def", "big", RuntimeStatus.Completed))
    operations = Operations(hub)
    await operations.get("abc", wait=0.3)
    await operations.cancel("abc")
    await operations.erase("def")
    assert hub.events == [("abc", "Cancel"), ("abc-r1-s0", "Cancel")]
