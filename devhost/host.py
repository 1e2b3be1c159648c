"""Puts the parts together: one app, its state, and an HTTP server on a loopback address."""

import secrets
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from aiohttp import web

from devhost.admin import Admin
from devhost.clock import Clock, SystemClock
from devhost.durable_http import WEBHOOKS, DurableHttp
from devhost.engine import Engine
from devhost.keys import Keys
from devhost.page import Page
from devhost.settings import ADDRESS, LocalSettings, read_host_settings
from devhost.store import Store
from devhost.timers import Timers
from devhost.triggers import MAX_BODY_BYTES, MAX_HEADER_BYTES, HttpTriggers, key_of
from devhost.worker import APP_MODULE, FunctionApp

# The host's own paths, which can start and stop anything, and the names by which this machine's browser asks for them.
_OWN_PATHS = ("/admin/", f"{WEBHOOKS}/")
_LOCAL_NAMES = ("127.0.0.1", "localhost", "[::1]")

# How long requests in flight may take to end when the host stops, in seconds.
_SHUTDOWN_GRACE = 0.5


class PortTakenError(Exception):
    """The port can't be listened on, mostly since another program does."""


class Host:
    """An embedded Functions host, as an async context manager.

    `app` is the app's folder (one per process), `state` the file that keeps orchestrations, `port` 0 any free port;
    a socket that listens already can take the place of a port.
    `clock` tells durable time and that of timer triggers. With `enable_auth`, callers need keys, which are kept in
    `keys.json` beside the state. `panel` names the module whose `devhost_panel()` the page shows.
    Entering it raises `PortTakenError`, `AppLoadError`, `SettingsError`, `RouteError`, `ScheduleError` or `StateError`.
    """

    engine: Engine
    store: Store
    app: FunctionApp
    triggers: HttpTriggers
    timers: Timers

    def __init__(
        self,
        app: Path,
        *,
        state: Path,
        port: int | socket.socket = 0,
        clock: Clock | None = None,
        enable_auth: bool = False,
        local: LocalSettings | None = None,
        panel: str = APP_MODULE,
    ) -> None:
        self.url = ""
        """Where it listens, such as `http://127.0.0.1:7071`; known once it is entered."""
        self.keys: Keys | None = None
        self._folder = app.resolve()
        self._state = state.resolve()
        self._port = port
        self._clock = clock or SystemClock()
        self._enable_auth = enable_auth
        self._local = local or LocalSettings()
        self._panel = panel
        # The SDK's clients call without keys; only the app is told this path.
        self._rpc_path = f"/rpc/{secrets.token_urlsafe(16)}/"

    async def __aenter__(self) -> Self:
        listener = self._port if isinstance(self._port, socket.socket) else listen(self._port)
        try:
            self.url = f"http://{ADDRESS}:{listener.getsockname()[1]}"
            self._settings = read_host_settings(self._folder)
            self.app = await FunctionApp.load(self._folder, time_limit=self._settings.function_timeout)
            self._open_state()
        except BaseException:
            listener.close()
            raise
        self.engine.start()
        server = web.Application(client_max_size=MAX_BODY_BYTES)
        server.router.add_route("*", "/{path:(?s:.*)}", self._handle)
        # Not in the handler: by the time it returns, a streamed response is over.
        server.on_response_prepare.append(self._allow_origin)
        self._runner = web.AppRunner(
            server,
            access_log=None,
            shutdown_timeout=_SHUTDOWN_GRACE,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=False,  # as the real host, which leaves bodies as they are
        )
        await self._runner.setup()
        await web.SockSite(self._runner, listener).start()
        self.timers.start(self.store)  # when the app's own HTTP functions answer
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._runner.cleanup()
        await self._admin.close()
        await self.timers.stop()
        await self.engine.stop()
        await self.app.close()
        self.store.close()

    async def restart(self, *, while_down: Callable[[], None], discard_state: bool = False) -> None:
        """Forget all that is in flight and begin again from the state file, as after the end of the process.

        `while_down` is called between the end and the beginning.
        """
        await self.timers.stop()
        await self.engine.stop()
        self.store.close()
        if discard_state:
            self._state.unlink()
        while_down()
        self._open_state()
        self.engine.start()
        self.timers.start(self.store)

    async def settle(self) -> None:
        """Wait until nothing is left to do but to wait for time, events or callers."""
        await self.timers.settle()
        await self.engine.settle()

    def _open_state(self) -> None:
        settings = self._settings
        if self._enable_auth:
            self.keys = Keys.open(self._state.parent / "keys.json", self.app.functions)
        self.triggers = HttpTriggers(self.app, settings, self.keys)
        self.timers = Timers(self.app, self._clock)
        self.store = Store(self._state)
        self.engine = Engine(self.store, self.app, self._clock, settings)
        self._admin = Admin(self.app, self.timers, settings)
        self._page = Page(self.app, self.triggers, self.timers, self.store, self._clock, self.keys, self._panel)
        query = {"taskHub": settings.hub_name, "connection": "AzureWebJobsStorage"}
        if self.keys is not None:
            query["code"] = self.keys.system
        self._durable = DurableHttp(self.engine, self.store, self.url, query)
        self.app.client_binding = self._durable.client_binding(settings.hub_name, self.url + self._rpc_path)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        asked = request.headers.get("Access-Control-Request-Method")
        if request.method != "OPTIONS" or asked is None or not self._is_allowed(request):
            return await self._dispatch(request)
        headers = {
            "Access-Control-Allow-Methods": asked,
            "Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers", "*"),
        }
        return web.Response(status=204, headers=headers)

    async def _allow_origin(self, request: web.Request, response: web.StreamResponse) -> None:
        if self._is_allowed(request):
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"].rstrip("/")
            response.headers["Vary"] = "Origin"
            if self._local.cors_credentials:
                response.headers["Access-Control-Allow-Credentials"] = "true"

    def _is_allowed(self, request: web.Request) -> bool:
        """Whether local.settings.json lets the page that sends a request read its response."""
        origin = request.headers.get("Origin", "").rstrip("/")
        return origin != "" and (origin in self._local.cors or "*" in self._local.cors)

    def _is_of_this_machine(self, request: web.Request) -> bool:
        """Whether a request can't come from somebody else's page in this machine's browser.

        The browser says where such a page is from, and if the page's own name was made to point here, asks for that.
        """
        name = request.host.rpartition(":")[0] or request.host
        origin = request.headers.get("Origin")
        ours = origin is None or origin.partition("://")[2] == request.host or origin in self._local.cors
        return ours and name in _LOCAL_NAMES

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        lower = path.lower()
        if path.startswith(self._rpc_path):
            return await self._durable.handle(request, path[len(self._rpc_path) :])
        own = path == "/" or lower.startswith(_OWN_PATHS)
        if own and self.keys is None and not self._is_of_this_machine(request):
            return web.Response(status=403)
        if lower.startswith(f"{WEBHOOKS}/"):
            if self.keys is not None and not self.keys.admit_system(key_of(request)):
                return web.Response(status=401)
            return await self._durable.handle(request, path[len(WEBHOOKS) :])
        if lower.startswith("/admin/"):
            is_open = lower.rstrip("/") == "/admin/host/ping"
            if self.keys is not None and not is_open and not self.keys.admit_master(key_of(request)):
                return web.Response(status=401)
            return await self._admin.handle(request, path[len("/admin") :])
        if path == "/" and request.method in ("GET", "HEAD"):
            return self._page.handle(request)
        return await self.triggers.handle(request)


def listen(port: int) -> socket.socket:
    """Listen on a port of the loopback address, 0 for a free one. Raises `PortTakenError`."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((ADDRESS, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        raise PortTakenError(
            f"can't listen on port {port} ({error}): stop what listens there, or choose another with --port"
        ) from error
    return listener
