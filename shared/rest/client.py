"""The base class of API descriptions: turns a call of a method into a request, and the answer into its result."""

import asyncio
import copy
import functools
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, Unpack

import httpx

from shared.http.gate import GateClosedError

from .endpoint import Endpoint
from .errors import ApiDecodeError, ApiError, ApiPausedError, response_error
from .exchange import Answer, Exchange, masked
from .headers import HeaderFields, checked_headers, merged
from .options import CallOptions, ClientOptions, Gate, checked_options, layered
from .responses import ApiResponse, UndecodableError
from .transport import AiohttpTransport

_DEFAULT_HEADERS = {"Accept-Encoding": "gzip, deflate", "User-Agent": f"python-httpx/{httpx.__version__}"}
_LENGTH_EXPECTED = frozenset({"POST", "PUT", "PATCH"})

_url = functools.lru_cache(maxsize=256)(httpx.URL)  # parsing one costs more than all else that is done to a request


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is the same for all calls of an endpoint of one client."""

    base_url: str
    headers: HeaderFields
    extensions: dict[str, Any]
    auth: httpx.Auth | None
    deadline: float | None


@dataclass(frozen=True, slots=True)
class _OpenTransport:
    transport: httpx.AsyncBaseTransport
    lifetime: AsyncGenerator[httpx.AsyncBaseTransport]


class ApiClient:
    """Base of a class that describes an HTTP API by one method stub an endpoint.

        class Articles(ApiClient, headers={"Api-Version": "3"}):
            @get("/articles/{slug}")
            async def get_article(self, slug: str) -> ApiResponse[Article]: ...

    A client may be made anywhere, also at import: nothing is read or opened before the first call. It may be used on
    several event loops at once; on each it keeps connections of its own, until `aclose` or until the loop shuts down
    its asynchronous generators, as `asyncio.run` does at the end.

    Args:
        options: How to reach the API; or a function that tells, called at the first call, and again after it raised;
            or just the base URL.
    """

    _class_headers: Mapping[str, str | None] = {}

    def __init_subclass__(cls, *, headers: Mapping[str, str | None] | None = None, **arguments: Any) -> None:
        """Keep the headers that the class sends with each request."""
        super().__init_subclass__(**arguments)
        if headers is not None:
            checked_headers(headers)
            cls._class_headers = {**cls._class_headers, **headers}

    def __init__(self, options: ClientOptions | Callable[[], ClientOptions] | str) -> None:
        if isinstance(options, str):
            options = ClientOptions(base_url=options)
        self._options = functools.cache(options if callable(options) else lambda: options)
        self._changes = CallOptions()
        self._plans: dict[Endpoint, _Plan] = {}
        self._transports: dict[asyncio.AbstractEventLoop, _OpenTransport] = {}

    def with_options(self, **changes: Unpack[CallOptions]) -> Self:
        """The same client, on the same connections, with other options for the calls that are made through it."""
        checked_options(changes)
        client = copy.copy(self)
        vars(client).update(_changes=layered(self._changes, changes), _plans={})
        return client

    async def aclose(self) -> None:
        """Close the connections on the running event loop; another call opens new ones."""
        opened = self._transports.pop(asyncio.get_running_loop(), None)
        if opened is not None:
            await opened.lifetime.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def invoke(self, endpoint: Endpoint, arguments: Mapping[str, Any]) -> Any:
        """Call the API, as the methods that verbs decorate do.

        Args:
            endpoint: Which method.
            arguments: By the names of its parameters.

        Raises:
            ValueError: An argument is not valid or cannot be sent.
            ApiError: The call failed; but with an `ApiResponse` only if there was no response.
            ApiPausedError: The `gate` of the options did not admit the request in time.
            Exception: Whatever the `auth` of the options raises, or the function that tells the options.
        """
        options = self._options()
        plan = self._plans.get(endpoint)
        if plan is None:
            plan = self._plans[endpoint] = self._plan(options, endpoint)
        request = _request(plan, endpoint, arguments)
        if options.on_request is not None:
            options.on_request(request)
        exchange = Exchange(
            await self._transport(options),
            request,
            auth=plan.auth,
            deadline=plan.deadline,
            max_response_size=options.max_response_size,
        )
        answer = await (exchange.run() if options.gate is None else _gated(options.gate, request, exchange))
        content, error = _result(endpoint, request, answer, options.clock)
        if endpoint.returned.wrapped:
            return ApiResponse(answer.response.status_code, answer.response.headers, content, error)
        if error is not None:
            raise error
        return content

    def _plan(self, options: ClientOptions, endpoint: Endpoint) -> _Plan:
        changes = layered(endpoint.options, self._changes)
        defaults: dict[str, str | None] = {
            "Host": httpx.URL(options.base_url).netloc.decode("ascii"),
            "Accept": endpoint.returned.accept,
            **_DEFAULT_HEADERS,
        }
        timeout = httpx.Timeout(changes.get("timeout", options.timeout))
        return _Plan(
            base_url=options.base_url.rstrip("/") + "/",
            headers=merged(defaults, self._class_headers, options.headers, changes.get("headers", {})),
            extensions={
                "timeout": timeout.as_dict(),
                "url_template": endpoint.template,
                **changes.get("extensions", {}),
            },
            auth=changes.get("auth", options.auth),
            deadline=changes.get("deadline", options.deadline),
        )

    async def _transport(self, options: ClientOptions) -> httpx.AsyncBaseTransport:
        loop = asyncio.get_running_loop()
        opened = self._transports.get(loop)
        if opened is None:
            for other in list(self._transports):  # another thread may open its own meanwhile
                if other.is_closed():
                    self._transports.pop(other, None)
            lifetime = _lifetime(options, loop, self._transports)
            # The generator does not wait for anything before it yields, so no other task can come in between.
            opened = self._transports[loop] = _OpenTransport(await anext(lifetime), lifetime)
        return opened.transport


async def _lifetime(
    options: ClientOptions,
    loop: asyncio.AbstractEventLoop,
    transports: dict[asyncio.AbstractEventLoop, _OpenTransport],
) -> AsyncGenerator[httpx.AsyncBaseTransport]:
    """Keep a transport open while this generator is.

    An event loop closes its asynchronous generators when it shuts down, and those that are garbage: neither a script
    that ends nor a client that is forgotten leaves connections behind.
    """
    transport = AiohttpTransport.of(options) if options.transport is None else options.transport()
    try:
        yield transport
    finally:
        transports.pop(loop, None)
        await transport.aclose()


async def _gated(gate: Gate, request: httpx.Request, exchange: Exchange) -> Answer:
    try:
        async with gate.admitted(request) as told:
            answer = await exchange.run()
            told(answer.response)
            return answer
    except GateClosedError as error:
        raise ApiPausedError(
            str(error),
            method=request.method,
            url=masked(request.url),
            retryable=True,
            retry_after=error.retry_after,
            sent=False,
        ) from None


def _request(plan: _Plan, endpoint: Endpoint, arguments: Mapping[str, Any]) -> httpx.Request:
    content = endpoint.content(arguments)
    headers: dict[str, tuple[bytes, bytes] | None] = dict(plan.headers)
    if content.body is not None and endpoint.content_type is not None:
        headers.setdefault("content-type", (b"Content-Type", endpoint.content_type.encode("ascii")))
    if content.body is not None or endpoint.verb in _LENGTH_EXPECTED:
        headers["content-length"] = (b"Content-Length", b"%d" % len(content.body or b""))
    headers |= content.headers
    try:
        url = _url(plan.base_url + content.target)
    except httpx.InvalidURL as error:
        raise ValueError(f"{endpoint.name}: {error}") from None
    return httpx.Request(
        endpoint.verb,
        url,
        headers=[field for field in headers.values() if field is not None],
        stream=httpx.ByteStream(content.body or b""),
        extensions=plan.extensions,
    )


def _result(
    endpoint: Endpoint, request: httpx.Request, answer: Answer, clock: Callable[[], float]
) -> tuple[Any, ApiError | None]:
    """Content or error."""
    response, url = answer.response, masked(request.url)
    if not response.is_success:
        return None, response_error(
            response, answer.body, cut=answer.flaw is not None, method=endpoint.verb, url=url, now=clock
        )
    flaw = None if endpoint.returned.empty else answer.flaw
    if flaw is None:
        try:
            return endpoint.returned.decode(response, answer.body), None
        except UndecodableError as error:
            flaw = str(error)
    return None, ApiDecodeError(
        flaw,
        method=endpoint.verb,
        url=url,
        status=response.status_code,
        headers=response.headers,
        body=answer.body,
        retryable=answer.passing,
    )
