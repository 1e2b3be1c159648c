"""The clock of durable time and of timer triggers."""

import asyncio
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Protocol

# The longest nap: a laptop that slept, or a clock that was set, is noticed after that long. In seconds.
_LONGEST_NAP = 60.0

_TIME_SPAN = re.compile(r"(?:(\d{1,8})\.)?(\d{1,8}):([0-5]?\d):([0-5]?\d(?:\.\d{1,7})?)", re.ASCII)


class Clock(Protocol):
    """What the engine needs to know of time."""

    def now(self) -> datetime:
        """The current time, in UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """The current time, in UTC."""
        return datetime.now(UTC)


class ManualClock:
    """A clock that stands still until it is moved, for tests."""

    def __init__(self, start: datetime | None = None) -> None:
        self._now = start or datetime.now(UTC)

    def now(self) -> datetime:
        """The time it was last moved to, in UTC."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move forward by `seconds`."""
        self.advance_to(self._now + timedelta(seconds=seconds))

    def advance_to(self, moment: datetime) -> None:
        """Move forward to `moment`; an earlier moment leaves the clock where it is."""
        self._now = max(self._now, moment)


def format_time(moment: datetime) -> str:
    """Write a moment as the durable protocol does: UTC with microseconds, so that texts sort as times."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 moment; one without an offset is UTC. Raises `ValueError` for anything else."""
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def parse_time_span(text: str) -> timedelta:
    """Read a .NET TimeSpan: `hh:mm:ss` or `d.hh:mm:ss`, or `dd:hh:mm` if the first part is no hour of a day.

    Raises `ValueError`.
    """
    if (found := _TIME_SPAN.fullmatch(text)) is None:
        raise ValueError(f"expected hh:mm:ss or d.hh:mm:ss, not {text!r}")
    days, first, second, third = (float(part or 0) for part in found.groups())
    if first < 24:
        return timedelta(days=days, hours=first, minutes=second, seconds=third)
    if days or second > 23 or third % 1:
        raise ValueError(f"expected less than 24 hours, not {text!r}")
    return timedelta(days=first, hours=second, minutes=third)


async def nap(clock: Clock, until: datetime | None, wake: asyncio.Event) -> None:
    """Sleep until about a moment, or until woken; never for longer than a minute."""
    seconds = _LONGEST_NAP if until is None else (until - clock.now()).total_seconds()
    with suppress(TimeoutError):
        async with asyncio.timeout(max(0.001, min(seconds, _LONGEST_NAP))):
            await wake.wait()
