"""The same call made by the app's typed client and by what one would use instead: post a record, get it back.

Each client sends a bearer token, writes the record as JSON, checks the status and validates the answer; only the raw
sockets at the bottom do none of that. All may keep as many connections as are asked for.
"""

import asyncio
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport as HttpxAiohttpTransport
from pydantic import BaseModel

from dev.benchmarks.raw_server import UNCHECKED_TOKEN, Server
from shared.business import Business, BusinessApi
from shared.connection import client_options
from shared.rest.transport import AiohttpTransport

MAX_CONNECTIONS = 100

TYPED_CLIENT = "typed client, BearerAuth"
HTTPX = "httpx"
HTTPX_SAME_TRANSPORT = "httpx on the typed client's transport"
HTTPX_AIOHTTP = "httpx on httpx-aiohttp"
HTTPX_PYREQWEST = "httpx on pyreqwest"
AIOHTTP = "aiohttp"
AUTHLIB = "Authlib AsyncOAuth2Client"
HTTPX_AUTH = "httpx + httpx-auth"
AZURE_CORE = "azure-core pipeline + azure-identity"
RAW_SOCKETS = "raw sockets"

type Call = Callable[[], Awaitable[object]]
type Client = Callable[[Server], AbstractAsyncContextManager[Call]]

RECORD = Business(
    registration_number="HRB 1001",
    name="Acme GmbH",
    country="DE",
    email="office@acme.example",
    website="https://acme.example",
    employees=12,
)
_LIMITS = httpx.Limits(max_connections=MAX_CONNECTIONS, max_keepalive_connections=MAX_CONNECTIONS)


class _StaticBearer(httpx.Auth):
    def auth_flow(self, request: httpx.Request) -> Any:
        request.headers["Authorization"] = f"Bearer {UNCHECKED_TOKEN}"
        yield request


@asynccontextmanager
async def typed_client(server: Server) -> AsyncIterator[Call]:
    """The app's own client with all that the app gives it: token cache, renewal after a 401, trace context, limits."""
    os.environ.update(
        BUSINESS_API_BASE_URL=server.url,
        BUSINESS_API_TOKEN_URL="/token",  # noqa: S106 (a path)
        BUSINESS_API_CLIENT_ID="client",
        BUSINESS_API_CLIENT_SECRET="secret",  # noqa: S106 (the server takes any)
        BUSINESS_API_MAX_CONNECTIONS=str(MAX_CONNECTIONS),
    )
    async with BusinessApi(client_options) as api:

        async def call() -> Business:
            return (await api.post_business(RECORD)).unwrap()

        yield call


def _on_httpx(client: httpx.AsyncClient) -> Call:
    async def call() -> Business:
        response = await client.post("/businesses", json=RECORD.model_dump(mode="json", exclude_none=True))
        response.raise_for_status()
        return Business.model_validate_json(response.content)

    return call


def _httpx_client(transport: Callable[[Server], httpx.AsyncBaseTransport | None]) -> Client:
    @asynccontextmanager
    async def open_client(server: Server) -> AsyncIterator[Call]:
        async with httpx.AsyncClient(
            base_url=server.url, auth=_StaticBearer(), limits=_LIMITS, transport=transport(server), trust_env=False
        ) as client:
            yield _on_httpx(client)

    return open_client


def _pyreqwest(_server: Server) -> httpx.AsyncBaseTransport:
    from pyreqwest.compatibility.httpx import HttpxTransport

    transport: httpx.AsyncBaseTransport = HttpxTransport()
    return transport


def _own_transport(server: Server) -> httpx.AsyncBaseTransport:
    return AiohttpTransport(httpx.URL(server.url), verify=True, limits=_LIMITS, proxy=None, trust_env=False)


