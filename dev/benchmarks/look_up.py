"""What does a token cost while it is good? The time to have it for a request without sending anything."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from google.oauth2.credentials import Credentials

from dev.benchmarks.measuring import Figures, Plan, Target, interleaved, settle
from dev.benchmarks.page import Section, table
from dev.benchmarks.peers import APP, open_all, token_source
from dev.benchmarks.servers import Server, raw_server
from shared.access_tokens import BearerAuth, TokenCache
from shared.business import COLLECTION

_ON_THREAD, _IN_COROUTINE = "on a thread, µs", "in a coroutine, µs"
_BARE_IF, _BARE_IF_ON_TWO_CLOCKS = "a bare `if`", "a bare `if` on both clocks"
_FRESH, _FLOW = "TokenCache: fresh()", "BearerAuth: its whole flow"
_LIMITATION = """\
A look-up takes more than a bare `if` because the cache reads two clocks: one stands still while a machine is suspended,
and the other may be set. A bare `if` that reads both is the least that is as safe, and that ratio is shown too."""


def answer(plan: Plan) -> Section:
    """Measure all look-ups."""
    figures = asyncio.run(_measure(plan))
    targets = []
    for least in (_BARE_IF, _BARE_IF_ON_TWO_CLOCKS):
        ratio = figures.ratio(_ON_THREAD, APP, least)
        targets.append(Target(f"look-up of a fresh token against {least}", "at most", 1.5, "x", ratio, _LIMITATION))
    return Section("Cached look-up", _text(figures), targets)


@dataclass(slots=True)
class _BareIf:
    """The least that anybody could write, and the least that is as safe as the cache."""

    token: str
    refresh_at: float
    refresh_at_wall: float

    def get(self) -> str | None:
        return self.token if time.monotonic() < self.refresh_at else None

    def get_by_two_clocks(self) -> str | None:
        if time.monotonic() < self.refresh_at and time.time() < self.refresh_at_wall:
            return self.token
        return None


async def _measure(plan: Plan) -> Figures:
    figures, seconds = Figures(), plan.choose(0.05, 0.02)
    bare_if = _BareIf("x", time.monotonic() + 3600, time.time() + 3600)
    expiry = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=1)  # google-auth wants no time zone
    google = Credentials(token="x" * 1000, expiry=expiry)
    with raw_server(plan) as server:
        tokens = TokenCache().of(token_source(server))
        tokens.get()
        async with open_all(server) as peers:
            on_thread: dict[str, Callable[[], object]] = {
                _BARE_IF: bare_if.get,
                _BARE_IF_ON_TWO_CLOCKS: bare_if.get_by_two_clocks,
                _FRESH: tokens.fresh,
                **{name: peer.look_up_on_thread for name, peer in peers.items() if peer.look_up_on_thread},
                "google-auth": lambda: google.before_request(None, "POST", server.url, {}),
            }
            in_coroutine: dict[str, Callable[[], object]] = {
                **{name: peer.look_up for name, peer in peers.items() if peer.look_up},
                _FLOW: _whole_flow(server),
            }
            for name, look_up in interleaved(plan.choose(11, 3), on_thread.items()):
                figures.add(name, _ON_THREAD, await _time(look_up, awaited=False, seconds=seconds))
            for name, look_up in interleaved(plan.choose(11, 3), in_coroutine.items()):
                figures.add(name, _IN_COROUTINE, await _time(look_up, awaited=True, seconds=seconds))
    return figures


def _whole_flow(server: Server) -> Callable[[], Awaitable[None]]:
    """What puts the app's token on requests of httpx, from the request to the response."""
    auth = BearerAuth(token_source(server), cache=TokenCache(), origin=server.url)
    request = httpx.Request("POST", server.url + COLLECTION)
    response = httpx.Response(201)

    async def flow() -> None:
        request.headers.pop("Authorization", None)
        steps = auth.async_auth_flow(request)
        await anext(steps)
        with contextlib.suppress(StopAsyncIteration):
            await steps.asend(response)

    return flow


async def _time(look_up: Callable[[], Any], *, awaited: bool, seconds: float) -> float:
    """Microseconds of a look-up, less those of the loop around it."""
    settle()
    taken, turns = 0.0, range(1)
    while taken < seconds or len(turns) < 100:  # the first turns may fetch the token
        turns = range(2 * len(turns))
        start = time.perf_counter()
        if awaited:
            for _ in turns:
                await look_up()
        else:
            for _ in turns:
                look_up()
        taken = time.perf_counter() - start
    start = time.perf_counter()
    for _ in turns:
        pass
    return (taken - (time.perf_counter() - start)) / len(turns) * 1e6


def _text(figures: Figures) -> str:
    return f"""
Time to have the token of a request while it is good, without sending anything: by `get` and `get_async` of TokenCache,
the flows of httpx-auth and BearerAuth, `ensure_active_token` of Authlib, `on_request` of azure-core's bearer policy and
`before_request` of google-auth.

{table(figures, _ON_THREAD)}

{table(figures, _IN_COROUTINE)}

azure-identity accepts authorities with TLS only, so its managed identity credential is measured, whose endpoint is
plain HTTP by design. msal and httpx-auth have no async interface: in a coroutine they run as they do on a thread.
google-auth has no client credentials grant; it is measured with a token given to it.
"""
