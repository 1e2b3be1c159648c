"""Starts servers, each as a process on a core: the raw server, or the app on the embedded host with the sandbox API."""

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from dev.benchmarks.measuring import Plan, pin
from dev.benchmarks.raw_server import Control, Requests
from dev.sandbox.api import app_environment

PROJECT = Path(__file__).parents[2]
_UNDER_WAY = ("pending", "running", "deferred")


@dataclass(frozen=True, slots=True)
class Server:
    """A process that serves: its URL, its id, how many seconds it took to listen, and the file of what it logs."""

    url: str
    process: int
    start_seconds: float
    log: Path

    def peak_memory(self) -> float | None:
        """The most memory that the process has had, in MiB; None where the system does not tell."""
        status = Path(f"/proc/{self.process}/status")
        told = re.search(r"VmHWM:\s*(\d+)", status.read_text(encoding="utf-8")) if status.exists() else None
        return int(told[1]) / 1024 if told else None

    def processor_time(self) -> float:
        """The seconds that the process has computed so far (`proc_pid_stat(5)`: utime and stime); only on Linux."""
        fields = Path(f"/proc/{self.process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class RunningApp:
    """The embedded host with the app, the sandbox API that it hands its records to, and clients of both."""

    api: Server
    host: Server
    caller: httpx.Client
    sandbox: httpx.Client
    records: Path | str

    def stored(self) -> int:
        """How many records the sandbox API has."""
        return int(self.sandbox.get("/stats").raise_for_status().json()["stored"])

    def wait_until_stored(self, wanted: int, pause: float = 0.02) -> None:
        """Look every so many seconds whether the sandbox API has so many records, for two minutes at most."""
        deadline = time.monotonic() + 120
        while (stored := self.stored()) < wanted:
            if time.monotonic() > deadline:
                raise TimeoutError(f"expected {wanted} records to be stored, there are {stored}")
            time.sleep(pause)

    def wait_until_ended(self, location: str, pause: float = 0.02) -> None:
        """Look every so many seconds whether an operation has ended, as it should."""
        while (state := self.caller.get(location).raise_for_status().json()["state"]) in _UNDER_WAY:
            time.sleep(pause)
        if state not in ("posted", "completed"):
            raise ValueError(f"expected the operation to be posted or completed, it is {state}")


@contextlib.contextmanager
def started(core: int | None, module: str, *arguments: str, **settings: str) -> Iterator[Server]:
    """Run a module that says on which URL it listens, with these environment variables, while the `with` block runs."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, **settings}
    with (
        tempfile.NamedTemporaryFile() as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment) as process,  # noqa: S603
    ):
        try:
            pin(core, process.pid)
            assert process.stdout is not None  # noqa: S101 (for the type checker: a pipe was asked for)
            told = (re.search(r"istening on (\S+)", line) for line in process.stdout)
            url = next((match[1] for match in told if match), None)
            if url is None:
                log.seek(0)
                raise RuntimeError(f"{module} ended before it listened: {log.read().decode()}")
            yield Server(url, process.pid, time.perf_counter() - begun, Path(log.name))
        finally:
            process.terminate()


@contextlib.contextmanager
def raw_server(plan: Plan) -> Iterator[Server]:
    """Run the raw server on the core of the counterpart while the `with` block runs."""
    with started(plan.server_core, "dev.benchmarks.raw_server") as server:
        # The end of a first connection has glibc take receive buffers from its heap from then on instead of mapping
        # memory for each, which makes a server three times as fast: before anybody is measured, not in between.
        tell(server, Control())
        yield server


def tell(server: Server, control: Control) -> Requests:
    """Tell the raw server what to do from now on; returns the requests since the last reset."""
    with contextlib.closing(http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)) as connection:
        connection.request("POST", "/control", json.dumps(asdict(control)))
        return Requests(*json.loads(connection.getresponse().read()))


@contextlib.contextmanager
def running_app(plan: Plan, state: Path, records: Path | str = ":memory:") -> Iterator[RunningApp]:
    """Run the app on the core of what is measured; the sandbox API and this process, the caller, share the other.

    The host keeps orchestrations in the file `state`, which can be read afterwards; the sandbox API keeps `records`.
    """
    pin(plan.server_core)
    options = ("--app", str(PROJECT), "--port", "0", "--state", str(state))
    try:
        with (
            started(plan.server_core, "dev.sandbox", "--port", "0", "--state", str(records)) as api,
            started(plan.client_core, "devhost", *options, **app_environment(api.url)) as host,
            httpx.Client(base_url=host.url, timeout=60) as caller,
            httpx.Client(base_url=api.url) as sandbox,
        ):
            yield RunningApp(api, host, caller, sandbox, records)
    finally:
        pin(plan.client_core)
