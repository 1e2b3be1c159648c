"""Runs the host as a child process, and starts it anew whenever a file of the app changes."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

# How often the files are looked at, in seconds.
_INTERVAL = 0.3
# How long the child may take to end before it is killed, in seconds: nothing is lost by it.
_PATIENCE = 3.0

_SETTINGS = frozenset({"host.json", "local.settings.json"})


def run_watched(app: Path, listener: socket.socket, options: Sequence[str]) -> int:
    """Run `python -m devhost` with the options until it is interrupted; returns the exit status.

    The listening socket stays with this process, so that the port is the same after a restart and callers that come
    meanwhile wait. The child gets it as `--watched`, with a pipe that tells it when this process is gone.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    reader, _writer = os.pipe()
    handed_over = listener.fileno(), reader
    command = [sys.executable, "-m", "devhost", *options, "--watched", *map(str, handed_over)]
    seen = _modification_times(app)
    try:
        while True:
            with subprocess.Popen(command, pass_fds=handed_over) as child:  # noqa: S603  (this program)
                try:
                    now = _await_change(app, seen, child)
                finally:
                    _end(child)
            changed = sorted(str(path.relative_to(app)) for path, _ in seen.items() ^ now.items())
            print(f"\nChanged: {', '.join(dict.fromkeys(changed))}", flush=True)
            seen = now
    except KeyboardInterrupt:
        return 0


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(_PATIENCE)
    except subprocess.TimeoutExpired:  # a function of the app keeps it busy
        child.kill()


def _await_change(app: Path, seen: dict[Path, int], child: subprocess.Popen[bytes]) -> dict[Path, int]:
    waiting = False
    while (now := _modification_times(app)) == seen:
        if not waiting and child.poll() is not None:
            waiting = True
            print("devhost: waiting for a change", file=sys.stderr, flush=True)
        time.sleep(_INTERVAL)
    return now


def _modification_times(app: Path) -> dict[Path, int]:
    times = {}
    for path in _files(app):
        try:
            times[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # an editor is just replacing it
            continue
    return times


def _files(app: Path) -> Iterator[Path]:
    """The app's Python and settings files, without those of virtual environments, caches and hidden folders."""
    for folder, folders, names in app.walk():
        folders[:] = [
            name
            for name in folders
            if not name.startswith((".", "__pycache__")) and not (folder / name / "pyvenv.cfg").exists()
        ]
        yield from (folder / name for name in names if name.endswith(".py") or (folder == app and name in _SETTINGS))
