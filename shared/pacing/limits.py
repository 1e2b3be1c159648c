"""Decides when the next call may be sent, from how the calls before were answered; knows no event loop and no clock."""

import itertools
import logging
import math
from collections.abc import Sequence

from shared.http.rate_limits import RateLimit

from .concurrency import Concurrency
from .rate import Rate

USUAL_PAUSE = 1.0
"""Seconds of a pause after a refusal that names none."""

ODD_PAUSE = 4.0
"""Seconds of a pause at most, if a call that was sent after the refused one was not refused."""

PAUSE_PROBE = 60.0
"""Seconds after which a longer pause is tried out by one call; doubled every time."""

FAILURES = 5
"""Calls in a row without an answer, or with a 5xx, that make an outage."""

PROBE = 4.0
"""Seconds from one probe to the next in an outage."""

PATIENT_AFTER = 300.0
"""Seconds of an outage after which the time between probes doubles with each."""

STALL = 4.0
"""Seconds after which another call takes the place of the oldest, if as many are under way as were found good."""

EARLY = 8.0
"""Seconds after a pause within which a limit on the rate, once measured, does not refuse again unless it changes."""

_EARLY_REFUSALS = 4
_DEAF = 60.0

_eras = itertools.count()  # of all limits: calls of one that was replaced must not be taken for those of another

type News = tuple[int, str]


class Call:
    """A call that was sent."""

    __slots__ = ("began", "era", "hangs", "measured", "number")

    def __init__(self, number: int, began: float, era: int, measured: bool) -> None:
        self.number = number
        self.began = began
        self.era = era
        self.measured = measured
        self.hangs = False  # taken for one that may never end, so that it does not hold others


