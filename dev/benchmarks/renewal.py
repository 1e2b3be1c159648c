"""What happens when many need a token that nobody has: at the start, when it expires under load, when it is revoked."""

import asyncio
import threading
import time
from dataclasses import replace
from types import TracebackType
from typing import Self

import aiohttp

from dev.benchmarks import peers
from dev.benchmarks.measuring import Findings, Plan, Samples, Target, interleaved, percentile, settle
from dev.benchmarks.raw_server import UNCHECKED_TOKEN, Control, Server, running_server
from dev.benchmarks.token_holders import ASYNC_HOLDERS, HOLDERS, OURS, AsyncHolder, AsyncLookUp, Holder, LookUp

CALLERS = 200
TOKEN_DELAY = 0.3
"""Seconds that a token request takes, ..."""
THREADS_TOKEN_DELAY = 0.05
"""... and in the stampede of threads, since one peer makes all requests one after the other."""

REQUESTS, BLOCKED, SERVED = "token requests", "event loop blocked", "all served after"
COLD, EXPIRY = "cold", "at expiry"
TASKS, THREADS = f"{CALLERS} tasks", f"{CALLERS} threads"
FRESH, ROLLOVER, RATIO = "p99, token fresh", "p99, rollover", "rollover to fresh"
FAILED, RENEWALS = "calls that failed", "token requests after a revocation"
REVOCABLE = (peers.TYPED_CLIENT, peers.AUTHLIB, peers.HTTPX_AUTH, peers.AZURE_CORE)

_DUE_SECONDS = 1
_EXPIRED_SECONDS = 2.2
_ROLLOVER_SECONDS = 4
_LOAD_WORKERS = 16
_AROUND = 0.05  # seconds: some take a while to send their token request


def measure(plan: Plan) -> Findings:
    """Measure stampedes, rollovers and revocations."""
    samples = Samples()
    with running_server(plan.server_core) as server:
        for name, holder in interleaved(plan.choose(2, 1), ASYNC_HOLDERS):
            asyncio.run(_stampede_of_tasks(server, name, holder, samples))
        for name, thread_holder in interleaved(plan.choose(2, 1), HOLDERS):
            _stampede_of_threads(server, name, thread_holder, samples)
        for name, holder in interleaved(plan.choose(3, 1), ASYNC_HOLDERS):
            asyncio.run(_rollovers(server, name, holder, samples, plan.choose(8.0, 4.5)))
        for name, client in interleaved(plan.choose(3, 1), {name: peers.CLIENTS[name] for name in REVOCABLE}):
            asyncio.run(_revocation(server, name, client, samples, plan.choose(1.0, 0.5)))
    findings = Findings(samples.figures())
    findings.targets = _targets(findings)
    return findings


async def _stampede_of_tasks(server: Server, name: str, holder: AsyncHolder, samples: Samples) -> None:
    control = replace(holder.due(_DUE_SECONDS), delay=TOKEN_DELAY, reset=True)
    async with holder.open(server) as look_up:
        for situation in (COLD, EXPIRY):
            server.control(control)
            async with _Watch() as watch:
                start = time.perf_counter()
                await asyncio.gather(*(look_up() for _ in range(CALLERS)))
                served = time.perf_counter() - start
            case = f"{TASKS}, {situation}"
            samples.add(name, REQUESTS, "", len(server.control(control).token), case)
            samples.add(name, BLOCKED, "ms", watch.blocked * 1e3, case)
            samples.add(name, SERVED, "ms", served * 1e3, case)
            if situation == COLD:
                await asyncio.sleep(_EXPIRED_SECONDS)


class _Watch:
    """Sees for how long the event loop does not get round to a task that is due every millisecond."""

    _PERIOD = 0.001

    def __init__(self) -> None:
        self.blocked = 0.0

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0.02)
        self.blocked = 0.0
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await asyncio.sleep(2 * self._PERIOD)
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(self._PERIOD)
            self.blocked = max(self.blocked, time.perf_counter() - start - self._PERIOD)


def _stampede_of_threads(server: Server, name: str, holder: Holder, samples: Samples) -> None:
    control = replace(holder.due(_DUE_SECONDS), delay=THREADS_TOKEN_DELAY, reset=True)
    with holder.open(server) as look_up:
        for situation in (COLD, EXPIRY):
            server.control(control)
            served = _run_at_once(look_up)
            case = f"{THREADS}, {situation}"
            samples.add(name, REQUESTS, "", len(server.control(control).token), case)
            samples.add(name, SERVED, "ms", served * 1e3, case)
            if situation == COLD:
                time.sleep(_EXPIRED_SECONDS)


