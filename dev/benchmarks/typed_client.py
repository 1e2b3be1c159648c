"""How fast is the typed client? Calls per second and processor time a call, beside what one would use instead."""

import asyncio
import time

from pydantic import BaseModel

from dev.benchmarks.measuring import Figures, Plan, Target, interleaved, keep_in_flight, settle, turns_for
from dev.benchmarks.page import Section, table
from dev.benchmarks.peers import APP, HTTPX, HTTPX_ON_AIOHTTP, HTTPX_ON_APP, RAW_SOCKETS, open_all
from dev.benchmarks.raw_server import Control
from dev.benchmarks.servers import raw_server, tell

_RATE, _PROCESSOR_TIME = "calls per second, 1/s", "processor time of a call in the client's process, µs"
_CASE = "16 in flight"


def answer(plan: Plan) -> Section:
    """Measure all clients, with 1, 16 and 64 calls in flight."""
    figures = asyncio.run(_measure(plan))
    rate = figures.ratio(_RATE, APP, HTTPX, _CASE)
    targets = [Target(f"calls per second against bare httpx, {_CASE}", "at least", 6, "x", rate)]
    for other, transport in (
        (HTTPX_ON_APP, "the typed client's own transport"),
        (HTTPX_ON_AIOHTTP, "the httpx-aiohttp transport"),
    ):
        text = f"processor time a call against plain httpx code on {transport}, {_CASE}"
        targets.append(Target(text, "at most", 0.8, "x", figures.ratio(_PROCESSOR_TIME, APP, other, _CASE)))
    return Section("Typed client", _text(figures), targets)


async def _measure(plan: Plan) -> Figures:
    figures = Figures()
    with raw_server(plan) as server:
        async with open_all(server) as peers:
            calls = {name: peer.call for name, peer in peers.items() if peer.call is not None}
            for name, call in calls.items():
                if not isinstance(record := await call(), BaseModel) and name != RAW_SOCKETS:
                    raise TypeError(f"expected a record from {name}, got {record!r}")
            for in_flight in (1, 16, 64):
                for call in calls.values():
                    await keep_in_flight(in_flight, call, turns_for(0.1))
                for name, call in interleaved(plan.choose(5, 2), calls.items()):
                    tell(server, Control(reset=True))
                    settle()
                    cpu, wall = time.process_time(), time.perf_counter()
                    count = await keep_in_flight(in_flight, call, turns_for(plan.choose(0.4, 0.15)))
                    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
                    if (served := tell(server, Control()).api) != count:
                        raise ValueError(f"{name} claims {count} calls, the server saw {served}")
                    figures.add(name, _RATE, count / wall, f"{in_flight} in flight")
                    figures.add(name, _PROCESSOR_TIME, cpu / count * 1e6, f"{in_flight} in flight")
    return figures


def _text(figures: Figures) -> str:
    return f"""
Each call posts a record with a bearer token and gets a record back. All but the raw sockets write JSON from a model,
check the status and validate the answer into a model. The typed client does so with all that the app gives it: token
cache and renewal after a 401, trace headers, time-outs, a limit for the body. The server
([`dev/benchmarks/raw_server.py`](../dev/benchmarks/raw_server.py)) answers from fixed bytes.

{table(figures, _RATE)}

{table(figures, _PROCESSOR_TIME)}

"httpx on the typed client's transport" is an `httpx.AsyncClient` on `shared.rest.transport`, so that what differs from
the typed client is httpx's own client code. azure-core has its aiohttp transport, a retry and a bearer policy. The
time of pyreqwest's own threads counts. Authlib and httpx-auth run on httpx's own transport, as they come.
"""
