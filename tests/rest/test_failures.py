"""What a call says when the network, a proxy or the server does not play along."""
# mypy: disable-error-code="empty-body"

import asyncio
import gzip
import socket
import ssl
import traceback
from collections.abc import Awaitable, Callable
from typing import Annotated

import httpx
import pytest

from shared.rest import (
    ApiClient,
    ApiError,
    ApiResponse,
    ApiTimeoutError,
    ApiTransportError,
    Body,
    ClientOptions,
    get,
    put,
)

from .conftest import Handler

type AnswerWith = Callable[[bytes], Awaitable[str]]
type StartServer = Callable[[Handler], Awaitable[str]]


SECRET = "hidden"


class Api(ApiClient):
    @get("/items")
    async def get_items(self, key: str = "") -> ApiResponse[list[int]]: ...

    @put("/items")
    async def put_items(self, items: Annotated[bytes, Body()]) -> None: ...


async def silence(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Take everything in and never answer."""
    while await reader.read(2**16):
        pass


async def deafness(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take nothing in."""
    await writer.wait_closed()


def options(url: str, **timeouts: float) -> ClientOptions:
    return ClientOptions(base_url=url, timeout=httpx.Timeout(5.0, **timeouts))


async def failure(options: ClientOptions) -> ApiError:
    async with Api(options) as api:
        with pytest.raises(ApiError) as caught:
            await api.get_items(SECRET)
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    assert caught.value.url == f"{options.base_url}/items?key=***"
    return caught.value


async def test_a_refused_connection_is_a_transport_error_of_a_request_that_was_not_sent() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        error = await failure(options(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert type(error) is ApiTransportError
    assert (error.status, error.sent, error.retryable) == (None, False, True)
    assert "ConnectError" in error.reason


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"HTTP/1.1 200 OK",
        b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK",
        b"HTTP/1.1 103 Early Hints\r\nContent-Le",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 000 Nothing\r\n\r\n",
        b"HTTP/1.1 099 Nothing\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 Nothing\r\nContent-Length: five\r\n\r\n",
        b"HTTP/1.1 099 Nothing\r\nContent-Le",
    ],
    ids=[
        "nothing",
        "cut line",
        "cut line after an interim one",
        "cut interim one",
        "not HTTP",
        "000",
        "099",
        "099 and not HTTP",
        "099 and cut",
    ],
)
async def test_an_answer_without_a_status_or_not_http_is_a_transport_error(
    answer_with: AnswerWith, response: bytes
) -> None:
    error = await failure(options(await answer_with(response)))
    assert type(error) is ApiTransportError
    assert (error.sent, error.retryable) == (True, True)
    assert "RemoteProtocolError" in error.reason


async def test_a_reset_connection_is_a_transport_error(start_server: StartServer) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    error = await failure(options(await start_server(handler)))
    assert (type(error), error.sent) == (ApiTransportError, True)


async def test_silence_is_a_read_time_out(start_server: StartServer) -> None:
    error = await failure(options(await start_server(silence), read=0.02))
    assert type(error) is ApiTimeoutError
    assert (error.sent, error.retryable, error.reason) == (True, True, "ReadTimeout: no data in time")


async def test_a_server_that_does_not_take_the_body_is_a_write_time_out(start_server: StartServer) -> None:
    async with Api(options(await start_server(deafness), write=0.02)) as api:
        with pytest.raises(ApiTimeoutError, match="WriteTimeout: the server did not take the body in time") as caught:
            await api.put_items(b"x" * 20_000_000)
    assert caught.value.sent


async def test_waiting_for_a_free_connection_is_a_time_out_of_its_own(start_server: StartServer) -> None:
    url = await start_server(silence)
    one = ClientOptions(base_url=url, timeout=httpx.Timeout(5.0, pool=0.02), limits=httpx.Limits(max_connections=1))
    async with Api(one) as api:
        first = asyncio.create_task(api.get_items())
        await asyncio.sleep(0)
        with pytest.raises(ApiTimeoutError, match="PoolTimeout: no connection became free in time") as caught:
            await api.get_items()
        assert caught.value.sent is False
        first.cancel()
        await asyncio.wait([first])


async def test_a_time_out_can_be_set_for_a_method_and_for_a_call(start_server: StartServer) -> None:
    class Impatient(ApiClient):
        @get("/", timeout=0.02)
        async def get_method(self) -> None: ...

        @get("/")
        async def get_call(self) -> None: ...

    async with Impatient(await start_server(silence)) as api:
        with pytest.raises(ApiTimeoutError, match="ReadTimeout"):
            await api.get_method()
        with pytest.raises(ApiTimeoutError, match="ReadTimeout"):
            await api.with_options(timeout=httpx.Timeout(5.0, read=0.02)).get_call()
        with pytest.raises(ApiTimeoutError, match=r"within 0.02 s"):
            await api.with_options(deadline=0.02).get_call()


async def test_cancellation_is_not_wrapped_and_frees_the_connection(start_server: StartServer) -> None:
    url = await start_server(silence)
    one = ClientOptions(base_url=url, timeout=httpx.Timeout(5.0, read=0.02), limits=httpx.Limits(max_connections=1))
    async with Api(one) as api:
        for _ in range(3):
            task = asyncio.create_task(api.with_options(timeout=5.0).get_items())
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        with pytest.raises(ApiTimeoutError, match="ReadTimeout"):  # not PoolTimeout
            await api.get_items()


async def test_a_time_out_of_the_caller_stays_the_callers(start_server: StartServer) -> None:
    async with Api(await start_server(silence)) as api:
        with pytest.raises(TimeoutError) as caught:
            async with asyncio.timeout(0.02):
                await api.get_items()
    assert not isinstance(caught.value, ApiError)


async def test_a_connection_that_the_server_closed_meanwhile_is_replaced(start_server: StartServer) -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")

    async with Api(await start_server(handler)) as api:
        for _ in range(3):
            assert (await api.get_items()).unwrap() == []
    assert connections == 3


async def test_no_more_connections_are_opened_than_allowed(start_server: StartServer) -> None:
    open_now = most = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal open_now, most
        open_now += 1
        most = max(most, open_now)
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                await asyncio.sleep(0.001)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]")
        finally:
            open_now -= 1

    three = ClientOptions(base_url=await start_server(handler), limits=httpx.Limits(max_connections=3))
    async with Api(three) as api:
        await asyncio.gather(*(api.get_items() for _ in range(30)))
    assert most == 3


