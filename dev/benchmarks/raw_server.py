"""Serves an API and token endpoints that cost next to nothing: `python -m dev.benchmarks.raw_server`.

It answers from fixed bytes and parses no more than it must, so that on a core of its own it is never what a measurement
waits for. `POST /businesses` wants a good token. `POST /auth/token`, `POST /tenant/token` (of msal) and `GET /identity`
(as on Azure App Service) issue tokens, which are numbered. `POST /control` takes a `Control`, and answers `Requests`.
"""

import asyncio
import json
import time
from dataclasses import dataclass
from typing import NamedTuple

HEADERS = {"Authorization": f"Bearer {'9' * 12}.{'x' * 1000}", "Content-Type": "application/json"}
"""With a token that the server takes without having issued it, of the length that tokens have."""

RECORD = (
    b'{"id":"7","registration_number":"HRB 1001","name":"Acme GmbH","country":"DE",'
    b'"email":"office@acme.example","website":"https://acme.example","employees":12}'
)
TOKEN_PATH = "/auth/token"  # noqa: S105 (a path, that of the sandbox API)
_TOKEN_PATHS = (TOKEN_PATH.encode(), b"/tenant/token", b"/identity")
_AUTHORIZATION = b"authorization: bearer "
_NUMBER_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Control:
    """What the token endpoints do from now on: issue tokens after `delay` seconds, for `lifetime` seconds.

    Attributes:
        refresh_in: As it is told with tokens, in seconds; None leaves it out.
        revoke: Refuse all tokens issued so far.
        reset: Forget the requests so far, once they have been told.
    """

    delay: float = 0.0
    lifetime: int = 3600
    refresh_in: int | None = None
    revoke: bool = False
    reset: bool = False


class Requests(NamedTuple):
    """What came in since the last reset: how many requests to the API, and when those for tokens (monotonic clock)."""

    api: int
    token: list[float]


def _response(status: str, body: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


_CREATED = _response("201 Created", RECORD, "Location: /businesses/7\r\n")
_REFUSED = _response("401 Unauthorized", b'{"title":"Unauthorized"}', "WWW-Authenticate: Bearer\r\n")


class _State:
    def __init__(self) -> None:
        self.control = Control()
        self.issued = 0  # the number of the latest token
        self.revoked = 0  # that of the latest one that is refused
        self.api_requests = 0
        self.token_requests: list[float] = []

    def post(self, head: bytes) -> bytes:
        self.api_requests += 1
        start = head.find(_AUTHORIZATION) + len(_AUTHORIZATION)
        try:
            number = int(head[start : start + _NUMBER_LENGTH])
        except ValueError:
            return _REFUSED
        return _CREATED if number > self.revoked else _REFUSED

    def issue(self) -> bytes:
        self.token_requests.append(time.monotonic())
        self.issued += 1
        token = {
            "access_token": f"{self.issued:0{_NUMBER_LENGTH}}.{'x' * 1000}",
            "token_type": "Bearer",
            "expires_in": self.control.lifetime,
            "expires_on": str(int(time.time()) + self.control.lifetime),  # App Service says it so
            "resource": "api://business",
        }
        if self.control.refresh_in is not None:
            token["refresh_in"] = self.control.refresh_in
        return _response("200 OK", json.dumps(token).encode())

    def follow(self, body: bytes) -> bytes:
        told = _response("200 OK", json.dumps([self.api_requests, self.token_requests]).encode())
        self.control = Control(**json.loads(body))
        if self.control.revoke:
            self.revoked = self.issued
        if self.control.reset:
            self.api_requests = 0
            self.token_requests.clear()
        return told


class _Connection(asyncio.Protocol):
    """Reads requests, pipelined or not, with `Content-Length` or without a body."""

    def __init__(self, state: _State) -> None:
        self._state = state
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (for the type checker)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = self._received[:end].lower()
            start = head.find(b"\r\ncontent-length:")
            length = int(head[start + 17 :].partition(b"\r\n")[0]) if start >= 0 else 0
            stop = end + 4 + length
            if len(self._received) < stop:
                return
            body, self._received = self._received[end + 4 : stop], self._received[stop:]
            path = head.split(b" ", 2)[1].partition(b"?")[0]
            if path in _TOKEN_PATHS:
                issued = self._state.issue()
                asyncio.get_running_loop().call_later(self._state.control.delay, self._transport.write, issued)
            else:
                self._transport.write(self._answer(path, head, body))

    def _answer(self, path: bytes, head: bytes, body: bytes) -> bytes:
        if path == b"/businesses":
            return self._state.post(head)
        if path == b"/control":
            return self._state.follow(body)
        host, port = self._transport.get_extra_info("sockname")
        base = f"https://{host}:{port}/tenant"
        names = {"issuer": base, "authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token"}
        return _response("200 OK", json.dumps(names).encode())


async def _serve() -> None:
    state = _State()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(state), "127.0.0.1", 0, backlog=512)
    print(f"Listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
