"""Proxies and certificates, as users of httpx expect them."""
# mypy: disable-error-code="empty-body"

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from shared.rest import ApiClient, ApiResponse, ApiTransportError, ClientOptions, get

VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
EMPTY = b"HTTP/1.1 204 No Content\r\n\r\n"


class Api(ApiClient):
    @get("/items")
    async def get_items(self) -> ApiResponse[None]: ...


class Recorder:
    """Answers requests with 204, passes CONNECT on to itself as TLS if it can, and keeps the heads of all requests."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.heads: list[str] = []
        self._tls = tls

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            if head.startswith("CONNECT"):
                if self._tls is None:
                    writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                    continue
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await writer.start_tls(self._tls)
            else:
                writer.write(EMPTY)


@pytest.fixture(autouse=True)
def no_proxy_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def server_context(certificate: tuple[str, str]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@asynccontextmanager
async def serving(recorder: Recorder, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await recorder.handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
async def test_the_environment_names_the_proxy(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    async with serving(recorder) as port:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        async with Api("http://api.invalid/v1") as api:
            assert (await api.get_items()).status == 204
    assert recorder.heads[0].startswith("GET http://api.invalid/v1/items HTTP/1.1\r\n")


@pytest.mark.parametrize("names", ["*", "127.0.0.1", "example.com,127.0.0.1"])
async def test_no_proxy_names_hosts_that_are_called_directly(names: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    async with serving(recorder) as port:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("NO_PROXY", names)
        async with Api(f"http://127.0.0.1:{port}") as api:
            assert (await api.get_items()).status == 204
    assert recorder.heads[0].startswith("GET /items HTTP/1.1\r\n")


async def test_the_environment_can_be_left_out_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async with serving(Recorder()) as port:
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        async with Api(ClientOptions(base_url=f"http://127.0.0.1:{port}", trust_env=False)) as api:
            assert (await api.get_items()).status == 204


async def test_the_credentials_of_a_proxy_go_with_each_plain_request() -> None:
    recorder = Recorder()
    async with serving(recorder) as port:
        options = ClientOptions(base_url="http://api.invalid", proxy=f"http://user:p%40ss@127.0.0.1:{port}")
        async with Api(options) as api:
            await api.get_items()
            await api.get_items()
    credentials = base64.b64encode(b"user:p@ss").decode()
    assert [f"Proxy-Authorization: Basic {credentials}\r\n" in head for head in recorder.heads] == [True, True]


async def test_an_encrypted_request_goes_through_a_tunnel_and_the_credentials_stay_outside(
    certificate: tuple[str, str], server_context: ssl.SSLContext
) -> None:
    recorder = Recorder(server_context)
    async with serving(recorder) as port:
        options = ClientOptions(
            base_url="https://localhost",
            proxy=httpx.Proxy(f"http://127.0.0.1:{port}", auth=("user", "pass")),
            verify=ssl.create_default_context(cafile=certificate[0]),
        )
        async with Api(options) as api:
            assert (await api.get_items()).status == 204
    connect, request = recorder.heads
    assert connect.startswith("CONNECT localhost:443 HTTP/1.1\r\n")
    assert "Proxy-Authorization: Basic " in connect
    assert request.startswith("GET /items HTTP/1.1\r\n")
    assert "Proxy-Authorization" not in request


async def test_a_proxy_that_refuses_or_is_not_there_is_a_transport_error_of_a_request_that_was_not_sent() -> None:
    async with serving(Recorder()) as port:
        for proxy in (f"http://127.0.0.1:{port}", "http://user:secret@127.0.0.1:9"):
            async with Api(ClientOptions(base_url="https://localhost", proxy=proxy)) as api:
                with pytest.raises(ApiTransportError, match="ProxyError") as caught:
                    await api.get_items()
            assert caught.value.sent is False
            assert "secret" not in str(caught.value)


async def test_what_a_proxy_answers_that_is_not_http_is_not_taken_for_an_answer_of_the_api(
    answer_with: Callable[[bytes], Awaitable[str]],
) -> None:
    proxy = await answer_with(b"HTTP/1.1 200 OK\r\nbroken\r\n\r\n")
    async with Api(ClientOptions(base_url="https://localhost", proxy=proxy)) as api:
        with pytest.raises(ApiTransportError, match="ProxyError") as caught:
            await api.get_items()
    assert caught.value.sent is False


async def test_a_proxy_of_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="socks5 is not supported"):
        await Api(ClientOptions(base_url="http://api.invalid", proxy="socks5://127.0.0.1:9")).get_items()


@pytest.mark.parametrize("way", ["context", "SSL_CERT_FILE", "unverified"])
async def test_a_certificate_authority_of_ones_own_is_trusted(
    way: str, certificate: tuple[str, str], server_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify: ssl.SSLContext | bool = way != "unverified"
    if way == "context":
        verify = ssl.create_default_context(cafile=certificate[0])
    elif way == "SSL_CERT_FILE":
        monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    async with (
        serving(Recorder(), server_context) as port,
        Api(ClientOptions(base_url=f"https://localhost:{port}", verify=verify)) as api,
    ):
        assert (await api.get_items()).status == 204
