"""What does a record cost that goes through the whole app, one by one or in a batch, beside a client on its own?"""

import asyncio
import itertools
import json
import os
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import httpx

from dev.benchmarks.measuring import Figures, Plan, Target, interleaved, keep_in_flight, pin, settle
from dev.benchmarks.page import Section, table
from dev.benchmarks.servers import RunningApp, running_app
from dev.sandbox.api import CLIENT_ID, CLIENT_SECRET, SCOPE, TOKEN_PATH, app_environment
from shared.business import COLLECTION, BusinessApi, example
from shared.wiring import client_options

_TIME, _RATE = "time, s", "records per second, 1/s"
_PROCESSOR_TIME, _MEMORY = "processor time of a record, ms", "peak memory, MiB"
_EVENTS, _HISTORY, _BEYOND = "history events", "history, kB", "of it beyond the records, kB"
_IN_FLIGHT = 20
_SINGLES, _CLIENT, _SCRIPT = "one by one, 16 requests in flight", "typed client alone", "plain httpx script"
_WARM_UP = 1000
"""Records, so that the pacer has found out how many calls the API takes at once."""

_numbers = itertools.count(1)


def answer(plan: Plan) -> Section:
    """Measure single records and batches of growing size; every size has a host of its own, warmed up."""
    figures = Figures()
    sizes = plan.choose((100, 1000, 10_000), (100, 1000))
    smallest, *_, largest = (f"batch of {size:,}" for size in sizes)
    for size in interleaved(plan.choose(2, 1), (None, *sizes)):
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.db"
            with running_app(plan, state) as app:
                _run_batch(app, _WARM_UP)
                if size is None:
                    asyncio.run(_measure_singles(app, plan.choose(1000, 100), figures))
                    continue
                operation = _measure_batch(app, size, figures)
                if size == sizes[-1]:
                    pin(plan.client_core)  # where the host has nothing to do now
                    asyncio.run(_measure_others(str(app.sandbox.base_url), plan.choose(3000, 1000), figures))
            _measure_history(state, operation, f"batch of {size:,}", figures)
    beyond = [kilobytes / 1e3 for kilobytes in figures.samples[largest, _BEYOND, ""]]
    targets = [
        Target(
            f"records per second of a {largest} against calls per second of the typed client alone",
            "at least",
            0.5,
            "x",
            figures.ratio(_RATE, largest, _CLIENT),
        ),
        Target("the same against a plain httpx script", "at least", 3, "x", figures.ratio(_RATE, largest, _SCRIPT)),
        Target(
            f"processor time of a record in a {largest} against one in a {smallest}",
            "at most",
            1.1,
            "x",
            figures.ratio(_PROCESSOR_TIME, largest, smallest),
        ),
        Target(f"history of a {largest} beyond its records", "at most", 1, "MB", beyond),
    ]
    return Section("End to end", _text(figures), targets)


async def _measure_singles(app: RunningApp, count: int, figures: Figures) -> None:
    """Hand in records one by one, 16 at once, until the API has them all."""
    wanted = app.stored() + count
    async with httpx.AsyncClient(base_url=app.host.url, timeout=60) as caller:

        async def call() -> None:
            (await caller.post("/api/businesses", json=example(next(_numbers)))).raise_for_status()

        cpu, start = app.host.processor_time(), time.perf_counter()
        await keep_in_flight(16, call, range(count))
        app.wait_until_stored(wanted)
        figures.add(_SINGLES, _RATE, count / (time.perf_counter() - start))
    figures.add(_SINGLES, _PROCESSOR_TIME, (app.host.processor_time() - cpu) / count * 1e3)


