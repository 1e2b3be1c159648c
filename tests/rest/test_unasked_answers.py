"""What a server sends without having been asked is nobody's answer: the connection is closed, the next one is fresh."""
# mypy: disable-error-code="empty-body"

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from typing import Annotated

import httpx
import pytest

from shared.rest import ApiClient, ApiResponse, Body, ClientOptions, get, post
from shared.rest.transport import AiohttpTransport

from .conftest import Handler

type StartServer = Callable[[Handler], Awaitable[str]]


class Api(ApiClient):
    @post("/items")
    async def post_item(self, item: Annotated[int, Body()]) -> ApiResponse[int]: ...

    @get("/items")
    async def get_item(self) -> ApiResponse[int]: ...


STALE = b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n99"
UNASKED = {
    "created": STALE,
    "time-out": b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    "bad request": b"HTTP/1.1 400 Bad Request\r\nContent-Length: 3\r\n\r\nbad",
    "two": STALE * 2,
    "interim": b"HTTP/1.1 103 Early Hints\r\n\r\n",
    "one byte": b"H",
    "half a line": b"HTTP/1.1 20",
    "half a head": b"HTTP/1.1 201 Created\r\nContent-Type: appl",
    "half a body": STALE[:-1],
    "not HTTP": b"nonsense",
}
FRAMINGS = {
    "length": b"Content-Length: 1\r\n\r\n%d",
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n1\r\n%d\r\n0\r\n\r\n",
}


def created(item: int, framing: bytes = FRAMINGS["length"]) -> bytes:
    return b"HTTP/1.1 201 Created\r\nContent-Type: application/json\r\n" + framing % item


class Server:
    """Answers each POST with its number; that of number 0 as it is told to, and then with what nobody has asked for.

    Attributes:
        posts: The numbers that came, each with the connection that it came on.
        writer: Of the connection on which number 0 came.
    """

    def __init__(self, first: bytes) -> None:
        self.posts: list[tuple[int, int]] = []
        self.writer: asyncio.StreamWriter | None = None
        self._first = first
        self._connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = self._connections = self._connections + 1
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET"):
                writer.write(created(7))
                continue
            number = int(await reader.readexactly(1))
            self.posts.append((number, connection))
            if number == 0:
                self.writer = writer
            writer.write(created(number) if number else self._first)


async def shifted(api: Api, server: Server) -> None:
    """Post two more numbers, and see that each has its own answer, was sent once, and not after number 0."""
    assert [(await api.post_item(number)).unwrap() for number in (1, 2)] == [1, 2]
    assert [number for number, _ in server.posts] == [0, 1, 2]
    first, *others = [connection for _, connection in server.posts]
    assert first not in others


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("unasked", UNASKED.values(), ids=UNASKED)
async def test_what_comes_in_one_piece_with_an_answer_is_not_the_next_ones(
    start_server: StartServer, unasked: bytes, framing: bytes
) -> None:
    server = Server(created(0, framing) + unasked)
    async with Api(await start_server(server.handle)) as api:
        assert (await api.post_item(0)).unwrap() == 0
        await shifted(api, server)


@pytest.mark.parametrize("unasked", UNASKED.values(), ids=UNASKED)
async def test_what_comes_while_a_connection_is_kept_is_not_the_next_ones(
    start_server: StartServer, unasked: bytes
) -> None:
    server = Server(created(0))
    url = await start_server(server.handle)
    async with Api(url) as api, Api(url) as other:
        assert (await api.post_item(0)).unwrap() == 0
        assert server.writer is not None
        server.writer.write(unasked)
        await other.get_item()  # meanwhile the event loop reads what has come
        await shifted(api, server)


@pytest.mark.parametrize("unasked", UNASKED.values(), ids=UNASKED)
async def test_what_comes_in_the_same_instant_as_the_next_request_is_not_its_answer(
    start_server: StartServer, unasked: bytes
) -> None:
    server = Server(created(0))
    async with Api(await start_server(server.handle)) as api:
        assert (await api.post_item(0)).unwrap() == 0
        assert server.writer is not None
        server.writer.write(unasked)  # is in the client's socket now, and the event loop has not seen it
        await shifted(api, server)


@pytest.mark.parametrize("unasked", UNASKED.values(), ids=UNASKED)
async def test_what_comes_in_one_piece_with_the_end_of_a_body_is_not_the_next_ones(
    start_server: StartServer, unasked: bytes
) -> None:
    server = Server(created(0)[:-1])
    url = await start_server(server.handle)
    transport = AiohttpTransport.of(ClientOptions(base_url=url))
    async with Api(ClientOptions(base_url=url, transport=lambda: transport)) as api:
        response = await transport.handle_async_request(httpx.Request("POST", f"{url}/items", content=b"0"))
        assert server.writer is not None
        server.writer.write(b"0" + unasked)
        assert await response.aread() == b"0"
        await response.aclose()
        await shifted(api, server)


async def test_a_connection_without_anything_unasked_is_kept(start_server: StartServer) -> None:
    for framing in FRAMINGS.values():
        server = Server(created(0, framing))
        async with Api(await start_server(server.handle)) as api:
            assert [(await api.post_item(number)).unwrap() for number in range(3)] == [0, 1, 2]
        assert server.posts == [(0, 1), (1, 1), (2, 1)]


@pytest.mark.parametrize("unasked", [b"", *UNASKED.values()], ids=["nothing", *UNASKED])
async def test_the_same_holds_under_tls(certificate: tuple[str, str], unasked: bytes) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = Server(created(0))

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await server.handle(reader, writer)
        writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=context) as listening:
        url = f"https://localhost:{listening.sockets[0].getsockname()[1]}"
        verify = ssl.create_default_context(cafile=certificate[0])
        async with Api(ClientOptions(base_url=url, verify=verify)) as api:
            assert (await api.post_item(0)).unwrap() == 0
            assert server.writer is not None
            server.writer.write(unasked)
            if unasked:
                await shifted(api, server)
            else:
                assert (await api.post_item(1)).unwrap() == 1
                assert server.posts == [(0, 1), (1, 1)]
