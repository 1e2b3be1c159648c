"""The host that the tests run on, the sandbox behind it, and a caller of the app."""

import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.processes import CommandHost, HostStartError, no_settings
from dev.sandbox.api import app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from tests.described import declared
from tests.sandboxed import NewRecord, Sandbox, record_maker

APP = Path(__file__).parents[2]
COMMAND, URL, KEY, SANDBOX_URL = (
    os.environ.get(name, "") for name in ("HOST_COMMAND", "HOST_URL", "KEY", "SANDBOX_URL")
)

# Long enough to be seen, though the engine's timers fire up to a second early; short enough for nobody to wait long.
DELAYS = {"DELIVERY_FIRST_DELAY": "2", "DELIVERY_MAX_DELAY": "2"}
PATIENCE = 150.0
"""Seconds: what was in flight when the engine was killed waits for a minute."""

NO_SANDBOX = "stores invented records: only with SANDBOX_URL, the API of the app under HOST_URL"
NOT_OURS = "kills the host: only with HOST_COMMAND, which starts one"
NOT_SHARED = "two hosts of one task hub: the embedded host keeps its state to itself, only with HOST_COMMAND"

type Operation = dict[str, Any]


class Caller:
    """Somebody who has records posted, and asks what has become of them."""

    def __init__(self, url: str, key: str) -> None:
        headers, hooks = {"x-functions-key": key} if key else {}, {"response": [declared]}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=75, event_hooks=hooks)

    def close(self) -> None:
        """Close the connections."""
        self.http.close()

    def start(self, record: dict[str, Any], **headers: str) -> str:
        """Start the delivery of a record; returns the operation's id."""
        return self._started(self.http.post("/api/businesses", json=record, headers=headers))

    def start_batch(self, records: list[dict[str, Any]], **headers: str) -> str:
        """Start a batch; returns the operation's id."""
        return self._started(self.http.post("/api/businesses/batch", json=records, headers=headers))

    def operation(self, operation_id: str) -> Operation:
        """What the app says of an operation now."""
        found: Operation = self.http.get(f"/api/businesses/operations/{operation_id}").raise_for_status().json()
        return found

    def until(self, operation_id: str, condition: Callable[[Operation], object]) -> Operation:
        """Look again and again until an operation is as it should be."""
        end = time.monotonic() + PATIENCE
        while not condition(operation := self.operation(operation_id)):
            if time.monotonic() > end:
                raise TimeoutError(f"still {operation}")
            time.sleep(0.05)
        return operation

    def end(self, operation_id: str) -> Operation:
        """Wait for the end of an operation; the host may be killed and started again meanwhile."""
        end = time.monotonic() + PATIENCE
        while True:
            try:
                answer = self.http.get(f"/api/businesses/operations/{operation_id}?wait=30")
                if "Retry-After" not in answer.raise_for_status().headers:
                    operation: Operation = answer.json()
                    return operation
            except httpx.TransportError:
                time.sleep(0.1)
            if time.monotonic() > end:
                raise TimeoutError(f"{operation_id} has not ended")

    def find_the_api_well(self) -> None:
        """Have something looked up, which is sent within two seconds: its answer ends what holds the app's posts."""
        self.http.get("/api/businesses/unknown")

    def listed(self, **query: Any) -> list[Operation]:
        """All operations of a query, page by page."""
        page = self.http.get("/api/businesses/operations", params=query).raise_for_status().json()
        found: list[Operation] = page["operations"]
        while following := page.get("next"):
            page = self.http.get(following).raise_for_status().json()
            found += page["operations"]
        return found

    def results(self, operation_id: str, page: int = 1) -> list[dict[str, Any]]:
        """What has become of the records of a batch, a page of them."""
        answer = self.http.get(f"/api/businesses/operations/{operation_id}/results", params={"page": page})
        found: list[dict[str, Any]] = answer.raise_for_status().json()["results"]
        return found

    def _started(self, answer: httpx.Response) -> str:
        assert answer.status_code == 202, answer.text
        operation_id: str = answer.json()["id"]
        return operation_id


