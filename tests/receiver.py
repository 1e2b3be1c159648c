"""Somebody who is told of the ends of operations, on a real socket, and answers as a test says."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from dev.sandbox.serving import serve

PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Message:
    """A message that came: its headers, by names in lower case, its body, and when it came, in seconds since 1970."""

    headers: Mapping[str, str]
    body: bytes
    path: str
    at: float = field(default_factory=time.time)

    @property
    def event(self) -> dict[str, Any]:
        """The event in it."""
        found: dict[str, Any] = json.loads(self.body)
        return found


@dataclass(slots=True)
class Receiver:
    """Takes messages.

    Attributes:
        url: Where.
        answers: What comes next, one after another: a status, or what makes an answer; afterwards all is well.
        messages: All that came, in order.
    """

    url: str = ""
    answers: deque[int | web.Response | Callable[[], Any]] = field(default_factory=deque)
    messages: list[Message] = field(default_factory=list)

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Take a message."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.messages.append(Message(headers, await request.read(), request.path_qs))
        answer = self.answers.popleft() if self.answers else 204
        if callable(answer) and not isinstance(answer, web.Response):
            answer = await answer()
        return web.Response(status=answer) if isinstance(answer, int) else answer

    @property
    def events(self) -> list[dict[str, Any]]:
        """What came, message by message."""
        return [message.event for message in self.messages]

    def wait(self, number: int, patience: float = PATIENCE) -> list[dict[str, Any]]:
        """Wait until so many messages have come. Raises `TimeoutError`."""
        end = time.monotonic() + patience
        while len(self.messages) < number:
            if time.monotonic() > end:
                raise TimeoutError(f"expected {number} messages, got {self.events}")
            time.sleep(0.02)
        return self.events


@contextlib.contextmanager
def receiving(port: int = 0) -> Iterator[Receiver]:
    """A receiver, while the `with` block runs. Raises `OSError`: the port is taken."""
    receiver, app = Receiver(), web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.take)
    with serve(app, port) as url:
        receiver.url = f"{url}/hook"
        yield receiver


async def hang() -> None:
    """Never answer."""
    await asyncio.sleep(3600)
