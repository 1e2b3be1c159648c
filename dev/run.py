"""Keeps the app up for trying out, on the ports that `func start` users expect: `make run`.

The app gets the settings that Core Tools would give it. The sandbox API is started beside it if these settings name no
API at all, or name the sandbox; with the settings of a real API in `local.settings.json`, nothing else is started.
"""

import contextlib
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from dev.processes import ANNOUNCEMENT
from dev.sandbox.api import DEFAULT_PORT, EVENTS_PATH, app_environment, create_app
from dev.sandbox.serving import LOOPBACK, serve
from dev.stand_in import STAND_IN
from devhost.settings import SettingsError, read_local_settings
from shared.business import example
from shared.operations.requests import read_operation_id

_APP = Path(__file__).parent.parent
_STATE = Path(".devhost")
_PORT = 7071
_SANDBOX_URL = f"http://{LOOPBACK}:{DEFAULT_PORT}"
_EVENTS_URL = f"{_SANDBOX_URL}{EVENTS_PATH}"
_BUSINESSES = f"http://{LOOPBACK}:{_PORT}/api/businesses"


def main() -> int:
    """Run until Ctrl-C; returns the exit status: 2 if a port is taken or the settings cannot be read."""
    try:
        local = read_local_settings(_APP)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    environment, on_sandbox = settled({**local.values, **os.environ})
    with contextlib.ExitStack() as running:
        if on_sandbox:
            _STATE.mkdir(exist_ok=True)
            try:
                running.enter_context(serve(create_app(replace(STAND_IN, state=_STATE / "sandbox.db")), DEFAULT_PORT))
            except OSError:
                print(f"Port {DEFAULT_PORT} is taken: the sandbox API needs it.", file=sys.stderr)
                return 2
            print(f"Sandbox API on {_SANDBOX_URL}, its counters on {_SANDBOX_URL}/stats")
            if environment["OPERATIONS_EVENTS_URL"] == _EVENTS_URL:  # that of another receiver may hold a key
                print(f"Operations that end are told to {_EVENTS_URL}")
        # What was begun with the sandbox must never be posted to a real API.
        return run_host(environment, _STATE / ("sandbox-state.db" if on_sandbox else "state.db"))


def try_it(number: int) -> str:
    """Three curl lines that work as they are: the number says which record the first one posts, under which key."""
    key, record = f"try-{number}", shlex.quote(json.dumps(example(number), ensure_ascii=False))
    return f"""
Try it, in another terminal:

  curl -i {_BUSINESSES} -H 'Content-Type: application/json' -H 'Idempotency-Key: {key}' \\
    -d {record}
  curl -i {_BUSINESSES}/operations/{read_operation_id(key)}
  curl -i {_BUSINESSES} -H 'Content-Type: application/json' -d '{{}}'

Import a file of any size, each record once:

  make import FILE=companies.csv

Or look at http://{LOOPBACK}:{_PORT}/
"""


def settled(environment: dict[str, str]) -> tuple[dict[str, str], bool]:
    """The environment of the app, and whether its API is the sandbox: so without any setting of an API.

    The sandbox is told of the ends of operations, too, unless somebody else is.
    """
    if not any(value for name, value in environment.items() if name.startswith("BUSINESS_API_")):
        environment = environment | app_environment(_SANDBOX_URL)
    on_sandbox = environment.get("BUSINESS_API_BASE_URL", "").rstrip("/") == _SANDBOX_URL
    if on_sandbox and not environment.get("OPERATIONS_EVENTS_URL"):
        environment = environment | {"OPERATIONS_EVENTS_URL": _EVENTS_URL}
    return environment, on_sandbox


def run_host(environment: dict[str, str], state: Path) -> int:
    """Run the embedded host with its output on this terminal; returns its exit status."""
    command = [sys.executable, "-m", "devhost", "--app", str(_APP), "--port", str(_PORT)]
    command += ["--state", str(state), "--panel", "dev.panel"]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as host:  # noqa: S603
        assert host.stdout is not None  # noqa: S101 (for the type checker: a pipe was asked for)
        try:
            for line in host.stdout:
                print(line, end="", flush=True)
                if ANNOUNCEMENT in line:
                    print(try_it(1 + secrets.randbelow(10**9)), flush=True)
        except KeyboardInterrupt:
            host.send_signal(signal.SIGINT)
        return host.wait()


if __name__ == "__main__":
    sys.exit(main())
