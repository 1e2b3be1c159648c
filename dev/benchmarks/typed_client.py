"""Calls per second and processor time a call, of the typed client and of what one would use instead."""

import asyncio
import time
from contextlib import AsyncExitStack

from dev.benchmarks.measuring import Findings, Plan, Samples, Target, interleaved, settle
from dev.benchmarks.peers import (
    CLIENTS,
    HTTPX,
    HTTPX_AIOHTTP,
    HTTPX_SAME_TRANSPORT,
    RAW_SOCKETS,
    TYPED_CLIENT,
    Call,
    is_record,
)
from dev.benchmarks.raw_server import Control, running_server

RATE, PROCESSOR_TIME = "calls per second", "processor time a call"
IN_FLIGHT = (1, 16, 64)


def measure(plan: Plan) -> Findings:
    """Measure all clients, with 1, 16 and 64 calls in flight."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Findings:
    samples = Samples()
    with running_server(plan.server_core) as server:
        async with AsyncExitStack() as opened:
            calls = {name: await opened.enter_async_context(client(server)) for name, client in CLIENTS.items()}
            for name, call in calls.items():
                answer = await call()
                if not is_record(answer) and name != RAW_SOCKETS:
                    raise ValueError(f"expected a record from {name}, got {answer!r}")
            for in_flight in IN_FLIGHT:
                for call in calls.values():
                    await _load(call, in_flight, seconds=0.1)
                for name, call in interleaved(plan.choose(6, 2), calls):
                    server.control(Control(reset=True))
                    settle()
                    cpu, wall = time.process_time(), time.perf_counter()
                    count = await _load(call, in_flight, plan.choose(0.5, 0.15))
                    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                    if (served := server.control(Control()).api) != count:
                        raise ValueError(f"{name} claims {count} calls, the server saw {served}")
                    case = f"{in_flight} in flight"
                    samples.add(name, RATE, "1/s", count / wall, case)
                    samples.add(name, PROCESSOR_TIME, "µs", cpu / count * 1e6, case)
    findings = Findings(samples.figures())
    findings.targets = _targets(findings)
    return findings


async def _load(call: Call, in_flight: int, seconds: float) -> int:
    """Keep so many calls in flight for a while; returns how many were made."""
    count = 0
    end = time.perf_counter() + seconds

    async def caller() -> None:
        nonlocal count
        while time.perf_counter() < end:
            await call()
            count += 1

    async with asyncio.TaskGroup() as callers:
        for _ in range(in_flight):
            callers.create_task(caller())
    return count


def _targets(findings: Findings) -> list[Target]:
    case = "16 in flight"
    targets = [
        Target(
            "calls per second against bare httpx, 16 in flight",
            ">=",
            6.0,
            "x",
            findings.ratio(RATE, case, TYPED_CLIENT, HTTPX),
        )
    ]
    for plain, text in (
        (HTTPX_SAME_TRANSPORT, "the typed client's own transport"),
        (HTTPX_AIOHTTP, "the httpx-aiohttp transport"),
    ):
        ratio = findings.ratio(PROCESSOR_TIME, case, TYPED_CLIENT, plain)
        targets.append(
            Target(f"processor time a call against plain httpx code on {text}, 16 in flight", "<=", 0.8, "x", ratio)
        )
    return targets
