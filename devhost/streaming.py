"""Passes requests and responses through to an app that streams: the worker library then serves its functions over HTTP.

Such an app imports `azurefunctions.extensions.http.fastapi`. The library runs uvicorn for it, as a task on the host's
event loop, and brings each request together with an invocation by the id in a header.
"""

import asyncio
import importlib
import logging
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any, Self

from aiohttp import ClientResponse, ClientSession, ClientTimeout, TCPConnector, web
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from devhost.protocol import StatusResult

# Imported by name, since the library has no type information.
http_v2: Any = importlib.import_module("azure_functions_runtime.http_v2")

# How long uvicorn may take to listen, and to end what it is busy with, in seconds.
_START_LIMIT = 30.0
_END_LIMIT = 0.5
# How long an idle connection is used again, in seconds: less than the 5 after which uvicorn closes it.
_KEEP_ALIVE = 2.0
# The longest header of a response.
_MAX_HEADER_BYTES = 64 * 1024
# How often it is looked whether the caller is still there, in seconds.
_WATCH_INTERVAL = 0.5

# Headers of a connection rather than of a message (RFC 9110, section 7.6.1), and what aiohttp has met by then.
_HOP_BY_HOP = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect"}
_HOP_BY_HOP |= {"proxy-authenticate", "proxy-authorization", "proxy-connection"}


class StreamingServer:
    """The library's server, and a client for it."""

    def __init__(self, uri: str, server: Any, ended: asyncio.Event) -> None:
        self._uri = uri
        self._server = server
        self._ended = ended
        self._session = ClientSession(
            connector=TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE),
            timeout=ClientTimeout(total=None),
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            auto_decompress=False,
            max_field_size=_MAX_HEADER_BYTES,
        )

    @classmethod
    async def start(cls, uri: str) -> Self:
        """Wait until the server listens at `uri`; its task must not have run yet. Raises `TimeoutError`."""
        listening: asyncio.Future[Self] = asyncio.get_running_loop().create_future()
        ended = asyncio.Event()

        @contextmanager
        def adopt(server: Any) -> Iterator[None]:
            async def notify() -> None:
                server.config.callback_notify = None
                listening.set_result(cls(uri, server, ended))

            server.config.callback_notify = notify
            server.config.timeout_graceful_shutdown = _END_LIMIT
            try:
                yield
            finally:
                ended.set()

        # uvicorn takes a process for its own; here, signals and logs are the host's.
        uvicorn: Any = importlib.import_module("uvicorn")
        uvicorn.Server.capture_signals = adopt
        uvicorn.config.LOGGING_CONFIG.update(incremental=True, handlers={}, loggers={"uvicorn": {"level": "WARNING"}})
        async with asyncio.timeout(_START_LIMIT):
            return await listening

    async def close(self) -> None:
        """End the server, whatever it is still busy with."""
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # nothing that is cut short now is an error
        await self._session.close()
        self._server.should_exit = True
        await self._ended.wait()

    def send(self, request: web.Request, invocation_id: str) -> AbstractAsyncContextManager[ClientResponse]:
        """Forward a request to the function that is invoked with this id."""
        headers = _end_to_end(request.headers)
        headers["x-ms-invocation-id"] = invocation_id
        url = URL(self._uri + request.rel_url.raw_path_qs, encoded=True)
        body = request.content if request.can_read_body else None
        return self._session.request(request.method, url, headers=headers, data=body, allow_redirects=False)

    def withhold(self, invocation_id: str) -> None:
        """Let an invocation fail if it still waits for its request."""
        http_v2.http_coordinator.set_http_request(invocation_id, None)


class Exchange:
    """A request on its way to a function that streams, and the response on its way back."""

    def __init__(self, server: StreamingServer, request: web.Request) -> None:
        self.response: web.StreamResponse = web.Response(status=500)
        """The function's response once it has begun, which the caller gets as it comes."""
        self._server = server
        self._request = request

    async def run(self, invocation_id: str, invocation: Coroutine[Any, Any, Any]) -> Any:
        """Forward the request while the function is invoked; returns the library's answer at the end of the response.

        Raises `ClientError` if the function broke its response off.
        """
        forwarding = asyncio.create_task(self._forward(invocation_id))
        # For when it ended before the function had its request.
        forwarding.add_done_callback(lambda _: self._server.withhold(invocation_id))
        watching = asyncio.create_task(self._watch(forwarding))
        succeeded = False
        try:
            answer = await invocation
            succeeded = answer.result.status == StatusResult.Success
            if succeeded:
                await forwarding
        finally:
            if not succeeded:
                # uvicorn would wait for a response, or log an exception once more. Nobody gets to read this one.
                http_v2.http_coordinator.set_http_response(invocation_id, "failed")
            forwarding.cancel()
            watching.cancel()
            await asyncio.gather(forwarding, watching, return_exceptions=True)
        return answer

    async def _forward(self, invocation_id: str) -> None:
        try:
            async with self._server.send(self._request, invocation_id) as answer:
                headers = _end_to_end(answer.headers)
                self.response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=headers)
                await self.response.prepare(self._request)
                async for chunk in answer.content.iter_any():
                    await self.response.write(chunk)
                await self.response.write_eof()
        except BaseException:
            if self._caller_has_left():
                return
            if self.response.prepared:
                self._request.protocol.force_close()  # so that it can't be taken for complete
            raise

    async def _watch(self, forwarding: asyncio.Task[None]) -> None:
        while not self._caller_has_left():  # noqa: ASYNC110  (aiohttp has no event for it)
            await asyncio.sleep(_WATCH_INTERVAL)
        forwarding.cancel()

    def _caller_has_left(self) -> bool:
        transport = self._request.transport
        return transport is None or transport.is_closing()


def _end_to_end(headers: CIMultiDictProxy[str]) -> CIMultiDict[str]:
    """The headers that are not for one connection only."""
    named = ",".join(headers.getall("Connection", ())).lower().split(",")
    dropped = _HOP_BY_HOP.union(name.strip() for name in named)
    return CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in dropped)
