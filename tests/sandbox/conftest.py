"""A sandbox on an ephemeral port, with a clock that the test moves, and clients for it."""

import ssl
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from dev.sandbox.api import CLIENT_ID, CLIENT_SECRET, SCOPE, TOKEN_PATH, SandboxOptions, create_app
from dev.sandbox.serving import serve

# Loading the usual certificates takes longer than most of these tests, and nothing here speaks TLS.
NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

BOOKS = SandboxOptions(path="/books", natural_key="isbn", assign=lambda number: {"bookId": number, "copies": 1})
"""An API that has nothing to do with the one that the app posts to."""


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def advance(clock: Clock) -> Callable[[float], None]:
    return clock.advance


@pytest.fixture
def anonymous(clock: Clock) -> Iterator[httpx.Client]:
    """A client without a token."""
    with (
        serve(create_app(replace(BOOKS, clock=clock))) as url,
        httpx.Client(base_url=url, verify=NO_CERTIFICATES) as client,
    ):
        yield client


@pytest.fixture
def token_for(anonymous: httpx.Client) -> Callable[[str], str]:
    """Fetches a token for a scope."""

    def fetch(scope: str) -> str:
        form = {"grant_type": "client_credentials", "scope": scope}
        answer = anonymous.post(TOKEN_PATH, data=form, auth=(CLIENT_ID, CLIENT_SECRET))
        return str(answer.raise_for_status().json()["access_token"])

    return fetch


@pytest.fixture
def client(anonymous: httpx.Client, token_for: Callable[[str], str]) -> Iterator[httpx.Client]:
    """A client with a token for everything."""
    headers = {"Authorization": f"Bearer {token_for(SCOPE)}"}
    with httpx.Client(base_url=anonymous.base_url, headers=headers, verify=NO_CERTIFICATES) as client:
        yield client


@pytest.fixture
def stats(anonymous: httpx.Client) -> Callable[[], dict[str, Any]]:
    def read() -> dict[str, Any]:
        document = anonymous.get("/stats").json()
        assert isinstance(document, dict)
        return document

    return read


@pytest.fixture
def book() -> dict[str, Any]:
    return {"isbn": "978-1", "title": "Über Dinge", "authors": [{"name": "A. Nonym"}], "pages": 12}
