"""The client of the app and its pacer against the sandbox, over real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from shared.business import BusinessApi
from shared.pacing import Pacer
from shared.rest import ApiPausedError
from shared.wiring import client_options
from tests.sandboxed import NewRecord, Sandbox


@pytest.fixture
async def api(sandbox: Sandbox) -> AsyncIterator[BusinessApi]:
    """A client with a pacer of its own."""
    async with BusinessApi(client_options) as client:
        yield client


def pacer_of(api: BusinessApi) -> Pacer:
    gate = api._options().gate
    assert isinstance(gate, Pacer)
    return gate


async def post_all(api: BusinessApi, new_record: NewRecord, records: int, callers: int = 40) -> float:
    """Post records until each is taken; returns the seconds it took."""
    left = [new_record() for _ in range(records)]
    began = time.perf_counter()

    async def caller() -> None:
        while left:
            record = left.pop()
            if (await api.post_business(record)).status != 201:
                left.append(record)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.perf_counter() - began


@pytest.mark.parametrize("fields", [False, True])
async def test_a_quota_is_used_up_and_hardly_ever_exceeded(
    api: BusinessApi, sandbox: Sandbox, new_record: NewRecord, fields: bool
) -> None:
    sandbox.disturb(quota={"rate": 50, "fields": fields})
    before = sandbox.stats()["posts_by_status"].get("429", 0)
    seconds = await post_all(api, new_record, 250)
    assert seconds < 1.3 * 250 / 50
    assert sandbox.stats()["posts_by_status"].get("429", 0) - before <= 15


async def test_an_api_that_slows_down_is_not_overrun(api: BusinessApi, sandbox: Sandbox, new_record: NewRecord) -> None:
    sandbox.disturb(latency=0.02, contention=0.02)
    await post_all(api, new_record, 150)
    assert pacer_of(api).concurrency < 15


async def test_in_an_outage_calls_wait_and_then_are_posted(
    api: BusinessApi, sandbox: Sandbox, new_record: NewRecord
) -> None:
    sandbox.disturb(rates={"503": 1.0})
    before = sandbox.stats()["posts"]
    failed = await asyncio.gather(*(api.post_business(new_record()) for _ in range(5)))
    assert {response.status for response in failed} == {503}
    began = time.perf_counter()
    waiting = [asyncio.create_task(api.post_business(new_record())) for _ in range(10)]
    prompt = api.with_options(extensions={"begin_by": time.monotonic() + 1})
    with pytest.raises(ApiPausedError) as paused:
        await prompt.post_business(new_record())
    assert paused.value.retry_after == pytest.approx(4.0, abs=0.5)
    sandbox.behave()
    assert {(await task).status for task in waiting} == {201}
    assert 3.5 < time.perf_counter() - began < 5.0
    assert sandbox.stats()["posts"] - before == 15
