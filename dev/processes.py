"""Runs the app in host processes: the embedded host, or any host that a command starts, such as `func start`."""

import contextlib
import os
import random
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import httpx

from devhost.settings import read_local_settings

ANNOUNCEMENT = "Listening on "

_PREFIXES = ("BUSINESS_API_", "DELIVERY_", "BATCH_", "OPERATIONS_")
_DEFAULT_PORT = 7071
_LOOK_EVERY = 0.1


class HostStartError(Exception):
    """The host ended, or took too long, before it answered; its log says why."""


def no_settings(app: Path) -> dict[str, str]:
    """The app's settings of this shell and of `local.settings.json`, each blank, which to the app means unset."""
    names = {*os.environ, *read_local_settings(app).values}
    return {name: "" for name in names if name.startswith(_PREFIXES)}


@contextlib.contextmanager
def embedded_host(
    app: Path, state: Path, settings: Mapping[str, str], log: Path, options: Sequence[str] = ()
) -> Iterator[str]:
    """Run the app of a folder on a free loopback port while the `with` block runs; yields the base URL.

    Args:
        app: The folder with `function_app.py`.
        state: The host's SQLite file.
        settings: Environment variables on top of this process's own.
        log: File that the host's log goes to.
        options: Further options of `python -m devhost`.

    Raises:
        HostStartError: The app could not be loaded.
    """
    command = [sys.executable, "-m", "devhost", "--app", str(app), "--port", "0", "--state", str(state), *options]
    with (
        log.open("wb") as log_file,
        subprocess.Popen(  # noqa: S603 (this interpreter, arguments of our own)
            command, stdout=subprocess.PIPE, stderr=log_file, text=True, env={**os.environ, **settings}
        ) as host,
    ):
        assert host.stdout is not None  # noqa: S101 (for the type checker: a pipe was asked for)
        try:
            url = next((line.split(ANNOUNCEMENT)[1].strip() for line in host.stdout if ANNOUNCEMENT in line), None)
            if url is None:
                raise HostStartError("the embedded host ended before it listened")
            yield url
        finally:
            host.terminate()
            host.communicate(timeout=15)


class CommandHost:
    """A host that a command starts, with all processes that it starts in turn; it can be killed and started again.

    Args:
        command: As for a shell, but run without one. `{port}` in it becomes a free port; without it, the host must
            listen on 7071.
        settings: Environment variables on top of this process's own.
        log: File that all output goes to.

    Attributes:
        url: Where it answers, such as `http://127.0.0.1:7071`.

    Raises:
        HostStartError: There is no command, or it cannot be read.
    """

    def __init__(self, command: str, settings: Mapping[str, str], log: Path) -> None:
        port = free_port() if "{port}" in command else _DEFAULT_PORT
        self.url = f"http://127.0.0.1:{port}"
        try:
            self._command = shlex.split(command.replace("{port}", str(port)))
        except ValueError as error:
            raise HostStartError(f"expected a command that starts a host, got {command!r}: {error}") from None
        if not self._command:
            raise HostStartError("expected a command that starts a host, got an empty one")
        self._environment = {**os.environ, **settings}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, time_limit: float = 120.0) -> None:
        """Start it; returns when it answers.

        Raises:
            HostStartError: It does not within so many seconds, or has ended.
        """
        with self._log.open("ab") as log:
            try:
                self._process = subprocess.Popen(  # noqa: S603 (the command that somebody gave)
                    self._command, stdout=log, stderr=log, env=self._environment, start_new_session=True
                )
            except OSError as error:
                raise HostStartError(f"{self._command[0]}: {error.strerror}") from None
        end = time.monotonic() + time_limit
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > end:
                self.kill()
                raise HostStartError(f"{self._command[0]} did not get the app to answer on {self.url}")
            time.sleep(_LOOK_EVERY)

    def kill(self) -> None:
        """End it and all that it started at once, whatever they are at."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Have it end in good order."""
        self._end(signal.SIGTERM)

    def log_tail(self) -> str:
        """The last lines of its output."""
        text = self._log.read_text(encoding="utf-8", errors="replace") if self._log.exists() else ""
        return "\n".join(text.splitlines()[-40:])

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/openapi.json", timeout=5, trust_env=False).status_code in {200, 401}
        except httpx.HTTPError:
            return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A port below those that systems take for outgoing connections: nobody gets it between a kill and the restart.

    Not even a caller who tries to reach the host meanwhile: by chance, its own end of the connection may get the very
    port that it wants to reach, and then the two are connected.
    """
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise HostStartError("no free port below 32000")
