"""Lists operations, the latest first, though the engine lists instances by their ids: in windows of creation time.

A window is read as a whole, then the one before it, until a page is full. One with too much in it is narrowed. How far,
its first instances tell: ids are random, so these are a sample of all, also of their times. How long the next window
is to be, the one just read tells.

All places between windows are whole seconds, since the engine tells no more of the time of a creation. What was created
in the same second is ordered by the ids.
"""

from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from math import ceil
from operator import attrgetter
from typing import Any, Protocol

from .durable_http import BEGINNING, LARGEST_PAGE, RuntimeStatus
from .list_query import ListQuery, Place, place_of
from .model import Operation, State
from .status import OrchestrationStatus, describe, is_operation

REQUEST_LIMIT = 8
"""How often the task hub is asked before a page is answered as it is, full or not."""

_FEWEST = 100  # instances: as many are as soon read as one
_AIM = 0.7  # of the instances that a request may bring: a window should rather hold too few than too many
_FEW = 0.25  # of the instances of a window: where fewer are listed,
_GROWTH = 4  # the next one may have so many times as many
_MARGIN = 1.25  # times what is expected
_SECOND = timedelta(seconds=1)

_PENDING, _SUSPENDED, _FAILED = RuntimeStatus.Pending, RuntimeStatus.Suspended, RuntimeStatus.Failed
_UNDER_WAY = (RuntimeStatus.Running, RuntimeStatus.ContinuedAsNew)
_REPORTED = (*_UNDER_WAY, RuntimeStatus.Completed)  # an orchestrator reports the end a moment before it ends

RUNTIME_STATUSES: dict[State, tuple[RuntimeStatus, ...]] = {
    "pending": (_PENDING,),
    "running": _UNDER_WAY,
    "deferred": _UNDER_WAY,
    "suspended": (_SUSPENDED,),
    "posted": _REPORTED,
    "rejected": _REPORTED,
    "gave_up": _REPORTED,
    "completed": _REPORTED,
    "cancelled": (*_REPORTED, RuntimeStatus.Terminated, RuntimeStatus.Canceled),
    "failed": (_FAILED,),
}
"""What the engine calls the instances of the operations in a state."""


class Instances(Protocol):
    """The part of `DurableHttpClient` that lists."""

    def pages(
        self,
        first: int,
        created_time_from: datetime,
        created_time_to: datetime | None,
        runtime_status: Sequence[Any] | None,
    ) -> AsyncGenerator[Sequence[OrchestrationStatus]]:
        """Find instances by id that were created within a time, both ends included: so many first, then the others."""


async def list_operations(
    instances: Instances, query: ListQuery, wanted: Callable[[OrchestrationStatus], bool] = is_operation
) -> tuple[list[Operation], Place | None]:
    """List a page of operations.

    What begins meanwhile stands before all that was there, if it is listed at all: who goes from place to place sees
    nothing twice, and everything that was there at the start, unless it has begun again since then.

    Args:
        instances: Of the task hub.
        query: Which operations.
        wanted: Which instances are listed at all.

    Returns:
        At most `query.limit` operations, and the place to go on from; None if there are no more. While there is such a
        place, a page may be short or empty all the same: looking further would take too long.

    Raises:
        TaskHubError: The task hub cannot be read.
    """
    statuses = None if query.states is None else _runtime_statuses(query.states)
    begin, end = query.since, query.end
    at_most, requests = max(_FEWEST, 2 * query.limit), 0
    found: list[Operation] = []
    while end is None or begin < end:
        if requests >= REQUEST_LIMIT and end is not None and end != query.end:
            return found, Place(end)
        read: list[OrchestrationStatus] = []
        narrowed, judged = None, False
        async with aclosing(instances.pages(at_most, begin, end, statuses)) as pages:
            async for page in pages:
                requests += 1
                read += page
                if len(read) >= at_most and not judged:
                    narrowed, judged = _narrowed(read, begin, end, _AIM * at_most), True
                if narrowed is not None:
                    break
        if narrowed is not None:
            begin, expected = narrowed
            at_most = _room_for(expected, at_most)
            continue
        listed = [describe(status) for status in read if wanted(status)]
        # The engine counts what was created at the end of a window as within, and so in two windows.
        matching = [one for one in listed if query.includes(one) and (end is None or place_of(one) < Place(end))]
        found += sorted(matching, key=place_of, reverse=True)
        if len(found) > query.limit:
            return found[: query.limit], place_of(found[query.limit - 1])
        reach = begin - query.since
        if read:  # else all that is left is the next window
            if len(matching) < _FEW * len(read):
                at_most = min(_GROWTH * at_most, LARGEST_PAGE)
            factor = _AIM * at_most / len(read)
            if matching:
                factor = min(factor, _MARGIN * (query.limit + 1 - len(found)) / len(matching))
            length = max((end or _latest(read) + _SECOND) - begin, _SECOND)
            reach = min(reach, timedelta(seconds=ceil(length.total_seconds() * factor)))
            at_most = _room_for(len(read) * (reach / length), at_most)
        begin, end = begin - reach, begin
    return found, None


def _runtime_statuses(states: Iterable[State]) -> list[RuntimeStatus]:
    return sorted({status for state in states for status in RUNTIME_STATUSES[state]}, key=attrgetter("name"))


def _narrowed(
    read: Sequence[OrchestrationStatus], begin: datetime, end: datetime | None, aim: float
) -> tuple[datetime, float] | None:
    """Make a window narrower whose first instances were read, so that it holds about what is aimed at.

    Returns:
        The beginning, a whole second, and how many instances there should be in the window; None if it is not to be
        made narrower, as nearly all in it are of the second in which it begins.
    """
    times = [one.created_time.replace(microsecond=0) for one in read if one.created_time]
    times = sorted(time for time in times if end is None or time < end) or [begin]
    share = _share_up_to(read[-1].instance_id or "")
    narrowed = times[-max(1, min(round(aim * share), len(times)))]
    return (narrowed, sum(time >= narrowed for time in times) / share) if narrowed > begin else None


def _latest(read: Sequence[OrchestrationStatus]) -> datetime:
    return max(status.created_time or BEGINNING for status in read)


def _room_for(expected: float, at_most: int) -> int:
    """How many instances to ask for where so many are expected."""
    return min(max(at_most, ceil(_MARGIN * expected)), LARGEST_PAGE)


def _share_up_to(instance_id: str) -> float:
    """The share of all ids that are not above this one, as those of operations are random hexadecimal digits."""
    try:
        return max(int(instance_id[:8], 16) / 16**8, 0.001)
    except ValueError:
        return 1.0
