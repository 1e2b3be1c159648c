"""Do batches keep to what an API takes? `make bench-batches`: limits, contention and outages, over real sockets."""

import argparse
import asyncio
import contextlib
import itertools
import os
import re
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from dev.benchmarks.measuring import Figures, Plan, Target, cores, keep_in_flight, turns_for
from dev.benchmarks.page import LONG_PAGE, Run, Section, table, targets_table, write_page
from dev.benchmarks.servers import RunningApp, running_app, started
from dev.sandbox.api import app_environment
from shared.business import BusinessApi, example
from shared.wiring import client_options

_TIME, _IDEAL, _RATIO, _REFUSED = "time, s", "ideal, s", "time to ideal, x", "429s, % of posts"
_ADAPTED, _REFUSED_AFTER, _USED = "kept after, s", "429s from the change on, % of posts", "quota used after that, %"
_SPEED, _BEST = "records per second, 1/s", "time to the best fixed number's, x"
_CALLS, _DOWN, _FIRST, _END = "calls while down", "down for, s", "first post after the return, s", "end of the batch, s"

_WINDOW = 2.0
_FEW = 0.03
"""The share of refused posts in a window in which a quota counts as kept."""

_WARM_UP = 20
_numbers = itertools.count(1)

_OPENING = """\
# Benchmarks of long batches

`make bench-batches` measures all of this again, in about a quarter of an hour, and writes this page. Batches go through
the whole app on the embedded host over real sockets, to the sandbox API with faults on demand
([pacing](pacing.md#trying-it)), which are what slows them down. Every row is one batch on a host of its own that has
posted 20 records before, none of which was refused. No setting differs from its default. How fast batches are where
nothing holds them is told by [the other benchmarks](benchmarks.md)."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m dev.benchmarks.long_batches", description="Measure long batches.")
    parser.add_argument("--quick", action="store_true", help="try all out in two minutes; only prints")
    parser.add_argument("--only", choices=[one.__name__ for one in _QUESTIONS], help="only print this answer")
    arguments = parser.parse_args()
    plan = Plan(arguments.quick, *cores())
    run, sections = Run(plan), []
    for question in _QUESTIONS:
        if arguments.only in (None, question.__name__):
            print(f"\n# {question.__name__} ...", flush=True)
            with ProcessPoolExecutor(1, get_context("spawn")) as process:
                sections.append(section := process.submit(question, plan).result())
            print(section.text, targets_table(section.targets), sep="\n", flush=True)
    if not (arguments.quick or arguments.only):
        write_page(LONG_PAGE, _OPENING, sections, run)
        print(f"Written: {LONG_PAGE}")


class _Seen(NamedTuple):
    """What the sandbox has counted at a time."""

    at: float
    posts: int
    taken: int
    refused: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """A batch under way."""

    app: RunningApp
    location: str
    began: float
    before: _Seen

    def wait(self) -> tuple[float, _Seen]:
        """Wait for its end, with every record posted once; returns its seconds, and what the sandbox has counted."""
        self.app.wait_until_ended(self.location, 0.05)
        seconds, after = time.monotonic() - self.began, _look(self.app)
        stats, tally = _stats(self.app), self.app.caller.get(self.location).json()["batch"]["tally"]
        if stats["duplicates"] or tally["posted"] != tally["total"]:
            raise ValueError(f"expected every record to be posted once, there are {tally} and {stats}")
        return seconds, after


def _begin(app: RunningApp, size: int) -> _Batch:
    before, began = _look(app), time.monotonic()
    records = [example(next(_numbers)) for _ in range(size)]
    response = app.caller.post("/api/businesses/batch", json=records).raise_for_status()
    return _Batch(app, response.headers["Location"], began, before)


@contextlib.contextmanager
def _warm_app(plan: Plan, **faults: Any) -> Iterator[RunningApp]:
    """The app after a few records, so that it has a token and a connection, at a sandbox with these faults."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_app(plan, Path(folder) / "state.db", Path(folder) / "sandbox.db") as app,
    ):
        _set(app, **faults)
        _begin(app, _WARM_UP).wait()
        time.sleep(1)  # until the quota is full again
        yield app


def _set(app: RunningApp, **faults: Any) -> None:
    app.sandbox.post("/faults", json=faults).raise_for_status()


def _stats(app: RunningApp) -> dict[str, Any]:
    stats: dict[str, Any] = app.sandbox.get("/stats").raise_for_status().json()
    return stats


def _look(app: RunningApp) -> _Seen:
    stats = _stats(app)
    by_status = stats["posts_by_status"]
    return _Seen(time.monotonic(), stats["posts"], by_status.get("201", 0), by_status.get("429", 0))


