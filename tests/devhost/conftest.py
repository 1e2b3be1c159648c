"""Engines without a worker, hosts as child processes, and the app they run."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.devhost.harness import Durable

APPS = Path(__file__).parent / "apps"
ROOT = Path(__file__).parents[2]


@pytest.fixture
async def durable(tmp_path: Path) -> AsyncIterator[Durable]:
    """An engine with an empty state; the test defines its functions."""
    durable = Durable(tmp_path / "state.db")
    yield durable
    await durable.close()


class HostProcess:
    """A host as a child process, and a client for it."""

    def __init__(
        self,
        app: Path,
        state: Path,
        *options: str,
        environment: dict[str, str] | None = None,
        log: int = subprocess.PIPE,
    ) -> None:
        command = [sys.executable, "-m", "devhost", "--app", str(app), "--state", str(state), *options]
        if "--port" not in options:
            command += ["--port", "0"]
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DEVHOST_TEST_")}
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={**inherited, "PYTHONPATH": str(ROOT), **(environment or {})},
        )
        self.banner = self.read_until("Listening on ")
        if self.banner and self.banner[-1].startswith("Listening on "):
            self.url = self.banner[-1].split()[-1]
            self.client = httpx.Client(base_url=self.url, timeout=30, trust_env=False)

    def read_until(self, beginning: str, *, errors: bool = False) -> list[str]:
        """What the process prints (or logs) up to the next line with this beginning, or to its end."""
        lines: list[str] = []
        stream = self.process.stderr if errors else self.process.stdout
        assert stream is not None
        for line in stream:
            lines.append(line.strip())
            if line.startswith(beginning):
                break
        return lines

    def stop(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Signal the process; returns its exit status and what it wrote to stderr."""
        if hasattr(self, "client"):
            self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


type StartHost = Callable[..., HostProcess]


@pytest.fixture
def start_host(tmp_path: Path) -> Iterator[StartHost]:
    """Start hosts that end with the test: `start_host("kitchen", "--enable-auth")`; the state outlives each of them."""
    started: list[HostProcess] = []

    def start(app: str | Path, *options: str, environment: dict[str, str] | None = None) -> HostProcess:
        folder = APPS / app if isinstance(app, str) else app
        started.append(HostProcess(folder, tmp_path / "state.db", *options, environment=environment))
        return started[-1]

    yield start
    for host in started:
        host.stop(signal.SIGKILL)


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client for one host that runs the app `kitchen`, shared by the tests that only ask."""
    state = tmp_path_factory.mktemp("kitchen") / "state.db"
    host = HostProcess(APPS / "kitchen", state, log=subprocess.DEVNULL)  # a pipe that nobody reads would fill up
    yield host.client
    host.stop()
