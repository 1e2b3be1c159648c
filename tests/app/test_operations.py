"""Starting an operation once however often it is asked for, and telling what has become of it."""

import asyncio
import itertools
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.business import Record, example
from shared.delivery.batches import Batch
from shared.delivery.bounds import stored
from shared.delivery.chunks import Counts, Deferral, Report
from shared.delivery.outcomes import may_be_stored
from shared.delivery.records import Delivery
from shared.delivery.results import ItemInvalid
from shared.delivery.rounds import Round
from shared.operations.list_query import ListQuery
from shared.operations.listing import list_operations
from shared.operations.model import Operation
from shared.operations.problems import RequestError
from shared.operations.requests import Corrections
from shared.operations.status import BATCH as BATCHES
from shared.settings import DeliverySettings
from tests.sandboxed import business
from tests.simulation.staged import StagedHub

pytestmark = pytest.mark.virtual_time

FIRST = Delivery.of(business(1), DeliverySettings())
OTHER = Delivery.of(business(2), DeliverySettings())
POSTED = {"attempt": 2, "outcome": {"outcome": "posted", "id": "b-1", "business": {**FIRST.record, "id": "b-1"}}}
DEFERRED = {
    "attempt": 1,
    "outcome": {"outcome": "deferred", "reason": "the API answered 503"},
    "next_attempt_at": "2026-01-01T00:00:05Z",
}


SETTINGS = DeliverySettings()
NOTHING = Corrections({}, b"")


def body(content: Any) -> Corrections:
    """What a caller sends with a retry."""
    return Corrections({"Content-Type": "application/json"}, json.dumps(content).encode())


CORRECTED = body(example(2))


async def test_the_same_request_again_finds_the_same_operation() -> None:
    hub = StagedHub()
    first = await hub.operations.start("abc", FIRST)
    again = await hub.operations.start("abc", FIRST)
    assert (first.id, again.id, len(hub.instances), len(hub.changes)) == ("abc", "abc", 1, 1)


async def test_another_record_under_the_same_key_is_a_422() -> None:
    hub = StagedHub()
    await hub.operations.start("abc", FIRST)
    with pytest.raises(RequestError) as raised:
        await hub.operations.start("abc", OTHER)
    assert raised.value.status == 422


async def test_of_two_requests_at_the_same_instant_the_second_finds_the_first() -> None:
    """The second looks before the first has started."""
    hub = StagedHub()
    hub.before["POST"] = lambda: hub.operations.start("abc", FIRST)
    assert (await hub.operations.start("abc", FIRST)).id == "abc"
    hub.before["POST"] = lambda: hub.operations.start("def", FIRST)
    with pytest.raises(RequestError):
        await hub.operations.start("def", OTHER)
    assert [status for _, _, status in hub.changes] == [202, 409] * 2


BATCH = Batch.of([business(1)] * 100, DeliverySettings())