@asynccontextmanager
async def aiohttp_session(server: Server) -> AsyncIterator[Call]:
    """An aiohttp session with the token in a header."""
    url = f"{server.url}/businesses"
    headers = {"Authorization": f"Bearer {UNCHECKED_TOKEN}", "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS)) as session:

        async def call() -> Business:
            body = RECORD.model_dump_json(exclude_none=True).encode()
            async with session.post(url, data=body, headers=headers) as response:
                response.raise_for_status()
                return Business.model_validate_json(await response.read())

        yield call


@asynccontextmanager
async def authlib(server: Server) -> AsyncIterator[Call]:
    """Authlib's httpx client, which looks after its token itself."""
    with warnings.catch_warnings(record=True):  # it would rather have httpx2
        from authlib.integrations.httpx_client import AsyncOAuth2Client

    async with AsyncOAuth2Client(
        "client",
        "secret",
        token_endpoint=f"{server.url}/token",
        grant_type="client_credentials",
        base_url=server.url,
        limits=_LIMITS,
        trust_env=False,
    ) as client:
        await client.fetch_token()
        yield _on_httpx(client)


@asynccontextmanager
async def httpx_auth(server: Server) -> AsyncIterator[Call]:
    """An httpx client with the client credentials of httpx-auth."""
    from httpx_auth import OAuth2, OAuth2ClientCredentials

    OAuth2.token_cache.clear()
    auth = OAuth2ClientCredentials(f"{server.url}/token", "client", "secret")
    async with httpx.AsyncClient(base_url=server.url, auth=auth, limits=_LIMITS, trust_env=False) as client:
        yield _on_httpx(client)


@asynccontextmanager
async def azure_core(server: Server) -> AsyncIterator[Call]:
    """A pipeline of azure-core as the Azure SDKs build theirs, with a bearer policy and a managed identity."""
    from azure.core import AsyncPipelineClient
    from azure.core.pipeline.policies import (
        AsyncBearerTokenCredentialPolicy,
        AsyncRetryPolicy,
        HeadersPolicy,
        UserAgentPolicy,
    )
    from azure.core.pipeline.transport import AioHttpTransport
    from azure.core.rest import HttpRequest

    credential = managed_identity(server)
    policies = [
        HeadersPolicy(),
        UserAgentPolicy("benchmarks"),
        AsyncRetryPolicy(),
        AsyncBearerTokenCredentialPolicy(credential, "api://business/.default"),
    ]
    session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS))
    transport = AioHttpTransport(session=session, session_owner=True)
    client: Any = AsyncPipelineClient(server.url, policies=policies, transport=transport)
    async with client, credential:

        async def call() -> Business:
            request = HttpRequest(
                "POST", f"{server.url}/businesses", json=RECORD.model_dump(mode="json", exclude_none=True)
            )
            response = await client.send_request(request, enforce_https=False)
            response.raise_for_status()
            return Business.model_validate_json(response.content)

        yield call


def managed_identity(server: Server) -> Any:
    """azure-identity's managed identity, the one credential of it that talks to an endpoint without TLS."""
    from azure.identity.aio import ManagedIdentityCredential

    os.environ.update(IDENTITY_ENDPOINT=f"{server.url}/identity", IDENTITY_HEADER="header")
    return ManagedIdentityCredential()


@asynccontextmanager
async def raw_sockets(server: Server) -> AsyncIterator[Call]:
    """The lower bound: fixed bytes are sent, and an answer of a known length is awaited."""
    body = RECORD.model_dump_json(exclude_none=True).encode()
    request = (
        f"POST /businesses HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nAccept: application/json\r\n"
        f"Authorization: Bearer {UNCHECKED_TOKEN}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    idle: list[_RawConnection] = []
    opened: list[_RawConnection] = []

    async def call() -> None:
        if idle:
            connection = idle.pop()
        else:
            _, connection = await asyncio.get_running_loop().create_connection(_RawConnection, "127.0.0.1", server.port)
            opened.append(connection)
        await connection.exchange(request)
        idle.append(connection)

    yield call
    for connection in opened:
        connection.transport.close()


class _RawConnection(asyncio.Protocol):
    transport: asyncio.Transport
    _answered: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (for the type checker)
        self.transport = transport

    def exchange(self, request: bytes) -> asyncio.Future[None]:
        self._answered = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answered

    def data_received(self, data: bytes) -> None:  # the server sends an answer in one piece
        if not data.startswith(b"HTTP/1.1 201"):
            raise ValueError(f"expected 201, got {data[:40]!r}")
        self._answered.set_result(None)


CLIENTS: Mapping[str, Client] = {
    TYPED_CLIENT: typed_client,
    HTTPX: _httpx_client(lambda _server: None),
    HTTPX_SAME_TRANSPORT: _httpx_client(_own_transport),
    HTTPX_AIOHTTP: _httpx_client(
        lambda _server: HttpxAiohttpTransport(limits=_LIMITS, trust_env=False),
    ),
    HTTPX_PYREQWEST: _httpx_client(_pyreqwest),
    AIOHTTP: aiohttp_session,
    AUTHLIB: authlib,
    HTTPX_AUTH: httpx_auth,
    AZURE_CORE: azure_core,
    RAW_SOCKETS: raw_sockets,
}
"""By the names that the tables show."""


def is_record(answer: object) -> bool:
    """Whether a call has brought what it should: a record that was validated."""
    return isinstance(answer, BaseModel)