def _run_at_once(look_up: LookUp) -> float:
    """Have all callers look up at the same moment; returns the seconds until the last one is done."""
    barrier = threading.Barrier(CALLERS + 1)
    errors: list[Exception] = []

    def caller() -> None:
        barrier.wait()
        try:
            look_up()
        except Exception as error:  # noqa: BLE001 (whatever a peer raises)
            errors.append(error)

    threads = [threading.Thread(target=caller) for _ in range(CALLERS)]
    for thread in threads:
        thread.start()
    barrier.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return time.perf_counter() - start


async def _rollovers(server: Server, name: str, holder: AsyncHolder, samples: Samples, seconds: float) -> None:
    """Call the API without pause while tokens come and go; everybody calls it by the same aiohttp session."""
    control = replace(holder.due(_ROLLOVER_SECONDS), delay=TOKEN_DELAY, reset=True)
    latencies: list[tuple[float, float]] = []
    async with holder.open(server) as look_up, aiohttp.ClientSession(headers=_headers()) as session:
        server.control(control)
        await look_up()
        server.control(control)
        settle()
        end = time.monotonic() + seconds
        async with asyncio.TaskGroup() as load:
            for _ in range(_LOAD_WORKERS):
                load.create_task(_call_until(end, look_up, session, server, latencies))
        renewals = server.control(control).token
    fresh, rollover = _divided(latencies, renewals)
    samples.add(name, FRESH, "ms", percentile(fresh, 0.99) * 1e3)
    samples.add(name, ROLLOVER, "ms", percentile(rollover, 0.99) * 1e3)
    samples.add(name, RATIO, "x", percentile(rollover, 0.99) / percentile(fresh, 0.99))


async def _call_until(
    end: float,
    look_up: AsyncLookUp,
    session: aiohttp.ClientSession,
    server: Server,
    latencies: list[tuple[float, float]],
) -> None:
    url = f"{server.url}/businesses"
    while (start := time.monotonic()) < end:
        await look_up()
        async with session.post(url, data=b"{}") as response:
            response.raise_for_status()
            await response.read()
        latencies.append((start, time.monotonic() - start))


def _divided(latencies: list[tuple[float, float]], renewals: tuple[float, ...]) -> tuple[list[float], list[float]]:
    """Latencies of the calls that no renewal was near to, and of those that began around one."""
    fresh, rollover = [], []
    for start, latency in latencies:
        if any(-_AROUND <= start - renewal <= TOKEN_DELAY + _AROUND for renewal in renewals):
            rollover.append(latency)
        else:
            fresh.append(latency)
    return fresh, rollover


def _headers() -> dict[str, str]:
    return {"Authorization": f"Bearer {UNCHECKED_TOKEN}", "Content-Type": "application/json"}


async def _revocation(server: Server, name: str, client: peers.Client, samples: Samples, seconds: float) -> None:
    """Call the API without pause, have all tokens revoked, and see how the calls fare that begin after that."""
    control = Control(delay=TOKEN_DELAY, reset=True)
    server.control(control)
    begun = failed = 0
    revoked = asyncio.Event()
    async with client(server) as call:
        await call()

        async def caller() -> None:
            nonlocal begun, failed
            while time.monotonic() < end:
                counts = revoked.is_set()
                begun += counts
                try:
                    await call()
                except Exception:  # noqa: BLE001 (whatever a client raises on a 401)
                    failed += counts

        end = time.monotonic() + 0.3 + seconds
        async with asyncio.TaskGroup() as load:
            for _ in range(_LOAD_WORKERS):
                load.create_task(caller())
            await asyncio.sleep(0.3)
            server.control(replace(control, revoke=True))
            revoked.set()
    samples.add(name, FAILED, "%", failed / begun * 100)
    samples.add(name, RENEWALS, "", len(server.control(control).token))


def _targets(findings: Findings) -> list[Target]:
    targets = [
        Target(f"token requests of {callers}, {situation}", "<=", 1, "", samples)
        for callers in (TASKS, THREADS)
        for situation in (COLD, EXPIRY)
        for samples in [findings.figure(OURS, REQUESTS, f"{callers}, {situation}").samples]
    ]
    rollover = findings.figure(OURS, RATIO).samples
    targets.append(Target("p99 of calls at the rollover of a token against p99 of others", "<=", 1.2, "x", rollover))
    typed = peers.TYPED_CLIENT
    targets.append(Target("calls that fail after a revocation", "<=", 0, "%", findings.figure(typed, FAILED).samples))
    targets.append(Target("token requests after a revocation", "<=", 1, "", findings.figure(typed, RENEWALS).samples))
    return targets