@pytest.mark.parametrize(("spare", "started"), [(0, True), (-1, False)])
async def test_a_batch_that_the_backend_cannot_take_is_a_413_and_not_a_later_failure(
    spare: int, started: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BATCH_MAX_BYTES", str(BATCH.least_size + spare))
    hub = StagedHub()
    if started:
        assert (await hub.operations.start("abc", BATCH)).state == "pending"
        return
    with pytest.raises(RequestError) as raised:
        await hub.operations.start("abc", BATCH)
    assert raised.value.status == 413
    assert f"at most {BATCH.least_size - 1} bytes" in str(raised.value)
    assert not hub.changes


async def test_a_batch_that_was_taken_is_found_again_whatever_the_limit_is_now(monkeypatch: pytest.MonkeyPatch) -> None:
    operations = StagedHub().operations
    await operations.start("abc", BATCH)
    monkeypatch.setenv("BATCH_MAX_BYTES", "10000")
    assert (await operations.start("abc", BATCH)).id == "abc"


async def test_a_host_that_cannot_start_is_not_taken_for_a_repeated_request() -> None:
    async def unavailable() -> None:
        raise ConnectionError("storage is down")

    hub = StagedHub()
    hub.before["POST"] = unavailable
    with pytest.raises(ConnectionError):
        await hub.operations.start("abc", FIRST)


@pytest.mark.parametrize(
    ("status", "custom_status", "output", "state", "attempt"),
    [
        ("Pending", None, None, "pending", 0),
        ("Running", None, None, "running", 0),
        ("Running", DEFERRED, None, "deferred", 1),
        ("Suspended", DEFERRED, None, "suspended", 1),
        ("Completed", POSTED, POSTED, "posted", 2),
        ("Failed", DEFERRED, "Exception: boom", "failed", 1),
        ("Terminated", DEFERRED, "because", "cancelled", 1),
    ],
)
async def test_the_state_is_told_in_the_callers_words(
    status: str, custom_status: Any, output: Any, state: str, attempt: int
) -> None:
    hub = StagedHub()
    hub.put("abc", status, custom_status, output)
    operation = await hub.operations.get("abc")
    assert (operation.state, operation.attempt) == (state, attempt)
    assert (operation.poll_after is None) == (state in {"posted", "failed", "cancelled"})


@pytest.mark.parametrize("operation_id", ["unknown", "../orchestrators/x", "a?b", "a b", "é", "x" * 101])
async def test_an_id_that_is_none_is_a_404(operation_id: str) -> None:
    with pytest.raises(RequestError) as raised:
        await StagedHub().operations.get(operation_id)
    assert raised.value.status == 404


async def test_what_could_leave_the_path_never_reaches_the_durable_client() -> None:
    hub = StagedHub()
    with pytest.raises(RequestError):
        await hub.operations.get("../instances")
    assert not hub.requests


async def test_instances_of_other_orchestrators_are_not_shown() -> None:
    hub = StagedHub()
    hub.put("abc", name="SomethingElse")
    with pytest.raises(RequestError):
        await hub.operations.get("abc")


# Doubt: the API may have a record that was not posted


def ended(
    outcome: dict[str, Any] | None, status: str = "Completed", *, earlier_doubt: bool = False, seed: int = 0
) -> StagedHub:
    """A task hub with a delivery of `FIRST`, `abc`, that has ended so."""
    hub, progress = StagedHub(seed=seed), {"attempt": 3, "outcome": outcome} if outcome else None
    delivery = FIRST.model_copy(update={"key": "first", "may_be_stored": earlier_doubt})
    hub.put("abc", status, progress, progress if status == "Completed" else "because", given=stored(delivery))
    return hub


REJECTED: dict[str, Any] = {"outcome": "rejected", "status": 422, "problem": {"title": "No"}}
GAVE_UP = {"outcome": "gave_up", "reason": "503"}
CANCELLED = {"outcome": "cancelled", "reason": "503"}
TAKEN = {"outcome": "posted", "id": "7"}
IN_DOUBT = {"may_be_stored": True}


@pytest.mark.parametrize(
    ("outcome", "status", "may_be_stored"),
    [
        (REJECTED, "Completed", False),
        (REJECTED | IN_DOUBT, "Completed", True),
        (GAVE_UP, "Completed", False),
        (GAVE_UP | IN_DOUBT, "Completed", True),
        (CANCELLED, "Completed", False),
        (CANCELLED | IN_DOUBT, "Completed", True),
        (None, "Failed", True),
        ({"outcome": "deferred", "reason": "503"}, "Terminated", True),
    ],
)
async def test_a_corrected_record_is_sent_only_if_the_first_is_certainly_not_stored(
    outcome: dict[str, Any] | None, status: str, may_be_stored: bool
) -> None:
    hub = ended(outcome, status)
    assert (await hub.operations.get("abc")).may_be_stored is may_be_stored
    if may_be_stored:
        with pytest.raises(RequestError, match="may have stored the record") as raised:
            await hub.operations.retry("abc", CORRECTED, SETTINGS)
        assert (raised.value.status, hub.changes) == (409, [])
    retried = await hub.operations.retry("abc", CORRECTED, SETTINGS, not_stored=may_be_stored)
    assert (retried.state, retried.may_be_stored) == ("pending", False)
    delivery = Delivery.model_validate(hub.given("abc"))
    assert (delivery.record, delivery.may_be_stored) == (OTHER.record, False)
    assert delivery.attempt("abc").idempotency_key == "first.1"


@pytest.mark.parametrize("corrected", [NOTHING, body(example(1))])
@pytest.mark.parametrize(
    ("outcome", "status", "earlier_doubt", "not_stored", "may_be_stored"),
    [
        (REJECTED, "Completed", False, False, False),
        (REJECTED | IN_DOUBT, "Completed", False, False, True),
        (REJECTED | IN_DOUBT, "Completed", False, True, False),
        (REJECTED, "Completed", True, False, True),
        (None, "Failed", False, False, True),
    ],
)
async def test_the_same_record_is_sent_again_under_its_key_and_with_its_doubt(
    corrected: Corrections,
    outcome: dict[str, Any] | None,
    status: str,
    earlier_doubt: bool,
    not_stored: bool,
    may_be_stored: bool,
) -> None:
    hub = ended(outcome, status, earlier_doubt=earlier_doubt)
    retried = await hub.operations.retry("abc", corrected, SETTINGS, not_stored=not_stored)
    assert retried.may_be_stored is may_be_stored
    delivery = Delivery.model_validate(hub.given("abc"))
    assert (delivery.record, delivery.may_be_stored) == (FIRST.record, may_be_stored)
    assert delivery.attempt("abc").idempotency_key == "first"


@pytest.mark.parametrize(("outcome", "was_refused"), [(REJECTED, True), (REJECTED | IN_DOUBT, False), (GAVE_UP, False)])
async def test_a_record_that_was_refused_is_known_to_have_been(outcome: dict[str, Any], was_refused: bool) -> None:
    hub = ended(outcome)
    await hub.operations.retry("abc", NOTHING, SETTINGS)
    assert Delivery.model_validate(hub.given("abc")).was_refused is was_refused


async def test_a_key_that_a_refusal_has_raised_is_not_used_again() -> None:
    hub = ended(REJECTED)
    one = hub.instances["abc"]
    one.custom_status = one.output = {"attempt": 2, "outcome": REJECTED, "revision": 3}
    await hub.operations.retry("abc", CORRECTED, SETTINGS)
    assert Delivery.model_validate(hub.given("abc")).attempt("abc").idempotency_key == "first.4"


def retried_twice(told: list[Operation | BaseException]) -> int:
    """Which of two retries counts; the other one was told that."""
    assert all(isinstance(one, Operation | RequestError) for one in told)
    (counts,) = [number for number, one in enumerate(told) if isinstance(one, Operation)]
    conflict = told[1 - counts]
    assert isinstance(conflict, RequestError)
    assert (conflict.status, "somebody else retries" in str(conflict)) == (409, True)
    return counts


async def test_of_two_retries_at_once_one_counts_and_the_other_is_told() -> None:
    """The engine takes both starts of an instance that has ended, and runs one of them."""
    taken = set()
    for seed in range(20):
        hub = ended(REJECTED, seed=seed)
        retries = (hub.operations.retry("abc", corrections, SETTINGS) for corrections in (NOTHING, CORRECTED))
        counts = retried_twice(await asyncio.gather(*retries, return_exceptions=True))
        assert hub.given("abc")["record"] == (FIRST, OTHER)[counts].record
        taken.add(tuple(sorted(status for _, _, status in hub.changes)))
    assert taken == {(202, 202), (202, 409)}


async def test_a_retry_that_comes_while_another_one_runs_is_a_409() -> None:
    """It has looked the operation up before the first retry."""
    hub = ended(REJECTED)
    hub.before["POST"] = lambda: hub.operations.retry("abc", NOTHING, SETTINGS)
    with pytest.raises(RequestError, match="somebody else retries") as raised:
        await hub.operations.retry("abc", CORRECTED, SETTINGS)
    assert raised.value.status == 409


@pytest.mark.parametrize("before", ["the second look", "the start"])
async def test_a_retry_that_has_been_overtaken_by_another_one_which_has_ended_is_a_409(before: str) -> None:
    """It has looked the operation up before the other one, which has ended when it looks again."""
    hub = ended(REJECTED)
    posted = {"attempt": 1, "outcome": {"outcome": "posted", "id": "b-1"}, "mark": "another"}

    async def another_has_ended() -> None:
        hub.put("abc", "Completed", posted, posted, given=stored(FIRST))

    async def another_begins() -> None:
        await hub.operations.retry("abc", NOTHING, SETTINGS)
        hub.before["GET"] = another_has_ended

    async def first_look() -> None:
        hub.before["GET"] = another_has_ended

    if before == "the start":
        hub.before["POST"] = another_begins
    else:
        hub.before["GET"] = first_look
    with pytest.raises(RequestError, match="somebody else retries") as raised:
        await hub.operations.retry("abc", CORRECTED, SETTINGS)
    assert (raised.value.status, hub.given("abc")["record"]) == (409, FIRST.record)


AGAIN = {"outcome": "deferred", "reason": "503", "may_be_stored": False}


async def test_a_cancel_is_raised_until_the_orchestration_has_seen_it() -> None:
    hub = StagedHub(AGAIN)
    await hub.operations.start("abc", FIRST)
    await asyncio.sleep(60.0)  # the second attempt is under way
    operation = await hub.operations.cancel("abc")
    assert (operation.state, operation.cancelling) == ("deferred", True)
    assert hub.changes[1:] == [("POST", "/instances/abc/raiseEvent/Cancel", 202)]


async def test_a_cancel_that_is_lost_as_a_round_begins_is_raised_again() -> None:
    report = Report(deferred=(Deferral(indexes=(0,), reason="503", retry_after=10.0),))
    raised = set()
    for seed, moment in itertools.product(range(3), range(20, 80, 5)):
        hub = StagedHub(stored(report), seed=seed)
        await hub.operations.start("abc", Batch.of([business(1)], SETTINGS))
        await asyncio.sleep(10.0 + moment / 1000)
        operation = await hub.operations.cancel("abc")
        assert operation.cancelling or operation.state == "cancelled"
        raised.add(len(hub.changes) - 1)
    assert raised == {1, 2}


async def test_a_cancel_that_is_not_seen_in_time_is_a_503_to_try_again() -> None:
    hub = StagedHub()
    hub.put("abc", "Running", DEFERRED)
    with pytest.raises(RequestError) as raised:
        await hub.operations.cancel("abc")
    assert (raised.value.status, raised.value.retry_after) == (503, 1.0)
    assert hub.changes == [("POST", "/instances/abc/raiseEvent/Cancel", 202)] * 30


@pytest.mark.parametrize(("outcome", "status"), [(CANCELLED, 202), (TAKEN, 409), (REJECTED, 409)])
async def test_a_cancel_that_meets_the_end_tells_how_it_ended(outcome: dict[str, Any], status: int) -> None:
    async def end() -> None:
        progress = {"attempt": 2, "outcome": outcome}
        hub.put("abc", "Completed", progress, progress)

    hub = StagedHub()
    hub.put("abc", "Running", DEFERRED)
    hub.before["POST"] = end
    if status == 202:
        assert (await hub.operations.cancel("abc")).state == "cancelled"
    else:
        with pytest.raises(RequestError, match="the operation has ended") as raised:
            await hub.operations.cancel("abc")
        assert raised.value.status == status
    assert [answered for _, _, answered in hub.changes] == [410]


async def test_what_failed_or_was_terminated_tells_of_no_further_attempt() -> None:
    hub = StagedHub()
    for status, state in (("Failed", "failed"), ("Terminated", "cancelled")):
        hub.put("abc", status, DEFERRED, "why")
        operation = await hub.operations.get("abc")
        assert (operation.state, operation.next_attempt_at, operation.may_be_stored) == (state, None, True)
        assert operation.outcome is None or operation.outcome.outcome == "cancelled"


async def test_a_record_whose_answer_was_read_is_never_sent_again() -> None:
    for not_stored in (False, True):
        with pytest.raises(RequestError, match="only a delivery that ended unposted"):
            await ended(TAKEN).operations.retry("abc", NOTHING, SETTINGS, not_stored=not_stored)


async def test_what_a_gateway_seems_to_have_answered_is_sent_again_if_the_caller_knows_that_it_is_not_stored() -> None:
    operations = ended({"outcome": "posted", "warning": "200: expected JSON, got text/html"}).operations
    with pytest.raises(RequestError, match="only a delivery that ended unposted"):
        await operations.retry("abc", NOTHING, SETTINGS)
    assert (await operations.retry("abc", NOTHING, SETTINGS, not_stored=True)).state == "pending"


async def test_the_key_of_a_started_operation_travels_in_its_input() -> None:
    hub = StagedHub()
    await hub.operations.start("abc", FIRST)
    await hub.operations.start("def", BATCH)
    assert Delivery.model_validate(hub.given("abc")).attempt("other").idempotency_key == "abc"
    batch = Batch.model_validate(hub.given("def"))
    chunk = Round(batch.begun("other", NOW), NOW).next_chunk(NOW)
    assert chunk is not None
    assert next(chunk.attempts())[1].idempotency_key == "def-0"


@pytest.mark.parametrize("status", ["Failed", "Terminated"])
async def test_a_batch_that_was_cut_short_says_of_no_record_that_it_was_not_sent(status: str) -> None:
    """Activities go on for a while, and nobody is there to whom they could tell."""
    report = Report(settled=(0,), results='"7"', counts=Counts(posted=1))
    operations = hub_with(BATCH, report, status=status).operations
    operation = await operations.get("abc")
    assert operation.batch is not None
    assert (operation.may_be_stored, operation.batch.may_be_stored) == (True, 99)
    outcomes = await operations.outcomes("abc")
    assert len(outcomes) == 100
    assert [index for index, one in enumerate(outcomes) if may_be_stored(one)] == [*range(1, 100)]


async def test_a_batch_that_was_cut_short_after_its_last_record_is_not_in_doubt() -> None:
    settled = {"tally": {"total": 2, "posted": 1, "rejected": 1}, "round": 1, "rate": 1.0}
    hub = StagedHub()
    for doubts in (0, 1):
        hub.put("abc", "Terminated", {**settled, "may_be_stored": doubts}, "why", name=BATCHES)
        assert (await hub.operations.get("abc")).may_be_stored == bool(doubts)


async def test_operations_with_warnings_can_be_told_from_others() -> None:
    hub = ended(TAKEN)
    warned = {"attempt": 1, "outcome": {"outcome": "posted", "warning": "204: expected JSON, the body is empty"}}
    hub.put("def", "Completed", warned, warned)
    progress = {"tally": {"total": 2, "posted": 2}, "round": 1, "rate": 0.0}
    for name, warnings in (("ghi", 1), ("jkl", 0)):
        hub.put(name, "Completed", {**progress, "warnings": warnings}, {}, name=BATCHES)
    since = datetime(2025, 1, 1, tzinfo=UTC)
    listed, _ = await list_operations(hub.client, ListQuery(since=since, warning=True))
    assert {operation.id for operation in listed} == {"def", "ghi"}
    assert len((await list_operations(hub.client, ListQuery(since=since)))[0]) == 4


async def test_inputs_are_not_asked_for_where_nobody_needs_them() -> None:
    """They are megabytes for a large batch, and so are histories."""
    hub = StagedHub()
    hub.put("def", "Completed", given="big")
    await hub.client.start_new(BATCHES, "abc", stored(BATCH))
    await asyncio.sleep(1.0)
    await hub.operations.get("abc", wait=0.3)
    await hub.operations.cancel("abc")
    await hub.operations.erase("def")
    looked_up = [path.partition("?")[2] for method, path, _ in hub.requests if method == "GET"]
    assert set(looked_up) == {"showInput=false"}
    assert [path for _, path, _ in hub.changes[1:]] == ["/instances/abc/raiseEvent/Cancel", "/instances/def"]


# Batches: what has become of each record, and another try


NOW = datetime(2026, 1, 1, tzinfo=UTC)


def hub_with(batch: Batch, *reports: Report, status: str = "Completed", seed: int = 0) -> StagedHub:
    """A task hub with a batch, `abc`, whose activities have returned these reports."""
    hub, batch = StagedHub(seed=seed), batch.model_copy(update={"key": "abc"})
    round_ = Round(batch.begun("abc", NOW), NOW)
    for report in reports:
        round_.take_in(report, NOW)
    shown = stored(round_.status(NOW))
    output = shown if status == "Completed" else None
    hub.put("abc", status, shown, output, name=BATCHES, given=stored(batch), returned=[*map(stored, reports)])
    return hub


REFUSED_ONE = '{"outcome":"rejected","status":422}'
DOUBTED_ONE = '{"outcome":"gave_up","reason":"500","may_be_stored":true}'
MIXED = Report(
    settled=(0, 1, 2, 3),
    results=f'"7"\n{REFUSED_ONE}\n{DOUBTED_ONE}\n{{"outcome":"cancelled","reason":"not sent"}}',
    counts=Counts(posted=1, rejected=1, gave_up=1, cancelled=1, may_be_stored=1),
)
FOUR = Batch.of([business(n) for n in range(1, 5)], SETTINGS)


def started_again(hub: StagedHub) -> dict[int, tuple[str, Record, bool]]:
    """What the batch that was retried is about to send: key, record and doubt by index."""
    batch = Batch.model_validate(hub.given("abc"))
    assert batch.mark
    chunk = Round(batch.begun("abc", NOW), NOW).next_chunk(NOW)
    assert chunk is not None
    return {
        index: (attempt.idempotency_key, attempt.record, index in chunk.doubts) for index, attempt in chunk.attempts()
    }


async def test_a_batch_is_sent_again_but_for_what_is_posted_and_only_what_was_refused_under_another_key() -> None:
    hub = hub_with(FOUR, MIXED)
    operation = await hub.operations.retry("abc", NOTHING, SETTINGS)
    assert (operation.id, operation.state, operation.may_be_stored) == ("abc", "pending", True)
    assert started_again(hub) == {
        1: ("abc-1.1", example(2), False),
        2: ("abc-2", example(3), True),
        3: ("abc-3", example(4), False),
    }


async def test_what_is_corrected_goes_under_another_key_in_the_same_place() -> None:
    hub = hub_with(FOUR, MIXED)
    corrections = [{"index": 3, "record": example(40)}, {"index": 1, "record": example(20)}]
    await hub.operations.retry("abc", body(corrections), SETTINGS)
    sent = started_again(hub)
    assert (sent[1], sent[3]) == (("abc-1.1", example(20), False), ("abc-3.1", example(40), False))


async def test_what_may_be_stored_is_not_corrected_unless_the_caller_takes_it_on() -> None:
    hub, corrections = hub_with(FOUR, MIXED), body([{"index": 2, "record": example(30)}])
    with pytest.raises(RequestError) as raised:
        await hub.operations.retry("abc", corrections, SETTINGS)
    (error,) = raised.value.problem.model_dump()["errors"]
    assert (raised.value.status, error["index"], "may be stored" in error["detail"]) == (409, 2, True)
    assert not hub.changes
    await hub.operations.retry("abc", corrections, SETTINGS, not_stored=True)
    assert started_again(hub)[2] == ("abc-2.1", example(30), False)


async def test_a_skipped_record_is_sent_once_it_is_corrected_and_stays_skipped_otherwise() -> None:
    invalid = ItemInvalid(field="name", detail="Field required")
    batch = Batch.of([invalid, business(2), invalid], SETTINGS)
    posted = Report(settled=(1,), results='"7"', counts=Counts(posted=1))
    hub = hub_with(batch, posted)
    with pytest.raises(RequestError, match="nothing is left") as raised:
        await hub.operations.retry("abc", NOTHING, SETTINGS)
    assert raised.value.status == 409
    await hub.operations.retry("abc", body([{"index": 2, "record": example(3)}]), SETTINGS)
    assert started_again(hub) == {2: ("abc-2", example(3), False)}
    again = Batch.model_validate(hub.given("abc"))
    assert (again.counts.invalid, [one.outcome for one in again.outcomes]) == (1, ["invalid", "posted", "pending"])


@pytest.mark.parametrize(
    ("corrections", "field", "detail"),
    [
        ([{"index": 4, "record": example(2)}], "index", "expected 0 to 3, got 4"),
        ([{"index": 1, "record": example(2)}] * 2, "index", "1 stands there twice"),
        ([{"index": "1", "record": example(2)}], "index", "valid integer"),
        ([{"index": -1, "record": example(2)}], "index", "greater than or equal to 0"),
        ([{"record": example(2)}], "index", "required"),
        ([{"index": 1}], "record", "required"),
        ([{"index": 1, "record": example(2) | {"unknown": 1}}], "record.unknown", "not permitted"),
        ([7], "(record)", "expected an object"),
    ],
)
async def test_a_correction_that_is_none_is_refused_with_its_place_and_field(
    corrections: Any, field: str, detail: str
) -> None:
    hub = hub_with(FOUR, MIXED)
    with pytest.raises(RequestError) as raised:
        await hub.operations.retry("abc", body(corrections), SETTINGS)
    (error,) = raised.value.problem.model_dump()["errors"]
    assert (raised.value.status, error["index"], error["field"]) == (400, len(corrections) - 1, field)
    assert detail in error["detail"]


async def test_a_posted_record_is_not_corrected() -> None:
    hub = hub_with(FOUR, MIXED)
    with pytest.raises(RequestError) as raised:
        await hub.operations.retry("abc", body([{"index": 0, "record": example(9)}]), SETTINGS)
    (error,) = raised.value.problem.model_dump()["errors"]
    assert (raised.value.status, error["detail"]) == (409, "the API has this record")


async def test_what_a_gateway_seems_to_have_taken_of_a_batch_is_corrected_if_the_caller_knows_better() -> None:
    line = '{"outcome":"posted","warning":"200: expected JSON"}'
    hub = hub_with(FOUR, Report(settled=(0, 1), results=f"{line}\n{line}", counts=Counts(posted=2, warnings=2)))
    again = body([{"index": 1, "record": example(2)}])
    with pytest.raises(RequestError, match="cannot be corrected"):
        await hub.operations.retry("abc", again, SETTINGS)
    await hub.operations.retry("abc", again, SETTINGS, not_stored=True)
    sent = started_again(hub)
    assert (set(sent), sent[1]) == ({1, 2, 3}, ("abc-1.1", example(2), False))


async def test_a_batch_that_runs_is_not_retried() -> None:
    with pytest.raises(RequestError, match="only a batch that has ended") as raised:
        await hub_with(FOUR, status="Running").operations.retry("abc", NOTHING, SETTINGS)
    assert raised.value.status == 409


async def test_of_two_retries_of_a_batch_at_once_one_counts_and_the_other_is_told() -> None:
    corrected = body([{"index": 1, "record": example(20)}])
    for seed in range(20):
        hub = hub_with(FOUR, MIXED, seed=seed)
        retries = (hub.operations.retry("abc", corrections, SETTINGS) for corrections in (NOTHING, corrected))
        counts = retried_twice(await asyncio.gather(*retries, return_exceptions=True))
        assert started_again(hub)[1][1] == (example(2), example(20))[counts]


async def test_a_corrected_batch_that_the_backend_cannot_take_is_a_413(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BATCH_MAX_BYTES", "10000")
    hub = hub_with(Batch.of([business(1)] * 100, SETTINGS))
    with pytest.raises(RequestError) as raised:
        await hub.operations.retry("abc", NOTHING, SETTINGS)
    assert (raised.value.status, hub.changes) == (413, [])


async def test_while_a_batch_runs_its_results_are_told_as_the_activities_return_them() -> None:
    deferred = Deferral(indexes=(2,), reason="503", may_be_stored=True)
    report = Report(
        settled=(0, 1), results=f'"7"\n{REFUSED_ONE}', counts=Counts(posted=1, rejected=1), deferred=(deferred,)
    )
    hub = hub_with(FOUR, report, status="Running")
    outcomes = await hub.operations.outcomes("abc")
    assert [one.outcome for one in outcomes] == ["posted", "rejected", "deferred", "pending"]
    assert [may_be_stored(one) for one in outcomes] == [False, False, True, False]


async def test_what_its_input_says_and_what_its_activities_returned_belong_to_the_same_round() -> None:
    """An orchestration may start anew between the two: what its history began with counts."""
    hub = hub_with(FOUR, MIXED)
    later = Round(FOUR.begun("abc", NOW), NOW)
    later.take_in(MIXED, NOW)
    hub.instances["abc"].input = json.dumps(stored(later.following(NOW, due=NOW)))
    outcomes = await hub.operations.outcomes("abc")
    assert [one.outcome for one in outcomes] == ["posted", "rejected", "gave_up", "cancelled"]


async def test_of_two_results_of_an_activity_that_was_run_twice_the_first_is_told_and_a_yes_is_never_sent_again() -> (
    None
):
    """The orchestrator, and so the tally, goes by the first one."""
    first, second = (
        MIXED.model_copy(update={"number": 0}),
        Report(settled=(1, 2), results='"8"\n"9"', counts=Counts(posted=2), number=0),
    )
    hub = hub_with(FOUR, first)
    hub.put(
        "abc",
        "Completed",
        hub.instances["abc"].custom_status,
        hub.instances["abc"].output,
        name=BATCHES,
        given=stored(FOUR.model_copy(update={"key": "abc"})),
        returned=[stored(first), stored(second)],
    )
    outcomes = await hub.operations.outcomes("abc")
    assert [one.outcome for one in outcomes] == ["posted", "rejected", "gave_up", "cancelled"]
    await hub.operations.retry("abc", NOTHING, SETTINGS)
    assert {*started_again(hub)} == {3}


async def test_a_single_record_has_no_results() -> None:
    with pytest.raises(RequestError) as raised:
        await ended(TAKEN).operations.outcomes("abc")
    assert raised.value.status == 404
