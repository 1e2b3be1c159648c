"""A server on a thread of its own ends with all that it has begun."""

import asyncio
import socket
import threading

import httpx
from aiohttp import web

from dev.sandbox.serving import LOOPBACK, serve


def test_a_handler_whose_caller_has_hung_up_ends_with_the_server() -> None:
    begun, cancelled = threading.Event(), threading.Event()

    async def wait_forever(request: web.Request) -> web.Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return web.Response()

    app = web.Application()
    app.router.add_get("/", wait_forever)
    with serve(app) as url, socket.create_connection((LOOPBACK, httpx.URL(url).port)) as caller:
        caller.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert begun.wait(10)
    assert cancelled.is_set()
