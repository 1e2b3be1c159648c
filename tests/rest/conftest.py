"""A server that tells what it was sent, and one that breaks the rules of HTTP as it is told to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from sandbox.serving import serve

type Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
type StartServer = Callable[[Handler], Awaitable[str]]


async def tell(request: web.Request) -> web.Response:
    headers = [(name.decode(), value.decode()) for name, value in request.raw_headers]
    body = (await request.read()).decode("latin-1")
    document = {"method": request.method, "target": request.raw_path, "headers": headers, "body": body}
    return web.json_response(document, headers={"X-Request-Id": "request-1"})


@pytest.fixture(scope="session")
def echo() -> Iterator[str]:
    """URL of a server that answers each request with its description as JSON."""
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", tell)
    with serve(app) as url:
        yield url


@pytest.fixture
async def start_server() -> AsyncIterator[StartServer]:
    """Starts TCP servers on the test's event loop, one handler call a connection; tells their URLs."""
    async with AsyncExitStack() as stack:
        connections: set[asyncio.StreamWriter] = set()

        async def start(handler: Handler) -> str:
            async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                connections.add(writer)
                try:
                    await handler(reader, writer)
                except (ConnectionError, asyncio.IncompleteReadError):
                    pass  # the client went away
                finally:
                    writer.close()

            server = await asyncio.start_server(handle, "127.0.0.1", 0)
            stack.callback(server.close)
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start
        for writer in connections:
            writer.transport.abort()


@pytest.fixture
def answer_with(start_server: StartServer) -> Callable[[bytes], Awaitable[str]]:
    """Starts a server that sends these bytes for each request and closes the connection."""

    async def start(response: bytes) -> str:
        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(response)
            await writer.drain()

        return await start_server(handler)

    return start
