"""How the `auth` of a client takes part in a call."""
# mypy: disable-error-code="empty-body"

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

import httpx
import pytest

from shared.rest import ApiClient, ApiDecodeError, ApiResponse, ApiTimeoutError, ClientOptions, get

from .echo import Told


class NoTokenError(Exception):
    pass


class Api(ApiClient):
    @get("/")
    async def get_root(self) -> ApiResponse[Told]: ...

    @get("/public", auth=None)
    async def get_public(self) -> ApiResponse[Told]: ...

    @get("/", extensions={"method": 1})
    async def get_marked(self) -> ApiResponse[None]: ...


class Bearer(httpx.Auth):
    """Sends tokens, the next one when the API answers 401, and remembers the extensions that it saw."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.extensions: dict[str, object] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        self.extensions = dict(request.extensions)
        for token in self.tokens:
            request.headers["Authorization"] = f"Bearer {token}"
            response = yield request
            if response.status_code != 401:
                return


class Failing(httpx.Auth):
    """Raises instead of authorising, or when the answer is there."""

    def __init__(self, error: Exception, *, after_answer: bool = False) -> None:
        self.error = error
        self.after_answer = after_answer

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        if self.after_answer:
            yield request
        raise self.error


class Slow(httpx.Auth):
    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        await asyncio.Event().wait()
        yield request


class Reading(httpx.Auth):
    """Reads both bodies, as an auth that signs them does."""

    requires_request_body = True
    requires_response_body = True

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["X-Length"] = str(len(request.content))
        response = yield request
        assert response.json()["method"] == "GET"


async def test_each_request_is_authorised(echo: str) -> None:
    async with Api(ClientOptions(base_url=echo, auth=Bearer("t"))) as api:
        assert (await api.get_root()).unwrap().values("Authorization") == ["Bearer t"]


async def test_a_method_or_a_call_can_go_without_authorisation(echo: str) -> None:
    async with Api(ClientOptions(base_url=echo, auth=Bearer("t"))) as api:
        assert (await api.get_public()).unwrap().values("Authorization") == []
        assert (await api.with_options(auth=None).get_root()).unwrap().values("Authorization") == []
        assert (await api.with_options(auth=Bearer("u")).get_root()).unwrap().values("Authorization") == ["Bearer u"]


async def test_a_request_is_sent_again_as_its_authorisation_wants(
    start_server: Callable[..., Awaitable[str]],
) -> None:
    tokens, connections = [], 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        for status in (b"401 No", b"200 Yes"):
            request = await reader.readuntil(b"\r\n\r\n")
            tokens.append(b"Bearer old" in request)
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 50000\r\n\r\n" + bytes(50_000))

    async with Api(ClientOptions(base_url=await start_server(handler), auth=Bearer("old", "new"))) as api:
        assert (await api.get_marked()).status == 200
    assert (tokens, connections) == ([True, False], 1)


@pytest.mark.parametrize("body", [b"Content-Length: 9\r\n\r\ncut", b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"])
async def test_a_refusal_whose_body_breaks_off_is_followed_by_another_try(
    start_server: Callable[..., Awaitable[str]], body: bytes
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        refused = b"Bearer old" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 401 No\r\n" + body if refused else b"HTTP/1.1 204 Yes\r\n\r\n")

    async with Api(ClientOptions(base_url=await start_server(handler), auth=Bearer("old", "new"))) as api:
        assert (await api.get_marked()).status == 204


async def test_a_refusal_whose_body_does_not_come_is_followed_by_another_try(
    start_server: Callable[..., Awaitable[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"Bearer old" in await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nslow")
            await reader.read()
        else:
            writer.write(b"HTTP/1.1 204 Yes\r\n\r\n")

    monkeypatch.setattr("shared.rest.exchange._DRAIN_TIME", 0.01)
    async with Api(ClientOptions(base_url=await start_server(handler), auth=Bearer("old", "new"))) as api:
        assert (await api.get_marked()).status == 204


async def test_the_deadline_during_a_renewal_leaves_the_refusal(answer_with: Callable[..., Awaitable[str]]) -> None:
    class Renewing(httpx.Auth):
        async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
            yield request
            await asyncio.Event().wait()

    url = await answer_with(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    async with Api(ClientOptions(base_url=url, auth=Renewing(), deadline=0.2)) as api:
        assert (await api.get_marked()).status == 401


async def test_extensions_of_method_and_call_reach_the_authorisation(echo: str) -> None:
    bearer = Bearer("t")
    async with Api(ClientOptions(base_url=echo, auth=bearer)) as api:
        await api.with_options(extensions={"call": 2}).get_marked()
    assert (bearer.extensions["method"], bearer.extensions["call"]) == (1, 2)


@pytest.mark.parametrize("error", [NoTokenError(), TimeoutError(), httpx.ConnectError("token endpoint")])
@pytest.mark.parametrize("after_answer", [False, True])
async def test_what_authorisation_raises_reaches_the_caller_as_it_is(
    echo: str, error: Exception, after_answer: bool
) -> None:
    auth = Failing(error, after_answer=after_answer)
    async with Api(ClientOptions(base_url=echo, auth=auth, limits=httpx.Limits(max_connections=1))) as api:
        for _ in range(2):  # the second call would wait for the connection of the first if that was not given back
            with pytest.raises(type(error)) as caught:
                await api.get_root()
            assert caught.value is error


async def test_waiting_for_authorisation_counts_towards_the_deadline(echo: str) -> None:
    async with Api(ClientOptions(base_url=echo, auth=Slow(), deadline=0.01)) as api:
        with pytest.raises(ApiTimeoutError, match=r"no answer within 0.01 s") as caught:
            await api.get_root()
    assert (caught.value.sent, caught.value.retryable) == (False, True)


async def test_an_auth_may_read_both_bodies(echo: str) -> None:
    async with Api(ClientOptions(base_url=echo, auth=Reading())) as api:
        assert (await api.get_root()).unwrap().values("X-Length") == ["0"]


async def test_an_auth_may_read_the_body_over_any_transport() -> None:
    told = {"method": "GET", "target": "/", "headers": [], "body": ""}
    mock = httpx.MockTransport(lambda _: httpx.Response(200, json=told))
    async with Api(ClientOptions(base_url="http://a", auth=Reading(), transport=lambda: mock)) as api:
        assert (await api.get_root()).unwrap().method == "GET"


async def test_a_body_that_breaks_off_while_an_auth_reads_it_leaves_the_status(
    answer_with: Callable[..., Awaitable[str]],
) -> None:
    class Signing(httpx.Auth):
        requires_response_body = True

        def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
            response = yield request
            assert response.content == b"cut"

    url = await answer_with(b"HTTP/1.1 201 Created\r\nContent-Encoding: x\r\nContent-Length: 9\r\n\r\ncut")
    async with Api(ClientOptions(base_url=url, auth=Signing())) as api:
        response = await api.get_root()
    assert (response.status, type(response.error)) == (201, ApiDecodeError)
