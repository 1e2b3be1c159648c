"""Forgets operations that ended long ago, with the records in them."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

from shared.settings import LONGEST_DEADLINE

TIME_BUDGET = 120.0
"""Seconds after which no further span of time is begun; what is left is for the next run."""

REQUEST_LIMIT = 100.0
"""Seconds after which the engine is left alone with a purge, which it goes on with."""

_FIRST_SPAN = timedelta(hours=6)
_GROWTH = 1.5
_FEW, _MANY = 250, 1_000  # instances
_NOTHING_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)  # the SDK writes earlier years in a way that the host cannot read


def cutoff(now: datetime, retention_days: int) -> datetime:
    """The time before which an operation must have begun to be forgotten now.

    The engine finds instances by the time of their creation only. An operation may last for the longest deadline, and
    is to be kept for the retention after its end, so that the two add up.
    """
    return now - timedelta(days=retention_days, seconds=LONGEST_DEADLINE)


async def purge_before(
    end: datetime, purge: Callable[[datetime, datetime], Awaitable[int]], clock: Callable[[], float]
) -> tuple[int, datetime]:
    """Purge span after span, backwards from a time, until nothing is left or the time budget is used up.

    Every request makes the engine read through all instances, so that there should be few: spans grow as long as there
    is little in them. One in which there is much is followed by shorter ones. So a night without a backlog takes about
    thirty requests, and a large backlog is worked off over several nights.

    Args:
        end: Purge what was created before this time (UTC).
        purge: Purges what was created in a span and has ended; returns how many instances that were. `TimeoutError`
            says that it takes too long, and ends the run.
        clock: Seconds on a clock that never goes back.

    Returns:
        How many instances were purged, and the time from which on none is left.
    """
    started, span, purged = clock(), _FIRST_SPAN, 0
    while end > _NOTHING_BEFORE and clock() - started < TIME_BUDGET:
        begin = end - span if end - _NOTHING_BEFORE > span else _NOTHING_BEFORE
        try:
            found = await purge(begin, end)
        except TimeoutError:
            break
        span = span / 2 if found > _MANY else span * _GROWTH if found < _FEW else span
        purged, end = purged + found, begin
    return purged, end
