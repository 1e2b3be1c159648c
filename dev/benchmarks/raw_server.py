"""Serves an API and token endpoints that cost next to nothing: `python -m dev.benchmarks.raw_server`.

It answers from fixed bytes and parses no more than it must, so that on a core of its own it is not what a measurement
waits for. A `POST` to where the app posts its records wants a good token. `POST /auth/token`, `POST /tenant/token` (of
msal) and `GET /identity` (as on Azure App Service) issue tokens, which are numbered. `POST /control` takes a `Control`,
and answers `Requests`.
"""

import asyncio
import contextlib
import json
import re
import time
from dataclasses import dataclass
from typing import NamedTuple

from shared.business import COLLECTION, assigned, example

HEADERS = {"Authorization": f"Bearer {'9' * 12}.{'x' * 1000}", "Content-Type": "application/json"}
"""With a token that the server takes without having issued it, of the length that tokens have."""

RECORD = json.dumps(assigned() | example(), separators=(",", ":")).encode()
TOKEN_PATH = "/auth/token"  # noqa: S105 (a path, that of the sandbox API)


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


_CREATED = _response("201 Created", RECORD, f"Location: {COLLECTION}/7\r\n")
_REFUSED = _response("401 Unauthorized", b'{"title":"Unauthorized"}', "WWW-Authenticate: Bearer\r\n")


class _Server:
    def __init__(self) -> None:
        self._control = Control()
        self._issued = 0  # the number of the latest token
        self._revoked = 0  # that of the latest one that is refused
        self._api_requests = 0
        self._token_requests: list[float] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of a connection, with `Content-Length` or without a body."""
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = re.search(rb"\r\ncontent-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                path = head.split(b" ", 2)[1].partition(b"?")[0]
                if path == COLLECTION.encode():
                    writer.write(self._post(head))
                elif path == b"/control":
                    writer.write(self._follow(body))
                elif path.endswith(b"/openid-configuration"):  # msal asks for it first
                    base = "https://{}:{}/tenant".format(*writer.get_extra_info("sockname"))
                    names = {"authorization_endpoint": f"{base}/authorize", "token_endpoint": f"{base}/token"}
                    writer.write(_response("200 OK", json.dumps({"issuer": base, **names}).encode()))
                else:
                    token = self._issue()
                    await asyncio.sleep(self._control.delay)
                    writer.write(token)
        writer.close()

    def _post(self, head: bytes) -> bytes:
        self._api_requests += 1
        number = head.partition(b"authorization: bearer ")[2][:12]
        return _CREATED if number.isdigit() and int(number) > self._revoked else _REFUSED

    def _issue(self) -> bytes:
        self._token_requests.append(time.monotonic())
        self._issued += 1
        lifetime, refresh_in = self._control.lifetime, self._control.refresh_in
        token = {
            "access_token": f"{self._issued:012}.{'x' * 1000}",
            "token_type": "Bearer",
            "expires_in": lifetime,
            "expires_on": str(int(time.time()) + lifetime),  # App Service says it so
            "resource": "api://business",
            **({} if refresh_in is None else {"refresh_in": refresh_in}),
        }
        return _response("200 OK", json.dumps(token).encode())

    def _follow(self, body: bytes) -> bytes:
        told = _response("200 OK", json.dumps([self._api_requests, self._token_requests]).encode())
        self._control = Control(**json.loads(body))
        if self._control.revoke:
            self._revoked = self._issued
        if self._control.reset:
            self._api_requests = 0
            self._token_requests.clear()
        return told


async def _serve() -> None:
    server = await asyncio.start_server(_Server().serve, "127.0.0.1", 0, backlog=512)
    print(f"Listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