def _measure_batch(app: RunningApp, size: int, figures: Figures) -> str:
    """Hand in batches of a size; returns the operation of the last."""
    subject, repetitions = f"batch of {size:,}", max(1, 2000 // size)  # short ones several times
    cpu = app.host.processor_time()
    taken, operations = zip(*(_run_batch(app, size) for _ in range(repetitions)), strict=True)
    cpu = app.host.processor_time() - cpu
    figures.add(subject, _TIME, seconds := statistics.median(taken))
    figures.add(subject, _RATE, size / seconds)
    figures.add(subject, _PROCESSOR_TIME, cpu / (size * repetitions) * 1e3)
    if (memory := app.host.peak_memory()) is not None:
        figures.add(subject, _MEMORY, memory)
    return str(operations[-1])


def _run_batch(app: RunningApp, size: int) -> tuple[float, str]:
    """Hand in a batch; returns the seconds until the operation is completed, and its id."""
    wanted = app.stored() + size
    records = [example(next(_numbers)) for _ in range(size)]
    start = time.perf_counter()
    response = app.caller.post("/api/businesses/batch", json=records).raise_for_status()
    app.wait_until_stored(wanted, max(0.02, size / 50_000))  # seldom: that takes time of the sandbox's core
    app.wait_until_ended(response.headers["Location"])
    return time.perf_counter() - start, response.json()["id"]


def _measure_history(state: Path, operation: str, subject: str, figures: Figures) -> None:
    """Read the history of an operation in the store of a host that has ended."""
    with closing(sqlite3.connect(state)) as database:
        rows = database.execute("SELECT event FROM history WHERE instance_id = ?", [operation])
        events = [event for (event,) in rows]
    beyond = 0
    for event in map(json.loads, events):
        if "Input" in event:
            event["Input"] = json.dumps(json.loads(event["Input"]) | {"records": ""})
        beyond += len(json.dumps(event))
    figures.add(subject, _EVENTS, len(events))
    figures.add(subject, _HISTORY, sum(map(len, events)) / 1e3)
    figures.add(subject, _BEYOND, beyond / 1e3)


async def _measure_others(url: str, count: int, figures: Figures) -> None:
    """Post to the sandbox as the app's activities do, but without the app; then as a script would."""
    os.environ.update(app_environment(url))
    async with BusinessApi(client_options) as api:

        async def call() -> None:
            number = next(_numbers)
            (await api.post_business(example(number), idempotency_key=f"client-{number}")).unwrap()

        await _measure_calls(_CLIENT, call, _WARM_UP, count, figures)
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        form = {"grant_type": "client_credentials", "scope": SCOPE}
        granted = await client.post(TOKEN_PATH, data=form, auth=(CLIENT_ID, CLIENT_SECRET))
        client.headers["Authorization"] = f"Bearer {granted.raise_for_status().json()['access_token']}"

        async def post() -> None:
            number = next(_numbers)
            headers = {"Idempotency-Key": f"script-{number}"}
            (await client.post(COLLECTION, json=example(number), headers=headers)).raise_for_status()

        await _measure_calls(_SCRIPT, post, 100, count // 3, figures)


async def _measure_calls(
    subject: str, call: Callable[[], Awaitable[None]], warm_up: int, count: int, figures: Figures
) -> None:
    await keep_in_flight(_IN_FLIGHT, call, range(warm_up))
    settle()
    cpu, start = time.process_time(), time.perf_counter()
    await keep_in_flight(_IN_FLIGHT, call, range(count))
    figures.add(subject, _RATE, count / (time.perf_counter() - start))
    figures.add(subject, _PROCESSOR_TIME, (time.process_time() - cpu) / count * 1e3)


def _text(figures: Figures) -> str:
    return f"""
Records through trigger, orchestrator, activity, access token and API, on the embedded host with its SQLite store; the
sandbox API, which stores the records in SQLite too, and the caller share the other core. This measures the app and the
embedded host, not Azure's host or its storage. The processor time is that of the host's process, which also reads and
checks the records, keeps the history, and answers whoever looks how far a batch is.

For comparison, posted to the same sandbox in the same round, {_IN_FLIGHT} at once: the app's typed client on its own
as the app sets it up, and what one would write instead, a script with one `httpx.AsyncClient`, a token fetched once, an
`Idempotency-Key`, and `raise_for_status`. Neither keeps anything, and the script gives up at the first fault.

{table(figures, _TIME, _RATE, _PROCESSOR_TIME, _MEMORY)}

A batch is one orchestration whose activities post up to 500 records each. Its history has the records twice, in the
input and in those of the activities:

{table(figures, _EVENTS, _HISTORY, _BEYOND)}
"""
