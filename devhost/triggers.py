"""Serves HTTP triggers: finds the function of a request, invokes it, and turns what it returned into a response."""

import json
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http.cookies import SimpleCookie
from typing import Any

from aiohttp import web

from devhost.keys import Keys
from devhost.protocol import RpcHttp, SameSite, TypedData
from devhost.routes import Route, RouteError, compile_route
from devhost.settings import HostSettings
from devhost.worker import HTTP, Function, FunctionApp, Outcome

logger = logging.getLogger(__name__)

# The real host's limits of a request's body and headers.
MAX_BODY_BYTES = 100 * 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024

# Set by the server itself, from the body it sends.
_SERVER_HEADERS = frozenset({"content-length", "transfer-encoding", "connection"})

_RESERVED = ("admin", "runtime")


@dataclass(frozen=True, slots=True)
class HttpFunction:
    """A function with its compiled route, the methods it takes (empty: all) and its authorization level."""

    function: Function
    route: Route
    methods: frozenset[str]
    level: str


class HttpTriggers:
    """The HTTP functions of an app."""

    def __init__(self, app: FunctionApp, settings: HostSettings, keys: Keys | None) -> None:
        self.functions = _compile(app, settings)
        self._app = app
        self._keys = keys
        self._limit = settings.max_outstanding_requests
        self._outstanding = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request: 404 for a path or a method that no function has, 401, 429, or what the function says."""
        found = self._find(request.method, request.rel_url.path_safe)
        if found is None:
            return web.Response(status=404)
        target, route_values = found
        if self._keys and not self._keys.admit_function(target.level, target.function.name, key_of(request)):
            return web.Response(status=401)
        if self._limit is not None and self._outstanding >= self._limit:
            return web.Response(status=429)
        self._outstanding += 1
        try:
            message = await _to_message(request, route_values)
            outcome = await self._app.invoke(
                target.function,
                TypedData(http=message),
                reason="This function was programmatically called",
                trace=trace_of(request) or {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"},
            )
        finally:
            self._outstanding -= 1
        return _to_response(outcome)

    def _find(self, method: str, path: str) -> tuple[HttpFunction, dict[str, str]] | None:
        # A method that isn't taken is a 404 in the real host too: it matches methods as a part of the route.
        for candidate in self.functions:
            if candidate.methods and method not in candidate.methods:
                continue
            if (values := candidate.route.match(path)) is not None:
                return candidate, values
        return None


def key_of(request: web.Request) -> str:
    """The access key that came with a request, in its header or its query."""
    return request.headers.get("x-functions-key") or request.query.get("code", "")


def trace_of(request: web.Request) -> dict[str, str]:
    """The W3C Trace Context that came with a request, if any."""
    return {name: request.headers[name] for name in ("traceparent", "tracestate") if name in request.headers}


async def json_of(request: web.Request) -> Any:
    """The JSON value in a request's body, None if it is empty. Raises `ValueError` if it can't be read."""
    try:
        text = await request.text()
        return json.loads(text, parse_constant=_refuse) if text else None
    except (LookupError, RecursionError) as error:  # an unknown charset, or lists in lists in lists
        raise ValueError(str(error)) from error


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _compile(app: FunctionApp, settings: HostSettings) -> Sequence[HttpFunction]:
    functions = []
    for function in app.functions.values():
        if function.kind != HTTP or function.disabled:
            continue
        template = function.trigger.get("route") or function.name
        if template.strip("/").split("/")[0].lower() in _RESERVED:
            raise RouteError(f"the route of '{function.name}' must not begin with {' or '.join(_RESERVED)}: {template}")
        functions.append(
            HttpFunction(
                function,
                compile_route(f"{settings.route_prefix}/{template}"),
                frozenset(str(method).upper() for method in function.trigger.get("methods") or ()),
                str(function.trigger.get("authLevel") or "function").lower(),
            )
        )
    return sorted(functions, key=lambda one: one.route.precedence)


async def _to_message(request: web.Request, route_values: dict[str, str]) -> RpcHttp:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]}, {value}" if lower in headers else value
    query: dict[str, str] = {}
    for name, value in request.query.items():
        query[name] = f"{query[name]},{value}" if name in query else value
    return RpcHttp(
        method=request.method,
        url=str(request.url),
        headers=headers,
        params=route_values,
        query=query,
        body=TypedData(bytes=await request.read()),
    )


def _to_response(outcome: Outcome) -> web.Response:
    value = outcome.value
    if value is None and outcome.outputs:
        # A response that was handed to an `Out` parameter instead of being returned.
        value = next((output for output in outcome.outputs.values() if output and output.kind == "http"), None)
    if outcome.error is not None:
        return web.Response(status=500)
    if value is None or value.kind is None:
        return web.Response(status=204)
    if value.kind != "http":
        return web.Response(text=str(value.value))
    http = value.value
    response = web.Response(status=int(http.status_code), body=http.body.value or b"")
    for name, text in http.headers.items():
        if name.lower() not in _SERVER_HEADERS:
            response.headers[name] = text
    for cookie in http.cookies or ():
        response.headers.add("Set-Cookie", _set_cookie(cookie))
    return response


def _set_cookie(cookie: Any) -> str:
    jar: SimpleCookie = SimpleCookie()
    jar[cookie.name] = cookie.value
    morsel = jar[cookie.name]
    for attribute in ("domain", "path", "secure"):
        if (nullable := getattr(cookie, attribute)) is not None and nullable.value:
            morsel[attribute] = nullable.value
    if cookie.http_only is not None and cookie.http_only.value:
        morsel["httponly"] = True
    if cookie.max_age is not None:
        morsel["max-age"] = int(cookie.max_age.value)
    if cookie.expires is not None:
        expires = datetime.fromtimestamp(cookie.expires.value.seconds, UTC)
        morsel["expires"] = expires.strftime("%a, %d %b %Y %H:%M:%S GMT")
    if cookie.same_site:
        morsel["samesite"] = "None" if cookie.same_site == SameSite.ExplicitNone else cookie.same_site.name
    return morsel.OutputString()
