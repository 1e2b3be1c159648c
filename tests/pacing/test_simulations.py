"""The pacer in front of simulated APIs, in virtual time: how fast, how many refusals, how many calls in an outage."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import nullcontext, suppress
from typing import Any, cast

import httpx
import pytest

from shared.pacing import Pacer
from shared.pacing.limits import STALL
from shared.rest import ApiTimeoutError
from tests.virtual_time import run_virtually

from .simulated import READ_TIMEOUT, Api, Process

IDEAL = 40.0


async def post_all(api: Api, records: int, **options: Any) -> tuple[float, Process]:
    """The seconds it takes one process to post that many records."""
    api.start()
    process = Process(api, **options)
    return await process.post(records), process


@pytest.mark.parametrize("fields", [False, True])
@pytest.mark.parametrize(("quota", "latency"), [(50, 0.01), (50, 0.1), (100, 0.05), (200, 0.01), (200, 0.05)])
def test_a_quota_is_used_up_and_hardly_ever_exceeded(quota: int, latency: float, fields: bool) -> None:
    records = int(quota * IDEAL)
    api = Api(latency=lambda _: latency, quota=quota, fields=fields)
    seconds, process = run_virtually(post_all(api, records))
    assert seconds <= 1.1 * IDEAL
    assert process.statuses[429] <= 0.01 * records


@pytest.mark.parametrize("fields", [False, True])
def test_two_processes_share_a_quota(fields: bool) -> None:
    async def both() -> tuple[list[float], int]:
        api = Api(quota=100, fields=fields)
        api.start()
        processes = [Process(api), Process(api)]
        seconds = await asyncio.gather(*(process.post(2000) for process in processes))
        return seconds, sum(process.statuses[429] for process in processes)

    seconds, refused = run_virtually(both())
    assert max(seconds) <= 1.1 * IDEAL
    assert refused <= 40


async def changed(quota: float, to: float) -> tuple[list[float], int]:
    """The share of its quota that is used, second by second after it changed, and the refusals since then."""
    api = Api(quota=quota)
    api.start()
    process = Process(api)
    await stopped_after(30, process)
    api.change_quota(to)
    refused = process.statuses[429]
    await stopped_after(40, process)
    used = [sum(second <= at < second + 1 for at in process.posted) / to for second in range(30, 70)]
    return used, process.statuses[429] - refused


async def stopped_after(seconds: float, process: Process) -> None:
    """Post without end, for that long."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await process.post(10**9)


@pytest.mark.parametrize("quota", [50, 100, 200])
def test_a_quota_that_is_halved_is_kept_within_ten_seconds_with_few_refusals(quota: int) -> None:
    used, refused = run_virtually(changed(quota, quota / 2))
    assert refused <= 0.02 * sum(used) * quota / 2
    assert 0.9 < sum(used[:10]) / 10 < 1.1
    assert 0.9 < sum(used[10:]) / 30 < 1.1


@pytest.mark.parametrize("quota", [50, 100])
def test_a_quota_that_is_doubled_is_found_again(quota: int) -> None:
    used, _ = run_virtually(changed(quota, quota * 2))
    assert sum(used[20:]) / 20 > 0.9


@pytest.mark.parametrize("outage", ["refused", "503", "hanging"])
def test_in_an_outage_there_are_few_calls_and_soon_after_it_the_first_post(outage: str) -> None:
    api = Api(latency=lambda _: 0.2, outage=outage, down=(10.0, 70.0))

    async def through_it() -> Process:
        api.start()
        process = Process(api)
        await stopped_after(100, process)
        return process

    posted = run_virtually(through_it()).posted
    assert sum(10 <= at < 70 for at, *_ in api.calls) <= 100
    assert min(at for at in posted if at >= 70) <= 75
    assert sum(80 <= at < 100 for at in posted) > 0.9 * 20 * 100


def test_an_outage_of_hours_is_probed_less_and_less() -> None:
    api = Api(latency=lambda _: 0.5, down=(1.0, 7201.0))

    async def through_it() -> Process:
        api.start()
        process = Process(api, longest_pause=900.0)
        await stopped_after(8200, process)
        return process

    posted = run_virtually(through_it()).posted
    assert sum(1 <= at < 301 for at, *_ in api.calls) <= 100
    assert sum(301 <= at < 7201 for at, *_ in api.calls) <= 20
    assert min(at for at in posted if at >= 7201) <= 7201 + 901


class Unpaced:
    """Lets everything through."""

    def admitted(self, request: httpx.Request) -> Any:
        return nullcontext(lambda response: None)


LATENCIES: dict[str, Callable[[int], float]] = {
    "grows with the square": lambda calls: 0.05 * (1 + (calls / 8) ** 2),
    "grows soon with the square": lambda calls: 0.05 * (1 + (calls / 4) ** 2),
    "grows evenly": lambda calls: 0.02 + 0.005 * calls,
    "a few at a time": lambda calls: 0.05 * max(1.0, calls / 5),
    "never grows": lambda calls: 0.1,
}


async def post_all_with(concurrency: int, api: Api, records: int) -> float:
    """The seconds it takes with so many calls under way all the time."""
    api.start()
    process = Process(api, callers=concurrency)
    process.pacer = cast("Pacer", Unpaced())
    return await process.post(records)


@pytest.mark.parametrize("kind", LATENCIES)
def test_as_many_calls_are_under_way_as_are_good_for_the_latency(kind: str) -> None:
    fixed = [post_all_with(number, Api(latency=LATENCIES[kind]), 2500) for number in (1, 2, 4, 6, 8, 12, 20)]
    best = min(map(run_virtually, fixed))
    seconds, _ = run_virtually(post_all(Api(latency=LATENCIES[kind]), 2500))
    assert seconds <= 1.2 * best


