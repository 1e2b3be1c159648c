"""What if many need a token that nobody has: at the start, when it expires under load, when it is revoked?"""

import asyncio
import functools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import aiohttp

from dev.benchmarks.measuring import Figures, Plan, Target, interleaved, keep_in_flight, settle, turns_for
from dev.benchmarks.page import Section, table
from dev.benchmarks.peers import APP, PEERS
from dev.benchmarks.raw_server import HEADERS, Control
from dev.benchmarks.servers import Server, raw_server, tell
from shared.business import COLLECTION

_REQUESTS, _BLOCKED, _SERVED = "token requests", "event loop blocked, ms", "all served after, ms"
_FRESH, _ROLLOVER, _RATIO = "p99, token fresh, ms", "p99, rollover, ms", "rollover to fresh, x"
_FAILED, _RENEWALS = "calls that failed, %", "token requests after a revocation"
_CALLERS, _IN_FLIGHT = 200, 16
_DELAY, _DELAY_FOR_THREADS = 0.3, 0.05  # seconds that a token request takes
_AROUND = 0.05  # seconds around a token request: some take a while to send it


def answer(plan: Plan) -> Section:
    """Measure stampedes, rollovers and revocations."""
    figures = Figures()
    with raw_server(plan) as server, ThreadPoolExecutor(_CALLERS) as threads:
        for name in interleaved(plan.choose(2, 1), PEERS):
            asyncio.run(_stampede(server, name, None, figures))
        list(threads.map(lambda _: time.sleep(0.1), range(_CALLERS)))  # starts them all
        for name in interleaved(plan.choose(2, 1), PEERS):
            asyncio.run(_stampede(server, name, threads, figures))
        for name in interleaved(plan.choose(3, 1), PEERS):
            asyncio.run(_rollovers(server, name, figures))
        for name in interleaved(plan.choose(3, 1), PEERS):
            asyncio.run(_revocation(server, name, plan.choose(1.0, 0.5), figures))
    targets = [
        Target(f"token requests of {case}", "at most", 1, "", samples)
        for (subject, quantity, case), samples in figures.samples.items()
        if (subject, quantity) == (APP, _REQUESTS)
    ]
    for text, quantity, limit, unit in (
        ("p99 of calls at the rollover of a token against p99 of others", _RATIO, 1.2, "x"),
        ("calls that fail after a revocation", _FAILED, 0, "%"),
        (_RENEWALS, _RENEWALS, 1, ""),
    ):
        targets.append(Target(text, "at most", limit, unit, figures.samples[APP, quantity, ""]))
    return Section("Stampede, rollover, revocation", _text(figures), targets)


async def _stampede(server: Server, name: str, threads: ThreadPoolExecutor | None, figures: Figures) -> None:
    """Have tasks or threads look up at once when there is no token yet, and again when it has expired."""
    async with PEERS[name](server) as peer:
        look_up = peer.look_up
        if threads is not None:
            on_thread = functools.partial(asyncio.get_running_loop().run_in_executor, threads)
            look_up = functools.partial(on_thread, peer.look_up_on_thread) if peer.look_up_on_thread else None
        if look_up is None:
            return
        delay = _DELAY_FOR_THREADS if threads else _DELAY
        control = Control(delay=delay, lifetime=peer.margin + 1, refresh_in=1, reset=True)
        for situation, pause in (("cold", 0), ("at expiry", 2.2)):
            case = f"{_CALLERS} {'threads' if threads else 'tasks'}, {situation}"
            await asyncio.sleep(pause)
            tell(server, control)
            watching = asyncio.create_task(_longest_block(until := asyncio.Event()))
            await asyncio.sleep(0.02)
            start = time.perf_counter()
            await asyncio.gather(*(look_up() for _ in range(_CALLERS)))
            figures.add(name, _SERVED, (time.perf_counter() - start) * 1e3, case)
            until.set()
            blocked = await watching
            if threads is None:
                figures.add(name, _BLOCKED, blocked * 1e3, case)
            figures.add(name, _REQUESTS, len(tell(server, control).token), case)


