"""What ended long ago is forgotten, in bounded steps; what runs, or ended lately, is not."""

from datetime import UTC, datetime, timedelta

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devhost.testing import RunningHost
from shared.business import example
from shared.operations.problems import RequestError
from shared.operations.retention import REQUEST_LIMIT, TIME_BUDGET, cutoff, purge_before
from shared.operations.status import BATCH, DELIVERY
from tests.sandboxed import NewRecord, key_of
from tests.simulation.staged import StagedHub

pytestmark = pytest.mark.virtual_time

NOW = datetime(2026, 6, 1, 3, 30, tzinfo=UTC)


class Backlog:
    """Ended instances, so many a day for so many days, of which the engine deletes so many a second.

    Each request costs a second, since the engine reads through all instances, and deletes all that is in its span, also
    when nobody waits for it any more.
    """

    def __init__(self, per_day: float, days: int, *, per_second: float = 100.0) -> None:
        self.left = {NOW - timedelta(days=n / per_day) for n in range(int(per_day * days))}
        self.now = 0.0
        self.requests = 0
        self._per_second = per_second

    async def purge(self, begin: datetime, end: datetime) -> int:
        found = {created for created in self.left if begin <= created <= end}
        self.left -= found
        self.requests += 1
        took = 1.0 + len(found) / self._per_second
        self.now += min(took, REQUEST_LIMIT)
        if took > REQUEST_LIMIT:
            raise TimeoutError
        return len(found)

    async def night(self) -> tuple[int, datetime]:
        return await purge_before(NOW, self.purge, lambda: self.now)


def test_an_operation_is_kept_for_the_retention_after_the_longest_delivery() -> None:
    assert cutoff(NOW, 30) == NOW - timedelta(days=37)


async def test_all_that_began_before_is_purged_in_a_night_if_there_is_little() -> None:
    backlog = Backlog(per_day=100, days=30)
    purged, reached = await backlog.night()
    assert (purged, backlog.left, reached.year) == (3000, set(), 2000)


async def test_a_night_without_anything_to_purge_costs_few_requests() -> None:
    backlog = Backlog(per_day=1, days=0)
    assert (await backlog.night())[0] == 0
    assert backlog.requests <= 30


@pytest.mark.parametrize("per_day", [200, 1_000, 20_000])
async def test_a_backlog_of_100_000_is_worked_off_over_several_nights_each_within_its_limit(per_day: int) -> None:
    backlog, nights = Backlog(per_day=per_day, days=100_000 // per_day, per_second=100), 0
    while backlog.left:
        began, before = backlog.now, len(backlog.left)
        await backlog.night()
        nights += 1
        assert len(backlog.left) < before
        assert backlog.now - began <= TIME_BUDGET + REQUEST_LIMIT < 300  # the least limit of a function on Azure
    assert 1 < nights < 20


@settings(max_examples=30, deadline=None)
@given(per_day=st.integers(1, 300), days=st.integers(1, 100), per_second=st.sampled_from([5.0, 20.0, 200.0]))
async def test_every_night_there_is_less_until_nothing_is_left(per_day: int, days: int, per_second: float) -> None:
    backlog = Backlog(per_day, days, per_second=per_second)
    while backlog.left:
        began, before = backlog.now, len(backlog.left)
        await backlog.night()
        assert len(backlog.left) < before
        assert backlog.now - began <= TIME_BUDGET + REQUEST_LIMIT


# The functions


def test_the_timer_purges_nothing_that_runs_or_has_just_ended(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="post_business")
    ended = app.post("/api/businesses", json=new_record()).json()["id"]
    host.wait(ended)
    with host.held("PostBusiness") as held:
        running = app.post("/api/businesses", json=new_record()).json()["id"]
        held.wait()
        app.post("/admin/functions/PurgeOperations", json={"input": ""}).raise_for_status()
        while "Purged 0 instances of ended operations, back to 2000" not in caplog.text:
            host.status(running)
        for operation_id in (ended, running):
            assert app.get(f"/api/businesses/operations/{operation_id}").status_code == 200
    host.wait(running)


@pytest.fixture
def hub() -> StagedHub:
    hub = StagedHub()
    hub.put("ended", "Completed")
    hub.put("running", "Running", {"attempt": 1, "outcome": {"outcome": "deferred", "reason": "503"}})
    hub.put("ended2", "Completed")
    return hub


async def test_an_operation_is_erased_and_nothing_else(hub: StagedHub) -> None:
    hub.put("batch", "Completed", name=BATCH)
    await hub.operations.erase("batch")
    await hub.operations.erase("ended")
    assert hub.instances.keys() == {"running", "ended2"}


@pytest.mark.parametrize(("operation_id", "status"), [("running", 409), ("unknown", 404), ("foreign", 404)])
async def test_what_runs_or_is_no_operation_is_not_erased(hub: StagedHub, operation_id: str, status: int) -> None:
    hub.put("foreign", "Completed", name="SomethingElse")
    with pytest.raises(RequestError) as raised:
        await hub.operations.erase(operation_id)
    assert (raised.value.status, hub.changes) == (status, [])


@pytest.mark.parametrize("before", [["DELETE"], ["DELETE", "GET"]], ids=["before it is purged", "after that"])
async def test_an_operation_that_is_started_again_meanwhile_is_not_erased(hub: StagedHub, before: list[str]) -> None:
    async def meanwhile() -> None:
        if before:
            hub.before[before.pop(0)] = meanwhile
        else:
            await hub.client.start_new(DELIVERY, "ended", {"record": example()})

    await meanwhile()
    with pytest.raises(RequestError, match="started again"):
        await hub.operations.erase("ended")


def test_an_erased_operation_leaves_nothing_of_its_record_in_the_task_hub(
    host: RunningHost, app: httpx.Client, new_record: NewRecord
) -> None:
    record, batch = new_record(), [new_record() for _ in range(250)]
    started = [app.post("/api/businesses", json=record), app.post("/api/businesses/batch", json=batch)]
    for answer in started:
        host.wait(answer.json()["id"])
    assert key_of(record) in host.dump()
    for answer in started:
        assert app.delete(answer.headers["Location"]).status_code == 204
        assert app.delete(answer.headers["Location"]).status_code == 404
    assert [key_of(one) for one in (record, *batch) if key_of(one) in host.dump()] == []
