"""One call on the wire: authorised, sent, read to its end or its limit, in its time."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterable
from dataclasses import dataclass

import httpx

from .compression import decompressed
from .credentials import Credentials
from .errors import BODY_LIMIT, ApiTimeoutError, ApiTransportError
from .transport import certainly_not_sent

_AS_IT_IS = httpx.Auth()
_DRAIN_TIME = 1.0
"""Seconds that a body may take which is read only for the sake of its connection."""

_FRAMING = frozenset({b"content-encoding", b"content-length", b"transfer-encoding"})
_HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response and as much of its body as could be read, without the credentials of the request.

    Attributes:
        response: Status and headers.
        body: Decompressed.
        flaw: Why the body is not complete; None if it is.
        passing: Whether the flaw may be gone at another try.
    """

    response: httpx.Response
    body: bytes
    flaw: str | None = None
    passing: bool = False


class Exchange:
    """Sends one request, and again if its authorisation wants that.

    Args:
        transport: Sends it.
        request: With its body in memory.
        auth: Authorises it; None sends it as it is.
        deadline: Seconds for all of it; None for no limit.
        max_response_size: Bytes of the body after which reading stops.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        request: httpx.Request,
        *,
        auth: httpx.Auth | None,
        deadline: float | None,
        max_response_size: int,
    ) -> None:
        self._transport = transport
        self._request = request
        self._auth = auth or _AS_IT_IS
        self._deadline = deadline
        self._limit = max_response_size
        self._credentials = Credentials()
        self._sent = False
        self._response: httpx.Response | None = None  # to what was sent last
        self._body: list[bytes] = []

    async def run(self) -> Answer:
        """Get the answer. Once there is a status, this is the result, whatever becomes of the body.

        Raises:
            ApiTransportError: There is none.
            Exception: Whatever `auth` raises.
        """
        scope = asyncio.timeout(self._deadline)
        try:
            async with scope:
                return await self._authorised()
        except TimeoutError:
            if not scope.expired():
                raise  # not this call's deadline
        if self._response is not None:
            return self._answer(self._response, f"no complete answer within {self._deadline:g} s", passing=True)
        raise ApiTimeoutError(
            f"no answer within {self._deadline:g} s",
            method=self._request.method,
            url=masked(self._request.url),
            retryable=True,
            sent=self._sent,
        )

    async def _authorised(self) -> Answer:
        flow = self._auth.async_auth_flow(self._request)
        try:
            request = await anext(flow)
            while True:
                response = await self._send(request)
                try:
                    answer = await self._read(response) if self._auth.requires_response_body else None
                    try:
                        request = await flow.asend(response if answer is None else _complete(answer, request))
                    except StopAsyncIteration:
                        return await self._read(response) if answer is None else answer
                    if answer is None:
                        await self._drain(response)
                finally:
                    await response.aclose()
        finally:
            await flow.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        self._sent, self._response, self._body = True, None, []
        try:
            response = await self._transport.handle_async_request(request)
        except httpx.TransportError as error:
            self._credentials.learn(request)
            raise self._failure(error)  # noqa: B904 - it has its cause
        self._credentials.learn(request)  # only now: a transport adds those for a proxy
        if response.status_code < httpx.codes.CONTINUE:
            await response.aclose()
            raise self._failure(httpx.RemoteProtocolError(f"the answer has the status {response.status_code:03}"))
        self._response = response
        return response

    async def _drain(self, response: httpx.Response) -> None:
        """Read a body that nobody wants, so that the connection can be used again; one that takes long is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_TIME):
                await self._read(response)

    async def _read(self, response: httpx.Response) -> Answer:
        limit = self._limit if response.is_success else min(self._limit, BODY_LIMIT)
        size = 0
        try:
            async for piece in _pieces(response, limit):
                self._body.append(piece[: limit - size])
                size += len(piece)
                if size > limit:
                    return self._answer(response, f"the body exceeds {limit} bytes")
        except httpx.DecodingError as error:
            return self._answer(response, str(error))
        except httpx.TransportError as error:
            return self._answer(response, _told(error), passing=True)
        return self._answer(response)

    def _answer(self, response: httpx.Response, flaw: str | None = None, *, passing: bool = False) -> Answer:
        self._credentials.mask_headers(response)
        body = self._credentials.masked(b"".join(self._body), cut=flaw is not None)
        return Answer(response, body, flaw, passing)

    def _failure(self, error: httpx.TransportError) -> ApiTransportError:
        told = _told(error)
        reason = self._credentials.masked_text(told)
        kind = ApiTimeoutError if isinstance(error, httpx.TimeoutException) else ApiTransportError
        failure = kind(
            reason,
            method=self._request.method,
            url=masked(self._request.url),
            retryable=not isinstance(error, _HOPELESS)
            and not isinstance(error.__cause__, ssl.SSLCertVerificationError),
            sent=not certainly_not_sent(error),
        )
        failure.__cause__ = error if reason == told else None  # a cause is shown in tracebacks
        return failure


def _complete(answer: Answer, request: httpx.Request) -> httpx.Response:
    """The response with its body, for an `auth` that reads it; httpx would fail it for a body that breaks off."""
    fields = [(name, value) for name, value in answer.response.headers.raw if name.lower() not in _FRAMING]
    return httpx.Response(answer.response.status_code, headers=fields, content=answer.body, request=request)


def _told(error: httpx.TransportError) -> str:
    return f"{type(error).__name__}: {error}"


def _pieces(response: httpx.Response, limit: int) -> AsyncIterable[bytes]:
    """The decompressed body."""
    stream = response.stream
    if response.is_stream_consumed or not isinstance(stream, AsyncIterable):
        return response.aiter_bytes()  # read by an `auth` that did not say so; httpx has decompressed it
    return decompressed(stream, response.headers, limit=limit)


def masked(url: httpx.URL) -> str:
    """A URL for logs and errors: the names in its query are kept, the values not."""
    if not url.query:
        return str(url)
    names = [pair.partition("=")[0] for pair in url.query.decode("ascii").split("&")]
    return f"{url.copy_with(query=None)}?{'&'.join(f'{name}=***' for name in names)}"
