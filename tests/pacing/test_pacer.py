"""Who waits at the pacer, in which order they go, and what becomes of those who cannot wait."""

import asyncio
import logging
import threading
from contextlib import suppress
from typing import Any

import httpx
import pytest

from shared.pacing import Pacer
from shared.rest import ApiTransportError, GateClosedError
from tests.virtual_time import run_virtually

URL = "https://api.example.com/records?secret=1"


def request(method: str = "POST", **extensions: float) -> httpx.Request:
    return httpx.Request(method, URL, extensions=extensions)


class World:
    """A pacer on the running virtual loop, and the calls that go through it."""

    def __init__(self, **options: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.pacer = Pacer(clock=self.loop.time, **options)
        self.admitted: list[str] = []

    @property
    def now(self) -> float:
        return round(self.loop.time() - self.began, 3)

    async def call(
        self, name: str = "", *, method: str = "POST", seconds: float = 1.0, status: int = 201, **options: Any
    ) -> float:
        """Call the API, which takes some seconds; returns when the call was admitted."""
        headers = options.pop("headers", {})
        async with self.pacer.admitted(request(method, **options)) as told:
            at = self.now
            self.admitted.append(name)
            await asyncio.sleep(seconds)
            if status == 0:
                raise ApiTransportError("no answer", method=method, url="/")
            told(httpx.Response(status, headers=headers))
        return at

    async def fail(self, calls: int = 5) -> None:
        for _ in range(calls):
            with suppress(ApiTransportError):
                await self.call(seconds=0.0, status=0)


def test_a_post_that_waits_is_told_at_once_of_a_pause_that_is_too_long_for_it() -> None:
    async def main() -> None:
        world = World(max_concurrency=1)
        limited = world.call(status=429, headers={"Retry-After": "60"})
        told = await asyncio.gather(
            limited, world.call(), world.call(begin_by=world.began + 90.0), return_exceptions=True
        )
        assert isinstance(told[1], GateClosedError)
        assert told[1].retry_after == pytest.approx(60.0)
        assert told[2] == 61.0

    run_virtually(main())


def test_posts_go_in_the_order_in_which_they_came_and_look_ups_before_them() -> None:
    async def main() -> None:
        world = World(max_concurrency=1)
        calls = [world.call("first"), *(world.call(f"post {number}", seconds=0.1) for number in range(3))]
        calls += [world.call(f"get {number}", method=method) for number, method in enumerate(("GET", "HEAD"))]
        tasks = [asyncio.create_task(call) for call in calls]
        await asyncio.gather(*tasks)
        assert world.admitted == ["first", "get 0", "get 1", "post 0", "post 1", "post 2"]

    run_virtually(main())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("held_by", ["concurrency", "pause", "outage"])
def test_a_look_up_waits_for_two_seconds_at_most(held_by: str, method: str) -> None:
    async def main() -> None:
        world = World(max_concurrency=1)
        if held_by == "concurrency":
            asyncio.create_task(world.call(seconds=100.0))  # noqa: RUF006 - it ends with the loop
        elif held_by == "pause":
            await world.call(seconds=0.0, status=429, headers={"Retry-After": "100"})
        else:
            await world.fail()
        await asyncio.sleep(0)
        assert await world.call(method=method) == 2.0

    run_virtually(main())


def test_a_post_waits_for_twenty_seconds_at_most() -> None:
    async def main() -> None:
        world = World(max_concurrency=1)
        asyncio.create_task(world.call(seconds=100.0))  # noqa: RUF006 - it ends with the loop
        await asyncio.sleep(0)
        with pytest.raises(GateClosedError) as refused:
            await world.call()
        assert (world.now, refused.value.retry_after) == (20.0, 1.0)

    run_virtually(main())


def test_a_post_waits_until_it_must_have_begun() -> None:
    async def main() -> None:
        world = World(max_concurrency=1)
        asyncio.create_task(world.call(seconds=50.0))  # noqa: RUF006 - it ends with the loop
        await asyncio.sleep(0)
        with pytest.raises(GateClosedError):
            await world.call(begin_by=world.loop.time() + 3)
        assert world.now == 3.0
        assert await world.call(begin_by=world.loop.time() + 60) == 50.0

    run_virtually(main())


def test_a_post_that_certainly_cannot_begin_in_time_is_refused_at_once() -> None:
    async def main() -> None:
        world = World()
        await world.call(seconds=0.0, status=429, headers={"Retry-After": "30"})
        with pytest.raises(GateClosedError, match=r"the API wants no calls for 30 s") as refused:
            await world.call()
        assert (world.now, refused.value.retry_after) == (0.0, 30.0)
        assert await world.call(begin_by=world.loop.time() + 30) == 30.0

    run_virtually(main())


def test_in_an_outage_one_call_goes_every_four_seconds_and_then_all() -> None:
    async def main() -> None:
        world = World()
        await world.fail()
        times = await asyncio.gather(
            *(world.call(seconds=60.0, status=0) for _ in range(2)),
            *(world.call(seconds=0.5) for _ in range(4)),
            return_exceptions=True,
        )
        assert times[2:] == [12.0, 12.5, 12.5, 13.0]

    run_virtually(main())


def test_those_who_wait_in_vain_do_not_hold_the_others() -> None:
    async def main() -> None:
        world = World(max_concurrency=1)
        running = asyncio.create_task(world.call(seconds=5.0))
        await asyncio.sleep(0)
        vain = [asyncio.create_task(world.call()) for _ in range(100)]
        patient = asyncio.create_task(world.call())
        await asyncio.sleep(1)
        for task in vain:
            task.cancel()
        running.cancel()
        assert await patient == 1.0

    run_virtually(main())


@pytest.mark.parametrize("yields", range(4))
def test_a_call_that_is_cancelled_as_it_is_admitted_leaves_its_place(yields: int) -> None:
    async def main() -> None:
        world = World(max_concurrency=1)
        running = asyncio.create_task(world.call(seconds=1.0))
        waiting = asyncio.create_task(world.call(seconds=1.0))
        await asyncio.sleep(0)
        world.loop.call_later(1.0, lambda: later(yields, waiting.cancel))
        await running
        await asyncio.wait([waiting])
        assert await world.call(seconds=0.0) <= 2.0

    def later(turns: int, function: Any) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(later, turns - 1, function)
        else:
            function()

    run_virtually(main())


def test_a_cancelled_call_and_what_is_no_answer_are_told_apart() -> None:
    async def main() -> None:
        world = World()
        for _ in range(10):
            task = asyncio.create_task(world.call(seconds=10.0))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        assert await world.call(seconds=0.0) == 0.0
        await world.fail()
        assert await world.call(seconds=0.0) == 4.0

    run_virtually(main())


def test_there_is_one_line_for_a_pause_and_none_for_a_call(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        world = World(name="api.example.com")
        await world.fail(6)
        await asyncio.gather(*(world.call() for _ in range(20)))

    with caplog.at_level(logging.DEBUG, "pacing"):
        run_virtually(main())
    assert [record.getMessage() for record in caplog.records] == [
        "api.example.com: the API is down: 5 calls in a row have failed",
        "api.example.com: the API answers again after 9 s",
    ]


def test_loops_of_several_threads_share_one_pacer() -> None:
    pacer = Pacer(max_concurrency=3, max_rate=2000.0)
    under_way, most, done = 0, 0, 0
    lock = threading.Lock()

    async def call() -> None:
        nonlocal under_way, most, done
        async with pacer.admitted(request()) as told:
            with lock:
                under_way += 1
                most = max(most, under_way)
            try:
                await asyncio.sleep(0.001)
            finally:
                with lock:
                    under_way -= 1
            done += 1
            told(httpx.Response(201))

    async def calls() -> None:
        tasks = [asyncio.create_task(call()) for _ in range(120)]
        for task in tasks[::6]:
            asyncio.get_running_loop().call_later(0.01, task.cancel)
        await asyncio.gather(*tasks, return_exceptions=True)

    threads = [threading.Thread(target=asyncio.run, args=(calls(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)
    assert most <= 3
    assert done >= 400


def test_a_loop_that_ended_holds_nobody() -> None:
    pacer = Pacer(max_concurrency=1)

    async def one(seconds: float) -> None:
        async with pacer.admitted(request()) as told:
            await asyncio.sleep(seconds)
            told(httpx.Response(201))

    async def left_behind() -> None:
        asyncio.create_task(one(60.0))  # noqa: RUF006 - the loop cancels it
        await asyncio.sleep(0)
        asyncio.create_task(one(60.0))  # noqa: RUF006 - the loop cancels it
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(left_behind())
    for task in asyncio.all_tasks(loop):
        task.cancel()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    asyncio.run(asyncio.wait_for(one(0.0), 5))


def test_all_that_was_learned_can_be_forgotten() -> None:
    async def main() -> None:
        world = World()
        await world.fail()
        world.pacer.forget()
        assert await world.call(seconds=0.0) == 0.0

    run_virtually(main())
