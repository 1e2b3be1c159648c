"""Keeps one token for each source fresh, for any number of threads and event loops, with one fetch at a time."""

import asyncio
import contextvars
import functools
import logging
import math
import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from opentelemetry.trace import SpanKind, StatusCode

from .errors import TokenError
from .sources import TokenSource
from .telemetry import SOURCE, TokenStatistics, publish, tracer
from .token import AccessToken
from .token_response import MAX_RETRY_AFTER

_log = logging.getLogger("shared.access_tokens")


# When a token is replaced. Windows end with its life; times are in seconds, shares are of the lifetime.
MANDATORY_WINDOW, MANDATORY_SHARE = 60.0, 0.10
"""A token is not used any more: the shorter of the two."""
ADVISORY_WINDOW, ADVISORY_SHARE = 300.0, 0.25
"""A token is replaced in the background: the shorter of the two."""
ADVISORY_JITTER = 0.20
"""Largest random share by which the advisory window is shorter, so that processes spread out."""
DEFAULT_LIFETIME = 600.0
"""Seconds: of a token whose server does not tell."""

# How a fetch is tried again.
ATTEMPTS = 3
"""Tries of one fetch."""
BACKOFF_JITTER = 0.10
"""Largest random share by which a backoff is longer or shorter."""
BACKGROUND_PAUSE = 30.0
"""Seconds after a background fetch that brought nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """How long the cache waits for what fails. All times are in seconds.

    Attributes:
        failure_pause: After a failed fetch that callers waited for; they get its error meanwhile.
        rejection_pause: After the API has rejected a renewed token too: no renewal because of a 401 meanwhile.
        backoff: Before the second try of a fetch, doubled before each further one.
        fetch_timeout: Of one fetch with all its tries.
    """

    failure_pause: float = 5.0
    rejection_pause: float = 30.0
    backoff: float = 1.0
    fetch_timeout: float = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Clocks:
    """Time and chance, as the cache sees them.

    Attributes:
        monotonic: Seconds since some start. Never set; may stand still while the machine is suspended.
        wall: Seconds since the epoch. Goes on while the machine is suspended; may be set.
        sleep: Waits for so many seconds; called on the thread of a fetch.
        rng: A random number from 0 up to 1.
    """

    monotonic: Callable[[], float] = time.monotonic
    wall: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep
    rng: Callable[[], float] = random.random


@dataclass(frozen=True, slots=True)
class _Held:
    """A token, when it was asked for on either clock, and at which age it is refreshed, unusable and expired."""

    token: AccessToken
    asked_at: float
    asked_at_wall: float
    refresh_age: float
    unusable_age: float
    lifetime: float
    # The first of these ages as instants, for the look-up that has to be fast.
    refresh_at: float = field(init=False)
    refresh_at_wall: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "refresh_at", self.asked_at + self.refresh_age)
        object.__setattr__(self, "refresh_at_wall", self.asked_at_wall + self.refresh_age)

    def age(self, monotonic: float, wall: float) -> float:
        """Seconds by the clock that says more: one stands still in a suspended machine, the other may be set."""
        return max(monotonic - self.asked_at, wall - self.asked_at_wall)


_NOTHING = _Held(AccessToken(""), -math.inf, -math.inf, 0.0, 0.0, 0.0)


class _Flight:
    """One fetch under way. Its result is a value even if it is an error: maybe nobody is left to retrieve that."""

    __slots__ = ("deadline", "overtaken", "result")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.overtaken = False
        self.result: Future[AccessToken | TokenError] = Future()
        # A future that runs cannot be cancelled, so that a cancelled waiter leaves it alone.
        self.result.set_running_or_notify_cancel()


class CachedToken:
    """The token of one source: looked up, refreshed in time, and fetched once however many callers need it.

    Callers may be threads, and coroutines on any number of asyncio event loops. A fetch with all its tries runs on a
    daemon thread of its own; the lock is held for bookkeeping only, never while a request is out.

    Attributes:
        source: Where the token comes from.
    """

    def __init__(self, source: TokenSource, policy: CachePolicy, clocks: Clocks) -> None:
        self.source = source
        self._policy = policy
        self._clocks = clocks
        self._monotonic = clocks.monotonic
        self._wall = clocks.wall
        self._lock = threading.Lock()
        self._held = _NOTHING
        self._flight: _Flight | None = None
        self._failure = TokenError()
        self._refused_until = -math.inf
        self._no_refresh_until = -math.inf
        self._no_renewal_until = -math.inf
        # Counted without the lock: exact under the interpreter's own lock, nearly so on a free-threaded build.
        self._used = 0
        self._fetched = 0
        self._failed = 0
        self._resent = 0

    @property
    def statistics(self) -> TokenStatistics:
        """What has happened to the tokens of this source."""
        return TokenStatistics(self._used, self._fetched, self._failed, self._resent)

    @property
    def remaining(self) -> float:
        """Seconds for which the token that is held may still be used; zero if there is none."""
        held = self._held
        return max(0.0, held.unusable_age - held.age(self._monotonic(), self._wall()))

    def fresh(self) -> AccessToken | None:
        """The token, unless there is none or it is due for a refresh. Takes no lock and starts nothing."""
        held = self._held
        if self._monotonic() < held.refresh_at and self._wall() < held.refresh_at_wall:
            self._used += 1
            return held.token
        return None

    def ready(self) -> AccessToken | None:
        """The token, if one may be used now; None if a caller has to wait for it, in `get` or `get_async`.

        Starts the fetch of a token that is absent or due for a refresh.

        Raises:
            TokenError: It could not be fetched a moment ago.
        """
        if (token := self.fresh()) is not None:
            return token
        found = self._look_up()
        return found if isinstance(found, AccessToken) else None

    def get(self) -> AccessToken:
        """The token. Blocks only while there is none that may be used, until it is fetched.

        Raises:
            TokenError: It could not be fetched.
        """
        if (token := self.fresh()) is not None:
            return token
        found = self._look_up()
        return found if isinstance(found, AccessToken) else self._handed_out(self._wait(found))

    async def get_async(self) -> AccessToken:
        """The token, as `get` gives it, without blocking the event loop.

        Raises:
            TokenError: It could not be fetched.
        """
        if (token := self.fresh()) is not None:
            return token
        found = self._look_up()
        return found if isinstance(found, AccessToken) else self._handed_out(await self._wait_async(found))

    def renew(self, rejected: AccessToken) -> AccessToken | None:
        """The token to use in place of one that the API has just rejected; None if a new one is not worth a try.

        Raises:
            TokenError: It could not be fetched.
        """
        return self._renewed(rejected, self.get()) if self.invalidate(rejected) else None

    async def renew_async(self, rejected: AccessToken) -> AccessToken | None:
        """The token in place of a rejected one, as `renew` gives it, without blocking the event loop.

        Raises:
            TokenError: It could not be fetched.
        """
        return self._renewed(rejected, await self.get_async()) if self.invalidate(rejected) else None

    def invalidate(self, rejected: AccessToken) -> bool:
        """Drop the token if it is the one that the API has rejected, and what a fetch under way will bring.

        Returns:
            Whether a new token is worth a try: not within a pause after a renewed one was rejected as well.
        """
        with self._lock:
            if self._held.token.value != rejected.value:
                return True
            if self._monotonic() < self._no_renewal_until:
                return False
            self._held = _NOTHING
            if self._flight is not None:
                self._flight.overtaken = True
            return True

    def pause_renewals(self) -> None:
        """Note that the API rejects renewed tokens too, so that not every 401 costs a token request."""
        with self._lock:
            self._no_renewal_until = self._monotonic() + self._policy.rejection_pause

    def start_anew(self) -> None:
        """Repair what a fork leaves in the child, as `TokenCache.start_anew` does for all tokens."""
        self._lock = threading.Lock()
        self._flight = None

    def _renewed(self, rejected: AccessToken, token: AccessToken) -> AccessToken | None:
        if token.value == rejected.value:
            self.pause_renewals()
            return None
        self._resent += 1
        return token

    def _handed_out(self, outcome: AccessToken | TokenError) -> AccessToken:
        if isinstance(outcome, TokenError):
            raise outcome.again()
        self._used += 1
        return outcome

    def _look_up(self) -> AccessToken | _Flight:
        """Decide in one step for this caller: a token, the error of a moment ago, or a flight to wait for."""
        self._give_up_if_late()
        started = False
        with self._lock:
            monotonic, held = self._monotonic(), self._held
            age = held.age(monotonic, self._wall())
            usable = age < held.unusable_age
            due = not usable or (age >= held.refresh_age and monotonic >= self._no_refresh_until)
            flight = self._flight
            if flight is None and due:
                if not usable and monotonic < self._refused_until:
                    raise self._failure.again()
                flight = self._flight = _Flight(monotonic + self._policy.fetch_timeout)
                started = True
        if flight is not None and started:
            self._take_off(flight)
        return self._handed_out(held.token) if usable or flight is None else flight

    def _wait(self, flight: _Flight) -> AccessToken | TokenError:
        try:
            return flight.result.result(flight.deadline - self._monotonic())
        except TimeoutError:
            return self._give_up(flight)

    async def _wait_async(self, flight: _Flight) -> AccessToken | TokenError:
        try:
            async with asyncio.timeout(flight.deadline - self._monotonic()):
                return await asyncio.wrap_future(flight.result)
        except TimeoutError:
            return self._give_up(flight)

    def _give_up_if_late(self) -> None:
        flight = self._flight
        if flight is not None and self._monotonic() >= flight.deadline:
            self._give_up(flight)

    def _give_up(self, flight: _Flight) -> AccessToken | TokenError:
        """Leave a flight that takes too long to itself; a thread cannot be ended."""
        seconds = self._policy.fetch_timeout
        self._land(flight, TokenError(description=f"the fetch took longer than {seconds:g} s", retryable=True))
        return flight.result.result()

    def _take_off(self, flight: _Flight) -> None:
        context = contextvars.copy_context()  # the span of the fetch belongs to the trace of who caused it
        thread = threading.Thread(target=context.run, args=(self._fly, flight), name="access-token", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads, or the interpreter is about to exit
            self._land(
                flight,
                _caused(TokenError(description="no thread for the fetch could be started", retryable=True), error),
            )

    def _fly(self, flight: _Flight) -> None:
        again = True
        while again:
            with tracer.start_as_current_span(
                "access_token.fetch", kind=SpanKind.CLIENT, attributes={SOURCE: str(self.source)}
            ) as span:
                outcome = self._fetch(flight.deadline)
                if isinstance(outcome, TokenError):
                    span.set_attribute("error.type", outcome.error or str(outcome.status or "no answer"))
                    span.set_status(StatusCode.ERROR, str(outcome))
            again = self._land(flight, outcome)

    def _fetch(self, deadline: float) -> _Held | TokenError:
        backoff, attempt = self._policy.backoff, 1
        while isinstance(outcome := self._try(), TokenError):
            pause = backoff * (1 + BACKOFF_JITTER * (2 * self._clocks.rng() - 1))
            pause = max(pause, min(outcome.retry_after or 0.0, MAX_RETRY_AFTER))
            if not outcome.retryable or attempt == ATTEMPTS or self._monotonic() + pause >= deadline:
                break
            self._clocks.sleep(pause)
            backoff, attempt = 2 * backoff, attempt + 1
        return outcome

    def _try(self) -> _Held | TokenError:
        asked_at, asked_at_wall = self._monotonic(), self._wall()
        try:
            return self._hold(self.source.fetch(), asked_at, asked_at_wall)
        except TokenError as error:
            return error.with_traceback(None)  # the frames hold secrets
        except BaseException as error:  # noqa: BLE001 - whatever it is, those who wait must not wait in vain
            return _caused(TokenError(description=f"the token source failed: {type(error).__name__}"), error)

    def _hold(self, token: AccessToken, asked_at: float, asked_at_wall: float) -> _Held:
        lifetime = DEFAULT_LIFETIME if token.expires_in is None else token.expires_in
        mandatory_window = min(MANDATORY_WINDOW, MANDATORY_SHARE * lifetime)
        advisory_window = min(ADVISORY_WINDOW, ADVISORY_SHARE * lifetime)
        advisory_window *= 1 - ADVISORY_JITTER * self._clocks.rng()
        refresh_age = lifetime - advisory_window
        if token.refresh_in is not None:
            refresh_age = min(refresh_age, token.refresh_in)
        held = _Held(token, asked_at, asked_at_wall, refresh_age, lifetime - mandatory_window, lifetime)
        if 0 < lifetime <= held.age(self._monotonic(), self._wall()):
            raise TokenError(description="the token had expired when it came", retryable=True)
        return held

    def _land(self, flight: _Flight, outcome: _Held | TokenError) -> bool:
        """Record how a flight ended, then tell those who wait; returns whether it must fetch once more."""
        with self._lock:
            if self._flight is not flight:
                return False  # given up before
            if isinstance(outcome, TokenError):
                self._failed += 1
                self._record_failure(outcome)
            else:
                self._fetched += 1
                if flight.overtaken:
                    # The API rejected a token while this one was on its way: it may be as old as the rejected one.
                    flight.overtaken = False
                    return True
                self._record_token(outcome)
            self._flight = None
        flight.result.set_result(outcome if isinstance(outcome, TokenError) else outcome.token)
        return False

    def _record_failure(self, failure: TokenError) -> None:
        monotonic = self._monotonic()
        retry_after = min(failure.retry_after or 0.0, MAX_RETRY_AFTER)
        usable = self._held.age(monotonic, self._wall()) < self._held.unusable_age
        if usable:
            self._no_refresh_until = monotonic + max(BACKGROUND_PAUSE, retry_after)
            _log.warning("The token of %s could not be refreshed and stays in use: %s", self.source, failure)
        if retry_after or not usable:
            self._refused_until = monotonic + (retry_after or self._policy.failure_pause)
            self._failure = failure

    def _record_token(self, arrived: _Held) -> None:
        monotonic, pause = self._monotonic(), BACKGROUND_PAUSE
        if arrived.lifetime <= 0:
            self._no_refresh_until = monotonic + pause
            _log.warning("The token of %s came without a usable lifetime and is used once", self.source)
        elif arrived.token.value == self._held.token.value:
            # Some servers repeat a token until it expires. It is used to its end, and not asked for all the time.
            until = min(arrived.lifetime, arrived.age(monotonic, self._wall()) + pause)
            self._held = replace(arrived, unusable_age=max(arrived.unusable_age, until))
            self._no_refresh_until = monotonic + pause
        else:
            self._held = arrived
            self._no_refresh_until = -math.inf


def _caused(error: TokenError, cause: BaseException) -> TokenError:
    error.__cause__ = cause
    return error


class TokenCache:
    """The tokens of any number of sources, in memory. Equal sources share a token; making a cache opens nothing.

    Args:
        policy: How long to wait for what fails.
        clocks: Time and chance.
    """

    def __init__(self, policy: CachePolicy | None = None, *, clocks: Clocks | None = None) -> None:
        self._policy = policy or CachePolicy()
        self._clocks = clocks or Clocks()
        self._lock = threading.Lock()
        self._tokens: dict[TokenSource, CachedToken] = {}
        _caches[id(self)] = self

    def of(self, source: TokenSource) -> CachedToken:
        """The token of a source, now and later. Of equal sources the latest is asked, since secrets rotate."""
        with self._lock:
            token = self._tokens.get(source)
            if token is None:
                _publish()
                token = self._tokens[source] = CachedToken(source, self._policy, self._clocks)
            token.source = source
            return token

    def statistics(self) -> TokenStatistics:
        """What has happened to the tokens of all sources."""
        return sum((token.statistics for token in self.tokens()), TokenStatistics())

    def tokens(self) -> list[CachedToken]:
        """The tokens of all sources asked for so far, fetched or not."""
        return list(self._tokens.values())

    def start_anew(self) -> None:
        """Repair what a fork leaves in the child: locks that nobody will release, fetches whose thread is gone."""
        self._lock = threading.Lock()
        for token in self.tokens():
            token.start_anew()


_caches: "weakref.WeakValueDictionary[int, TokenCache]" = weakref.WeakValueDictionary()


def _living_caches() -> list[TokenCache]:
    return [cache for reference in _caches.valuerefs() if (cache := reference()) is not None]


def _start_anew() -> None:
    for cache in _living_caches():
        cache.start_anew()


def _statistics_by_source() -> dict[str, TokenStatistics]:
    totals: dict[str, TokenStatistics] = {}
    for cache in _living_caches():
        for token in cache.tokens():
            totals[str(token.source)] = totals.get(str(token.source), TokenStatistics()) + token.statistics
    return totals


@functools.cache
def _publish() -> None:
    """Export the counts of all caches: once a process, from its first source on."""
    publish(_statistics_by_source)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)

shared_cache = TokenCache()
"""The cache of the process, which every `BearerAuth` uses unless it is given another."""
