"""Threads, event loops, cancellations, faults and revocations at random, bounded and seeded: the invariants hold."""

import asyncio
import random
import threading
from collections import Counter

import httpx
import pytest
from aiohttp import web

from dev.sandbox.serving import serve
from shared.access_tokens import (
    BearerAuth,
    CachePolicy,
    ClientCredentials,
    ClientSecretBasic,
    TokenCache,
    TokenError,
)

from .conftest import NO_CERTIFICATES

CALLS = 150
THREADS = 6
TASKS = 8


class HostileServer:
    """Fails, revokes and delays at random, and notes what a correct client would never do."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.violations: list[str] = []
        self.fetching: Counter[str] = Counter()
        self.issued = 0
        self.valid: set[str] = set()
        self.rejected: Counter[tuple[str, str]] = Counter()

    async def token(self, request: web.Request) -> web.Response:
        scope = str((await request.post())["scope"])
        self.fetching[scope] += 1
        if self.fetching[scope] > 1:
            self.violations.append(f"two fetches at once for {scope}")
        await asyncio.sleep(self.random.random() * 0.01)
        self.fetching[scope] -= 1
        fault = self.random.random()
        if fault < 0.1:
            return web.Response(status=503)
        if fault < 0.15:
            return web.Response(body=b"<html>")
        if fault < 0.2:
            return web.json_response({"error": "unauthorized_client"}, status=400)
        self.issued += 1
        token = f"{scope}-{self.issued}"
        self.valid.add(token)
        return web.json_response({"access_token": token, "expires_in": 3600})

    async def api(self, request: web.Request) -> web.Response:
        call = request.headers["X-Call"]
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not token:
            self.violations.append("a call without a token")
        if self.random.random() < 0.02:
            self.valid.clear()
        if token in self.valid:
            return web.Response()
        self.rejected[call, token] += 1
        if self.rejected[call, token] > 1:
            self.violations.append("a rejected token used twice by one call")
        return web.Response(status=401)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_under_faults_no_rule_is_broken_and_nobody_hangs(seed: int) -> None:
    hostile = HostileServer(seed)
    app = web.Application()
    app.router.add_post("/token", hostile.token)
    app.router.add_get("/api", hostile.api)
    policy = CachePolicy(backoff=0.001, failure_pause=0.002, rejection_pause=0.002)
    outcomes: Counter[str] = Counter()
    with serve(app) as url:
        cache = TokenCache(policy)
        auths = [
            BearerAuth(
                ClientCredentials(
                    token_url=f"{url}/token", client_id="c", authentication=ClientSecretBasic("s"), scope=scope
                ),
                cache=cache,
            )
            for scope in ("read", "write")
        ]

        def record(outcome: str) -> None:
            outcomes[outcome] += 1

        def blocking(worker: int) -> None:
            chance = random.Random(f"{seed} {worker}")
            with httpx.Client(verify=NO_CERTIFICATES, trust_env=False) as client:
                for call in range(CALLS):
                    try:
                        response = client.get(
                            f"{url}/api", headers={"X-Call": f"{worker}/{call}"}, auth=chance.choice(auths)
                        )
                        record(str(response.status_code))
                    except TokenError:
                        record("error")

        async def one(client: httpx.AsyncClient, name: str, chance: random.Random) -> None:
            task = asyncio.create_task(client.get(f"{url}/api", headers={"X-Call": name}, auth=chance.choice(auths)))
            if chance.random() < 0.2:
                await asyncio.sleep(chance.random() * 0.005)
                task.cancel()
            try:
                record(str((await task).status_code))
            except TokenError:
                record("error")
            except asyncio.CancelledError:
                record("cancelled")

        async def several(worker: int) -> None:
            async def sequence(number: int) -> None:
                chance = random.Random(f"{seed} {worker} {number}")
                for call in range(CALLS // 5):
                    await one(client, f"{worker}/{number}/{call}", chance)

            async with httpx.AsyncClient(verify=NO_CERTIFICATES, trust_env=False) as client:
                await asyncio.gather(*(sequence(number) for number in range(TASKS)))

        workers = [threading.Thread(target=blocking, args=(number,), daemon=True) for number in range(THREADS)]
        workers += [
            threading.Thread(target=lambda number=number: asyncio.run(several(number)), daemon=True)
            for number in (100, 101)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(timeout=40)
        assert not any(worker.is_alive() for worker in workers)

    assert hostile.violations == []
    assert outcomes.total() == THREADS * CALLS + 2 * TASKS * (CALLS // 5)
    assert outcomes["200"] > outcomes.total() / 2
    statistics = cache.statistics()
    assert statistics.fetched == hostile.issued
