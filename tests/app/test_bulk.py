"""Many operations are retried or cancelled by one request: each that its filter finds, and each once."""

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.delivery.batches import Batch
from shared.delivery.bounds import stored
from shared.delivery.chunks import Chunk, Deferral, Report
from shared.delivery.records import Delivery
from shared.functions import bulk as functions
from shared.operations import bulk_work, resource
from shared.operations.bulk import Bulk, Selected
from shared.operations.model import Operation
from shared.operations.problems import RequestError
from shared.operations.requests import Corrections
from shared.operations.status import BATCH, BULK
from shared.settings import DeliverySettings
from tests.sandboxed import business
from tests.simulation.chance import Chance
from tests.simulation.front import Answer
from tests.simulation.staged import StagedHub
from tests.simulation.task_hub import START

pytestmark = pytest.mark.virtual_time

SETTINGS = DeliverySettings()
DAY_BEFORE = START - timedelta(days=1)
RECORD = stored(Delivery.of(business(1), SETTINGS))


def id_of(number: int) -> str:
    """The id of an operation: as good as random."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def outcome(state: str, **told: Any) -> dict[str, Any]:
    """The status of a delivery that stands so."""
    needed: dict[str, dict[str, Any]] = {
        "posted": {"id": "1"},
        "rejected": {"status": 422, "problem": {"title": "Refused", "detail": "no such country"}},
    }
    return {
        "attempt": 1,
        "outcome": {"outcome": state, "reason": "the API answered 503", **needed.get(state, {}), **told},
    }


class BulkHub(StagedHub):
    """A task hub that runs the work on many operations.

    Attributes:
        failing: How many of its activities fail before the next one does its work.
        posted: The key of each record that was posted; every attempt takes years.
        unanswered: The operation of which nothing can be read.
        slow: Seconds that each request to the task hub takes.
        read_on: What happens whenever the list is read on.
    """

    def __init__(self, chance: Chance | None = None) -> None:
        super().__init__(chance=chance)
        self.failing = 0
        self.posted: list[str] = []
        self.unanswered = ""
        self.slow = 0.0
        self.read_on: Callable[[], None] = lambda: None

    async def __call__(self, method: str, url: str, body: Any = None, token: str = "") -> Answer:
        """Answer a request, or fail."""
        await asyncio.sleep(self.slow)
        if "createdTimeTo" in url:
            self.read_on()
        if self.unanswered and f"instances/{self.unanswered}" in url:
            return 500, None, {}
        return await super().__call__(method, url, body, token)

    async def _activity(self, name: str, given: str) -> str:
        if name == "PostBusiness":
            self.posted.append(json.loads(given)["idempotency_key"])
            await asyncio.sleep(1e9)
        if name == "PostBusinesses":
            await asyncio.sleep(0.1)
            chunk = Chunk.model_validate_json(given)
            due = Deferral(indexes=chunk.indexes, reason="busy", wait=1.0)
            return json.dumps(stored(Report(deferred=(due,))))
        if self.failing:
            self.failing -= 1
            raise RuntimeError("the task hub cannot be read")
        work = Bulk.model_validate_json(given)
        if name == "SelectOperations":
            return json.dumps(stored(await bulk_work.select(self.client, work)))
        return json.dumps(stored(await bulk_work.change(self.operations, work)))

    def add(self, number: int, state: str = "gave_up", *, seconds: float = 0, **told: Any) -> str:
        """Have a delivery there that has ended, or is under way, and began so many seconds before now."""
        shown, created = outcome(state, **told), START - timedelta(hours=1, seconds=seconds)
        running = state == "deferred"
        output = None if running else shown
        self.put(id_of(number), "Running" if running else "Completed", shown, output, given=RECORD, created=created)
        return id_of(number)

    @property
    def now(self) -> datetime:
        """The time."""
        return self._hub.now

    async def work(self, action: str, **filters: str) -> Operation:
        """Begin with the work, and see its end."""
        operation = await self.begin(action, **filters)
        return await self.operations.get(operation.id, wait=1e6)

    async def begin(self, action: str, **filters: str) -> Operation:
        """Begin with the work."""
        return await self.operations.start("bulk", read(action, **filters))

    @property
    def retried(self) -> set[str]:
        """The operations that were started again, by the work on many."""
        return {name for name in self.instances if '"mark": "bulk.' in json.dumps(self.given(name))}


def read(action: str, **filters: str) -> Bulk:
    """What a caller wants at the beginning of time."""
    return Bulk.read(action, {"since": f"{DAY_BEFORE:%Y-%m-%dT%H:%M:%SZ}", **filters}, SETTINGS, START)


def batch_of(count: int, posted: int) -> dict[str, Any]:
    """The status of a batch, of whose records some are posted and the others given up."""
    tally = {"total": count, "posted": posted, "gave_up": count - posted}
    return {"tally": tally, "round": 1, "rate": 1.0, "started_at": "2025-12-31T23:00:00Z"}


async def test_all_that_a_filter_finds_is_retried_and_nothing_else() -> None:
    hub = BulkHub()
    wanted = {hub.add(number, seconds=number) for number in range(250)}
    hub.add(300, "posted")
    hub.add(301, "rejected")
    hub.add(302, seconds=2 * 86_400)  # before the span
    other = hub.add(303, reason="another one")
    ended = await hub.work("retry", state="gave_up", reason="answered 503")
    assert (ended.state, ended.bulk and (ended.bulk.changed, ended.bulk.refused)) == ("completed", (250, 0))
    assert hub.retried == wanted
    assert other not in hub.retried


async def test_batches_are_retried_if_something_of_them_is_left() -> None:
    hub = BulkHub()
    given = stored(Batch.of([business(1), business(2)], SETTINGS))
    for number, posted in ((1, 1), (2, 2)):
        shown = batch_of(2, posted)
        hub.put(id_of(number), "Completed", shown, shown, name=BATCH, given=given, created=START - timedelta(hours=1))
    ended = await hub.work("retry", state="completed")
    assert ended.bulk
    assert (ended.bulk.changed, ended.bulk.refused) == (1, 0)
    assert hub.retried == {id_of(1)}


async def test_the_work_itself_is_never_worked_on() -> None:
    hub = BulkHub()
    assert (await hub.work("retry", state="completed")).state == "completed"
    assert (await bulk_work.preview(hub.client, read("retry", state="completed"))).matching == 0
    with pytest.raises(RequestError) as raised:
        await hub.operations.retry("bulk", Corrections({}, b""), SETTINGS)
    assert (raised.value.status, str(raised.value)) == (
        409,
        "the work on many operations is not retried: start it anew",
    )


async def test_a_dry_run_counts_all_shows_the_latest_ten_and_changes_nothing() -> None:
    hub = BulkHub()
    for number in range(300):
        hub.add(number, seconds=number)
    found = await bulk_work.preview(hub.client, read("retry", state="gave_up"))
    assert (found.matching, found.complete) == (300, True)
    assert [one.id for one in found.operations] == [id_of(number) for number in range(10)]
    assert not hub.changes


async def test_what_cannot_be_retried_is_told_with_its_reason() -> None:
    hub = BulkHub()
    hub.add(1)
    gone = hub.add(2)
    work = read("retry", state="gave_up").model_copy(
        update={"instance": "bulk", "selected": tuple(Selected(id_of(number), is_large=False) for number in (1, 2))}
    )
    del hub.instances[gone]
    changes = await bulk_work.change(hub.operations, work)
    assert changes.changed == 1
    assert [(one.id, one.detail) for one in changes.refusals] == [(gone, "there is no operation with this id")]


@pytest.mark.parametrize("action", ["retry", "cancel"])
async def test_done_a_second_time_it_changes_nothing_and_counts_the_same(action: str) -> None:
    """As where an activity runs again, since its result was lost."""
    hub = BulkHub()
    operation_id = hub.add(1) if action == "retry" else await started(hub)
    selected = (Selected(operation_id, is_large=False),)
    state = "gave_up" if action == "retry" else "running"
    work = read(action, state=state).model_copy(update={"instance": "bulk", "selected": selected})
    first = await bulk_work.change(hub.operations, work)
    begun = hub.instances[operation_id]
    await asyncio.sleep(60)
    assert await bulk_work.change(hub.operations, work) == first
    assert (first.changed, first.refusals, hub.instances[operation_id]) == (1, (), begun)


async def started(hub: BulkHub) -> str:
    """Have a delivery begin, which is under way for years."""
    operation = await hub.operations.start(id_of(77), Delivery.of(business(7), SETTINGS))
    await asyncio.sleep(60)
    return operation.id


async def test_what_is_under_way_is_cancelled_if_it_began_before_the_request() -> None:
    hub = BulkHub()
    hub.add(1)
    operation_id = await started(hub)
    for number, now, changed in ((1, START - timedelta(seconds=5), 0), (2, START + timedelta(seconds=5), 1)):
        work = Bulk.read("cancel", {"state": "running,deferred"}, SETTINGS, now)
        await hub.operations.start(f"bulk-{number}", work)
        ended = await hub.operations.get(f"bulk-{number}", wait=1e6)
        assert ended.bulk
        assert (ended.bulk.changed, ended.bulk.refused) == (changed, 0)
        assert (await hub.operations.get(operation_id)).cancelling == bool(changed)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not show is not waited for as long as usual, which takes thousands of look-ups."""
    monkeypatch.setattr(resource, "_CONFIRM_SECONDS", 2.0)


