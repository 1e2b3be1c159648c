"""The list of operations is complete and in order, page after page, whatever goes on meanwhile."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.operations.durable_http import Instance, RuntimeStatus
from shared.operations.list_query import ListQuery, Place, place_of
from shared.operations.listing import REQUEST_LIMIT, RUNTIME_STATUSES, list_operations
from shared.operations.model import Operation, State
from shared.operations.status import BATCH, DELIVERY, describe
from tests.simulation.staged import StagedHub

pytestmark = pytest.mark.virtual_time

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
FOREIGN = "SomethingElse"


def id_of(number: int) -> str:
    """The id of an operation: as good as random."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:32]


def ended(outcome: str) -> dict[str, Any]:
    """The status of a delivery that ended so."""
    needed: dict[str, dict[str, Any]] = {
        "posted": {"id": "1"},
        "rejected": {"status": 422, "problem": {}},
        "gave_up": {"reason": "503"},
        "cancelled": {"reason": "503"},
        "deferred": {"reason": "503"},
    }
    return {"attempt": 1, "outcome": {"outcome": outcome, **needed[outcome]}}


POSTED = ended("posted")


def add(hub: StagedHub, number: int, created: datetime, state: str = "posted") -> str:
    """Have an operation there."""
    hub.put(id_of(number), "Completed", ended(state), ended(state), created=created)
    return id_of(number)


def add_batch(hub: StagedHub, number: int, created: datetime, others: int) -> str:
    """Have a batch there, and instances of another orchestrator in the same task hub, which began after it."""
    operation_id = id_of(number)
    hub.put(operation_id, name=BATCH, created=created)
    for other in range(others):
        begun = created + timedelta(seconds=other / 10)
        hub.put(f"{operation_id}-{other:03}", name=FOREIGN, output={"x": 1}, created=begun)
    return operation_id


async def walk(
    hub: StagedHub, query: ListQuery, meanwhile: Callable[[int], object] = lambda _: None, most: int = 1_000
) -> list[list[Operation]]:
    """All pages, one after another; between them, something may happen."""
    pages: list[list[Operation]] = []
    while len(pages) < most:
        before = len(hub.requests)
        page, place = await list_operations(hub.client, query)
        assert len(page) <= query.limit
        assert len(hub.requests) - before <= REQUEST_LIMIT + 3
        pages.append(page)
        if place is None:
            return pages
        assert query.after is None or place < query.after
        query = replace(query, after=place)
        meanwhile(len(pages))
    raise AssertionError(f"there is no end after {most} pages")


def ids(pages: list[list[Operation]]) -> list[str]:
    operations = [operation for page in pages for operation in page]
    assert all(place_of(one) > place_of(next_one) for one, next_one in pairwise(operations))
    return [operation.id for operation in operations]


@pytest.mark.parametrize("limit", [1, 50, 200])
@pytest.mark.parametrize("span", [timedelta(), timedelta(minutes=1), 30 * DAY], ids=str)
async def test_all_of_many_operations_are_listed_on_full_pages_the_latest_first(limit: int, span: timedelta) -> None:
    hub, count = StagedHub(), 263
    expected = {add(hub, number, NOW - span * (number / count)) for number in range(count)}
    pages = await walk(hub, ListQuery(since=NOW - 31 * DAY, limit=limit))
    assert set(ids(pages)) == expected
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


async def test_operations_are_found_among_many_instances_of_another_orchestrator() -> None:
    hub = StagedHub()
    singles = {add(hub, number, NOW - timedelta(minutes=number)) for number in range(5)}
    batch = add_batch(hub, 100, NOW - timedelta(minutes=2), others=110)
    pages = await walk(hub, ListQuery(since=NOW - DAY))
    assert (len(pages), set(ids(pages))) == (1, {*singles, batch})


@pytest.mark.parametrize("span", [timedelta(seconds=30), timedelta(minutes=5), DAY, 30 * DAY], ids=str)
async def test_the_first_page_of_5_000_takes_few_requests_and_reads_little(span: timedelta) -> None:
    hub = StagedHub()
    for number in range(5_000):
        add(hub, number, NOW - span * (number / 5_000))
    page, place = await list_operations(hub.client, ListQuery(since=NOW - 31 * DAY))
    assert (len(page), place) == (50, place_of(page[-1]))
    assert len(hub.requests) <= 10
    assert hub.listed <= 400


async def test_a_gap_of_months_is_bridged() -> None:
    hub = StagedHub()
    expected = {add(hub, number, NOW - timedelta(seconds=number)) for number in range(150)}
    expected |= {add(hub, number, NOW - 200 * DAY - timedelta(seconds=number)) for number in range(150, 300)}
    assert set(ids(await walk(hub, ListQuery(since=NOW - 365 * DAY)))) == expected


async def test_what_was_created_by_a_clock_that_is_ahead_is_listed_too() -> None:
    hub = StagedHub()
    expected = {add(hub, number, NOW + timedelta(seconds=number)) for number in range(250)}
    assert set(ids(await walk(hub, ListQuery(since=NOW - DAY)))) == expected