@pytest.fixture(scope="session")
def shared_sandbox() -> Iterator[Sandbox | None]:
    """The API of the app, if it is one that may be filled with invented records."""
    if URL:
        yield Sandbox(SANDBOX_URL) if SANDBOX_URL else None
    else:
        with serve(create_app(STAND_IN)) as url:
            yield Sandbox(url)


@pytest.fixture(scope="session")
def started_host(
    shared_sandbox: Sandbox | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CommandHost | None]:
    """The host that these tests start; None if one runs already."""
    if URL or shared_sandbox is None:
        yield None
        return
    folder = tmp_path_factory.mktemp("host")
    host = None
    try:
        host = CommandHost(command(folder), settings_with(shared_sandbox), folder / "host.log")
        host.start()
    except HostStartError as error:  # no test can do anything then
        pytest.exit(f"{error}\n{host.log_tail() if host else ''}", returncode=1)
    yield host
    host.stop()


def command(folder: Path) -> str:
    """What starts a host; the embedded one, unless another is named, keeps its state in the folder."""
    return COMMAND or f"{sys.executable} -m devhost --app {APP} --port {{port}} --state {folder / 'state.db'}"


def settings_with(sandbox: Sandbox) -> dict[str, str]:
    """Settings of a host whose API is the sandbox.

    They name a hub of its own: what an earlier run has left in the storage would be posted to this one's sandbox.
    """
    hub = {durable_setting("hubName"): f"Tests{uuid.uuid4().hex[:12]}"}
    return no_settings(APP) | app_environment(sandbox.url) | DELAYS | hub


def durable_setting(name: str) -> str:
    """The environment variable that overrides a value of the durable extension in host.json."""
    return f"AzureFunctionsJobHost__extensions__durableTask__{name}"


@pytest.fixture
def two_hosts(host: CommandHost, sandbox: Sandbox, tmp_path: Path) -> Iterator[tuple[CommandHost, CommandHost]]:
    """Two hosts beside the first, with one task hub, each of which runs two activities at once."""
    if not COMMAND:
        pytest.skip(NOT_SHARED)
    settings = settings_with(sandbox) | {durable_setting("maxConcurrentActivityFunctions"): "2"}
    with ExitStack() as at_the_end:
        hosts = []
        for name in ("one", "other"):
            hosts.append(one := CommandHost(COMMAND, settings, tmp_path / f"{name}.log"))
            at_the_end.callback(one.stop)
            one.start()
        yield hosts[0], hosts[1]


@pytest.fixture(scope="session")
def app(started_host: CommandHost | None) -> Iterator[Caller]:
    """A caller of the app."""
    caller = Caller(URL if started_host is None else started_host.url, KEY)
    try:
        caller.http.get("/api/openapi.json").raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        pytest.exit(f"{URL}: {error}", returncode=1)
    yield caller
    caller.close()


@pytest.fixture
def sandbox(shared_sandbox: Sandbox | None, app: Caller) -> Iterator[Sandbox]:
    """The API of the app, behaving well at the start of every test; whoever wants it, stores records in it."""
    if shared_sandbox is None:
        pytest.skip(NO_SANDBOX)
    shared_sandbox.behave()
    yield shared_sandbox
    shared_sandbox.behave()
    app.find_the_api_well()


@pytest.fixture
def host(started_host: CommandHost | None) -> CommandHost:
    """The host, for tests that kill it."""
    if started_host is None:
        pytest.skip(NOT_OURS)
    return started_host


@pytest.fixture
def new_record(sandbox: Sandbox) -> NewRecord:
    """Makes records that nobody has sent before."""
    return record_maker()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Hosts other than the embedded one take their time."""
    if COMMAND or URL:
        for item in items:
            if item.nodeid.startswith("tests/host/"):
                item.add_marker(pytest.mark.timeout(2 * PATIENCE))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name each test that was left out, with the reason."""
    left_out = [report for report in terminalreporter.getreports("skipped") if report.nodeid.startswith("tests/host/")]
    for report in left_out:
        name, reason = report.nodeid.partition("::")[2], report.longrepr[2].removeprefix("Skipped: ")
        terminalreporter.write_line(f"left out: {name}: {reason}")
