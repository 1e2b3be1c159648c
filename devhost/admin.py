"""The host's own HTTP API under /admin, in the JSON shapes of the real host."""

import asyncio
import json
import platform
import time
import uuid
from typing import Any

from aiohttp import web

from devhost.protocol import RpcHttp, TypedData
from devhost.settings import HostSettings
from devhost.timers import Timers
from devhost.triggers import json_of
from devhost.worker import ACTIVITY, ENTITY, HTTP, ORCHESTRATION, TIMER, Function, FunctionApp

# The version of the Functions host whose behaviour is emulated; editors ask for it.
HOST_VERSION = "4.1044.400.0"


class Admin:
    """The routes `host/status`, `host/ping`, `functions` and `functions/{name}`."""

    def __init__(self, app: FunctionApp, timers: Timers, settings: HostSettings) -> None:
        self._app = app
        self._timers = timers
        self._settings = settings
        self._started = time.monotonic()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def handle(self, request: web.Request, path: str) -> web.Response:
        """Answer a request for `path`, which is relative to /admin."""
        parts = [part for part in path.split("/") if part]
        match (request.method, *(part.lower() for part in parts)):
            case (("GET" | "POST" | "HEAD"), "host", "ping"):
                return web.Response(status=200)
            case "GET", "host", "status":
                return web.json_response(self._status())
            case "GET", "functions":
                origin = str(request.url.origin())
                return web.json_response([self._describe(one, origin) for one in self._app.functions.values()])
            case "GET", "functions", _ if function := self._function(parts[1]):
                return web.json_response(self._describe(function, str(request.url.origin())))
            case "POST", "functions", _ if function := self._function(parts[1]):
                return await self._invoke(request, function)
        return web.Response(status=404)

    async def close(self) -> None:
        """Stop the invocations begun here."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _function(self, name: str) -> Function | None:
        return next((one for one in self._app.functions.values() if one.name.lower() == name.lower()), None)

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = {
            "id": f"{platform.node().lower()}-{uuid.getnode() % 10**9}",
            "state": "Running",
            "version": HOST_VERSION,
            "versionDetails": HOST_VERSION,
            "platformVersion": "",
            "instanceId": "",
            "computerName": platform.node(),
            "processUptime": round((time.monotonic() - self._started) * 1000),
            "functionAppContentEditingState": "NotAllowed",
        }
        if self._settings.extension_bundle:
            status["extensionBundle"] = {name: self._settings.extension_bundle.get(name) for name in ("id", "version")}
        return status

    def _describe(self, function: Function, origin: str) -> dict[str, Any]:
        config = {
            "name": function.name,
            "entryPoint": function.name,
            "scriptFile": function.script_file,
            "language": "python",
            "functionDirectory": None,
            "bindings": [dict(function.trigger), *map(dict, function.bindings)],
        }
        url = None
        if function.kind == HTTP:
            prefix = f"{self._settings.route_prefix}/" if self._settings.route_prefix else ""
            url = f"{origin}/{prefix}{(function.trigger.get('route') or function.name).strip('/')}"
        return {
            "name": function.name,
            "script_root_path_href": f"{origin}/admin/vfs/",
            "script_href": f"{origin}/admin/vfs/{function.script_file}",
            "config_href": None,
            "test_data_href": None,
            "href": f"{origin}/admin/functions/{function.name}",
            "invoke_url_template": url,
            "language": "python",
            "config": config,
            "files": None,
            "test_data": None,
            "isDisabled": function.disabled,
            "isDirect": True,
            "isProxy": False,
        }

    async def _invoke(self, request: web.Request, function: Function) -> web.Response:
        """Run a function with `{"input": …}`; the answer is 202 at once, the result goes to the log only."""
        try:
            body = await json_of(request)
        except ValueError:
            return web.Response(status=400)
        given = body.get("input") if isinstance(body, dict) else None
        if function.kind in (ORCHESTRATION, ENTITY):
            text = f"'{function.name}' can't be run by itself: start an orchestration through the durable webhooks"
            return web.json_response({"Message": text}, status=400)
        task = asyncio.create_task(
            self._app.invoke(
                function, self._trigger_data(function, given), reason="This function was invoked by its admin URL"
            )
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return web.Response(status=202)

    def _trigger_data(self, function: Function, given: Any) -> TypedData:
        text = given if isinstance(given, str) else json.dumps(given)
        if function.kind == HTTP:
            body = TypedData(bytes=b"" if given is None else text.encode())
            return TypedData(http=RpcHttp(method="POST", url="", headers={}, params={}, query={}, body=body))
        if function.kind == TIMER:
            return self._timers.data(function)
        return TypedData(string=text if function.kind == ACTIVITY or given is not None else "")
