"""The command `python -m devhost`: runs the function app in a folder until it is interrupted."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from devhost.host import Host, PortTakenError, listen
from devhost.keys import Keys
from devhost.routes import RouteError
from devhost.schedules import ScheduleError
from devhost.settings import SettingsError, read_host_settings, read_local_settings
from devhost.store import StateError
from devhost.watch import run_watched
from devhost.worker import ACTIVITY, APP_MODULE, ENTITY, HTTP, ORCHESTRATION, TIMER, AppLoadError

_EXIT_FAILED = 1
_EXIT_PORT_TAKEN = 2
_EXIT_INTERRUPTED = 130


def main() -> int:
    """Run the host; the result is the process's exit status."""
    arguments = _parse_arguments()
    app, state = arguments.app.resolve(), arguments.state.resolve()
    try:
        local = read_local_settings(app)
        port = local.port if arguments.port is None else arguments.port
        if arguments.watch:
            options = ["--app", str(app), "--state", str(state), "--panel", arguments.panel]
            options += ["--enable-auth"] if arguments.enable_auth else []
            with listen(port) as listener:
                return run_watched(app, listener, options)
        _set_up_logging(read_host_settings(app).log_levels)
        local.apply()
        os.environ.setdefault("AZURE_FUNCTIONS_ENVIRONMENT", "Development")
        os.environ.setdefault("FUNCTIONS_WORKER_RUNTIME", "python")
        # As under Core Tools, relative paths in the app start at its folder.
        if app.is_dir():
            os.chdir(app)
        inherited, watcher = arguments.watched or (None, None)
        if watcher is not None:
            threading.Thread(target=_end_with, args=(watcher,), daemon=True).start()
        host = Host(
            app,
            state=state,
            port=port if inherited is None else socket.socket(fileno=inherited),
            enable_auth=arguments.enable_auth,
            local=local,
            panel=arguments.panel,
        )
        asyncio.run(_serve(host))
    except KeyboardInterrupt:
        return _EXIT_INTERRUPTED
    except PortTakenError as error:
        print(f"devhost: {error}", file=sys.stderr)
        return _EXIT_PORT_TAKEN
    except (AppLoadError, SettingsError, StateError, RouteError, ScheduleError) as error:
        if isinstance(error, AppLoadError) and error.traceback:
            print(error.traceback, file=sys.stderr)
        print(f"devhost: {error}", file=sys.stderr)
        return _EXIT_FAILED
    return 0


def _end_with(watcher: int) -> None:
    """End with the process at the other end of a pipe: nothing is lost by it."""
    os.read(watcher, 1)
    os._exit(_EXIT_INTERRUPTED)


def _on_signal(handler: Callable[..., object]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)  # the loop's own are not on Windows


async def _serve(host: Host) -> None:
    """Serve until a signal; at a second one, whatever is going on, the process ends at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt(*_: object) -> None:
        _on_signal(lambda *_: os._exit(_EXIT_INTERRUPTED))
        loop.call_soon_threadsafe(stop.set)

    # While the app is imported, which may take for ever, a signal ends the process at once.
    _on_signal(signal.default_int_handler)
    async with host:
        _on_signal(interrupt)
        _print_functions(host)
        if host.keys is not None:
            _print_keys(host.keys)
        print(f"Listening on {host.url}", flush=True)
        await stop.wait()
        print("Stopping", flush=True)


def _print_functions(host: Host) -> None:
    functions = host.app.functions.values()
    print("\nFunctions:\n")
    for http in sorted(host.triggers.functions, key=lambda one: one.function.name):
        methods = ",".join(sorted(http.methods)) or "ALL"
        print(f"\t{http.function.name}: [{methods}] {host.url}/{http.route.template}\n")
    others = sorted((one for one in functions if one.kind != HTTP or one.disabled), key=lambda one: one.name)
    for function in others:
        timer = host.timers.by_name.get(function.name.lower())
        more = " (disabled)" if function.disabled else f" {timer}" if timer is not None else ""
        print(f"\t{function.name}: {function.kind}{more}\n")
    idle = [one.name for one in others if one.kind not in (HTTP, ORCHESTRATION, ACTIVITY, ENTITY, TIMER)]
    if idle:
        print(f"Not triggered by this host, run them with POST /admin/functions/NAME: {', '.join(idle)}\n")


def _print_keys(keys: Keys) -> None:
    print(f"Keys:\n\n\tmaster: {keys.master}\n\thost: {keys.host}\n\tsystem: {keys.system}")
    for name, key in keys.functions.items():
        print(f"\t{name}: {key}")
    print()


def _set_up_logging(levels: Mapping[str, int]) -> None:
    """Log to stderr, with host.json's levels: `default` for all, `Host…` for this host's own lines."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=levels.get("default", logging.INFO))
    for category, level in levels.items():
        if category.partition(".")[0] == "Host":
            logging.getLogger("devhost").setLevel(level)
    # The worker library reports every invocation a second time.
    logging.getLogger("azure.functions").setLevel(logging.WARNING)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m devhost", description="Run a function app for development.")
    parser.add_argument("--app", type=Path, default=Path(), help="the app's folder (default: the current one)")
    parser.add_argument("--port", type=int, help="0 for a free one (default: as local.settings.json, or 7071)")
    parser.add_argument(
        "--state", type=Path, default=Path(".devhost/state.db"), help="keeps orchestrations (default: %(default)s)"
    )
    parser.add_argument("--enable-auth", action="store_true", help="demand access keys, as in Azure")
    parser.add_argument(
        "--panel", default=APP_MODULE, help="module whose devhost_panel() the page shows (default: %(default)s)"
    )
    parser.add_argument("--watch", action="store_true", help="start the app anew when one of its files changes")
    parser.add_argument("--watched", nargs=2, type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Threads of sync functions that are still busy would hold up the end of the process for as long as they like.
    os._exit(status)
