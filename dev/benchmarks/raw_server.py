"""The other side of the wire: an API and token endpoints that cost next to nothing, in a process of their own.

It answers from fixed bytes and parses no more than it must, so that on a core of its own it is never what a measurement
waits for. Tokens are numbered; a revocation refuses all numbers issued so far.

| Route | |
|---|---|
| `POST /businesses` | 201 and a record if the token is good, else 401 |
| `POST /token` | client credentials, RFC 6749 §4.4 |
| `GET /identity` | the managed identity endpoint of Azure App Service |
| `GET …/openid-configuration` | what msal asks of an authority first |
| `POST /control` | a `Control` as JSON; answers with `Requests` |
"""

import argparse
import asyncio
import contextlib
import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

from dev.benchmarks.measuring import pin

UNCHECKED_TOKEN = "9" * 12 + "." + "x" * 1000
"""A token that the server takes without having issued it, of the length that tokens have."""

_RECORD = (
    b'{"id":"7","registration_number":"HRB 1001","name":"Acme GmbH","country":"DE",'
    b'"email":"office@acme.example","website":"https://acme.example","employees":12}'
)
_AUTHORIZATION = b"authorization: bearer "
_NUMBER_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Control:
    """What the token endpoints do from now on.

    Attributes:
        delay: Seconds that a token request takes.
        lifetime: `expires_in` of tokens, in seconds.
        refresh_in: As the identity endpoint tells it, in seconds; None leaves it out.
        revoke: Refuse all tokens issued so far.
        reset: Forget the requests so far, once they have been told.
    """

    delay: float = 0.0
    lifetime: int = 3600
    refresh_in: int | None = None
    revoke: bool = False
    reset: bool = False


@dataclass(frozen=True, slots=True)
class Requests:
    """What came in since the last reset.

    Attributes:
        api: Number of requests to the API.
        token: When token requests came in, by the machine's monotonic clock.
    """

    api: int
    token: tuple[float, ...]


class _State:
    def __init__(self) -> None:
        self.control = Control()
        self.issued = 0  # the number of the latest token
        self.revoked = 0  # that of the latest one that is refused
        self.api_requests = 0
        self.token_requests: list[float] = []
        self.created = _response(b"201 Created", _RECORD, b"Location: /businesses/7\r\n")
        self.refused = _response(b"401 Unauthorized", b'{"title":"Unauthorized"}', b"WWW-Authenticate: Bearer\r\n")

    def api(self, head: bytes) -> bytes:
        self.api_requests += 1
        start = head.find(_AUTHORIZATION) + len(_AUTHORIZATION)
        try:
            number = int(head[start : start + _NUMBER_LENGTH])
        except ValueError:
            return self.refused
        return self.created if number > self.revoked else self.refused

    def issue(self, **further: object) -> bytes:
        self.issued += 1
        document = {
            "access_token": f"{self.issued:0{_NUMBER_LENGTH}}.{'x' * 1000}",
            "token_type": "Bearer",
            "expires_in": self.control.lifetime,
            **further,
        }
        return _response(b"200 OK", json.dumps(document).encode())

    def issue_to_identity(self) -> bytes:
        told = {} if self.control.refresh_in is None else {"refresh_in": self.control.refresh_in}
        expires_on = str(int(time.time()) + self.control.lifetime)
        return self.issue(expires_on=expires_on, resource="api://business", **told)

    def follow(self, body: bytes) -> bytes:
        control = Control(**json.loads(body))
        told = _response(
            b"200 OK", json.dumps(asdict(Requests(self.api_requests, tuple(self.token_requests)))).encode()
        )
        if control.revoke:
            self.revoked = self.issued
        if control.reset:
            self.api_requests = 0
            self.token_requests.clear()
        self.control = replace(control, revoke=False, reset=False)
        return told


def _response(status: bytes, body: bytes, headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s" % (
        status,
        headers,
        len(body),
        body,
    )


def _authority(host: str) -> bytes:
    base = f"https://{host}/tenant"
    document = {
        "issuer": base,
        "authorization_endpoint": f"{base}/authorize",
        "token_endpoint": f"{base}/token",
    }
    return _response(b"200 OK", json.dumps(document).encode())


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
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        state = self._state
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        if path == b"/businesses":
            self._transport.write(state.api(head))
        elif path in (b"/token", b"/tenant/token", b"/identity"):
            state.token_requests.append(time.monotonic())
            answer = state.issue_to_identity() if path == b"/identity" else state.issue()
            if state.control.delay:
                asyncio.get_running_loop().call_later(state.control.delay, self._transport.write, answer)
            else:
                self._transport.write(answer)
        elif path.endswith(b"/openid-configuration"):
            host = head.partition(b"\r\nhost:")[2].partition(b"\r\n")[0].strip().decode()
            self._transport.write(_authority(host))
        elif path == b"/control":
            self._transport.write(state.follow(body))
        else:
            self._transport.write(_response(b"404 Not Found", b"{}"))


async def _serve() -> None:
    state = _State()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(state), "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class Server:
    """The server process, seen from the measuring one."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def control(self, control: Control) -> Requests:
        """Tell the server what to do from now on; returns the requests since the last reset."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", "/control", json.dumps(asdict(control)))
            document = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        return Requests(document["api"], tuple(document["token"]))


@contextlib.contextmanager
def running_server(core: int | None) -> Iterator[Server]:
    """Run the server in a process of its own, pinned to `core`, while the `with` block runs."""
    command = [sys.executable, "-m", "dev.benchmarks.raw_server"]
    if core is not None:
        command += ["--core", str(core)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603 (arguments of our own)
        assert process.stdout is not None  # noqa: S101 (for the type checker: a pipe was asked for)
        try:
            server = Server(int(process.stdout.readline()))
            # The end of a first connection has glibc take receive buffers from its heap from then on instead of mapping
            # memory for each, which makes a server three times as fast: before anybody is measured, not in between.
            server.control(Control())
            yield server
        finally:
            process.terminate()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m dev.benchmarks.raw_server")
    parser.add_argument("--core", type=int)
    pin(parser.parse_args().core)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve())
