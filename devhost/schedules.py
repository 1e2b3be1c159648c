"""Reads the schedules of timer triggers, NCRONTAB or a .NET TimeSpan, and says when they come next. Times are UTC."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cronsim import CronSim

from devhost.clock import parse_time_span

# The least and the greatest moment, which .NET writes for "not yet" and "never".
NOT_YET = datetime.min.replace(tzinfo=UTC)
NEVER = datetime.max.replace(tzinfo=UTC)

_MINUTE = timedelta(minutes=1)

_MONTHS = "JANUARY FEBRUARY MARCH APRIL MAY JUNE JULY AUGUST SEPTEMBER OCTOBER NOVEMBER DECEMBER"
_DAYS = "SUNDAY MONDAY TUESDAY WEDNESDAY THURSDAY FRIDAY SATURDAY"

_ELEMENT = re.compile(
    r"(?:\*|(?P<first>[0-9A-Z]{1,9})(?:-(?P<last>[0-9A-Z]{1,9}))?)(?:/(?P<step>[0-9]{1,9}))?", re.IGNORECASE | re.ASCII
)
_SETTING = re.compile("%([^%]*)%")


class ScheduleError(Exception):
    """A schedule can't be read; the message says what was expected, in one line."""


@dataclass(frozen=True, slots=True)
class CronSchedule:
    """An NCRONTAB schedule; `fields` are its seconds, minutes, hours, days, months and days of the week from Sunday."""

    text: str
    fields: Sequence[Sequence[int]]

    @property
    def is_frequent(self) -> bool:
        """Whether it comes more often than once a minute all the time."""
        seconds, *others = self.fields
        everything = all(len(values) == len(field.values) for values, field in zip(others, _FIELDS[1:], strict=True))
        return everything and len(seconds) > 1

    def next_after(self, moment: datetime) -> datetime:
        """The first occurrence after a moment, `NEVER` if there is none within fifty years: 31 February."""
        occurrences = CronSim(" ".join(",".join(map(str, values)) for values in self.fields), moment)
        # NCRONTAB wants both the day of the month and the day of the week; Debian's cron is content with one of them.
        occurrences.day_and = True
        return next(occurrences, NEVER)


@dataclass(frozen=True, slots=True)
class IntervalSchedule:
    """A schedule that comes again and again after the same time."""

    text: str
    length: timedelta

    @property
    def is_frequent(self) -> bool:
        """Whether it comes more often than once a minute."""
        return self.length < _MINUTE

    def next_after(self, moment: datetime) -> datetime:
        """The moment and the interval."""
        return moment + self.length if self.length < NEVER - moment else NEVER


type Schedule = CronSchedule | IntervalSchedule


@dataclass(frozen=True, slots=True)
class _Field:
    """A field of an NCRONTAB schedule: its name, the values that it may have, and their names, if they have any."""

    name: str
    values: range
    names: str = ""

    def parse(self, text: str) -> list[int]:
        """The values that a field's text stands for. Raises `ScheduleError`."""
        chosen: set[int] = set()
        for element in text.split(","):
            found = _ELEMENT.fullmatch(element)
            if found is None or (found["step"] and int(found["step"]) == 0):
                raise ScheduleError(f"its {self.name} must be *, a value, a range or a list, with or without a step")
            first, last = self.values[0], self.values[-1]
            if found["first"] is not None:
                first = last = self._value(found["first"])
                if found["last"] is not None:
                    last = self._value(found["last"])
                elif found["step"] is not None:
                    last = self.values[-1]
            # NCRONTAB reads a range whose ends are the wrong way round as if they were the right way round.
            first, last = sorted((first, last))
            chosen.update(range(first, last + 1, int(found["step"] or 1)))
        return sorted(chosen)

    def _value(self, text: str) -> int:
        """A number, or a name, of which the beginning is enough."""
        if text.isdecimal() and (number := int(text)) in self.values:
            return number
        names = self.names.split()
        for position, name in enumerate(names):
            if name.startswith(text.upper()):
                return self.values[position]
        hint = f", or a name such as {names[1][:3]}" if names else ""
        raise ScheduleError(f"its {self.name} must be {self.values[0]} to {self.values[-1]}{hint}, not {text}")


_FIELDS = (
    _Field("second", range(60)),
    _Field("minute", range(60)),
    _Field("hour", range(24)),
    _Field("day", range(1, 32)),
    _Field("month", range(1, 13), _MONTHS),
    _Field("day of the week", range(7), _DAYS),
)


def read_schedule(text: str) -> Schedule:
    """Read a schedule as Azure does: settings first (`%NAME%`), then NCRONTAB, then a TimeSpan.

    NCRONTAB has six fields, seconds first, or five without them. Raises `ScheduleError`.
    """
    resolved = _SETTING.sub(_setting, text)
    parts = [part for part in resolved.split(" ") if part]
    if len(parts) in (5, 6):
        fields = [field.parse(part) for field, part in zip(_FIELDS[6 - len(parts) :], parts, strict=True)]
        return CronSchedule(resolved, fields if len(parts) == 6 else [[0], *fields])
    try:
        length = parse_time_span(resolved)
    except ValueError as error:
        raise ScheduleError(
            "expected NCRONTAB with six fields (second minute hour day month day-of-week), such as 0 30 3 * * *, "
            "or a TimeSpan, such as 00:05:00"
        ) from error
    if not length:
        raise ScheduleError("a TimeSpan must be longer than zero")
    return IntervalSchedule(resolved, length)


def _setting(found: re.Match[str]) -> str:
    if (value := os.environ.get(found[1])) is None:
        raise ScheduleError(f"the setting {found[1]} that it names is not set")
    return value