async def test_what_does_not_see_its_cancel_is_asked_for_ten_minutes_and_then_told() -> None:
    hub = BulkHub()
    hub.put(id_of(1), "Running", outcome("deferred"), given=RECORD, created=DAY_BEFORE)  # nobody runs it
    began = hub.now
    ended = await hub.work("cancel", state="deferred")
    assert timedelta(minutes=9) < hub.now - began < timedelta(minutes=12)
    assert ended.bulk
    assert (ended.state, ended.bulk.changed, ended.bulk.refused) == ("completed", 0, 1)
    assert "has not shown in ten minutes" in ended.bulk.refusals[0].detail


async def test_what_does_not_see_its_cancel_is_counted_once_though_the_list_is_gone_through_again(
    impatient: None,
) -> None:
    hub = BulkHub()
    hub.put(id_of(1), "Running", outcome("deferred"), given=RECORD, created=DAY_BEFORE)  # nobody runs it
    await started(hub)
    work = Bulk.read("cancel", {"state": "running,deferred", "since": "2025-12-31T00:00:00Z"}, SETTINGS, hub.now)
    await hub.operations.start("bulk", work)
    ended = await hub.operations.get("bulk", wait=1e6)
    assert ended.bulk
    assert (ended.state, ended.bulk.changed, ended.bulk.refused) == ("completed", 1, 1)


