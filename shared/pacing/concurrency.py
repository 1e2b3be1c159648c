"""How many calls may be under way at once, learned from how long they take."""

FIRST = 2
"""Calls under way at the start, and after an outage."""

CALLS_A_STEP = 10
"""Calls that are measured before one more is allowed."""

SLOW = 0.5
"""Seconds after which one call for each that may be under way is enough, and the next step is larger."""

QUICK = 0.02
"""Seconds: calls that take less are quick enough, however many are under way."""

_WORTHWHILE = 1.1
_ROOM = 1.2
_BETWEEN_TRIALS = 10.0
_TRIAL_CALLS = 20


class Concurrency:
    """The limit on calls under way, from `FIRST` to `maximum`.

    It grows by one after every `CALLS_A_STEP` calls, as long as twice as many under way get at least a tenth more done;
    else a quarter is taken back. From then on, every ten seconds, a trial with half of the limit tells whether it is
    too high, or could be higher; one that is too small to be halved grows again instead. Only calls that were sent with
    as many under way as allowed are measured.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self.restart()

    def restart(self) -> None:
        """Begin anew; calls that are under way are forgotten, and must not be told of."""
        self.under_way = 0
        self._limit = min(FIRST, self._maximum)
        self._growing = True
        self._half_of: int | None = None  # the limit that a trial is for
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

    @property
    def at_maximum(self) -> bool:
        """Whether as many calls are under way as ever may be."""
        return self.under_way >= self._maximum

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
        if self._growing:
            enough = self._measured >= (self._limit if self._is_slow(now) else CALLS_A_STEP)
        else:
            enough = self._measured >= max(_TRIAL_CALLS, self._limit)
        if enough:
            self._conclude(now)

    def _is_slow(self, now: float) -> bool:
        """Whether calls take so long that measuring ten of them would take too long."""
        return now - self._round_began >= SLOW

    def _conclude(self, now: float) -> None:
        latency = max(self._latencies / self._measured, 1e-9)
        speed = self._limit / latency
        if self._growing:
            self._grow(speed, latency, now)
        elif self._half_of is not None:
            self._end_trial(speed, now)
        elif now >= self._trial_due and latency > QUICK:
            if self._limit >= 2 * FIRST:
                self._speed = speed
                self._half_of, self._limit = self._limit, self._limit // 2
            else:
                self._growing = True
        elif latency <= QUICK and self._limit < self._maximum:
            self._limit += 1
        self._begin(now)

    def _grow(self, speed: float, latency: float, now: float) -> None:
        limit = self._limit
        self._speeds[limit] = speed
        levels = list(self._speeds)  # in the order in which they were reached
        recent = max(self._speeds[level] for level in levels[-2:])
        half = max((self._speeds[level] for level in levels if level <= limit // 2), default=0.0)
        if latency > QUICK and limit >= 2 * FIRST and recent < _WORTHWHILE * half:
            self._limit = max(FIRST, limit * 3 // 4)
            self._growing = False
        elif limit == self._maximum:
            self._growing = False
        else:
            step = limit // 2 if self._is_slow(now) else limit // 20
            self._limit = min(self._maximum, limit + max(1, step))
        if not self._growing:
            self._speeds.clear()
            self._trial_due = now + max(_BETWEEN_TRIALS, 40 * latency)

    def _end_trial(self, speed: float, now: float) -> None:
        limit = self._half_of or self._limit
        self._half_of = None
        gain = self._speed / speed
        if gain < _WORTHWHILE:
            limit = max(FIRST, limit * 3 // 4)
        elif gain > _ROOM:
            limit = min(self._maximum, limit * 5 // 4 + 1)
        self._limit = limit
        self._trial_due = now + max(_BETWEEN_TRIALS, 20 * (now - self._round_began))
