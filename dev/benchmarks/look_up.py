"""What it costs to have a token for a request while the one that is held is good."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta

from dev.benchmarks.measuring import Findings, Plan, Samples, Target, interleaved, settle
from dev.benchmarks.raw_server import Server, running_server
from dev.benchmarks.token_holders import (
    ASYNC_HOLDERS,
    AUTHLIB,
    AZURE_CORE,
    HOLDERS,
    HTTPX_AUTH,
    MSAL,
    OURS,
    AsyncLookUp,
    LookUp,
    bearer_auth,
    source,
)
from shared.access_tokens import AccessToken, TokenCache

TIME = "time of a look-up"
SYNC, ASYNC = "sync", "async"
BARE_IF = "a bare `if`"
BARE_IF_ON_TWO_CLOCKS = "a bare `if` on both clocks"
FRESH = f"{OURS}: fresh()"


class _BareIf:
    """The least that anybody could write."""

    def __init__(self) -> None:
        self.token = AccessToken("x")
        self.refresh_at = time.monotonic() + 3600

        self.refresh_at_wall = time.time() + 3600

    def get(self) -> AccessToken | None:
        if time.monotonic() < self.refresh_at:
            return self.token
        return None

    def get_by_two_clocks(self) -> AccessToken | None:
        """As safe as the cache: one clock stands still in a suspended machine, the other may be set."""
        if time.monotonic() < self.refresh_at and time.time() < self.refresh_at_wall:
            return self.token
        return None


def measure(plan: Plan) -> Findings:
    """Measure all look-ups."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> Findings:
    samples = Samples()
    rounds, seconds = plan.choose(11, 3), plan.choose(0.05, 0.02)
    with running_server(plan.server_core) as server:
        async with AsyncExitStack() as opened:
            fresh = TokenCache().of(source(server))
            fresh.get()
            bare_if = _BareIf()
            sync: dict[str, LookUp] = {
                BARE_IF: bare_if.get,
                BARE_IF_ON_TWO_CLOCKS: bare_if.get_by_two_clocks,
                FRESH: fresh.fresh,
            }
            for name, holder in HOLDERS.items():
                sync[_call(name, SYNC)] = opened.enter_context(holder.open(server))
            sync["google-auth: before_request()"] = _google_auth(server)
            asynchronous: dict[str, AsyncLookUp] = {}
            for name, async_holder in ASYNC_HOLDERS.items():
                if name not in (HTTPX_AUTH, MSAL):  # the same code as for threads
                    asynchronous[_call(name, ASYNC)] = await opened.enter_async_context(async_holder.open(server))
            asynchronous["BearerAuth: its whole flow"] = await opened.enter_async_context(bearer_auth(server))
            for name, look_up in interleaved(rounds, sync):
                samples.add(name, TIME, "µs", _time(look_up, seconds), SYNC)
            for name, look_up_async in interleaved(rounds, asynchronous):
                samples.add(name, TIME, "µs", await _time_async(look_up_async, seconds), ASYNC)
    findings = Findings(samples.figures())
    for least in (BARE_IF, BARE_IF_ON_TWO_CLOCKS):
        ratio = findings.ratio(TIME, SYNC, _call(OURS, SYNC), least)
        findings.targets.append(Target(f"look-up of a fresh token against {least}", "<=", 1.5, "x", ratio))
    return findings


def _call(name: str, kind: str) -> str:
    calls = {
        (OURS, SYNC): "get()",
        (OURS, ASYNC): "await get_async()",
        (AUTHLIB, ASYNC): "await ensure_active_token()",
        (HTTPX_AUTH, SYNC): "its flow",
        (AZURE_CORE, ASYNC): "await on_request()",
    }
    call = calls.get((name, kind))
    return name if call is None else f"{name}: {call}"


def _google_auth(server: Server) -> Callable[[], object]:
    from google.oauth2.credentials import Credentials

    expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)  # google-auth wants no time zone
    credentials = Credentials(token="x" * 1000, expiry=expiry)
    url = f"{server.url}/businesses"
    return lambda: credentials.before_request(None, "POST", url, {})


def _time(look_up: Callable[[], object], seconds: float) -> float:
    """Microseconds of a look-up, less those of the loop around it."""
    look_up()
    settle()
    count = 100
    while True:
        numbers = range(count)
        start = time.perf_counter()
        for _ in numbers:
            look_up()
        taken = time.perf_counter() - start
        if taken >= seconds:
            break
        count *= 2
    start = time.perf_counter()
    for _ in numbers:
        pass
    return (taken - (time.perf_counter() - start)) / count * 1e6


async def _time_async(look_up: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Microseconds of a look-up that is awaited, less those of the loop around it."""
    await look_up()
    settle()
    count = 100
    while True:
        numbers = range(count)
        start = time.perf_counter()
        for _ in numbers:
            await look_up()
        taken = time.perf_counter() - start
        if taken >= seconds:
            break
        count *= 2
    start = time.perf_counter()
    for _ in numbers:
        pass
    return (taken - (time.perf_counter() - start)) / count * 1e6