async def test_a_batch_whose_rounds_begin_anew_all_the_time_does_not_get_away() -> None:
    """Each round is created anew, so that it stands ahead of where the search is."""
    for seed in range(10):
        hub = BulkHub(Chance(seed))
        batch = Batch.of([business(1), business(2)], DeliverySettings(first_delay=0.5, max_delay=0.5))
        await hub.operations.start("batch", batch)
        await asyncio.sleep(20)
        work = Bulk.read("cancel", {"state": "pending,running,deferred"}, SETTINGS, hub.now)
        await hub.operations.start("bulk", work)
        ended = await hub.operations.get("bulk", wait=1e6)
        assert ended.state == "completed"
        batch_ended = await hub.operations.get("batch", wait=1e6)
        assert batch_ended.state == "cancelled", (seed, ended, batch_ended)


async def test_whatever_the_engine_does_each_is_retried_once_and_counted_once() -> None:
    for seed in range(10):
        hub = BulkHub(Chance(seed))
        wanted = {hub.add(number, seconds=number) for number in range(40)}
        ended = await hub.work("retry", state="gave_up")
        assert ended.bulk, seed
        assert (ended.state, ended.bulk.changed, ended.bulk.refused) == ("completed", 40, 0), (seed, ended)
        assert hub.retried == wanted
        await asyncio.sleep(3600)
        assert set(hub.posted) == wanted, seed


async def test_the_work_goes_on_where_it_was_after_its_history_began_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "_STEPS", 3)
    hub = BulkHub()
    for number in range(450):
        hub.add(number, seconds=number)
    ended = await hub.work("retry", state="gave_up")
    assert ended.bulk
    assert ended.bulk.changed == 450


async def test_a_task_hub_that_cannot_be_read_is_asked_again() -> None:
    hub = BulkHub()
    hub.add(1)
    hub.failing = 15
    ended = await hub.work("retry", state="gave_up")
    assert ended.bulk
    assert (ended.state, ended.bulk.changed) == ("completed", 1)


