"""A token endpoint and an API on loopback sockets that answer as a test tells them, and a clock that a test moves."""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from shared.access_tokens import ClientCredentials, ClientSecretBasic, Clocks

SECRET = "correct-horse-battery-staple"


class FakeTime:
    """Two clocks that stand still until they are moved; sleeping moves both."""

    def __init__(self) -> None:
        self.monotonic = 5_000.0
        self.wall = 1_800_000_000.0
        self.sleeps: list[float] = []
        self.share = 0.5

    def advance(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.advance(seconds)

    def clocks(self) -> Clocks:
        return Clocks(
            monotonic=lambda: self.monotonic, wall=lambda: self.wall, sleep=self.sleep, rng=lambda: self.share
        )


@dataclass(frozen=True)
class Answer:
    """What the token endpoint says: a JSON document, or any bytes."""

    document: object = None
    status: int = 200
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> web.Response:
        if self.body is not None:
            return web.Response(body=self.body, status=self.status, headers=self.headers)
        return web.Response(
            body=json.dumps(self.document).encode(),
            status=self.status,
            headers={"Content-Type": "application/json", **self.headers},
        )


@dataclass(frozen=True)
class TokenRequest:
    form: Mapping[str, str]
    headers: Mapping[str, str]


class Server:
    """The token endpoint at `/token`, and at `/api` an API that knows the tokens which were issued.

    Attributes:
        answers: What the token endpoint says, in this order; then it issues `token-1`, `token-2`, and so on.
        lifetime: `expires_in` of issued tokens.
        open: While it is not set, token requests wait.
        requests: Received by the token endpoint, in order.
        calls: `Authorization` headers received by the API, in order; None where there was none.
        valid: Tokens that the API accepts.
        refusal: Status and challenge of an answer to any other token.
    """

    def __init__(self) -> None:
        self.url = ""
        self.answers: deque[Answer] = deque()
        self.lifetime: object = 3600
        self.open = threading.Event()
        self.open.set()
        self.requests: list[TokenRequest] = []
        self.calls: list[str | None] = []
        self.valid: set[str] = set()
        self.refusal: tuple[int, str] = (401, 'Bearer error="invalid_token"')
        self.redirect = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/token", self._token)
        app.router.add_route("*", "/api", self._api)
        app.router.add_route("*", "/redirect", self._redirect)
        return app

    @property
    def token_url(self) -> str:
        return f"{self.url}/token"

    @property
    def api_url(self) -> str:
        return f"{self.url}/api"

    def source(self, scope: str = "", secret: str = SECRET) -> ClientCredentials:
        return ClientCredentials(
            token_url=self.token_url, client_id="client", authentication=ClientSecretBasic(secret), scope=scope
        )

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.requests.append(TokenRequest(form, dict(request.headers)))
        token = f"token-{len(self.requests)}"
        while not self.open.is_set():  # noqa: ASYNC110 - set by a thread, which cannot set an asyncio.Event
            await asyncio.sleep(0.001)
        if self.answers:
            return self.answers.popleft().response()
        self.valid.add(token)
        return Answer({"access_token": token, "token_type": "Bearer", "expires_in": self.lifetime}).response()

    async def _api(self, request: web.Request) -> web.Response:
        await request.read()
        authorization = request.headers.get("Authorization")
        self.calls.append(authorization)
        if authorization is not None and authorization.removeprefix("Bearer ") in self.valid:
            return web.json_response({"ok": True})
        status, challenge = self.refusal
        return web.json_response({}, status=status, headers={"WWW-Authenticate": challenge})

    async def _redirect(self, _: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": self.redirect})


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread is about to do."""
    end = time.monotonic() + 20
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.001)
