"""Runs an aiohttp application on a thread of its own, so that sync code, async code and tests can talk to it."""

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from aiohttp import web

LOOPBACK = "127.0.0.1"


async def start_site(app: web.Application, port: int = 0) -> tuple[web.AppRunner, str]:
    """Serve `app` on the loopback interface of the running event loop.

    Args:
        app: The application to serve.
        port: TCP port; 0 lets the system choose a free one.

    Returns:
        The runner, whose `cleanup()` ends the serving, and the base URL without a trailing slash.

    Raises:
        OSError: The port is taken.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner, f"http://{LOOPBACK}:{runner.addresses[0][1]}"


async def _end(runner: web.AppRunner) -> None:
    """End the serving, also of those who have hung up: the runner leaves their handlers behind."""
    await runner.cleanup()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for handler in left:
        handler.cancel()
    await asyncio.gather(*left, return_exceptions=True)


@contextlib.contextmanager
def serve(app: web.Application, port: int = 0) -> Iterator[str]:
    """Serve `app` on a daemon thread with its own event loop while the `with` block runs; yields its base URL.

    Raises:
        OSError: The port is taken.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="loopback-server", daemon=True)
    thread.start()
    try:
        runner, url = asyncio.run_coroutine_threadsafe(start_site(app, port), loop).result()
        try:
            yield url
        finally:
            asyncio.run_coroutine_threadsafe(_end(runner), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