async def test_any_httpx_transport_can_be_used_and_its_errors_are_told_apart() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        raise failures.pop()(f"{request.url}")

    failures: list[type[httpx.TransportError]] = [httpx.ReadError, httpx.ConnectTimeout, httpx.UnsupportedProtocol]
    mock = ClientOptions(base_url="http://api.example", transport=lambda: httpx.MockTransport(respond))
    errors = []
    async with Api(mock) as api:
        for _ in range(3):
            with pytest.raises(ApiTransportError) as caught:
                await api.get_items()
            errors.append((type(caught.value), caught.value.sent, caught.value.retryable))
    assert errors == [
        (ApiTransportError, False, False),
        (ApiTimeoutError, False, True),
        (ApiTransportError, True, True),
    ]


async def test_a_compressed_body_is_read_over_any_transport() -> None:
    def respond(_request: httpx.Request) -> httpx.Response:
        stream = httpx.ByteStream(gzip.compress(b"[1, 2]"))
        return httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=stream)

    mock = ClientOptions(base_url="http://api.example", transport=lambda: httpx.MockTransport(respond))
    async with Api(mock) as api:
        assert (await api.get_items()).unwrap() == [1, 2]


async def test_a_certificate_that_nobody_vouches_for_is_a_transport_error_without_hope(
    certificate: tuple[str, str],
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    server = await asyncio.start_server(silence, "127.0.0.1", 0, ssl=context)
    async with server:
        error = await failure(options(f"https://localhost:{server.sockets[0].getsockname()[1]}"))
    assert (type(error), error.sent, error.retryable) == (ApiTransportError, False, False)
    assert "CERTIFICATE_VERIFY_FAILED" in error.reason
