"""What httpx clients send and get with a bearer token, when the API accepts it and when it does not."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from aiohttp import web

from dev.sandbox.serving import serve
from shared.access_tokens import BearerAuth, TokenCache, TokenError

from .conftest import NO_CERTIFICATES
from .scripted import SECRET, Answer, FakeTime, Server, until


def test_a_sync_client_sends_the_token(server: Server, client: httpx.Client) -> None:
    assert client.get(server.api_url).status_code == 200
    assert server.calls == ["Bearer token-1"]


async def test_an_async_client_sends_the_token(server: Server, async_client: httpx.AsyncClient) -> None:
    assert (await async_client.get(server.api_url)).status_code == 200
    assert server.calls == ["Bearer token-1"]


def test_sync_and_async_clients_share_one_token(server: Server, auth: BearerAuth, client: httpx.Client) -> None:
    async def call() -> None:
        async with httpx.AsyncClient(auth=auth, verify=NO_CERTIFICATES, trust_env=False) as other:
            await other.get(server.api_url)

    client.get(server.api_url)
    asyncio.run(call())
    assert server.calls == ["Bearer token-1", "Bearer token-1"]
    assert len(server.requests) == 1


# A token that the API rejects


def test_after_a_401_the_token_is_renewed_once_and_the_request_sent_once_more(
    server: Server, client: httpx.Client
) -> None:
    client.get(server.api_url)
    server.valid.clear()
    assert client.post(server.api_url, json={"a": 1}).status_code == 200
    assert server.calls[1:] == ["Bearer token-1", "Bearer token-2"]
    assert len(server.requests) == 2


async def test_an_async_request_is_sent_once_more_too(server: Server, async_client: httpx.AsyncClient) -> None:
    await async_client.get(server.api_url)
    server.valid.clear()
    assert (await async_client.post(server.api_url, json={"a": 1})).status_code == 200
    assert server.calls[1:] == ["Bearer token-1", "Bearer token-2"]


def test_the_second_401_is_returned(server: Server, client: httpx.Client) -> None:
    client.get(server.api_url)
    server.valid.clear()
    server.answers.append(Answer({"access_token": "unknown", "expires_in": 3600}))
    assert client.get(server.api_url).status_code == 401
    assert server.calls[1:] == ["Bearer token-1", "Bearer unknown"]
    assert len(server.requests) == 2


async def test_20_requests_rejected_at_once_make_one_renewal(server: Server, async_client: httpx.AsyncClient) -> None:
    await async_client.get(server.api_url)
    server.valid.clear()
    responses = await asyncio.gather(*(async_client.get(server.api_url) for _ in range(20)))
    assert {response.status_code for response in responses} == {200}
    assert len(server.requests) == 2


def test_a_401_to_a_token_fetched_for_this_request_is_returned(server: Server, client: httpx.Client) -> None:
    server.answers.append(Answer({"access_token": "unknown", "expires_in": 3600}))
    assert client.get(server.api_url).status_code == 401
    assert server.calls == ["Bearer unknown"]
    assert len(server.requests) == 1


def test_a_token_rejected_while_it_is_being_refreshed_is_renewed_too(
    server: Server, client: httpx.Client, time: FakeTime
) -> None:
    client.get(server.api_url)
    server.valid.clear()
    time.advance(3400)
    assert client.get(server.api_url).status_code == 200


def test_an_api_that_rejects_every_token_costs_one_renewal_in_30_s(
    server: Server, client: httpx.Client, time: FakeTime
) -> None:
    server.answers.extend(Answer({"access_token": f"unknown-{n}", "expires_in": 3600}) for n in range(9))
    for _ in range(10):
        assert client.get(server.api_url).status_code == 401
    assert len(server.requests) == 2
    time.advance(31)
    client.get(server.api_url)
    assert len(server.requests) == 3


def test_a_renewal_that_brings_the_rejected_token_again_is_not_used_for_a_second_try(
    server: Server, client: httpx.Client
) -> None:
    client.get(server.api_url)
    server.valid.clear()
    server.answers.append(Answer({"access_token": "token-1", "expires_in": 3600}))
    assert client.get(server.api_url).status_code == 401
    assert server.calls == ["Bearer token-1", "Bearer token-1"]


def test_a_token_that_was_replaced_meanwhile_is_not_renewed_again(
    server: Server, auth: BearerAuth, cache: TokenCache
) -> None:
    cache.of(server.source()).get()
    late = httpx.Request("GET", server.api_url)
    flow = auth.sync_auth_flow(late)
    next(flow)
    cache.of(server.source()).renew(cache.of(server.source()).get())
    assert flow.send(httpx.Response(401, request=late)).headers["Authorization"] == "Bearer token-2"
    assert len(server.requests) == 2


def test_a_renewal_that_fails_raises_its_error(server: Server, client: httpx.Client) -> None:
    client.get(server.api_url)
    server.valid.clear()
    server.answers.append(Answer({"error": "unauthorized_client"}, 400))
    with pytest.raises(TokenError, match="unauthorized_client"):
        client.get(server.api_url)


async def test_a_request_cancelled_in_the_middle_of_a_renewal_leaves_later_ones_unharmed(
    server: Server, async_client: httpx.AsyncClient
) -> None:
    await async_client.get(server.api_url)
    server.valid.clear()
    server.open.clear()
    request = asyncio.create_task(async_client.get(server.api_url))
    await asyncio.to_thread(until, lambda: len(server.requests) == 2)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    server.open.set()
    assert (await async_client.get(server.api_url)).status_code == 200
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("status", "challenge"),
    [
        pytest.param(403, 'Bearer error="invalid_token"', id="403"),
        pytest.param(401, 'Bearer realm="api", error="insufficient_scope", scope="write"', id="insufficient_scope"),
    ],
)
def test_a_refusal_that_no_new_token_would_change_is_returned(
    server: Server, client: httpx.Client, status: int, challenge: str
) -> None:
    client.get(server.api_url)
    server.valid.clear()
    server.refusal = (status, challenge)
    assert client.get(server.api_url).status_code == status
    assert len(server.calls) == 2
    assert len(server.requests) == 1


def test_resending_can_be_switched_off_for_a_request(server: Server, client: httpx.Client) -> None:
    client.get(server.api_url)
    server.valid.clear()
    assert client.get(server.api_url, extensions={"resend_after_401": False}).status_code == 401
    assert len(server.calls) == 2


def test_a_401_to_a_generated_body_is_returned(server: Server, client: httpx.Client) -> None:
    def body() -> Iterator[bytes]:
        yield b"once"

    client.get(server.api_url)
    server.valid.clear()
    assert client.post(server.api_url, content=body()).status_code == 401
    assert len(server.calls) == 2


async def test_a_401_to_an_asynchronously_generated_body_is_returned(
    server: Server, async_client: httpx.AsyncClient
) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"once"

    await async_client.get(server.api_url)
    server.valid.clear()
    assert (await async_client.post(server.api_url, content=body())).status_code == 401


# Where tokens go, and where not


def test_without_a_token_nothing_is_sent(server: Server, client: httpx.Client) -> None:
    server.answers.append(Answer({"error": "invalid_scope"}, 400))
    with pytest.raises(TokenError):
        client.get(server.api_url)
    assert server.calls == []


def test_an_authorization_header_of_the_callers_own_is_left_alone(server: Server, client: httpx.Client) -> None:
    client.get(server.api_url, headers={"authorization": "Basic own"})
    assert server.calls == ["Basic own"]
    assert server.requests == []


def test_a_plain_http_api_is_refused_before_any_fetch(server: Server, client: httpx.Client) -> None:
    with pytest.raises(TokenError, match="https"):
        client.get("http://api.example.com/")
    assert server.requests == []


async def test_a_plain_http_api_is_refused_to_async_clients_too(
    server: Server, async_client: httpx.AsyncClient
) -> None:
    with pytest.raises(TokenError, match="https"):
        await async_client.get("http://api.example.com/")
    assert server.requests == []


def test_a_plain_http_origin_is_refused(server: Server, cache: TokenCache) -> None:
    with pytest.raises(ValueError, match="https"):
        BearerAuth(server.source(), cache=cache, origin="http://api.example.com")


@pytest.fixture
def elsewhere() -> Iterator[tuple[str, list[str | None]]]:
    """The URL of another origin, which answers 401, and the `Authorization` headers that reach it."""
    seen: list[str | None] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers.get("Authorization"))
        return web.Response(status=401)

    app = web.Application()
    app.router.add_get("/", answer)
    with serve(app) as url:
        yield url, seen


def test_a_redirect_to_another_origin_carries_no_token_and_its_401_renews_none(
    server: Server, client: httpx.Client, elsewhere: tuple[str, list[str | None]]
) -> None:
    client.get(server.api_url)
    server.redirect, seen = elsewhere
    assert client.get(f"{server.url}/redirect", follow_redirects=True).status_code == 401
    assert seen == [None]
    assert len(server.requests) == 1


def test_a_redirect_within_the_origin_keeps_the_token(server: Server, client: httpx.Client) -> None:
    client.get(server.api_url)
    server.redirect = "/api"
    server.valid.clear()
    assert client.get(f"{server.url}/redirect", follow_redirects=True).status_code == 200
    assert server.calls[1:] == ["Bearer token-1", "Bearer token-2"]


def test_with_an_origin_requests_to_another_one_carry_no_token(
    server: Server, cache: TokenCache, elsewhere: tuple[str, list[str | None]]
) -> None:
    url, seen = elsewhere
    auth = BearerAuth(server.source(), cache=cache, origin=f"{server.url}/some/path")
    with httpx.Client(auth=auth, verify=NO_CERTIFICATES, trust_env=False) as client:
        assert client.get(server.api_url).status_code == 200
        client.get(url)
    assert server.calls == ["Bearer token-1"]
    assert seen == [None]


def test_neither_logs_at_debug_nor_errors_nor_representations_show_token_or_secret(
    server: Server, client: httpx.Client, cache: TokenCache, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    client.get(server.api_url)
    server.valid.clear()
    client.get(server.api_url)
    token = cache.of(server.source()).get()
    server.valid.clear()
    server.answers.append(Answer({"error": "invalid_client", "error_description": f"no such secret: {SECRET}"}, 401))
    with pytest.raises(TokenError) as caught:
        client.get(server.api_url)
    shown = "\n".join(
        [caplog.text, str(caught.value), repr(caught.value), str(caught.value.args), repr(server.source()), repr(token)]
    )
    assert "POST /token" in shown or "/token" in shown
    assert "token-2" not in shown
    assert SECRET not in shown
