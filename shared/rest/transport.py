"""Sends httpx requests over aiohttp's connections, which cost a fraction of httpx's own under concurrency."""

import asyncio
import base64
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import aiohttp
import httpx
import yarl
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http_exceptions import HttpProcessingError

from .answering_protocol import HEAD_LIMIT, AnsweringConnector, UnreadableHeadError
from .options import ClientOptions

_FAILURES = (aiohttp.ClientError, HttpProcessingError, OSError)
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, section 9.2.1
_UNBOUNDED = 2**31
_WRITE_CHUNK = 2**16
_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
_AUTOMATIC = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")


def certainly_not_sent(error: httpx.TransportError) -> bool:
    """Whether the request cannot have reached the server."""
    return isinstance(error, _NOT_SENT)


def environment_proxy(url: httpx.URL) -> str | None:
    """The proxy that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`, or the system, name for a URL."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(url.netloc.decode("ascii")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends requests to one origin, on the event loop that it is made on.

    Redirects are not followed and cookies not kept. A request is sent once; only with a safe method may it be sent
    again, when a connection turns out to be closed that was kept for it.

    Args:
        origin: A URL of the only origin that is called.
        verify: As in `ClientOptions`.
        limits: As in `ClientOptions`.
        proxy: As in `ClientOptions`.
        trust_env: As in `ClientOptions`.
    """

    def __init__(
        self,
        origin: httpx.URL,
        *,
        verify: ssl.SSLContext | bool,
        limits: httpx.Limits,
        proxy: httpx.Proxy | str | None,
        trust_env: bool,
    ) -> None:
        if proxy is None and trust_env:
            proxy = environment_proxy(origin)
        self._proxy = _ProxyArguments(proxy, origin) if proxy else None
        encrypted = origin.scheme == "https" or (self._proxy is not None and self._proxy.url.scheme == "https")
        # Connections are counted here, not by aiohttp, whose time-out for connecting includes the wait for a free one.
        self._free = asyncio.Semaphore(_UNBOUNDED if limits.max_connections is None else limits.max_connections)
        self._session = aiohttp.ClientSession(
            connector=AnsweringConnector(
                limit=0,
                keepalive_timeout=_UNBOUNDED if limits.keepalive_expiry is None else limits.keepalive_expiry,
                ssl=httpx.create_ssl_context(verify=verify, trust_env=trust_env) if encrypted else True,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(),
            auto_decompress=False,
            max_line_size=HEAD_LIMIT,
            max_field_size=HEAD_LIMIT,
        )

    @classmethod
    def of(cls, options: ClientOptions) -> Self:
        """The transport to the API of a client."""
        return cls(
            httpx.URL(options.base_url),
            verify=options.verify,
            limits=options.limits,
            proxy=options.proxy,
            trust_env=options.trust_env,
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; the body of the response is read as it is iterated.

        Raises:
            httpx.TransportError: There is no response. Its message and cause name no URL.
        """
        timeouts: Mapping[str, float | None] = request.extensions.get("timeout", {})
        body = await request.aread()
        await self._take_connection(timeouts)
        try:
            response = await self._send(request, body, timeouts)
        except BaseException as error:
            self._free.release()
            if isinstance(head := error.__cause__, UnreadableHeadError) and not _is_of_proxy(error):
                return httpx.Response(head.status, headers=head.fields, stream=_NoBody(head.reason), request=request)
            if isinstance(error, _FAILURES):
                raise _translated(error) from _harmless_cause(error)
            raise
        return httpx.Response(
            response.status, headers=response.raw_headers, stream=_Body(response, self._free), request=request
        )

    async def _take_connection(self, timeouts: Mapping[str, float | None]) -> None:
        if not self._free.locked():
            await self._free.acquire()
            return
        try:
            async with asyncio.timeout(timeouts.get("pool")):
                await self._free.acquire()
        except TimeoutError:
            raise httpx.PoolTimeout("no connection became free in time") from None

    async def _send(
        self, request: httpx.Request, body: bytes, timeouts: Mapping[str, float | None]
    ) -> aiohttp.ClientResponse:
        if self._proxy is not None:
            request.headers.update(self._proxy.request_headers)  # where the caller sees which credentials were sent
        headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in request.headers.raw]
        proxy: dict[str, Any] = {}
        if self._proxy is not None:
            proxy = {"proxy": self._proxy.url, "proxy_headers": self._proxy.connect_headers}
        return await self._session.request(
            request.method,
            yarl.URL(str(request.url), encoded=True),
            headers=headers,
            data=(body if len(body) <= _WRITE_CHUNK else _LargeBody(body, timeouts.get("write"))) if body else None,
            skip_auto_headers=[name for name in _AUTOMATIC if name not in request.headers] or None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(connect=timeouts.get("connect"), sock_read=timeouts.get("read")),
            server_hostname=request.extensions.get("sni_hostname"),
            middlewares=() if request.method in _SAFE else (_once,),
            **proxy,
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._session.close()


class _BrokenError(aiohttp.ClientError):
    """The connection broke after the request went out; the cause says how."""


async def _once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Keep aiohttp from sending a request again on another connection, as it does with PUT and DELETE too.

    It does so after these two errors, not after others.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as error:
        raise _BrokenError from error


class _ProxyArguments:
    """How requests pass a proxy: by CONNECT if the origin is encrypted, as they are if not."""

    def __init__(self, proxy: httpx.Proxy | str, origin: httpx.URL) -> None:
        if isinstance(proxy, str):
            proxy = httpx.Proxy(proxy)
        if proxy.url.scheme not in {"http", "https"}:
            raise ValueError(f"proxy: expected an http or https URL; {proxy.url.scheme} is not supported")
        self.url = yarl.URL(str(proxy.url))
        headers = list(proxy.headers.multi_items())
        if proxy.raw_auth is not None:
            credentials = base64.b64encode(b":".join(proxy.raw_auth)).decode("ascii")
            headers.append(("Proxy-Authorization", f"Basic {credentials}"))
        tunnelled = origin.scheme == "https"
        self.connect_headers = headers if tunnelled else []
        self.request_headers = [] if tunnelled else headers


class _LargeBody(aiohttp.Payload):
    """A body that is sent piece by piece, each in its time; aiohttp itself waits for slow receivers without end."""

    def __init__(self, value: bytes, timeout: float | None) -> None:
        super().__init__(value)
        self._size = len(value)
        self._timeout = timeout

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return str(self._value, encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        view = memoryview(self._value)
        for start in range(0, len(view), _WRITE_CHUNK):
            async with asyncio.timeout(self._timeout):
                await writer.write(view[start : start + _WRITE_CHUNK])
                await writer.drain()


class _Body(httpx.AsyncByteStream):
    """The body of a response; closing it frees the connection for the next request, or closes that too if unread."""

    def __init__(self, response: aiohttp.ClientResponse, free: asyncio.Semaphore) -> None:
        self._response = response
        self._free = free
        self._open = True

    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while piece := await content.readany():
                yield piece
        except _FAILURES as error:
            yield content._read_nowait(-1)  # noqa: SLF001 - what came before the failure has no public way out
            raise _translated(error) from _harmless_cause(error)

    async def aclose(self) -> None:
        if self._open:
            self._open = False
            self._response.release()
            self._free.release()


class _NoBody(httpx.AsyncByteStream):
    """The body of a response whose head cannot be read to its end: nobody knows where it begins."""

    def __init__(self, reason: BaseException) -> None:
        self._reason = reason

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if isinstance(self._reason, aiohttp.ServerDisconnectedError):
            raise httpx.RemoteProtocolError("the connection was closed in the middle of the head")
        raise _translated(self._reason)


def _is_of_proxy(error: BaseException) -> bool:
    """Whether it is about the answer to CONNECT, after which nothing was sent to the API yet."""
    return isinstance(error, aiohttp.ClientResponseError) and error.request_info.method == "CONNECT"


def _translated(error: BaseException) -> httpx.TransportError:
    """The httpx error for what aiohttp raised; aiohttp's own messages may hold the URL, and with it secrets."""
    match error:
        case _BrokenError(__cause__=BaseException() as cause):
            return _translated(cause)
        case aiohttp.ConnectionTimeoutError():
            return httpx.ConnectTimeout("no connection in time")
        case aiohttp.ServerTimeoutError():
            return httpx.ReadTimeout("no data in time")
        case aiohttp.ClientProxyConnectionError():
            return httpx.ProxyError(f"cannot connect to the proxy: {error.strerror or error}")
        case aiohttp.ClientHttpProxyError():
            return httpx.ProxyError(f"the proxy answered {error.status}")
        case aiohttp.ClientResponseError() if _is_of_proxy(error):
            return httpx.ProxyError("the answer of the proxy is not HTTP")
        case aiohttp.ClientConnectorError():
            return httpx.ConnectError(str(error))
        case aiohttp.ServerDisconnectedError():
            return httpx.RemoteProtocolError("the server closed the connection without an answer")
        case aiohttp.ClientPayloadError():
            return httpx.RemoteProtocolError("the connection was closed in the middle of the body")
        case aiohttp.ClientResponseError() | HttpProcessingError():
            return httpx.RemoteProtocolError("the answer is not HTTP")
        case aiohttp.InvalidURL() | aiohttp.NonHttpUrlClientError():
            return httpx.UnsupportedProtocol("not an http or https URL")
        case TimeoutError():
            return httpx.WriteTimeout("the server did not take the body in time")
        case OSError():
            return httpx.ReadError(f"the connection broke: {error.strerror or type(error).__name__}")
        case _:
            return httpx.NetworkError(f"the connection broke: {type(error).__name__}")


def _harmless_cause(error: BaseException) -> OSError | None:
    """What the operating system or TLS said, which names no URL."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        certificate_error = error.certificate_error
        return certificate_error if isinstance(certificate_error, OSError) else None
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
