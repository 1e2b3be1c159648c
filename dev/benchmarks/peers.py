"""The app's typed client and token cache, and what one would use instead, each opened as a `Peer` of a server.

A call of a peer sends a bearer token, writes the record as JSON, checks the status and validates the answer; only the
raw sockets do none of that. All may keep as many connections as are asked for.
"""

import asyncio
import json
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
import httpx_auth
import msal
import requests
from azure.core import AsyncPipelineClient
from azure.core.pipeline import PipelineContext, PipelineRequest, policies
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import HttpRequest
from azure.identity import ManagedIdentityCredential
from azure.identity.aio import ManagedIdentityCredential as AsyncManagedIdentityCredential
from httpx_aiohttp import AiohttpTransport as HttpxAiohttpTransport
from pyreqwest.compatibility.httpx import HttpxTransport

from dev.benchmarks.raw_server import HEADERS, RECORD, TOKEN_PATH
from dev.benchmarks.servers import Server
from dev.sandbox.api import app_environment
from shared.access_tokens import ClientCredentials, ClientSecretBasic, TokenCache
from shared.business import COLLECTION, Business, BusinessApi, NewBusiness, example
from shared.rest.transport import AiohttpTransport
from shared.wiring import client_options

with warnings.catch_warnings(record=True):  # it would rather have httpx2
    from authlib.integrations.httpx_client import AsyncOAuth2Client

_RECORD = NewBusiness.model_validate_json(json.dumps(example()))
_POOL = httpx.Limits(max_connections=100, max_keepalive_connections=100)
_SCOPE = "api://business/.default"


@dataclass(frozen=True, slots=True)
class Peer:
    """What a library does for its user; None where it has no interface for that.

    Attributes:
        call: Posts a record and returns the one that the API answers.
        look_up: Has the token for a request, in a coroutine.
        look_up_on_thread: Has it on a thread.
        margin: Seconds before expiry at which it wants a new token, unless the server has told it earlier ones.
    """

    call: Callable[[], Awaitable[object]] | None = None
    look_up: Callable[[], Awaitable[object]] | None = None
    look_up_on_thread: Callable[[], object] | None = None
    margin: int = 0


def token_source(server: Server) -> ClientCredentials:
    """Where the app's own cache gets its tokens."""
    secret = ClientSecretBasic("secret")
    return ClientCredentials(token_url=server.url + TOKEN_PATH, client_id="client", authentication=secret)


@asynccontextmanager
async def _app(server: Server) -> AsyncIterator[Peer]:
    """The app's own client with all that the app gives it, and a token cache."""
    os.environ.update(app_environment(server.url), BUSINESS_API_MAX_CONNECTIONS=str(_POOL.max_connections))
    tokens = TokenCache().of(token_source(server))
    async with BusinessApi(client_options) as api:

        async def call() -> Business:
            return (await api.post_business(_RECORD)).unwrap()

        yield Peer(call, tokens.get_async, tokens.get)


def _post_with(client: httpx.AsyncClient) -> Callable[[], Awaitable[Business]]:
    async def call() -> Business:
        response = await client.post(COLLECTION, json=_RECORD.model_dump(mode="json", by_alias=True, exclude_none=True))
        response.raise_for_status()
        return Business.model_validate_json(response.content)

    return call


def _httpx_on(make_transport: Callable[[httpx.URL], Any]) -> Callable[[Server], AbstractAsyncContextManager[Peer]]:
    @asynccontextmanager
    async def open_peer(server: Server) -> AsyncIterator[Peer]:
        options: dict[str, Any] = {"transport": make_transport(httpx.URL(server.url)), "headers": HEADERS}
        async with httpx.AsyncClient(base_url=server.url, limits=_POOL, trust_env=False, **options) as client:
            yield Peer(_post_with(client))

    return open_peer


@asynccontextmanager
async def _aiohttp(server: Server) -> AsyncIterator[Peer]:
    async with aiohttp.ClientSession(server.url, headers=HEADERS) as session:

        async def call() -> Business:
            body = _RECORD.model_dump_json(by_alias=True, exclude_none=True).encode()
            async with session.post(COLLECTION, data=body) as response:
                response.raise_for_status()
                return Business.model_validate_json(await response.read())

        yield Peer(call)


@asynccontextmanager
async def _authlib(server: Server) -> AsyncIterator[Peer]:
    grant = {"token_endpoint": server.url + TOKEN_PATH, "grant_type": "client_credentials", "trust_env": False}
    async with (
        AsyncOAuth2Client("client", "secret", base_url=server.url, limits=_POOL, **grant) as client,
        AsyncOAuth2Client("client", "secret", **grant) as holder,  # its own, smaller pool serves a stampede faster
    ):
        post = _post_with(client)

        async def call() -> Business:
            if not client.token:  # as its documentation has it: fetch the token, then use the client
                await client.fetch_token()
            return await post()

        async def look_up() -> None:
            if not holder.token:
                await holder.fetch_token()
            await holder.ensure_active_token(holder.token)

        yield Peer(call, look_up, margin=60)


@asynccontextmanager
async def _httpx_auth(server: Server) -> AsyncIterator[Peer]:
    httpx_auth.OAuth2.token_cache.clear()
    auth = httpx_auth.OAuth2ClientCredentials(server.url + TOKEN_PATH, "client", "secret")
    request = httpx.Request("POST", server.url + COLLECTION)

    async def look_up() -> object:  # it has no async interface of its own
        return next(auth.auth_flow(request))

    async with httpx.AsyncClient(base_url=server.url, auth=auth, limits=_POOL, trust_env=False) as client:
        yield Peer(_post_with(client), look_up, lambda: next(auth.auth_flow(request)), margin=30)