class Limits:
    """What is known of an API. It is open, paused until a time, or down; times are those of one monotonic clock.

    open: calls are sent at the rate and with the concurrency that were learned.
    paused: the API said when to come back. None is sent until then, but for one a minute if that is long.
    down: nothing comes back. One call is sent every `PROBE` seconds; any answer but a 5xx opens.

    Of a call that was `sent`, one of `answered`, `failed` and `abandoned` must be told.

    Args:
        max_rate: Calls per second that are never exceeded.
        max_concurrency: Calls under way at once.
        longest_pause: Seconds between two probes at most.

    Attributes:
        news: Log level and text of what has changed; whoever reads them clears them.
    """

    def __init__(self, *, max_rate: float = math.inf, max_concurrency: int, longest_pause: float) -> None:
        self._rate = Rate(max_rate)
        self._concurrency = Concurrency(max_concurrency)
        self._max_concurrency = max_concurrency
        self._calls: dict[int, Call] = {}  # under way, by number, without those from before an outage
        self._longest_pause = longest_pause
        self._sent = 0
        self._last_sent_at = -math.inf
        self._era = next(_eras)
        self._last_admitted = 0  # the highest number of a call that was answered, and not refused
        self._first_of_refusal = 0  # the number of the first call that was refused, the last time
        self._last_of_refusal = 0  # the highest number that had been sent when that was known
        self._refused_call = 0
        self._refused_at = -math.inf
        self._paused_until = -math.inf
        self._pause_probe_at = -math.inf
        self._pause_probe_gap = PAUSE_PROBE
        self._failures = 0
        self._first_failed = 0  # the lowest number among the failures in a row
        self._down_since: float | None = None
        self._probe_at = -math.inf
        self._probe_gap = PROBE
        self._early_refusals = 0
        self._deaf_until = -math.inf
        self.news: list[News] = []

    @property
    def down(self) -> bool:
        """Whether there is an outage."""
        return self._down_since is not None

    @property
    def under_way(self) -> int:
        """Calls that are counted against the concurrency."""
        return self._concurrency.under_way

    @property
    def concurrency(self) -> int:
        """Calls that may be under way."""
        return self._concurrency.limit

    def rate(self, now: float) -> float:
        """Calls per second."""
        return self._rate.per_second(now)

    def closed_for(self, now: float) -> float:
        """Seconds until a call may be sent at the earliest, whatever becomes of others: 0 unless paused or down."""
        opens = min(self._paused_until, self._pause_probe_at)
        if self._down_since is not None:
            opens = max(opens, self._probe_at)
        return max(opens - now, 0.0)

    def certainly_closed_for(self, now: float) -> float:
        """The same, but a pause that a call under way may yet cut short counts only as far as it would leave it."""
        closed = self.closed_for(now)
        in_doubt = self._down_since is None and self._sent > self._refused_call and self._concurrency.under_way
        return min(closed, max(self._refused_at + ODD_PAUSE - now, 0.0)) if in_doubt else closed

    def delay(self, now: float) -> float:
        """Seconds until the next call may be sent; infinite if one that is under way has to end first.

        A few calls that hang must not hold all others.
        """
        closed = self.closed_for(now)
        if closed > 0 or self._down_since is not None or now < self._paused_until:
            return closed
        if len(self._calls) >= self._max_concurrency:
            return math.inf
        if not self._concurrency.full:
            return self._rate.delay(now)
        return max(self._last_sent_at + STALL - now, self._rate.delay(now))

    def reason(self, now: float) -> str:
        """Why a call has to wait."""
        if self._down_since is not None:
            return f"the API has been down for {now - self._down_since:.0f} s"
        if now < self._paused_until:
            return f"the API wants no calls for {self._paused_until - now:.0f} s"
        return "more calls are waiting than the API takes in time"

    def sent(self, now: float) -> Call:
        """A call is sent, whether it was to wait or not."""
        if self._down_since is not None and now >= self._probe_at:
            if now - self._down_since >= PATIENT_AFTER:
                self._probe_gap = min(2 * self._probe_gap, max(self._longest_pause, PROBE))
            self._probe_at = now + self._probe_gap
        if self._pause_probe_at <= now < self._paused_until:
            self._pause_probe_gap *= 2
            self._pause_probe_at = now + self._pause_probe_gap
        self._rate.sent(now)
        if not self._concurrency.full:
            self._last_sent_at = now
        elif now >= self._last_sent_at + STALL:
            self._last_sent_at = now
            self._let_oldest_hang()
        self._sent += 1
        call = self._calls[self._sent] = Call(self._sent, now, self._era, self._concurrency.began())
        return call

    def _let_oldest_hang(self) -> None:
        """Another call takes the place of the oldest one."""
        for call in self._calls.values():
            if not call.hangs:
                call.hangs = True
                self._concurrency.ended()
                return

    def abandoned(self, call: Call) -> None:
        """Nobody waits for the answer any more: that teaches nothing."""
        self._end(call)

    def failed(self, call: Call, now: float, retry_after: float | None = None) -> None:
        """There was no answer, or no token.

        Args:
            call: Which one.
            now: When that was known.
            retry_after: Seconds that somebody asked to wait for.
        """
        self._end(call)
        self._fail(call, now)
        if retry_after:
            self._pause(call, now, retry_after)

    def answered(
        self,
        call: Call,
        now: float,
        status: int,
        retry_after: float | None = None,
        quotas: Sequence[RateLimit] = (),
    ) -> None:
        """There was an answer.

        Args:
            call: To which one.
            now: When it came.
            status: Its status.
            retry_after: Seconds that it asks to wait for.
            quotas: What it tells of them.
        """
        self._end(call)
        if status >= 500:
            self._fail(call, now)
        elif call.number > self._first_failed:  # what was sent before may be the last of the good times
            self._failures = 0
            if self._down_since is not None:
                self._open(now)
        if quotas and call.number >= self._last_admitted:
            self._learn_quotas(call, now, quotas)
        if status == 429 or (status == 503 and retry_after):
            self._refuse(call, now, retry_after)
        elif status < 500:
            self._admit(call, now)
            if status < 300:
                self._take(call, now)

    def _end(self, call: Call) -> None:
        if call.era == self._era:
            del self._calls[call.number]
            if not call.hangs:
                self._concurrency.ended()

    def _admit(self, call: Call, now: float) -> None:
        """It was not refused, so that the refusal of one that was sent before does not hold for all."""
        self._last_admitted = max(self._last_admitted, call.number)
        if now < self._paused_until and call.number > self._refused_call:
            self._paused_until = min(self._paused_until, self._refused_at + ODD_PAUSE)
            self._rate.resumed(max(now, self._paused_until))

    def _take(self, call: Call, now: float) -> None:
        self._rate.succeeded(now)
        if self._first_of_refusal < call.number <= self._last_of_refusal:
            self._rate.others_of_the_moment(taken=1)
        if call.measured and call.era == self._era:
            self._concurrency.measured(call.began, now)

    def _refuse(self, call: Call, now: float, retry_after: float | None) -> None:
        is_new = call.number > self._last_of_refusal
        early = now - self._paused_until < EARLY
        self._pause(call, now, USUAL_PAUSE if retry_after is None else retry_after)
        if not is_new:  # it was sent before the refusal of others was known
            if call.number > self._first_of_refusal:
                self._rate.others_of_the_moment(refused=1)
            return
        self._first_of_refusal, self._last_of_refusal = call.number, self._sent
        self._early_refusals = self._early_refusals + 1 if early else 0
        if now < self._deaf_until:
            return
        if self._early_refusals >= _EARLY_REFUSALS:
            # Slower did not help again and again: this is not about the rate.
            self._rate.forget()
            self._deaf_until = now + _DEAF
            self._early_refusals = 0
        else:
            self._rate.refused(now, max(now, self._paused_until))

    def _pause(self, call: Call, now: float, seconds: float) -> None:
        if self._last_admitted > call.number:
            seconds = min(seconds, ODD_PAUSE)
        if now >= self._paused_until:
            self._pause_probe_gap = PAUSE_PROBE
            self._pause_probe_at = now + PAUSE_PROBE
            level = logging.INFO if seconds <= PAUSE_PROBE else logging.WARNING
            self.news.append((level, f"the API wants no calls for {seconds:.0f} s"))
        if now + seconds > self._paused_until:
            self._paused_until = now + seconds
            self._refused_call, self._refused_at = call.number, now

    def _learn_quotas(self, call: Call, now: float, quotas: Sequence[RateLimit]) -> None:
        used_up = max((quota.reset for quota in quotas if quota.remaining == 0), default=0.0)
        if used_up:
            self._pause(call, now, used_up)
        left = [quota for quota in quotas if quota.remaining]
        if left:
            self._rate.told(now, left)

    def _fail(self, call: Call, now: float) -> None:
        if call.era != self._era or self._down_since is not None:
            return
        self._first_failed = min(self._first_failed, call.number) if self._failures else call.number
        self._failures += 1
        if self._failures >= FAILURES:
            self._down_since = now
            self._probe_gap = PROBE
            self._probe_at = now + PROBE
            self.news.append((logging.WARNING, f"the API is down: {self._failures} calls in a row have failed"))

    def _open(self, now: float) -> None:
        down_for = now - (self._down_since or now)
        self._down_since = None
        self._era = next(_eras)
        self._calls.clear()
        self._concurrency.restart()
        self._rate.interrupted(now)
        self.news.append((logging.WARNING, f"the API answers again after {down_for:.0f} s"))
