"""Ways to have a token for each request: the app's cache, the peers', and an `if` as the least that can be done.

Each library treats a token as due some time before it expires. So that all of them can be watched at the moment when
they need a new one, the server gives each a lifetime that is its own margin and a few seconds.
"""

import contextlib
import os
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import requests

from dev.benchmarks.peers import managed_identity
from dev.benchmarks.raw_server import Control, Server
from shared.access_tokens import BearerAuth, ClientCredentials, ClientSecretBasic, TokenCache

OURS = "TokenCache"
AUTHLIB = "Authlib"
HTTPX_AUTH = "httpx-auth"
AZURE_CORE = "azure-core policy + azure-identity"
AZURE_IDENTITY = "azure-identity, asked each time"
MSAL = "msal, asked each time"

_SCOPE = "api://business/.default"

type AsyncLookUp = Callable[[], Awaitable[object]]
type LookUp = Callable[[], object]


def _due_before_expiry(margin: int) -> Callable[[int], Control]:
    """For a holder that wants a new token so many seconds before the old one expires."""
    return lambda seconds: Control(lifetime=margin + seconds)


def _due_as_told(seconds: int) -> Control:
    """For a holder that wants a new token when the server says so."""
    return Control(lifetime=seconds + 1, refresh_in=seconds)


@dataclass(frozen=True, slots=True)
class AsyncHolder:
    """A holder for coroutines.

    Attributes:
        open: Makes a new holder, without a token yet, of the tokens of a server.
        due: How the server must issue tokens so that a new one is due after about so many seconds.
    """

    open: Callable[[Server], AbstractAsyncContextManager[AsyncLookUp]]
    due: Callable[[int], Control]


@dataclass(frozen=True, slots=True)
class Holder:
    """A holder for threads; attributes as those of `AsyncHolder`."""

    open: Callable[[Server], AbstractContextManager[LookUp]]
    due: Callable[[int], Control]


def source(server: Server) -> ClientCredentials:
    """Where the app's own cache gets its tokens."""
    return ClientCredentials(
        token_url=f"{server.url}/token", client_id="client", authentication=ClientSecretBasic("secret")
    )


@asynccontextmanager
async def token_cache(server: Server) -> AsyncIterator[AsyncLookUp]:
    """The app's cache."""
    yield TokenCache().of(source(server)).get_async


@contextmanager
def token_cache_for_threads(server: Server) -> Iterator[LookUp]:
    """The app's cache."""
    yield TokenCache().of(source(server)).get


@asynccontextmanager
async def bearer_auth(server: Server) -> AsyncIterator[AsyncLookUp]:
    """The app's cache by way of what puts its token on requests of httpx."""
    auth = BearerAuth(source(server), cache=TokenCache(), origin=server.url)
    request = httpx.Request("POST", f"{server.url}/businesses")
    response = httpx.Response(201)

    async def look_up() -> None:
        request.headers.pop("Authorization", None)
        flow = auth.async_auth_flow(request)
        await anext(flow)
        with contextlib.suppress(StopAsyncIteration):
            await flow.asend(response)

    yield look_up


@asynccontextmanager
async def authlib(server: Server) -> AsyncIterator[AsyncLookUp]:
    """What Authlib's httpx client does before each request."""
    with warnings.catch_warnings(record=True):  # it would rather have httpx2
        from authlib.integrations.httpx_client import AsyncOAuth2Client

    async with AsyncOAuth2Client(
        "client", "secret", token_endpoint=f"{server.url}/token", grant_type="client_credentials", trust_env=False
    ) as client:

        async def look_up() -> object:
            if not client.token:  # as its documentation has it: fetch the token, then use the client
                await client.fetch_token()
            await client.ensure_active_token(client.token)
            return client.token["access_token"]

        yield look_up


def _httpx_auth(server: Server) -> LookUp:
    from httpx_auth import OAuth2, OAuth2ClientCredentials

    OAuth2.token_cache.clear()
    auth = OAuth2ClientCredentials(f"{server.url}/token", "client", "secret")
    request = httpx.Request("POST", f"{server.url}/businesses")
    return lambda: next(auth.auth_flow(request))