async def _longest_block(until: asyncio.Event) -> float:
    """For how many seconds the event loop did not get round to a task that is due every millisecond."""
    longest = 0.0
    while not until.is_set():
        start = time.perf_counter()
        await asyncio.sleep(0.001)
        longest = max(longest, time.perf_counter() - start - 0.001)
    return longest


async def _rollovers(server: Server, name: str, figures: Figures) -> None:
    """Call the API without pause while tokens come and go; everybody calls it by the same aiohttp session."""
    calls: list[tuple[float, float]] = []
    async with PEERS[name](server) as peer, aiohttp.ClientSession(server.url, headers=HEADERS) as session:
        if (look_up := peer.look_up) is None:
            return

        async def call() -> None:
            start = time.monotonic()
            await look_up()
            async with session.post(COLLECTION, data=b"{}", raise_for_status=True) as response:
                await response.read()
            calls.append((start, (time.monotonic() - start) * 1e3))

        control = Control(delay=_DELAY, lifetime=peer.margin + 3, refresh_in=3, reset=True)
        tell(server, control)
        await look_up()
        tell(server, control)
        settle()
        await keep_in_flight(_IN_FLIGHT, call, turns_for(5))  # a rollover at least
    around = [(renewal - _AROUND, renewal + _DELAY + _AROUND) for renewal in tell(server, control).token]
    latencies: dict[bool, list[float]] = {False: [], True: []}
    for start, latency in calls:
        latencies[any(begin <= start <= end for begin, end in around)].append(latency)
    fresh, rollover = (statistics.quantiles(latencies[near], n=100)[-1] for near in (False, True))
    figures.add(name, _FRESH, fresh)
    figures.add(name, _ROLLOVER, rollover)
    figures.add(name, _RATIO, rollover / fresh)


async def _revocation(server: Server, name: str, seconds: float, figures: Figures) -> None:
    """Call the API without pause, have all tokens revoked, and see how the calls fare that begin after that."""
    control = Control(delay=_DELAY, reset=True)
    revoked, failures = False, list[bool]()
    async with PEERS[name](server) as peer:
        if (post := peer.call) is None or peer.look_up is None:
            return

        async def call() -> None:
            counts, failed = revoked, False
            try:
                await post()
            except Exception:  # noqa: BLE001 (whatever a peer raises on a 401)
                failed = True
            if counts:
                failures.append(failed)

        tell(server, control)
        await post()
        load = asyncio.create_task(keep_in_flight(_IN_FLIGHT, call, turns_for(0.3 + seconds)))
        await asyncio.sleep(0.3)
        tell(server, replace(control, revoke=True))
        revoked = True
        await load
    figures.add(name, _FAILED, statistics.mean(failures) * 100)
    figures.add(name, _RENEWALS, len(tell(server, control).token))


def _text(figures: Figures) -> str:
    return f"""
**Stampede.** {_CALLERS} callers want a token at the same moment, when there is none yet and when the one that was held
is due. A token request takes {_DELAY} s ({_DELAY_FOR_THREADS} s for threads, since httpx-auth makes them one after the
other). As libraries want a new token at different times before expiry, the server gives each of them tokens that are
due by its own rule. Of the event loop, the longest time counts for which it was blocked.

{table(figures, _REQUESTS)}

{table(figures, _BLOCKED)}

{table(figures, _SERVED)}

Authlib has its token fetched by its user at first, and renews it itself later. Authlib and the azure-core policy for
async clients do not work with threads; msal is called as it is on an event loop, which it blocks.

**Rollover.** {_IN_FLIGHT} coroutines call the API without pause while tokens become due, through the same aiohttp
session, so that only the token differs. p99 of the latency of calls that begin from {_AROUND} s before a token request
to {_AROUND} s after its answer, and of all others:

{table(figures, _FRESH, _ROLLOVER, _RATIO)}

**Revocation.** They call the API without pause; all tokens issued so far are revoked, while new ones are good. Of the
calls that begin after that:

{table(figures, _FAILED, _RENEWALS)}

The peers have no rule for a 401 without a claims challenge: they go on with the revoked token until it expires.
"""
