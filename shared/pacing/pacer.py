"""Lets requests through to an API when the limits say so; those that have to wait stand in two queues."""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from types import TracebackType

import httpx

from shared.http.gate import GateClosedError
from shared.http.rate_limits import parse_rate_limits
from shared.http.retry_after import parse_retry_after

from .limits import Call, Limits

PATIENCE = 20.0
"""Seconds that a request waits to be admitted, unless its extension `begin_by` says by when it must have been."""

LOOK_UP_PATIENCE = 2.0
"""Seconds after which a look-up is sent whatever the limits say."""

_TICK = 1e-4  # seconds; an event loop rounds anyway

_LOOK_UPS = frozenset({"GET", "HEAD"})

_log = logging.getLogger("pacing")


class _Waiter:
    __slots__ = ("begin_by", "call", "future", "gone", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, begin_by: float) -> None:
        self.loop = loop
        self.begin_by = begin_by
        self.future: asyncio.Future[None] = loop.create_future()
        self.call: Call | None = None  # once admitted
        self.gone = False  # waits no more


class Pacer:
    """The gate of one API in one process; it may be used on several event loops and threads at once.

    Args:
        name: Of the API, for log lines.
        max_rate: Calls per second that are never exceeded.
        max_concurrency: Calls under way at once.
        longest_pause: Seconds between two probes of an API that is down, at most.
        clock: Seconds on a clock that never goes back; `begin_by` is a time of it.
        wall_clock: Seconds since 1970, for a `Retry-After` date.
    """

    def __init__(
        self,
        *,
        name: str = "API",
        max_rate: float = math.inf,
        max_concurrency: int = 20,
        longest_pause: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._name = name
        self._new_limits = partial(
            Limits, max_rate=max_rate, max_concurrency=max_concurrency, longest_pause=longest_pause
        )
        self._limits = self._new_limits()
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()  # of all below; held for bookkeeping only
        self._look_ups: deque[_Waiter] = deque()
        self._posts: deque[_Waiter] = deque()
        self._alarm = math.inf  # the next time at which the queues are looked at anyway
        self._alarm_loop: asyncio.AbstractEventLoop | None = None

    def admitted(self, request: httpx.Request) -> "_Admission":
        """Wait until the request may be sent; then tell what comes of it. As `shared.rest.Gate` describes it.

        Raises:
            GateClosedError: On entering: the request would have to wait for too long.
        """
        return _Admission(self, request)

    @property
    def concurrency(self) -> int:
        """Calls that may be under way now."""
        return self._limits.concurrency

    def forget(self) -> None:
        """Forget all that was learned, as a restart does. Who waits is looked at when a call ends or comes."""
        with self._lock:
            self._limits = self._new_limits()

    async def admit(self, request: httpx.Request) -> Call:
        """Wait until the request may be sent.

        Raises:
            GateClosedError: It would have to wait for too long.
        """
        look_up = request.method in _LOOK_UPS
        with self._lock:
            now = self._clock()
            if not self._look_ups and (look_up or not self._posts) and self._limits.delay(now) <= 0:
                return self._limits.sent(now)
            begin_by = request.extensions.get("begin_by", math.inf if look_up else now + PATIENCE)
            closed = self._limits.certainly_closed_for(now)
            earliest = min(closed, LOOK_UP_PATIENCE) if look_up else closed
            if now + earliest > begin_by:
                raise GateClosedError(closed, self._limits.reason(now))
            waiter = _Waiter(asyncio.get_running_loop(), begin_by)
            (self._look_ups if look_up else self._posts).append(waiter)
        self._pump()
        forced = look_up and now + LOOK_UP_PATIENCE <= begin_by
        until = now + LOOK_UP_PATIENCE if forced else begin_by
        timer = waiter.loop.call_later(max(until - now, 0.0), self._expire, waiter, forced)
        try:
            await waiter.future
        except BaseException:
            self._withdraw(waiter)
            raise
        finally:
            timer.cancel()
        call = waiter.call
        if call is None:
            with self._lock:
                now = self._clock()
                error = GateClosedError(self._worth_trying(now), self._limits.reason(now))
            raise error
        return call

    def _worth_trying(self, now: float) -> float:
        rate = self._limits.rate(now)
        return max(self._limits.closed_for(now), len(self._posts) / rate if rate < math.inf else 0.0, 1.0)

    def _expire(self, waiter: _Waiter, forced: bool) -> None:
        with self._lock:
            if waiter.call is not None or waiter.gone:
                return
            waiter.gone = True
            if forced:
                waiter.call = self._limits.sent(self._clock())
            _wake(waiter.future)
        self._pump()

    def _withdraw(self, waiter: _Waiter) -> None:
        with self._lock:
            waiter.gone = True
            if waiter.call is not None:
                self._limits.abandoned(waiter.call)
        self._pump()

    def answered(self, call: Call, response: httpx.Response) -> None:
        """Learn from an answer."""
        headers = response.headers
        retry_after = headers.get("Retry-After")
        quotas = parse_rate_limits(headers)
        with self._lock:
            now = self._clock()
            self._limits.answered(
                call,
                now,
                response.status_code,
                None if retry_after is None else parse_retry_after(retry_after, now=self._wall_clock()),
                quotas,
            )
        self._pump()

    def unanswered(self, call: Call, error: BaseException | None) -> None:
        """Learn from a call that was not answered; from none if it was not the API's doing."""
        with self._lock:
            if isinstance(error, Exception):
                self._limits.failed(call, self._clock(), getattr(error, "retry_after", None))
            else:
                self._limits.abandoned(call)
        self._pump()

    def _ring(self, alarm: float) -> None:
        with self._lock:
            if alarm != self._alarm:
                return  # an earlier one has rung in its place
            self._alarm = math.inf
        self._pump()

    def _pump(self) -> None:
        """Admit those who wait, as far as the limits allow, and see to it that the queues are looked at again."""
        if not (self._look_ups or self._posts or self._limits.news):
            return
        with self._lock:
            now = self._clock()
            while queue := self._look_ups or self._posts:
                waiter = queue[0]
                if waiter.gone or waiter.loop.is_closed():
                    queue.popleft()
                    continue
                delay = self._limits.delay(now)
                if delay > 0:
                    self._see_to_alarm(waiter.loop, now, delay)
                    self._turn_away(now)
                    break
                queue.popleft()
                waiter.call = self._limits.sent(now)
                _call_soon(waiter.loop, _wake, waiter.future)
            news, self._limits.news = self._limits.news, []
        for level, text in news:
            _log.log(level, "%s: %s", self._name, text)

    def _turn_away(self, now: float) -> None:
        """Let those posts go that will not be admitted in time, since a pause has begun."""
        if closed := self._limits.certainly_closed_for(now):
            for waiter in self._posts:
                if waiter.begin_by < now + closed and not waiter.gone and not waiter.loop.is_closed():
                    waiter.gone = True
                    _call_soon(waiter.loop, _wake, waiter.future)

    def _see_to_alarm(self, loop: asyncio.AbstractEventLoop, now: float, delay: float) -> None:
        """Have the queues looked at after `delay` seconds, if nothing else sees to that."""
        delay = max(delay, _TICK)
        is_set = self._alarm_loop is not None and not self._alarm_loop.is_closed() and self._alarm > now
        if delay < math.inf and not (is_set and self._alarm <= now + delay):
            self._alarm, self._alarm_loop = now + delay, loop
            _call_soon(loop, loop.call_later, delay, self._ring, self._alarm)


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., object], *args: object) -> None:
    if asyncio.get_running_loop() is loop:
        function(*args)
    else:
        loop.call_soon_threadsafe(function, *args)


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Admission:
    """What `Pacer.admitted` returns."""

    __slots__ = ("_call", "_pacer", "_request")

    def __init__(self, pacer: Pacer, request: httpx.Request) -> None:
        self._pacer = pacer
        self._request = request
        self._call: Call | None = None

    async def __aenter__(self) -> Callable[[httpx.Response], None]:
        self._call = await self._pacer.admit(self._request)
        return self._told

    def _told(self, response: httpx.Response) -> None:
        call, self._call = self._call, None
        if call is not None:
            self._pacer.answered(call, response)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        call, self._call = self._call, None
        if call is not None:
            self._pacer.unanswered(call, error)