def limits(plan: Plan) -> Section:
    """Post batches to an API with a rate limit, of which the app learns only what the API answers."""
    figures = Figures()
    seconds = plan.choose(40, 5)
    for fields in (False, True):
        for rate in plan.choose((50, 100, 200), (50, 200)):
            with _warm_app(plan, quota={"rate": rate, "fields": fields}) as app:
                batch = _begin(app, rate * (seconds + 1))  # a second's calls are saved up
                taken, after = batch.wait()
            subject = f"{rate} calls/s, {_told(fields)}"
            figures.add(subject, _IDEAL, seconds)
            figures.add(subject, _TIME, taken)
            figures.add(subject, _RATIO, taken / seconds)
            figures.add(subject, _REFUSED, 100 * _share(after, batch.before))
    targets = [
        Target("time at a rate limit against the ideal, the worst", "at most", 1.1, "x", [_worst(figures, _RATIO)]),
        Target("429s at a rate limit, the most", "at most", 1, "%", [_worst(figures, _REFUSED)]),
    ]
    text = f"""
The sandbox takes so many posts a second, of which it saves up one second's; the others get a 429 with `Retry-After: 1`.
It tells of its quota in `RateLimit` fields, or does not. Ideal is the time in which the quota lets all records through:

{table(figures, _IDEAL, _TIME, _RATIO, _REFUSED)}
"""
    return Section("Rate limits", text, targets)


