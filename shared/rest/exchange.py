"""One call on the wire: authorised, sent, read to its end or its limit, in its time."""

import asyncio
import ssl
from collections.abc import AsyncIterable
from dataclasses import dataclass

import httpx

from .errors import ApiTimeoutError, ApiTransportError
from .transport import certainly_not_sent

_AS_IT_IS = httpx.Auth()
_HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response and as much of its body as could be read.

    Attributes:
        response: Status and headers.
        body: Decompressed.
        flaw: Why the body is not complete; None if it is.
    """

    response: httpx.Response
    body: bytes
    flaw: str | None


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
        self._sent = False

    async def run(self) -> Answer:
        """Get the answer.

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
            raise ApiTimeoutError(
                f"no answer within {self._deadline:g} s",
                method=self._request.method,
                url=masked(self._request.url),
                retryable=True,
                sent=self._sent,
            ) from None

    async def _authorised(self) -> Answer:
        flow = self._auth.async_auth_flow(self._request)
        try:
            request = await anext(flow)
            while True:
                response = await self._send(request)
                try:
                    try:
                        request = await flow.asend(response)
                    except StopAsyncIteration:
                        return await self._read(response)
                    await self._read(response)  # to the end, so that the connection can be used again
                finally:
                    await response.aclose()
        finally:
            await flow.aclose()

    async def _send(self, request: httpx.Request) -> httpx.Response:
        self._sent = True
        try:
            return await self._transport.handle_async_request(request)
        except httpx.TransportError as error:
            raise self._failure(error) from error

    async def _read(self, response: httpx.Response) -> Answer:
        pieces: list[bytes] = []
        size = 0
        try:
            async for piece in _pieces(response):
                pieces.append(piece)
                size += len(piece)
                if size > self._limit:
                    return Answer(response, b"".join(pieces)[: self._limit], f"the body exceeds {self._limit} bytes")
        except httpx.DecodingError:
            return Answer(response, b"".join(pieces), "the body is not compressed as its Content-Encoding says")
        except httpx.TransportError as error:
            raise self._failure(error) from error
        return Answer(response, b"".join(pieces), None)

    def _failure(self, error: httpx.TransportError) -> ApiTransportError:
        kind = ApiTimeoutError if isinstance(error, httpx.TimeoutException) else ApiTransportError
        return kind(
            f"{type(error).__name__}: {error}",
            method=self._request.method,
            url=masked(self._request.url),
            retryable=not isinstance(error, _HOPELESS)
            and not isinstance(error.__cause__, ssl.SSLCertVerificationError),
            sent=not certainly_not_sent(error),
        )


def _pieces(response: httpx.Response) -> AsyncIterable[bytes]:
    """The decompressed body; httpx's iterators are left out where they would only cost time."""
    stream = response.stream
    if response.is_stream_consumed or "Content-Encoding" in response.headers or not isinstance(stream, AsyncIterable):
        return response.aiter_bytes()
    return stream


def masked(url: httpx.URL) -> str:
    """A URL for logs and errors: the names in its query are kept, the values not."""
    if not url.query:
        return str(url)
    names = [pair.partition("=")[0] for pair in url.query.decode("ascii").split("&")]
    return f"{url.copy_with(query=None)}?{'&'.join(f'{name}=***' for name in names)}"
