"""Whatever a server answers, a call has a result or an `ApiError`, and nothing else."""
# mypy: disable-error-code="empty-body"

import asyncio
import json
import pickle
from collections.abc import AsyncIterator
from typing import Any

import httpx
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from shared.rest import ApiClient, ApiError, ApiResponse, ApiResponseError, ClientOptions, get


class Item(BaseModel):
    name: str
    count: int | float = 0
    more: dict[str, Any] | list[Any] | None = None


class Api(ApiClient):
    @get("/")
    async def get_item(self) -> ApiResponse[Item]: ...

    @get("/")
    async def get_anything(self) -> ApiResponse[Any]: ...

    @get("/")
    async def get_optional(self) -> ApiResponse[list[Item] | None]: ...

    @get("/")
    async def get_text(self) -> ApiResponse[str]: ...

    @get("/")
    async def get_bytes(self) -> ApiResponse[bytes]: ...

    @get("/")
    async def get_nothing(self) -> ApiResponse[None]: ...


CALLS = [Api.get_item, Api.get_anything, Api.get_optional, Api.get_text, Api.get_bytes, Api.get_nothing]

odd_json = st.sampled_from(
    [
        b'{"name": "a", "count": 1e999}',
        b'{"name": "a", "count": NaN}',
        b'{"name": "a", "count": -Infinity, "title": "t"}',
        b'{"name": "a", "count": ' + b"9" * 4301 + b"}",
        b'{"status": ' + b"9" * 4300 + b', "title": "t"}',
        b'{"status": 1e999, "title": "\\ud800"}',
        b'{"name": "a", "name": 1, "title": "t", "title": 2}',
        b'{"more": ' * 10_000,
        b'{"more": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
        b"[" * 190 + b"]" * 190,
        b'{"name": "\\ud800\\udc00 \\udc00"}',
        b"\xef\xbb\xbf",
        b"\xff\xfe{\0}\0",
    ]
)
json_bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(categories=None)),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["name", "title", "type", "status", "x"]), inner),
    max_leaves=6,
).map(lambda value: json.dumps(value).encode())
bodies = st.binary() | json_bodies | odd_json
values = st.sampled_from(
    [
        b"application/json",
        b"application/problem+json",
        b"text/plain; charset=undefined",
        b"text/plain; charset=idna",
        b"text/plain; charset*=utf-16''%00",
        b"gzip",
        b"deflate",
        b"br",
        b"9" * 400,
        b"Fri, 31 Dec 9999 23:59:59 GMT",
    ]
) | st.binary().map(lambda value: value.translate(None, b"\r\n"))
names = st.sampled_from([b"Content-Type", b"Content-Encoding", b"Retry-After", b"Set-Cookie", b"X-Request-Id", b"X-A"])
fields = st.lists(st.tuples(names, values), max_size=4)
failures = st.sampled_from([None, httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError, httpx.DecodingError])


class Pieces(httpx.AsyncByteStream):
    def __init__(self, pieces: list[bytes], failure: type[httpx.RequestError] | None) -> None:
        self._pieces = pieces
        self._failure = failure

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._failure is not None:
            raise self._failure("failed")


def check(response: ApiResponse[Any]) -> None:
    """Use a response as callers may."""
    assert response.error is None or isinstance(response.error, ApiError)
    assert pickle.loads(pickle.dumps(response)).status == response.status  # noqa: S301
    repr(response)
    if response.request_id is not None:
        assert response.request_id.isprintable()
    if response.error is not None:
        assert isinstance(response.error, ApiResponseError) is not (200 <= response.status < 300)
        assert str(response.error).isprintable()
        if response.error.problem is not None:
            json.dumps(response.error.problem.model_dump(mode="json"), allow_nan=False)


@given(
    st.integers(100, 999),
    fields,
    st.lists(bodies, max_size=3),
    failures,
    st.sampled_from(CALLS),
    st.sampled_from([0, 9]),
)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@example(200, [(b"Content-Type", b"text/plain; charset=a\0b")], [b"a"], None, Api.get_text, 9)
def test_whatever_a_transport_yields_is_a_result_or_an_api_error(
    status: int,
    fields: list[tuple[bytes, bytes]],
    pieces: list[bytes],
    failure: type[httpx.RequestError] | None,
    call: Any,
    room: int,
) -> None:
    response = httpx.Response(status, headers=fields, stream=Pieces(pieces, failure))
    options = ClientOptions(
        base_url="http://a",
        transport=lambda: httpx.MockTransport(lambda _: response),
        max_response_size=10**room,
    )
    check(asyncio.run(call(Api(options))))


heads = st.builds(
    lambda status, fields: (
        b"HTTP/1.1 %d Any\r\n" % status + b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"
    ),
    st.integers(0, 999),
    st.lists(
        st.tuples(
            names | st.sampled_from([b"Content-Length", b"Transfer-Encoding", b"Connection"]),
            values | st.sampled_from([b"chunked", b"3", b"-1", b"close"]),
        ),
        max_size=4,
    ),
)


@given(heads | st.binary(), bodies | st.just(b"3\r\n[1]\r\n0\r\n\r\n"), st.integers(0, 200))
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@example(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\nConnection: upgrade\r\n\r\n", b"\0", 0)
@example(b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff\x01=;;=\r\n\r\n", b"{}", 3)
def test_whatever_a_server_sends_is_a_result_or_an_api_error(head: bytes, body: bytes, at: int) -> None:
    async def run() -> None:
        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write((head + body)[:at])
            await writer.drain()
            writer.write((head + body)[at:])
            writer.close()

        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        async with server, Api(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as api:
            try:
                check(await api.get_item())
            except ApiError as error:
                assert (error.status, error.sent, str(error).isprintable()) == (None, True, True)  # noqa: PT017

    asyncio.run(run())
