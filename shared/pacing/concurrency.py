"""How many calls may be under way at once, learned from how long they take."""

FIRST = 2
"""Calls under way at the start, and after an outage."""

CALLS_A_STEP = 10
"""Calls that are measured before one more is allowed."""

SLOW = 0.5
"""Seconds after which one call for each that may be under way is enough, and the next step is larger."""

QUICK = 0.02
"""Seconds: calls that take less are quick enough, however many are under way."""

_FEW = 4  # calls under way; fewer are compared with a single one
_WORTHWHILE = 1.1
_ROOM = 1.2
_BETWEEN_TRIALS = 10.0
_TRIAL_CALLS = 20


class Concurrency:
    """The limit on calls under way, from 1 to `maximum`; at first `FIRST`.

    It grows by one after every `CALLS_A_STEP` calls, as long as twice as many under way get at least a tenth more done;
    else a quarter is taken back. From then on, every ten seconds, a trial with half of the limit tells whether it is
    too high, or could be higher; after growth that has ended early, there is one at once. A half that gets a tenth more
    done stays. Where fewer than four are left, a single call is tried, which stays if it gets a tenth more done; else
    they grow again. Only calls that were sent with as many under way as allowed are measured.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.restart()

    def restart(self) -> None:
        """Begin anew; calls that are under way are forgotten, and must not be told of."""
        self.under_way = 0
        self._limit = min(FIRST, self._maximum)
        self._growing = True
        self._trial_of: int | None = None  # the limit that a trial with less is for
        self._speeds: dict[int, float] = {}  # calls per second by the limit, while it grows
        self._trial_due = 0.0
        self._begin(0.0)

    @property
    def limit(self) -> int:
        """Calls that may be under way now."""
        return self._limit

    @property
    def full(self) -> bool:
        """Whether no other call may begin."""
        return self.under_way >= self._limit

    def _begin(self, now: float) -> None:
        """Measure anew."""
        self._round_began, self._latencies, self._measured = now, 0.0, 0

    def began(self) -> bool:
        """A call is sent; returns whether it is one to measure, since as many are under way as allowed."""
        self.under_way += 1
        return self.under_way == self._limit

    def ended(self) -> None:
        """A call has come to its end."""
        self.under_way -= 1

    def measured(self, began: float, now: float) -> None:
        """A call that was one to measure has been answered, and well."""
        if began < self._round_began:
            return
        self._latencies += now - began
        self._measured += 1
        if self._measured >= self._enough(now) or self._is_hopeless:
            self._conclude(now)

    def _enough(self, now: float) -> int:
        """How many calls are measured."""
        if self._growing:
            return self._limit if self._is_slow(now) else CALLS_A_STEP
        return max(self._limit, CALLS_A_STEP if self._is_slow(now) else _TRIAL_CALLS)

    @property
    def _is_hopeless(self) -> bool:
        """Whether a trial with a single call gets so much less done that a few calls tell."""
        on_trial = self._trial_of is not None and self._limit == 1 and self._measured >= _FEW
        return on_trial and self._measured * _ROOM < self._speed * self._latencies

    def _is_slow(self, now: float) -> bool:
        """Whether calls take so long that measuring ten of them would take too long."""
        return now - self._round_began >= SLOW

    def _conclude(self, now: float) -> None:
        latency = max(self._latencies / self._measured, 1e-9)
        speed = self._limit / latency
        if self._growing:
            self._grow(speed, latency, now)
        elif self._trial_of is not None:
            self._end_trial(speed, now)
        elif now >= self._trial_due and (latency > QUICK or self._limit == 1):
            if self._limit >= _FEW:
                self._begin_trial(self._limit // 2, speed)
            else:
                self._growing = True
                self._grow(speed, latency, now)
        elif latency <= QUICK and 1 < self._limit < self._maximum:
            self._limit += 1
        self._begin(now)

    def _grow(self, speed: float, latency: float, now: float) -> None:
        limit = self._limit
        self._speeds[limit] = speed
        half = max((self._speeds[level] for level in self._speeds if level <= limit // 2), default=0.0)
        recent = [self._speeds[level] for level in self._speeds if level > limit // 2][-2:]  # in the order of growth
        least = _WORTHWHILE if limit >= _FEW else 1 / _WORTHWHILE
        if latency > QUICK and max(recent) < least * half:
            self._limit = limit * 3 // 4 if limit >= _FEW else 1
        elif limit < self._maximum:
            step = limit // 2 if self._is_slow(now) else limit // 20
            self._limit = min(self._maximum, limit + max(1, step))
            return
        self._growing = False
        self._speeds.clear()
        early = _FEW <= self._limit < 2 * _FEW
        self._trial_due = now if early else now + max(_BETWEEN_TRIALS, 40 * latency)
        if 1 < self._limit < _FEW:
            self._begin_trial(1, sum(recent) / len(recent))

    def _begin_trial(self, limit: int, speed: float) -> None:
        """Allow less for a moment; `speed` is that of the limit which holds."""
        self._trial_of, self._speed, self._limit = self._limit, speed, limit

    def _end_trial(self, speed: float, now: float) -> None:
        limit, tried, gain = self._trial_of or self._limit, self._limit, self._speed / speed
        self._trial_of = None
        self._trial_due = now + max(_BETWEEN_TRIALS, 20 * (now - self._round_began))
        if gain * _WORTHWHILE < 1:
            limit = tried
        elif tried > 1 and gain < _WORTHWHILE:
            limit = limit * 3 // 4
        elif tried > 1 and gain > _ROOM:
            limit = min(self._maximum, limit * 5 // 4 + 1)
        self._limit = limit
        if tried > 1 and limit < _FEW:
            self._begin_trial(1, speed if limit == tried else self._speed)
