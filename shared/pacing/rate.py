"""How many calls a second an API takes, learned from what it refuses and from what it tells."""

import math
from collections import deque
from collections.abc import Sequence

from shared.http.rate_limits import RateLimit

BUCKET = 1.0
"""Seconds of its rate that an API is thought to have saved up for a client that was idle."""

SLOW_GROWTH = 20.0
"""Seconds after which a rate that was measured twice is tried doubled."""

FAST_GROWTH = 10.0
"""Seconds after which a rate that was measured once is tried doubled."""

FASTEST_GROWTH = 5.0
"""The same for a rate that was measured with few calls."""

_CREDIT = 0.05
"""Seconds of the rate that may be sent at once, since timers fire late."""

_ENOUGH = 6
_MANY = 50
_RECENTLY = 10.0
_SOON = 8.0
_SIMILAR = 0.2
_MARK = 0.25
_MARKS = 240


class Rate:
    """The rate at which calls are sent: evenly, and without a limit until one is learned.

    A refusal says that the API's bucket is empty. What was taken until then was in the bucket or has flowed into it,
    so that the successes tell how fast it flows, unless they were few and far between. From there the rate grows as
    that of CUBIC (RFC 9438) does: slowly near what was measured, then faster.

    Args:
        maximum: Calls per second that are never exceeded.
    """

    def __init__(self, maximum: float) -> None:
        self._maximum = maximum
        self._measured = math.inf
        self._grows_from = 0.0
        self._growth = FAST_GROWTH
        self._told = math.inf
        self._told_until = 0.0
        self._successes = 0
        self._empty: tuple[float, int] | None = None  # when the bucket was empty last, and the successes until then
        self._marks: deque[tuple[float, int]] = deque(maxlen=_MARKS)  # times, and the successes until then
        self._speed, self._taken, self._refused = 0.0, 0, 0  # before the last refusal, and in its moment
        self._credit = 1.0
        self._credit_at = -math.inf

    def per_second(self, now: float) -> float:
        """The rate now, in calls per second."""
        rate = self._maximum
        if self._measured < math.inf:
            grown = max(now - self._grows_from, 0.0) / self._growth
            rate = min(rate, self._measured * (1 + grown**3))
        return min(rate, self._told) if now < self._told_until else rate

    def delay(self, now: float) -> float:
        """Seconds until the next call may be sent."""
        rate = self.per_second(now)
        if rate == math.inf:
            return 0.0
        missing = 1.0 - self._accrued(now, rate)
        return missing / rate if missing > 1e-9 else 0.0

    def sent(self, now: float) -> None:
        """A call is sent."""
        rate = self.per_second(now)
        if rate < math.inf:
            self._credit = max(self._accrued(now, rate) - 1.0, -1.0)
            self._credit_at = now

    def _accrued(self, now: float, rate: float) -> float:
        elapsed = max(now - self._credit_at, 0.0)
        return min(self._credit + elapsed * rate, 1.0 + _CREDIT * rate) if elapsed < math.inf else 1.0

    def succeeded(self, now: float) -> None:
        """A call was taken."""
        if not self._marks or now - self._marks[-1][0] >= _MARK:
            self._marks.append((now, self._successes))
        self._successes += 1

    def refused(self, now: float, resumed_at: float) -> None:
        """Learn from the first refusal of a moment.

        Args:
            now: When it came.
            resumed_at: When calls are sent again.
        """
        measured = self._estimate(now)
        self._speed, self._taken, self._refused = self._recent_speed(now), 0, 1
        calls = self._recently_taken(now)
        telling = calls >= _MANY or (self._empty is not None and now - self._grows_from < _SOON)
        if measured > 0 and (telling or self._measured < measured):
            similar = abs(measured - self._measured) < _SIMILAR * self._measured < math.inf
            self._growth = SLOW_GROWTH if similar else FAST_GROWTH if calls >= _MANY else FASTEST_GROWTH
            self._measured = measured
        self._grows_from = resumed_at
        self._empty = (now, self._successes)
        self._marks.clear()

    def others_of_the_moment(self, *, taken: int = 0, refused: int = 0) -> None:
        """Learn from the answer to a call that was sent after the refused one, before the refusal was known.

        When a bucket is empty, calls are taken as fast as it is filled: the share that is taken of those that are sent
        tells the rate, too. If nearly all are, the refusal was about a single call.
        """
        self._taken += taken
        self._refused += refused
        calls = self._taken + self._refused
        if calls >= _ENOUGH:
            self._measured = max(self._measured, self._speed * self._taken / calls)

    def forget(self) -> None:
        """Send without a limit until one is learned again."""
        self._measured, self._empty = math.inf, None
        self._marks.clear()

    def interrupted(self, now: float) -> None:
        """The API was away until now: nobody knows what its bucket holds, nor whether its limit has grown."""
        self._grows_from = now
        self._empty = None
        self._marks.clear()

    def resumed(self, now: float) -> None:
        """A pause ended sooner than it was meant to."""
        self._grows_from = min(self._grows_from, now)

    def told(self, now: float, quotas: Sequence[RateLimit]) -> None:
        """Learn from what an answer tells of quotas of which something is left."""
        tightest = min(quotas, key=lambda quota: quota.remaining / max(quota.reset, 1.0))
        self._told = tightest.remaining / max(tightest.reset, 1.0)
        self._told_until = now + tightest.reset

    def _recently_taken(self, now: float) -> int:
        """Calls that were taken in the last `_RECENTLY` seconds, since the refusal before at most."""
        return self._successes - next((n for at, n in self._marks if now - at <= _RECENTLY), self._successes)

    def _recent_speed(self, now: float) -> float:
        """Calls per second that were taken in about the last second."""
        for marked_at, successes in reversed(self._marks):
            if now - marked_at >= BUCKET:
                return (self._successes - successes) / (now - marked_at)
        return 0.0

    def _estimate(self, now: float) -> float:
        """The highest of what are lower bounds, all of them: more than this was not taken without having flowed in."""
        since_full = (
            (self._successes - successes) / (now - marked_at + BUCKET) for marked_at, successes in self._marks
        )
        estimate = max(since_full, default=0.0)
        if self._empty is not None and now > self._empty[0]:
            estimate = max(estimate, (self._successes - self._empty[1]) / (now - self._empty[0]))
        return estimate