async def test_a_task_hub_that_can_never_be_read_is_told_after_ten_minutes() -> None:
    hub = BulkHub()
    hub.failing = 1_000
    began = asyncio.get_running_loop().time()
    assert (await hub.work("retry", state="gave_up")).state == "failed"
    assert 500 < asyncio.get_running_loop().time() - began < 700


async def test_the_work_is_cancelled_like_any_operation_and_what_is_left_stays_as_it_is() -> None:
    hub = BulkHub()
    for number in range(400):
        hub.add(number, seconds=number)
    await hub.begin("retry", state="gave_up")
    await asyncio.sleep(2)
    await hub.operations.cancel("bulk")
    ended = await hub.operations.get("bulk", wait=1e6)
    assert ended.bulk
    assert ended.state == "cancelled"
    assert 0 < ended.bulk.changed < 400
    assert len(hub.retried) == ended.bulk.changed


async def test_the_same_request_again_finds_the_same_work() -> None:
    hub = BulkHub()
    await hub.begin("retry", state="gave_up,rejected")
    await hub.begin("retry", state="rejected,gave_up")
    with pytest.raises(RequestError) as raised:
        await hub.begin("cancel", state="running")
    assert (raised.value.status, sum(one.name == BULK for one in hub.instances.values())) == (422, 1)


@pytest.mark.parametrize(
    ("action", "parameters", "told"),
    [
        ("retry", {}, "expected some of rejected, gave_up, completed, cancelled, failed, separated by commas in the"),
        ("retry", {"state": "posted"}, "expected some of rejected, "),
        ("retry", {"state": "gave_up,running"}, "expected some of rejected, "),
        ("cancel", {"state": "gave_up"}, "expected some of pending, running, deferred, separated by commas in the"),
        ("retry", {"state": "gave_up", "sinse": "2026-01-01T00:00:00Z"}, "expected only state, since, until, warning"),
        ("retry", {"state": "gave_up", "limit": "10"}, "expected only state, since, "),
        ("retry", {"state": "gave_up", "since": "yesterday"}, "expected a date and time such as "),
        ("retry", {"state": "gave_up", "reason": "x" * 201}, "expected at most 200 characters in the query parameter"),
    ],
)
def test_a_filter_that_is_none_is_refused_with_what_was_expected(
    action: str, parameters: Mapping[str, str], told: str
) -> None:
    with pytest.raises(RequestError) as raised:
        Bulk.read(action, parameters, SETTINGS, datetime.now(UTC))
    assert raised.value.status == 400
    assert str(raised.value).startswith(told)


def test_keys_and_gateways_are_no_filters() -> None:
    assert read("retry", state="gave_up", code="secret").fingerprint == read("retry", state="gave_up").fingerprint


def test_a_status_is_small_however_much_was_refused() -> None:
    work = read("retry", state="gave_up", reason="\N{GREEK SMALL LETTER PSI}" * 200)
    refusal = {"id": "x" * 32, "detail": "y" * 200}
    selected = tuple(Selected("x" * 32, is_large=False) for _ in range(100))
    changes = {"changed": 0, "refusals": [refusal] * 100, "left": []}
    status = work.model_copy(update={"selected": selected}).advanced(changes, START).status
    assert (status.refused, len(status.refusals)) == (100, 10)
    assert len(json.dumps(stored(status))) < 8_000


@pytest.mark.parametrize("given", [{}, "not JSON", {"record": {"name": "x"}, "revision": "many"}])
async def test_one_that_cannot_be_read_is_told_and_does_not_stop_the_others(given: Any) -> None:
    """As an orchestration that has failed because of its input, which `state=failed` finds."""
    hub = BulkHub()
    broken = id_of(0)
    hub.put(broken, "Failed", given=given, created=START - timedelta(hours=1))
    wanted = {hub.add(number, seconds=number) for number in range(1, 40)}
    ended = await hub.work("retry", state="failed,gave_up")
    assert ended.bulk
    assert (ended.state, ended.bulk.changed, ended.bulk.refused) == ("completed", 39, 1), ended
    assert [one.id for one in ended.bulk.refusals] == [broken]
    assert hub.retried == wanted


