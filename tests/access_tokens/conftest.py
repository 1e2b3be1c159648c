"""A scripted server, a clock that the test moves, a cache that goes by it, and clients of the API."""

import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from dev.sandbox.serving import serve
from shared.access_tokens import BearerAuth, TokenCache

from .authority import Authority
from .scripted import FakeTime, Server

# Loading the usual certificates takes longer than most of these tests, and nothing that uses this speaks TLS.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def cache(time: FakeTime) -> TokenCache:
    return TokenCache(clocks=time.clocks())


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with serve(server.app()) as server.url:
        yield server
        server.open.set()


@pytest.fixture
def auth(server: Server, cache: TokenCache) -> BearerAuth:
    return BearerAuth(server.source(), cache=cache)


@pytest.fixture
def client(auth: BearerAuth) -> Iterator[httpx.Client]:
    with httpx.Client(auth=auth, verify=NO_CERTIFICATES, trust_env=False) as client:
        yield client


@pytest.fixture
async def async_client(auth: BearerAuth) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(auth=auth, verify=NO_CERTIFICATES, trust_env=False) as client:
        yield client


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)
