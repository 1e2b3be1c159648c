"""Runs the embedded host as a process of its own, the way `func start` would run the app."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ANNOUNCEMENT = "Listening on "


class HostStartError(Exception):
    """The embedded host ended before it listened; its log says why."""


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
