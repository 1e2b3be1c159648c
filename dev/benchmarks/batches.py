"""What does a record cost that goes through the whole app: trigger, orchestrator, activity, access token, API?"""

import asyncio
import itertools
import sqlite3
import statistics
import tempfile
import time
from contextlib import closing
from pathlib import Path

import httpx

from dev.benchmarks.measuring import Figures, Plan, Target, interleaved, keep_in_flight
from dev.benchmarks.page import Section, table
from dev.benchmarks.servers import RunningApp, running_app
from shared.business import example

_TIME, _RATE, _COST = "time, s", "records per second, 1/s", "cost of a record, ms"
_MEMORY, _GROWTH = "peak memory of the host, MiB", "of it for the batch, MiB"
_EVENTS, _LARGEST, _HISTORY = "history events", "largest history, kB", "history for each record, kB"
_WARM_UP = 20
_numbers = itertools.count(1)


def answer(plan: Plan) -> Section:
    """Measure single records and batches of growing size; every size has a host of its own, warmed up."""
    figures = Figures()
    sizes = plan.choose((100, 1000, 10_000), (100, 300))
    for size in interleaved(plan.choose(2, 1), (None, *sizes)):
        with tempfile.TemporaryDirectory() as folder:
            state = Path(folder) / "state.db"
            if size is not None:
                _measure_batch(plan, state, size, figures)
                continue
            with running_app(plan, state) as app:
                _run_batch(app, _WARM_UP)
                asyncio.run(_measure_singles(app, plan.choose(500, 50), figures))
    smallest, *_, largest = sizes
    ratio = figures.ratio(_COST, f"batch of {largest:,}", f"batch of {smallest:,}")
    text = f"cost of a record in a batch of {largest:,} against one of {smallest:,}"
    return Section("End to end", _text(figures), [Target(text, "at most", 1.3, "x", ratio)])


async def _measure_singles(app: RunningApp, count: int, figures: Figures) -> None:
    """Hand in records one by one, 16 at once, until the API has them all."""
    wanted = app.stored() + count
    async with httpx.AsyncClient(base_url=app.host.url, timeout=60) as caller:

        async def call() -> None:
            (await caller.post("/api/businesses", json=example(next(_numbers)))).raise_for_status()

        start = time.perf_counter()
        await keep_in_flight(16, call, range(count))
        app.wait_until_stored(wanted)
        figures.add("one by one, 16 requests in flight", _RATE, count / (time.perf_counter() - start))


def _measure_batch(plan: Plan, state: Path, size: int, figures: Figures) -> None:
    subject = f"batch of {size:,}"
    with running_app(plan, state) as app:
        _run_batch(app, _WARM_UP)
        before = app.host.peak_memory()
        repetitions = max(1, 500 // size)  # short ones several times
        taken, operations = zip(*(_run_batch(app, size) for _ in range(repetitions)), strict=True)
        if before is not None and (after := app.host.peak_memory()) is not None:
            figures.add(subject, _MEMORY, after)
            figures.add(subject, _GROWTH, after - before)
    seconds = statistics.median(taken)
    figures.add(subject, _TIME, seconds)
    figures.add(subject, _RATE, size / seconds)
    figures.add(subject, _COST, seconds / size * 1e3)
    with closing(sqlite3.connect(state)) as database:
        query = "SELECT COUNT(*), SUM(LENGTH(event)) FROM history WHERE instance_id LIKE ? GROUP BY instance_id"
        histories = database.execute(query, [f"{operations[0]}%"]).fetchall()  # of the root and of its sections
    figures.add(subject, _EVENTS, sum(events for events, _ in histories))
    figures.add(subject, _LARGEST, max(length for _, length in histories) / 1e3)
    figures.add(subject, _HISTORY, sum(length for _, length in histories) / size / 1e3)


def _run_batch(app: RunningApp, size: int) -> tuple[float, str]:
    """Hand in a batch; returns the seconds until the operation is completed, and its id."""
    wanted = app.stored() + size
    records = [example(next(_numbers)) for _ in range(size)]
    start = time.perf_counter()
    response = app.caller.post("/api/businesses/batch", json=records).raise_for_status()
    app.wait_until_stored(wanted)
    app.wait_until_ended(response.headers["Location"])
    return time.perf_counter() - start, response.json()["id"]


def _text(figures: Figures) -> str:
    return f"""
Records through trigger, orchestrator, activity, access token and API, on the embedded host with its SQLite store; the
sandbox API, which stores the records in SQLite too, and the caller share the other core. This measures the app and the
embedded host, not Azure's host or its storage.

{table(figures, _TIME, _RATE, _COST, _MEMORY, _GROWTH)}

A batch is a tree of orchestrations; the largest history is its root's, which takes in records and collects results:

{table(figures, _EVENTS, _LARGEST, _HISTORY)}
"""
