"""Serves HTTP triggers: finds the function of a request, invokes it, and turns what it returned into a response."""

import json
import logging
import secrets
import time
from http.cookies import SimpleCookie
from typing import Any

from aiohttp import web

from devhost.keys import Keys
from devhost.protocol import RpcHttp, TypedData
from devhost.routes import Route, RouteError
from devhost.settings import HostSettings
from devhost.streaming import Exchange
from devhost.worker import HTTP, Function, FunctionApp, Outcome

logger = logging.getLogger(__name__)

# The real host's limits of a request's body and headers.
MAX_BODY_BYTES = 100 * 1024 * 1024
MAX_HEADER_BYTES = 32 * 1024

# Set by the server itself, from the body it sends.
_SERVER_HEADERS = frozenset({"content-length", "transfer-encoding", "connection"})

_RESERVED = ("admin", "runtime")


class HttpFunction:
    """A function with its compiled route, the methods it takes (none: all) and its level of authorization.

    Raises `RouteError`.
    """

    def __init__(self, function: Function, prefix: str) -> None:
        template = function.trigger.get("route") or function.name
        if template.strip("/").split("/")[0].lower() in _RESERVED:
            raise RouteError(f"the route of '{function.name}' must not begin with {' or '.join(_RESERVED)}: {template}")
        self.function = function
        self.route = Route(f"{prefix}/{template}")
        self.methods = frozenset(str(method).upper() for method in function.trigger.get("methods") or ())
        self.level = str(function.trigger.get("authLevel") or "function").lower()


class HttpTriggers:
    """The HTTP functions of an app."""

    def __init__(self, app: FunctionApp, settings: HostSettings, keys: Keys | None) -> None:
        # In the order in which the real host tries them: by the functions' names, however specific their routes are.
        self.functions = [HttpFunction(one, settings.route_prefix) for _, one in sorted(app.of_kind(HTTP).items())]
        self._app = app
        self._keys = keys
        self._limit = settings.max_outstanding_requests
        self._outstanding = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request: 404 for a path or a method that no function has, 401, 429, or what the function says."""
        # Of what is encoded in a path, the real host leaves only slashes as they are.
        found = self._find(request.method, request.rel_url.path_safe.replace("%25", "%"))
        if found is None:
            return web.Response(status=404)
        target, route_values = found
        if self._keys and not self._keys.admit_function(target.level, target.function.name, key_of(request)):
            return web.Response(status=401)
        if self._limit is not None and self._outstanding >= self._limit:
            return web.Response(status=429)
        self._outstanding += 1
        try:
            exchange = Exchange(self._app.streaming, request) if self._app.streaming else None
            outcome = await self._app.invoke(
                target.function,
                _to_message(request, route_values, await _body_of(request) if exchange is None else b""),
                reason="This function was programmatically called",
                trace=trace_of(request) or {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"},
                exchange=exchange,
            )
        finally:
            self._outstanding -= 1
        return _to_response(outcome) if exchange is None else exchange.response

    def _find(self, method: str, path: str) -> tuple[HttpFunction, dict[str, str]] | None:
        # A method that isn't taken is a 404 in the real host too: it matches methods as a part of the route.
        for candidate in self.functions:
            takes_method = not candidate.methods or method in candidate.methods
            if takes_method and (values := candidate.route.match(path)) is not None:
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


async def _body_of(request: web.Request) -> bytes:
    """The body as a function gets it: empty if it came in chunks, which the real host loses."""
    body = await request.read()
    return body if "Content-Length" in request.headers else b""


def _to_message(request: web.Request, route_values: dict[str, str], body: bytes) -> TypedData:
    headers, query = request.headers, request.query
    given = {name: [text for text in query.getall(name) if text] for name in query}  # the real host drops empty values
    return TypedData(
        http=RpcHttp(
            method=request.method,
            url=str(request.url),
            headers={name.lower(): ",".join(headers.getall(name)) for name in headers},
            params=route_values,
            query={name: ",".join(texts) for name, texts in given.items() if texts},
            body=TypedData(bytes=body),
        )
    )


def _to_response(outcome: Outcome) -> web.Response:
    if outcome.error is not None:
        return web.Response(status=500)
    if outcome.value is None or outcome.value.kind is None:
        return web.Response(status=204)
    if outcome.value.kind != "http":
        return web.Response(text=str(outcome.value.value))
    http = outcome.value.value
    headers = {name: text for name, text in http.headers.items() if name.lower() not in _SERVER_HEADERS}
    if not all(text.isascii() for text in headers.values()):
        logger.error("Headers of a response must be ASCII: the real host fails with others, and so does this one")
        return web.Response(status=500)
    response = web.Response(status=int(http.status_code), headers=headers, body=http.body.value or b"")
    for cookie in http.cookies or ():
        response.headers.add("Set-Cookie", _set_cookie(cookie))
    return response


def _set_cookie(cookie: Any) -> str:
    jar: SimpleCookie = SimpleCookie()
    jar[cookie.name] = cookie.value
    attributes = {
        "domain": cookie.domain,
        "path": cookie.path,
        "secure": cookie.secure,
        "httponly": cookie.http_only,
        "samesite": cookie.same_site,
    }
    if cookie.max_age is not None:
        attributes["max-age"] = int(cookie.max_age)
    if cookie.expires is not None:
        # The library took the time, which is GMT, for local time.
        attributes["expires"] = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.localtime(cookie.expires))
    jar[cookie.name].update({name: value for name, value in attributes.items() if value is not None})
    return jar[cookie.name].OutputString()