def one_at_a_time(calls: int) -> float:
    """The latency of an API that gets most done where a single call is under way."""
    return 0.02 + 0.03 * (calls - 1)


# Those of `make bench-batches`, and how many records take some 40 s.
CONTENTION: dict[str, tuple[Callable[[int], float], int]] = {
    "any number is as good": (lambda calls: 0.02 + 0.02 * (calls - 1), 2000),
    "more are better": (lambda calls: 0.1 + 0.005 * (calls - 1), 4000),
    "one is best": (one_at_a_time, 2000),
}


@pytest.mark.parametrize("kind", CONTENTION)
def test_under_contention_it_takes_hardly_longer_than_with_the_best_number_of_calls(kind: str) -> None:
    latency, records = CONTENTION[kind]
    best = min(run_virtually(post_all_with(number, Api(latency=latency), records)) for number in (1, 2, 5, 10, 20))
    for seed in range(1, 6):
        seconds, _ = run_virtually(post_all(Api(latency=latency, seed=seed), records))
        assert seconds <= 1.12 * best


def test_slow_first_calls_do_not_hide_for_long_that_one_at_a_time_is_best() -> None:
    api = Api()
    api.latency = lambda calls: one_at_a_time(calls) + (0.3 if len(api.calls) < 2 else 0)
    for api.seed in range(1, 6):
        seconds, _ = run_virtually(post_all(api, 2000))
        assert seconds <= 1.12 * 40


def test_if_any_number_of_calls_is_as_good_a_single_one_is_not_kept() -> None:
    latency, records = CONTENTION["any number is as good"]
    for seed in range(1, 6):
        api = Api(latency=latency, seed=seed)
        _, process = run_virtually(post_all(api, records))
        assert process.pacer.concurrency > 1


def test_an_api_that_takes_one_call_at_a_time_is_soon_found_to_take_more() -> None:
    api = Api()
    api.latency = lambda calls: one_at_a_time(calls) if api.now < 30 else 0.1

    async def through_it() -> Process:
        api.start()
        process = Process(api)
        await stopped_after(30, process)
        assert process.pacer.concurrency == 1
        await stopped_after(30, process)
        return process

    posted = run_virtually(through_it()).posted
    assert sum(50 <= at < 60 for at in posted) > 0.9 * 10 * 200


@pytest.mark.parametrize("hanging", [1, 2])
def test_calls_that_hang_do_not_hold_others_even_if_one_at_a_time_is_best(hanging: int) -> None:
    class Hanging(Api):
        async def call(self, record: int) -> httpx.Response:
            if 100 <= record < 100 + hanging and record not in tried:
                tried.add(record)
                await asyncio.sleep(READ_TIMEOUT)
                raise ApiTimeoutError("no answer", method="POST", url="/", retryable=True)
            return await super().call(record)

    tried = set[int]()
    seconds, _ = run_virtually(post_all(Hanging(latency=one_at_a_time), 2000))
    assert seconds < 1.12 * 40 + STALL * hanging


def test_an_api_that_becomes_slow_early_on_is_soon_found_to_take_more_calls_at_once() -> None:
    api = Api()
    api.latency = lambda _: 0.005 if len(api.calls) < 20 else 0.1
    seconds, _ = run_virtually(post_all(api, 4000))
    assert seconds < 35  # 20 s with 20 calls under way, two minutes with 3


@pytest.mark.parametrize("record", [500, 5000])
def test_a_single_record_that_is_told_to_wait_for_an_hour_does_not_hold_the_others(record: int) -> None:
    api = Api(latency=lambda _: 0.01, refusals={record: (429, {"Retry-After": "3600"})})
    seconds, _ = run_virtually(post_all(api, 10_000))
    assert seconds < 30


def test_refusals_that_have_nothing_to_do_with_the_rate_do_not_bring_it_down_for_good() -> None:
    api = Api(refusals={record: (429, {}) for record in range(1, 2000, 5)})
    seconds, _ = run_virtually(post_all(api, 2000))
    assert seconds < 400


def test_a_process_that_is_told_to_wait_for_an_hour_tries_now_and_then() -> None:
    api = Api(refusals={record: (429, {"Retry-After": "3600"}) for record in range(1, 1000)})

    async def for_an_hour() -> None:
        api.start()
        await stopped_after(3600, Process(api))

    run_virtually(for_an_hour())
    at = [round(at) for at, *_ in api.calls]
    assert at[:2] == [0, 0]
    assert 5 <= len(at) <= 10


def test_without_a_limit_full_speed_is_reached_in_a_moment() -> None:
    api = Api(latency=lambda _: 0.008)
    seconds, process = run_virtually(post_all(api, 10_000))
    assert seconds < 1.1 * 10_000 * 0.008 / 20
    assert max(at for at, *_ in api.calls[:1000]) < 1.0
    assert process.pacer.concurrency == 20


def test_the_most_that_a_contract_allows_is_never_exceeded() -> None:
    seconds, _ = run_virtually(post_all(Api(latency=lambda _: 0.01), 2000, max_rate=100.0))
    assert 19.5 < seconds < 20.5


def test_the_same_simulation_comes_out_the_same() -> None:
    def run() -> Coroutine[Any, Any, tuple[float, Process]]:
        return post_all(Api(quota=50), 500)

    assert run_virtually(run())[0] == run_virtually(run())[0]
