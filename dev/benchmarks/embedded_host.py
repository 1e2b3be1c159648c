"""What does the embedded host cost: orchestrations a second, a wide fan-out, and turns at the end of long histories?"""

import asyncio
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from dev.benchmarks.measuring import Figures, Plan, interleaved, keep_in_flight
from dev.benchmarks.page import Section, table
from devhost.host import Host
from devhost.protocol import TypedData
from devhost.worker import ORCHESTRATION, Function, Outcome

_TIME, _RATE = "time, s", "activities per second, 1/s"
_SDK, _HOST = "SDK, for a turn, ms", "host, for a turn, ms"
_TURNS = 20
_APP = """
import azure.durable_functions as df

app = df.DFApp()

@app.orchestration_trigger("context")
def work(context):
    at_once, in_turn = context.get_input()
    yield context.task_all([context.call_activity("echo", number) for number in range(at_once)])
    for number in range(in_turn):
        yield context.call_activity("echo", number)

@app.activity_trigger("value")
async def echo(value: int) -> int:
    return value
"""


def answer(plan: Plan) -> Section:
    """Measure the host in this process, with its state on disk."""
    return Section("Embedded host", _text(asyncio.run(_measure(plan))))


async def _measure(plan: Plan) -> Figures:
    figures = Figures()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "function_app.py").write_text(_APP, encoding="utf-8")
        async with Host(Path(folder), state=Path(folder) / "state.db") as host:
            await _run(host, 1)
            measurements = (
                partial(_measure_rate, host, figures, orchestrations=1_000, activities=1),
                partial(_measure_rate, host, figures, orchestrations=1, activities=1_000),
                partial(_measure_turns, host, figures, events=1_000),
                partial(_measure_turns, host, figures, events=10_000),
            )
            for measure in interleaved(plan.choose(2, 1), measurements):
                await measure()
    return figures


async def _run(host: Host, at_once: int, in_turn: int = 0) -> None:
    """Have an orchestration call so many activities, and wait for its end."""
    instance = host.engine.start_instance("work", json.dumps(json.dumps([at_once, in_turn])))
    ended = await host.engine.wait(instance.instance_id)
    if ended.status != "Completed":
        raise RuntimeError(f"expected the orchestration to be completed, it is {ended.status}: {ended.output}")


async def _measure_rate(host: Host, figures: Figures, orchestrations: int, activities: int) -> None:
    subject = f"orchestrations: {orchestrations:,}; activities of each: {activities:,}"
    start = time.perf_counter()
    await keep_in_flight(20, lambda: _run(host, activities), range(orchestrations))
    seconds = time.perf_counter() - start
    figures.add(subject, _TIME, seconds)
    figures.add(subject, _RATE, orchestrations * activities / seconds)


async def _measure_turns(host: Host, figures: Figures, events: int) -> None:
    """Tell the time of the SDK's replays from the host's own, in the last turns of an orchestration."""
    invoke = host.app.invoke
    replayed = [(0.0, 0.0)]  # at the end of each replay: the time, and the seconds spent in replays so far

    async def invoke_and_note(function: Function, data: TypedData, **options: Any) -> Outcome:
        start = time.perf_counter()
        outcome = await invoke(function, data, **options)
        if function.kind == ORCHESTRATION:
            end = time.perf_counter()
            replayed.append((end, replayed[-1][1] + end - start))
        return outcome

    host.app.invoke = invoke_and_note  # type: ignore[method-assign]  # a probe around the real one
    try:
        await _run(host, events // 2, _TURNS)  # two events for each activity
    finally:
        del host.app.invoke
    (begin, before), (end, after) = replayed[-1 - _TURNS], replayed[-1]
    figures.add(f"at the end of {events:,} events", _SDK, (after - before) / _TURNS * 1e3)
    figures.add(f"at the end of {events:,} events", _HOST, (end - begin - (after - before)) / _TURNS * 1e3)


def _text(figures: Figures) -> str:
    return f"""
[The embedded host](embedded-host.md) by itself, in the process that measures, with 20 orchestrations in flight at most:

{table(figures, _TIME, _RATE)}

The protocol hands the SDK the whole history in every turn, so that the cost of a turn grows with its length. Of the
last {_TURNS} turns of an orchestration, each of which runs an activity that counts as the host's:

{table(figures, _SDK, _HOST)}
"""