@asynccontextmanager
async def httpx_auth(server: Server) -> AsyncIterator[AsyncLookUp]:
    """What httpx-auth does for each request, also of an `AsyncClient`."""
    look_up = _httpx_auth(server)

    async def look_up_async() -> object:
        return look_up()

    yield look_up_async


@contextmanager
def httpx_auth_for_threads(server: Server) -> Iterator[LookUp]:
    """What httpx-auth does for each request."""
    yield _httpx_auth(server)


@asynccontextmanager
async def azure_core(server: Server) -> AsyncIterator[AsyncLookUp]:
    """What the bearer policy of Azure SDKs does for each request."""
    from azure.core.pipeline import PipelineContext, PipelineRequest
    from azure.core.pipeline.policies import AsyncBearerTokenCredentialPolicy
    from azure.core.rest import HttpRequest

    async with managed_identity(server) as credential:
        policy: Any = AsyncBearerTokenCredentialPolicy(credential, _SCOPE)

        request: Any = PipelineRequest(HttpRequest("POST", "https://127.0.0.1/businesses"), PipelineContext(None))

        async def look_up() -> object:
            await policy.on_request(request)
            return request.http_request.headers["Authorization"]

        yield look_up


@asynccontextmanager
async def azure_identity(server: Server) -> AsyncIterator[AsyncLookUp]:
    """An async credential of azure-identity, asked for the token of each request."""
    async with managed_identity(server) as credential:

        async def look_up() -> object:
            return (await credential.get_token(_SCOPE)).token

        yield look_up


@contextmanager
def azure_identity_for_threads(server: Server) -> Iterator[LookUp]:
    """A credential of azure-identity, asked for the token of each request."""
    from azure.identity import ManagedIdentityCredential

    os.environ.update(IDENTITY_ENDPOINT=f"{server.url}/identity", IDENTITY_HEADER="header")
    with ManagedIdentityCredential() as credential:
        yield lambda: credential.get_token(_SCOPE).token


class _WithoutTls(requests.adapters.HTTPAdapter):
    """Lets msal, which insists on https, talk to the loopback server."""

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = (request.url or "").replace("https://", "http://", 1)
        return super().send(request, *args, **kwargs)


def _msal(server: Server, http_client: requests.Session) -> LookUp:
    import msal

    http_client.mount("https://", _WithoutTls(pool_maxsize=200))
    http_client.trust_env = False
    application = msal.ConfidentialClientApplication(
        "client",
        client_credential="secret",
        authority=f"https://127.0.0.1:{server.port}/tenant",
        http_client=http_client,
        instance_discovery=False,
    )

    def look_up() -> object:
        answer = application.acquire_token_for_client([_SCOPE])
        if "access_token" not in answer:
            raise ValueError(f"msal got no token: {answer.get('error')}")
        return answer["access_token"]

    return look_up


@asynccontextmanager
async def msal(server: Server) -> AsyncIterator[AsyncLookUp]:
    """A confidential client of msal, asked for the token of each request; it has no async interface."""
    with requests.Session() as session:
        look_up = _msal(server, session)

        async def look_up_async() -> object:
            return look_up()

        yield look_up_async


@contextmanager
def msal_for_threads(server: Server) -> Iterator[LookUp]:
    """A confidential client of msal, asked for the token of each request."""
    with requests.Session() as session:
        yield _msal(server, session)


ASYNC_HOLDERS: Mapping[str, AsyncHolder] = {
    OURS: AsyncHolder(token_cache, _due_before_expiry(0)),
    AUTHLIB: AsyncHolder(authlib, _due_before_expiry(60)),
    HTTPX_AUTH: AsyncHolder(httpx_auth, _due_before_expiry(30)),
    AZURE_CORE: AsyncHolder(azure_core, _due_as_told),
    AZURE_IDENTITY: AsyncHolder(azure_identity, _due_as_told),
    MSAL: AsyncHolder(msal, _due_before_expiry(300)),
}
HOLDERS: Mapping[str, Holder] = {
    OURS: Holder(token_cache_for_threads, _due_before_expiry(0)),
    HTTPX_AUTH: Holder(httpx_auth_for_threads, _due_before_expiry(30)),
    AZURE_IDENTITY: Holder(azure_identity_for_threads, _due_before_expiry(300)),
    MSAL: Holder(msal_for_threads, _due_before_expiry(300)),
}
