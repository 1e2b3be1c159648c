"""Measures the embedded host: orchestrations a second, a wide fan-out, and what a long history costs a turn.

Run with `python -m dev.benchmarks.embedded_host [--rounds N] [--json FILE]`. It runs in this process, with its state on
disk.
"""

import argparse
import asyncio
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from devhost.host import Host
from devhost.protocol import TypedData
from devhost.worker import ORCHESTRATION, Function, FunctionApp, Outcome

IN_FLIGHT = 20
ORCHESTRATIONS = 1_000
FAN_OUT = 1_000
# Lengths of histories, and turns that are measured at the end of each.
HISTORIES = (1_000, 10_000)
TURNS = 20

APP = """
import azure.durable_functions as df

app = df.DFApp()


@app.orchestration_trigger("context")
def one(context):
    return (yield context.call_activity("echo", 1))


@app.orchestration_trigger("context")
def fan_out(context):
    results = yield context.task_all([context.call_activity("echo", number) for number in range(context.get_input())])
    return len(results)


@app.orchestration_trigger("context")
def long_history(context):
    # Two events for each activity: all at once, since it is the length that counts, not the way there.
    events, turns = context.get_input()
    yield context.task_all([context.call_activity("echo", number) for number in range(events // 2)])
    for number in range(turns):
        yield context.call_activity("echo", number)


@app.activity_trigger("value")
async def echo(value: int) -> int:
    return value
"""


class Stopwatch:
    """Adds up the time of the SDK's replays, so that what is left of a turn is the host's own."""

    def __init__(self, app: FunctionApp) -> None:
        self.turns: list[tuple[float, float]] = []
        """At the end of each replay: the time, and the seconds spent in replays so far."""
        self._invoke = app.invoke
        self._replaying = 0.0

    async def invoke(self, function: Function, data: TypedData, **options: Any) -> Outcome:
        """Stand in for `FunctionApp.invoke`."""
        started = time.perf_counter()
        outcome = await self._invoke(function, data, **options)
        if function.kind == ORCHESTRATION:
            self._replaying += time.perf_counter() - started
            self.turns.append((time.perf_counter(), self._replaying))
        return outcome

    def last(self, turns: int) -> tuple[float, float]:
        """Milliseconds a turn over the last turns: of the SDK, and of the host with the activity that it ran."""
        (begin, replaying_before), (end, replaying_after) = self.turns[-1 - turns], self.turns[-1]
        replaying = replaying_after - replaying_before
        return replaying / turns * 1000, (end - begin - replaying) / turns * 1000


async def run(host: Host, orchestrator: str, value: Any = None) -> None:
    """Start an orchestration and wait for its end."""
    instance = host.engine.start_instance(orchestrator, json.dumps(json.dumps(value)))
    ended = await host.engine.wait(instance.instance_id)
    if ended.status != "Completed":
        raise RuntimeError(f"{orchestrator} ended as {ended.status}: {ended.output}")


async def throughput(host: Host) -> dict[str, float]:
    """Trivial orchestrations (one activity) a second, with 20 in flight."""
    left = iter(range(ORCHESTRATIONS))

    async def starter() -> None:
        for _ in left:
            await run(host, "one")

    started = time.perf_counter()
    await asyncio.gather(*(starter() for _ in range(IN_FLIGHT)))
    return {"orchestrations a second": ORCHESTRATIONS / (time.perf_counter() - started)}


async def fan_out(host: Host) -> dict[str, float]:
    """Seconds for an orchestration of 1,000 activities at once."""
    started = time.perf_counter()
    await run(host, "fan_out", FAN_OUT)
    return {f"fan-out of {FAN_OUT:,}, seconds": time.perf_counter() - started}


async def long_history(host: Host) -> dict[str, float]:
    """Milliseconds a turn of the SDK and of the host, at the end of a short and of a long history."""
    figures = {}
    for events in HISTORIES:
        stopwatch = Stopwatch(host.app)
        host.app.invoke = stopwatch.invoke  # type: ignore[method-assign]  # a probe around the real one
        try:
            await run(host, "long_history", [events, TURNS])
        finally:
            del host.app.invoke
        figures[f"SDK's ms a turn, at {events:,} events"], figures[f"host's ms a turn, at {events:,} events"] = (
            stopwatch.last(TURNS)
        )
    return figures


async def measure(rounds: int) -> dict[str, list[float]]:
    """Measure everything `rounds` times, after one orchestration to warm up."""
    figures: dict[str, list[float]] = {}
    benchmarks: tuple[Callable[[Host], Awaitable[dict[str, float]]], ...] = (throughput, fan_out, long_history)
    with tempfile.TemporaryDirectory() as folder:
        app = Path(folder) / "app"
        app.mkdir()
        (app / "function_app.py").write_text(APP)
        async with Host(app, state=Path(folder) / "state.db") as host:
            await run(host, "one")
            for _ in range(rounds):
                for benchmark in benchmarks:
                    for name, figure in (await benchmark(host)).items():
                        figures.setdefault(name, []).append(figure)
    return figures


def main() -> None:
    """Print medians as a table; write all figures to a file if asked to."""
    parser = argparse.ArgumentParser(
        prog="python -m dev.benchmarks.embedded_host", description="Measure the embedded host."
    )
    parser.add_argument("--rounds", type=int, default=5, help="of which the medians are taken (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="a file for the figures of all rounds")
    arguments = parser.parse_args()
    figures = asyncio.run(measure(arguments.rounds))
    print(f"{'':40}{'median':>10}{'lowest':>10}{'highest':>10}")
    for name, values in figures.items():
        print(f"{name:40}{statistics.median(values):10.2f}{min(values):10.2f}{max(values):10.2f}")
    if arguments.json is not None:
        machine = {"python": platform.python_version(), "system": platform.platform()}
        arguments.json.write_text(json.dumps({"machine": machine, "rounds": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