@asynccontextmanager
async def _azure_core(server: Server) -> AsyncIterator[Peer]:
    """A pipeline as the Azure SDKs build theirs, with a retry, a bearer policy and a managed identity."""
    credential = _managed_identity(server)
    bearer: Any = policies.AsyncBearerTokenCredentialPolicy(credential, _SCOPE)
    chain = [policies.HeadersPolicy(), policies.UserAgentPolicy("benchmarks"), policies.AsyncRetryPolicy(), bearer]
    transport = AioHttpTransport(session=aiohttp.ClientSession(), session_owner=True)
    client: Any = AsyncPipelineClient(server.url, policies=chain, transport=transport)
    pending: Any = PipelineRequest(HttpRequest("POST", "https://127.0.0.1" + COLLECTION), PipelineContext(None))

    async def call() -> Business:
        body = _RECORD.model_dump(mode="json", by_alias=True, exclude_none=True)
        request = HttpRequest("POST", server.url + COLLECTION, json=body)
        response = await client.send_request(request, enforce_https=False)
        response.raise_for_status()
        return Business.model_validate_json(response.content)

    async with client, credential:
        yield Peer(call, lambda: bearer.on_request(pending), margin=1)


@asynccontextmanager
async def _azure_identity(server: Server) -> AsyncIterator[Peer]:
    async with _managed_identity(server) as credential:
        with ManagedIdentityCredential() as on_thread:
            yield Peer(None, lambda: credential.get_token(_SCOPE), lambda: on_thread.get_token(_SCOPE), margin=300)


def _managed_identity(server: Server) -> AsyncManagedIdentityCredential:
    """The one credential of azure-identity that talks to an endpoint without TLS."""
    os.environ.update(IDENTITY_ENDPOINT=f"{server.url}/identity", IDENTITY_HEADER="header")
    return AsyncManagedIdentityCredential()


class _WithoutTls(requests.adapters.HTTPAdapter):
    """Lets msal, which insists on https, talk to the loopback server."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = (request.url or "").replace("https://", "http://", 1)
        return super().send(request, *args, **kwargs)


@asynccontextmanager
async def _msal(server: Server) -> AsyncIterator[Peer]:
    with requests.Session() as session:
        session.mount("https://", _WithoutTls(pool_maxsize=200))
        session.trust_env = False
        options = {"authority": f"https{server.url.removeprefix('http')}/tenant", "instance_discovery": False}
        client = msal.ConfidentialClientApplication("client", "secret", http_client=session, **options)

        def look_up_on_thread() -> object:
            return client.acquire_token_for_client([_SCOPE])["access_token"]

        async def look_up() -> object:  # it has no async interface
            return look_up_on_thread()

        yield Peer(None, look_up, look_up_on_thread, margin=300)


@asynccontextmanager
async def _raw_sockets(server: Server) -> AsyncIterator[Peer]:
    """The lower bound: fixed bytes are sent, and an answer is awaited."""
    url = httpx.URL(server.url)
    headers = {"Host": url.netloc.decode(), "Accept": "application/json", **HEADERS, "Content-Length": len(RECORD)}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    request = f"POST {COLLECTION} HTTP/1.1\r\n{head}\r\n".encode() + RECORD
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call() -> None:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(url.host, url.port)
        writer.write(request)
        if not (answer := await reader.readuntil(b"}")).startswith(b"HTTP/1.1 201"):
            raise ValueError(f"expected 201, got {answer!r}")
        idle.append((reader, writer))

    yield Peer(call)
    for _, writer in idle:
        writer.close()


APP = "typed client, TokenCache"
HTTPX = "httpx"
HTTPX_ON_APP = "httpx on the typed client's transport"
HTTPX_ON_AIOHTTP = "httpx on httpx-aiohttp"
RAW_SOCKETS = "raw sockets"
PEERS: Mapping[str, Callable[[Server], AbstractAsyncContextManager[Peer]]] = {
    APP: _app,
    HTTPX: _httpx_on(lambda _url: None),
    HTTPX_ON_APP: _httpx_on(lambda url: AiohttpTransport(url, verify=True, limits=_POOL, proxy=None, trust_env=False)),
    HTTPX_ON_AIOHTTP: _httpx_on(lambda _url: HttpxAiohttpTransport(limits=_POOL, trust_env=False)),
    "httpx on pyreqwest": _httpx_on(lambda _url: HttpxTransport()),
    "aiohttp": _aiohttp,
    "Authlib": _authlib,
    "httpx-auth": _httpx_auth,
    "azure-core + azure-identity": _azure_core,
    "azure-identity, asked each time": _azure_identity,
    "msal, asked each time": _msal,
    RAW_SOCKETS: _raw_sockets,
}
"""What makes a peer, without a token yet, by the name that the tables show."""


@asynccontextmanager
async def open_all(server: Server) -> AsyncIterator[Mapping[str, Peer]]:
    """Keep a peer of each kind open, by their names, while the `async with` block runs."""
    async with AsyncExitStack() as opened:
        yield {name: await opened.enter_async_context(open_peer(server)) for name, open_peer in PEERS.items()}
