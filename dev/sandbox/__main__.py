"""Serves the sandbox on the loopback interface until Ctrl-C or SIGTERM: `python -m dev.sandbox --port 7072`.

It stands in for the API that the app of this tree posts to.
"""

import argparse
import asyncio
import errno
import shlex
import signal
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

from dev.sandbox.api import DEFAULT_PORT, SandboxOptions, app_environment, create_app
from dev.sandbox.serving import start_site
from dev.stand_in import STAND_IN


def main(arguments: list[str] | None = None) -> int:
    """Serve; the exit status is 0 after a clean end, and 2 if the port or the state file cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m dev.sandbox", description="A stand-in for the protected Business API."
    )
    parser.add_argument("--port", type=_port, default=DEFAULT_PORT, help="0 chooses a free one (default: %(default)s)")
    parser.add_argument(
        "--state", type=Path, default=Path(".devhost/sandbox.db"), help="SQLite file (default: %(default)s)"
    )
    parser.add_argument(
        "--token-lifetime", type=_lifetime, default=3600, metavar="SECONDS", help="default: %(default)s"
    )
    parser.add_argument(
        "--token-delay",
        type=_delay,
        default=0.0,
        metavar="SECONDS",
        help="time to issue a token (default: %(default)s)",
    )
    chosen = parser.parse_args(arguments)
    options = replace(
        STAND_IN, state=chosen.state, token_lifetime=chosen.token_lifetime, token_delay=chosen.token_delay
    )
    try:
        asyncio.run(_serve(options, chosen.port))
    except sqlite3.Error as error:
        print(f"Cannot use {chosen.state} as state: {error}.", file=sys.stderr)
        return 2
    except OSError as error:
        print(_explain(error, chosen.port, chosen.state), file=sys.stderr)
        return 2
    return 0


async def _serve(options: SandboxOptions, port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):  # the loop's own signal handlers do not exist on Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop.set))
    runner, url = await start_site(create_app(options), port)
    try:
        print(f"Sandbox listening on {url}")
        for name, value in app_environment(url).items():
            print(f"  {name}={shlex.quote(value)}")
        sys.stdout.flush()
        await stop.wait()
    finally:
        await runner.cleanup()


def _explain(error: OSError, port: int, state: Path) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken; choose another one with --port."
    if error.filename is not None:
        return f"Cannot use {state} as state: {error.strerror}."
    return f"Cannot listen on port {port}: {error.strerror}."


def _port(text: str) -> int:
    return _within(int(text), 0, 65535)


def _lifetime(text: str) -> int:
    return _within(int(text), 1, 2**31)


def _delay(text: str) -> float:
    return _within(float(text), 0, 3600)


def _within[Number: (int, float)](value: Number, lowest: int, highest: int) -> Number:
    if not lowest <= value <= highest:
        raise argparse.ArgumentTypeError(f"expected {lowest} to {highest}")
    return value


if __name__ == "__main__":
    sys.exit(main())
