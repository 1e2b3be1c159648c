"""Records through the whole app on the embedded host: trigger, orchestrator, activity, access token, API."""

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from dev.benchmarks.measuring import Findings, Plan, Samples, Target
from dev.benchmarks.servers import RunningApp, running_app

RATE, TIME, COST = "records per second", "time", "cost of a record"
MEMORY, GROWTH = "peak memory of the host", "of it for the batch"
EVENTS, LARGEST, HISTORY = "history events", "largest history", "history for each record"
SINGLE = "one by one, 16 requests in flight"

_IN_FLIGHT = 16
_WARM_UP = 20
_POLL_SECONDS = 0.02
_TIME_LIMIT = 180.0


def measure(plan: Plan) -> Findings:
    """Measure single records and batches of growing size; every size has a host of its own, warmed up."""
    samples = Samples()
    sizes = plan.choose((100, 1000, 10_000), (100, 300))
    for _ in range(plan.choose(2, 1)):
        with tempfile.TemporaryDirectory() as folder, running_app(plan, Path(folder)) as app:
            _batch(app, _WARM_UP)
            count = plan.choose(500, 50)
            samples.add(SINGLE, RATE, "1/s", count / asyncio.run(_singles(app, count)))
        for size in sizes:
            _measure_batch(plan, size, samples)
    findings = Findings(samples.figures())
    smallest, largest = (findings.figure(_subject(size), COST).samples for size in (sizes[0], sizes[-1]))
    ratio = tuple(large / small for large, small in zip(largest, smallest, strict=True))
    text = f"cost of a record in a batch of {sizes[-1]:,} against one of {sizes[0]:,}"
    findings.targets.append(Target(text, "<=", 1.3, "x", ratio))
    return findings


def _subject(size: int) -> str:
    return f"batch of {size:,}"


def _measure_batch(plan: Plan, size: int, samples: Samples) -> None:
    subject = _subject(size)
    with tempfile.TemporaryDirectory() as folder:
        with running_app(plan, Path(folder)) as app:
            _batch(app, _WARM_UP)
            before = app.peak_memory()
            repetitions = max(1, 500 // size)  # short ones several times
            taken, operations = zip(*(_batch(app, size) for _ in range(repetitions)), strict=True)
            after = app.peak_memory()
        seconds = statistics.median(taken)
        samples.add(subject, TIME, "s", seconds)
        samples.add(subject, RATE, "1/s", size / seconds)
        samples.add(subject, COST, "ms", seconds / size * 1e3)
        if before is not None and after is not None:
            samples.add(subject, MEMORY, "MiB", after)
            samples.add(subject, GROWTH, "MiB", after - before)
        events, largest, total = _history(Path(folder) / "state.db", operations[0])
        samples.add(subject, EVENTS, "", events)
        samples.add(subject, LARGEST, "kB", largest / 1e3)
        samples.add(subject, HISTORY, "kB", total / size / 1e3)


def _history(state: Path, operation: str) -> tuple[int, int, int]:
    """Events of an operation and all its sections, bytes of the longest history among them, and of all together."""
    with closing(sqlite3.connect(state)) as database:
        rows = database.execute(
            "SELECT COUNT(*), SUM(LENGTH(event)) FROM history WHERE instance_id LIKE ? GROUP BY instance_id",
            (f"{operation}%",),
        ).fetchall()
    return sum(events for events, _ in rows), max(size for _, size in rows), sum(size for _, size in rows)


def _record(number: int) -> dict[str, Any]:
    return {"registration_number": f"HRB {time.monotonic_ns()}-{number}", "name": "Acme GmbH", "country": "DE"}


def _batch(app: RunningApp, size: int) -> tuple[float, str]:
    """Hand in a batch; returns the seconds until the operation is completed, and its id."""
    with httpx.Client(timeout=60) as client:
        stored = _stored(client, app)
        records = [_record(number) for number in range(size)]
        start = time.perf_counter()
        operation = client.post(f"{app.url}/api/businesses/batch", json=records).raise_for_status().json()["id"]
        _wait(lambda: _stored(client, app) >= stored + size)
        location = f"{app.url}/api/businesses/operations/{operation}"
        _wait(lambda: _finished(client.get(location).raise_for_status().json()))
        return time.perf_counter() - start, operation


def _finished(operation: dict[str, Any]) -> bool:
    if operation["state"] not in ("pending", "running", "completed"):
        raise ValueError(f"expected the batch to be completed, it is {operation['state']}")
    return bool(operation["state"] == "completed")


async def _singles(app: RunningApp, count: int) -> float:
    """Hand in records one by one; returns the seconds until the API has them all."""
    with httpx.Client(timeout=60) as client:
        stored = _stored(client, app)
        async with httpx.AsyncClient(base_url=app.url, timeout=60) as caller:
            start = time.perf_counter()
            numbers = iter(range(count))
            async with asyncio.TaskGroup() as callers:
                for _ in range(_IN_FLIGHT):
                    callers.create_task(_hand_in(caller, numbers))
            _wait(lambda: _stored(client, app) >= stored + count)
            return time.perf_counter() - start


async def _hand_in(caller: httpx.AsyncClient, numbers: Iterable[int]) -> None:
    for number in numbers:
        (await caller.post("/api/businesses", json=_record(number))).raise_for_status()


def _stored(client: httpx.Client, app: RunningApp) -> int:
    return int(client.get(f"{app.api_url}/stats").raise_for_status().json()["stored"])


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIME_LIMIT
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError("the records did not get through in time")
        time.sleep(_POLL_SECONDS)