async def test_the_span_begins_at_since_and_ends_before_until() -> None:
    hub = StagedHub()
    for number in range(-3, 4):
        add(hub, number, NOW + timedelta(seconds=number / 2))
    pages = await walk(hub, ListQuery(since=NOW - SECOND, until=NOW + SECOND, limit=2))
    assert set(ids(pages)) == {id_of(number) for number in (-2, -1, 0, 1)}
    assert await walk(hub, ListQuery(since=NOW, until=NOW)) == [[]]


async def test_nothing_is_asked_of_the_task_hub_once_the_end_is_reached() -> None:
    hub = StagedHub()
    query = ListQuery(since=NOW, after=Place(NOW - DAY))
    assert await list_operations(hub.client, query) == ([], None)
    assert not hub.requests


async def test_rare_states_are_found_on_pages_that_may_be_short_but_cost_little() -> None:
    hub = StagedHub()
    for number in range(20_000):
        add(hub, number, NOW - timedelta(seconds=number), "posted" if number % 1_999 else "rejected")
    rare = {id_of(number) for number in range(0, 20_000, 1_999)}
    pages = await walk(hub, ListQuery(since=NOW - DAY, states=frozenset({"rejected", "deferred"})))
    assert set(ids(pages)) == rare
    assert len(pages) < 10


async def test_what_is_still_under_way_is_found_without_reading_what_has_ended() -> None:
    hub = StagedHub()
    for number in range(3_000):
        add(hub, number, NOW - timedelta(seconds=number))
    hub.put("deferred", custom_status=ended("deferred"), created=NOW - timedelta(seconds=2_900))
    page, place = await list_operations(hub.client, ListQuery(since=NOW - DAY, states=frozenset({"deferred"})))
    assert ([one.id for one in page], place, len(hub.requests), hub.listed) == (["deferred"], None, 1, 1)


@pytest.mark.parametrize("runtime_status", RuntimeStatus)
@pytest.mark.parametrize("reported", [None, *map(ended, ("posted", "rejected", "gave_up", "cancelled", "deferred"))])
def test_every_state_is_asked_for_by_what_the_engine_calls_it(
    runtime_status: RuntimeStatus, reported: dict[str, Any] | None
) -> None:
    output = reported if runtime_status is RuntimeStatus.Completed else None
    if runtime_status is not RuntimeStatus.Completed or (reported and reported["outcome"]["outcome"] != "deferred"):
        told = {"runtimeStatus": runtime_status, "customStatus": reported, "output": output}
        operation = describe(Instance.model_validate({"name": DELIVERY, "instanceId": "abc", **told}))
        assert runtime_status.name in {status.name for status in RUNTIME_STATUSES[operation.state]}
    assert RUNTIME_STATUSES.keys() == set(get_args(State.__value__))


async def test_new_operations_retried_ones_and_other_states_spoil_no_page() -> None:
    hub = StagedHub()
    before = [add(hub, number, NOW - timedelta(seconds=number // 3)) for number in range(600)]
    retried = {before[5], before[-1]}  # one has been listed before it is retried, the other has not

    def meanwhile(page: int) -> None:
        add(hub, 1_000 + page, NOW)
        add(hub, 2_000 + page, NOW + timedelta(seconds=page), "rejected")
        if page == 1:
            for operation_id in retried:
                hub.instances[operation_id].created = NOW + SECOND

    listed = ids(await walk(hub, ListQuery(since=NOW - DAY), meanwhile))
    assert len(listed) == len(set(listed))
    assert set(before) - set(listed) == {before[-1]}


@settings(max_examples=40, deadline=None)
@given(data=st.data())
async def test_the_pages_together_hold_what_was_there_at_the_start_exactly_once(data: st.DataObject) -> None:
    rng = random.Random(data.draw(st.integers(0, 10**6)))
    span = data.draw(st.sampled_from([0.5, 3.0, 60.0, 86_400.0, 86_400.0 * 40]))
    hub = StagedHub()
    before = {
        add(hub, n, NOW - timedelta(seconds=rng.uniform(0, span) * rng.random())) for n in range(rng.randrange(400))
    }
    before |= {
        add_batch(hub, 10_000 + n, NOW - timedelta(seconds=rng.uniform(0, span)), rng.randrange(150))
        for n in range(rng.randrange(4))
    }
    began_again: set[str] = set()

    def meanwhile(page: int) -> None:
        later = NOW + timedelta(seconds=page * rng.random())
        for number in range(rng.randrange(20)):
            add(hub, 100_000 + 100 * page + number, later, rng.choice(["posted", "rejected"]))
        for operation_id in rng.sample(sorted(before), min(len(before), rng.randrange(3))):
            hub.instances[operation_id].created = later
            began_again.add(operation_id)
        for operation_id in rng.sample(sorted(before), min(len(before), 5)):
            hub.instances[operation_id].status = "Suspended"

    query = ListQuery(since=NOW - 41 * DAY, limit=data.draw(st.sampled_from([5, 50, 200])))
    listed = ids(await walk(hub, query, meanwhile))
    assert len(listed) == len(set(listed))
    assert before - began_again <= set(listed)
