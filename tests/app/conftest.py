"""The app of this repository, running against a sandbox API on a real socket."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, tzinfo
from typing import Any

import httpx
import pytest

from dev.sandbox.api import app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from devhost.testing import RunningHost
from shared.business import Answers, BusinessApi, business_api
from shared.pacing import Pacer
from tests.described import declared
from tests.sandboxed import NewRecord, Sandbox, record_maker


def operation(app: httpx.Client, operation_id: str) -> dict[str, Any]:
    """What the app says of an operation now."""
    found: dict[str, Any] = app.get(f"/api/businesses/operations/{operation_id}").raise_for_status().json()
    return found


@pytest.fixture(scope="session", autouse=True)
def usual_answers() -> Iterator[None]:
    """What the sandbox and the tests answer means the usual, whatever the description says of the real API."""
    with pytest.MonkeyPatch.context() as description:
        description.setattr(BusinessApi, "answers", Answers())
        yield


@pytest.fixture(scope="session")
def sandbox_session() -> Iterator[Sandbox]:
    """One sandbox for all tests, since the app reads its settings once in a process."""
    with serve(create_app(STAND_IN)) as url, pytest.MonkeyPatch.context() as environment:
        for name, value in app_environment(url).items():
            environment.setenv(name, value)
        yield Sandbox(url)


@pytest.fixture
def sandbox(sandbox_session: Sandbox) -> Iterator[Sandbox]:
    """The sandbox, behaving well at the start of every test; the pacer has forgotten how it behaved before."""
    pacer = business_api._options().gate
    assert isinstance(pacer, Pacer)
    pacer.forget()
    sandbox_session.behave()
    yield sandbox_session
    sandbox_session.behave()


@pytest.fixture
def unpaced(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app without its pacer, which goes by a clock that no test moves: in an outage it waits for real seconds."""
    options = replace(business_api._options(), gate=None)
    monkeypatch.setattr(business_api, "_options", lambda: options)


@pytest.fixture
def host(devhost: RunningHost, sandbox: Sandbox) -> RunningHost:
    """The app in the embedded host, its settings naming the sandbox."""
    return devhost


@pytest.fixture
def app(host: RunningHost) -> Iterator[httpx.Client]:
    """An HTTP client of the app."""
    with httpx.Client(base_url=host.url, timeout=30) as client:
        yield client


@pytest.fixture
def one_clock(host: RunningHost, monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions that ask for the time are told that of the host, which tests move."""

    class Now(datetime):
        @classmethod
        def now(cls, _zone: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return host.now

    monkeypatch.setattr("shared.functions.bulk.datetime", Now)


@pytest.fixture(autouse=True)
def only_declared_statuses(request: pytest.FixtureRequest) -> None:
    """Whatever a test asks the app, the answer has a status that the OpenAPI document declares."""
    if "app" in request.fixturenames:
        request.getfixturevalue("app").event_hooks = {"response": [declared]}


@pytest.fixture(scope="session")
def new_record() -> NewRecord:
    """Makes records that nobody has sent before."""
    return record_maker()