def changes(plan: Plan) -> Section:
    """Halve a quota in the middle of a batch."""
    figures = Figures()
    rate, before, after = 100, plan.choose(20, 5), plan.choose(30, 15)
    for fields in (False, True):
        quota = {"rate": rate, "fields": fields}
        with _warm_app(plan, quota=quota) as app:
            batch = _begin(app, rate * (before + 1) + rate // 2 * (after + 1))
            time.sleep(before)
            _set(app, quota=quota | {"rate": rate // 2})
            seen = [_look(app)]
            end = seen[0].at + after
            while seen[-1].at < end:
                time.sleep(0.1)
                seen.append(_look(app))
            batch.wait()
        adapted = _kept_from(seen, rate / 2)
        figures.add(_told(fields), _ADAPTED, adapted.at - seen[0].at)
        figures.add(_told(fields), _REFUSED_AFTER, 100 * _share(seen[-1], seen[0]))
        used = (seen[-1].taken - adapted.taken) / (seen[-1].at - adapted.at) / (rate / 2)
        figures.add(_told(fields), _USED, 100 * used)
    target = Target("a halved quota is kept again after", "at most", 10, "s", [_worst(figures, _ADAPTED)])
    text = f"""
A batch under way at {rate} calls/s; then the quota is {rate // 2} calls/s. It counts as kept at the end of the first
{_WINDOW:.0f} seconds in which posts came at no more than 1.05 times the new rate and at no less than 0.8 times, and at
most {_FEW:.0%} were refused. The last column is about the rest of {after} s after the change:

{table(figures, _ADAPTED, _REFUSED_AFTER, _USED)}
"""
    return Section("A quota that is halved", text, [target])


def _kept_from(seen: list[_Seen], rate: float) -> _Seen:
    """The end of the first window in which a quota was kept and used."""
    for number, last in enumerate(seen):
        first = next((one for one in reversed(seen[:number]) if last.at - one.at >= _WINDOW), None)
        if first is None:
            continue
        speed = (last.posts - first.posts) / (last.at - first.at)
        if 0.8 * rate <= speed <= 1.05 * rate and _share(last, first) <= _FEW:
            return last
    raise ValueError(f"expected a quota of {rate} to be kept in the end, it was not: {seen}")


_CONTENTION = ((0.02, 0.02, 1000), (0.1, 0.005, 2000), (0.02, 0.03, 1000))
"""Seconds of a post that is alone, seconds for each other one that is being served, and records of a batch."""

_FIXED = (1, 2, 5, 10, 20)


def contention(plan: Plan) -> Section:
    """Compare the number of calls under way that the app finds with fixed ones."""
    figures = Figures()
    for latency, more, size in _CONTENTION:
        kind = f"{latency * 1e3:.0f} ms, {more * 1e3:.0f} ms for each other"
        records = size // plan.choose(1, 5)
        with _warm_app(plan, latency=latency, contention=more) as app:
            taken, _ = _begin(app, records).wait()
            os.environ.update(app_environment(str(app.sandbox.base_url)))
            fixed = {number: asyncio.run(_fixed_speed(number, plan.choose(6, 2))) for number in _FIXED}
        for number, speed in fixed.items():
            figures.add(kind, _SPEED, speed, f"{number}")
        figures.add(kind, _SPEED, records / taken, "batch")
        figures.add(kind, _BEST, taken / (records / max(fixed.values())))
    worst = [_worst(figures, _BEST)]
    target = Target(
        "time under contention against the best fixed number of calls, the worst", "at most", 1.2, "x", worst
    )
    text = f"""
A post takes some time, and more for each other one that is being served. With the first API any number of calls under
way is as good as another, with the second more are better, with the third one is best. The fixed numbers are those of
the app's typed client without its pacer, which keeps so many calls under way:

{table(figures, _SPEED)}

{table(figures, _BEST)}
"""
    return Section("Contention", text, [target])


async def _fixed_speed(number: int, seconds: float) -> float:
    """Calls per second of the typed client with so many under way all the time."""
    async with BusinessApi(replace(client_options(), gate=None)) as api:

        async def call() -> None:
            key = next(_numbers)
            (await api.post_business(example(key), idempotency_key=f"fixed-{key}")).unwrap()

        await keep_in_flight(number, call, range(number))
        began = time.perf_counter()
        made = await keep_in_flight(number, call, turns_for(seconds))
        return made / (time.perf_counter() - began)


def outages(plan: Plan) -> Section:
    """Have the API go away in the middle of a batch, and come back."""
    figures = Figures()
    for subject, outage in _OUTAGES.items():
        with _warm_app(plan, **_USUAL) as app:
            batch = _begin(app, 2000)
            time.sleep(plan.choose(10, 4))
            began = time.monotonic()
            with outage(app, plan.choose(60, 10)) as calls:
                back, taken = time.monotonic(), _look(app).taken
                figures.add(subject, _CALLS, calls)
                figures.add(subject, _DOWN, back - began)
                while _look(app).taken == taken:
                    time.sleep(0.02)
                figures.add(subject, _FIRST, time.monotonic() - back)
                batch.wait()
                figures.add(subject, _END, time.monotonic() - back)
    targets = [
        Target("calls in an outage of 60 s, the most", "at most", 100, "", [_worst(figures, _CALLS)]),
        Target("first post after the return, the worst", "at most", 5, "s", [_worst(figures, _FIRST)]),
    ]
    text = f"""
A batch of 2,000 is under way at an API whose posts take {_USUAL["latency"]} s, when that answers each with 503, or its
process is stopped, so that calls hang, or is ended, so that nobody listens. Calls that hang are served on the return,
so that the first post is one of them. The last column is the time from the return to the end of the batch, with every
record stored once:

{table(figures, _DOWN, _CALLS, _FIRST, _END)}
"""
    return Section("Outages", text, targets)


_USUAL = {"latency": 0.2}


@contextlib.contextmanager
def _refusing(app: RunningApp, seconds: float) -> Iterator[int]:
    """Answer all posts with 503."""
    _set(app, **_USUAL, rates={"503": 1.0})
    time.sleep(seconds)
    calls = int(_stats(app)["posts_by_status"]["503"])
    _set(app, **_USUAL)
    yield calls


@contextlib.contextmanager
def _hanging(app: RunningApp, seconds: float) -> Iterator[int]:
    """Stop the process of the sandbox, which finds all calls when it goes on."""
    posts = _look(app).posts
    os.kill(app.api.process, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(app.api.process, signal.SIGCONT)
    yield _look(app).posts - posts


@contextlib.contextmanager
def _gone(app: RunningApp, seconds: float) -> Iterator[int]:
    """End the process of the sandbox; of the calls only the app's log tells. Later, start it anew."""
    port = str(urlsplit(app.api.url).port)
    os.kill(app.api.process, signal.SIGTERM)
    time.sleep(seconds)
    calls = len(re.findall(r"Attempt \S+: deferred, status none", app.host.log.read_text(encoding="utf-8")))
    with started(None, "dev.sandbox", "--port", port, "--state", str(app.records)):
        _set(app, **_USUAL)
        yield calls


_OUTAGES = {"503": _refusing, "calls hang": _hanging, "nobody listens": _gone}


def _told(fields: bool) -> str:
    return "with RateLimit fields" if fields else "no fields"


def _share(last: _Seen, first: _Seen) -> float:
    """Of the posts in between, the share that was refused."""
    return (last.refused - first.refused) / max(last.posts - first.posts, 1)


def _worst(figures: Figures, quantity: str) -> float:
    return max(samples[0] for (_, name, _), samples in figures.samples.items() if name == quantity)


_QUESTIONS = (limits, changes, contention, outages)

if __name__ == "__main__":
    main()