async def test_one_of_which_the_task_hub_never_answers_is_told_and_does_not_stop_the_others() -> None:
    hub = BulkHub()
    wanted = [hub.add(number, seconds=number) for number in range(40)]
    hub.unanswered = wanted[3]
    ended = await hub.work("retry", state="gave_up")
    assert ended.bulk
    assert (ended.state, ended.bulk.changed, ended.bulk.refused) == ("completed", 39, 1), ended
    assert [one.id for one in ended.bulk.refusals] == [hub.unanswered]
    assert hub.retried == {*wanted} - {hub.unanswered}


async def test_work_that_begins_anew_under_the_id_of_one_that_is_forgotten_retries_what_that_one_has_retried() -> None:
    hub = BulkHub()
    operation_id = hub.add(1)
    assert (await hub.work("retry", state="gave_up")).state == "completed"
    await asyncio.sleep(10)
    given = hub.given(operation_id)  # it gives up once more
    shown = outcome("gave_up", mark=given["mark"])
    hub.put(operation_id, "Completed", {}, {**shown, "mark": given["mark"]}, given=given, created=hub.now)
    await asyncio.sleep(60)
    await hub.operations.erase("bulk")
    await hub.operations.start("bulk", Bulk.read("retry", {"state": "gave_up"}, SETTINGS, hub.now))
    ended = await hub.operations.get("bulk", wait=1e6)
    assert ended.bulk
    assert ended.bulk.changed == 1
    assert hub.instances[operation_id].status == "Running"


async def test_no_batch_is_begun_after_the_time_is_up_and_the_others_have_their_turn() -> None:
    hub = BulkHub()
    given = stored(Batch.of([business(1)], SETTINGS))
    shown, selected = batch_of(1, 0), list[Selected]()
    for number in range(16):
        hub.put(id_of(number), "Completed", shown, shown, name=BATCH, given=given, created=START - timedelta(hours=1))
        selected.append(Selected(id_of(number), is_large=True))
    hub.slow = 20.0  # seconds that each look-up takes
    work = read("retry", state="completed").model_copy(update={"instance": "bulk", "selected": tuple(selected)})
    clock = asyncio.get_running_loop().time
    began = clock()
    changes = await bulk_work.change(hub.operations, work)
    assert clock() - began < 150
    assert changes.changed
    assert {one.id for one in changes.left} == {one.id for one in selected} - hub.retried


async def test_work_that_has_failed_or_was_terminated_is_about_no_record_that_may_be_stored() -> None:
    hub = BulkHub()
    for number, status in enumerate(("Failed", "Terminated")):
        hub.put(id_of(number), status, {"action": "retry", "filter": "state=failed"}, name=BULK)
        assert not (await hub.operations.get(id_of(number))).may_be_stored


async def test_a_cancel_is_told_though_the_task_hub_cannot_be_read() -> None:
    hub = BulkHub()
    hub.failing = 1_000
    await hub.begin("retry", state="gave_up")
    await asyncio.sleep(300)
    await hub.operations.cancel("bulk")
    assert (await hub.operations.get("bulk", wait=1e6)).state == "cancelled"


async def test_ids_that_operators_have_made_up_do_not_make_the_status_too_large() -> None:
    hub = BulkHub()
    for number in range(10):
        hub.put(
            f"{number}" * 900, "Completed", outcome("gave_up"), outcome("gave_up"), created=START - timedelta(hours=1)
        )
    ended = await hub.work("retry", state="gave_up")
    assert ended.bulk
    assert (ended.state, ended.bulk.changed, ended.bulk.refused) == ("completed", 0, 10)


async def test_a_batch_that_gets_ahead_of_the_search_while_a_long_list_is_read_does_not_get_away(
    impatient: None,
) -> None:
    hub = BulkHub()
    for number in range(2_000):  # which have begun after the request, and are not concerned
        created = START + timedelta(seconds=60 + number // 10)
        hub.put(id_of(number), "Running", outcome("deferred"), given=RECORD, created=created)
    shown, given = batch_of(1, 0), stored(Batch.of([business(1)], SETTINGS))
    hub.put("batch", "Running", shown, name=BATCH, given=given, created=START - timedelta(hours=1))
    await asyncio.sleep(600)
    hub.read_on = lambda: setattr(hub.instances["batch"], "created", hub.now)
    ended = await hub.work("cancel", state="pending,running,deferred")
    assert ended.bulk
    assert (ended.state, ended.bulk.changed + ended.bulk.refused) == ("completed", 1)
