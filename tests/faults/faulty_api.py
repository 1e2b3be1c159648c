"""The sandbox API, told to misbehave, and an eye on it."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
from aiohttp import web
from pydantic_core import from_json

from dev.sandbox.api import CLIENT_ID, CLIENT_SECRET, SCOPE, TOKEN_PATH, app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from shared.business import COLLECTION, NATURAL_KEY, Record
from tests.sandboxed import key_of

_LOOK_SECONDS = 0.01


class FaultyApi:
    """The sandbox API, as these tests use it; whoever waits for something bounds the time.

    Attributes:
        settings: Environment variables of an app that uses it.
        tokens: Every access token that it has issued.
    """

    def __init__(self, url: str, tokens: set[str]) -> None:
        self.settings = app_environment(url)
        self.tokens = tokens
        self._client = httpx.AsyncClient(base_url=url, trust_env=False)

    async def close(self) -> None:
        """Close the connections to it."""
        await self._client.aclose()

    async def misbehave(self, **plan: Any) -> None:
        """Carry out a plan of faults, instead of the one before."""
        (await self._client.post("/faults", json=plan)).raise_for_status()

    async def revoke_tokens(self) -> None:
        """Refuse every token issued so far."""
        (await self._client.post("/auth/revoke")).raise_for_status()

    async def stats(self) -> dict[str, Any]:
        """What was asked of it, and what it has stored."""
        counters: dict[str, Any] = (await self._client.get("/stats")).raise_for_status().json()
        return counters

    async def reach(self, counter: str, value: int) -> None:
        """Wait until a counter has come to a value."""
        await self._watch(lambda stats: bool(stats[counter] >= value))

    async def rest(self) -> None:
        """Wait until no post is under way: those of a dead host that it had received go on."""
        await self._watch(lambda stats: stats["posts"] == sum(stats["posts_by_status"].values()) + stats["dropped"])

    async def businesses(self, records: Iterable[Record]) -> dict[str, list[dict[str, Any]]]:
        """By natural key, what is stored of each of these records."""
        grant = {"grant_type": "client_credentials", "scope": SCOPE}
        granted = (await self._client.post(TOKEN_PATH, data=grant, auth=(CLIENT_ID, CLIENT_SECRET))).raise_for_status()
        headers = {"Authorization": f"Bearer {granted.json()['access_token']}"}
        found = {}
        for key in map(key_of, records):
            answer = await self._client.get(COLLECTION, params={NATURAL_KEY: key}, headers=headers)
            found[key] = answer.raise_for_status().json()
        return found

    async def _watch(self, seen: Callable[[dict[str, Any]], bool]) -> None:
        while True:
            if seen(await self.stats()):
                return
            await asyncio.sleep(_LOOK_SECONDS)


@contextlib.contextmanager
def faulty_api() -> Iterator[FaultyApi]:
    """Serve the API from this process while the `with` block runs: it outlives the hosts."""
    tokens: set[str] = set()

    async def note_token(request: web.Request, response: web.StreamResponse) -> None:
        if request.path == TOKEN_PATH and isinstance(response, web.Response) and isinstance(response.body, bytes):
            tokens.add(from_json(response.body)["access_token"])

    app = create_app(STAND_IN)
    app.on_response_prepare.append(note_token)
    with serve(app) as url:
        yield FaultyApi(url, tokens)
