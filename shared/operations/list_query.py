"""Reads which operations a caller wants listed, and writes where the next page is."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple, Self, get_args
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, PlainSerializer, TypeAdapter, ValidationError

from .durable_http import BEGINNING
from .model import Operation, State
from .problems import bad_parameter
from .requests import read_flag, read_parameter

DEFAULT_LIMIT = 50
MAX_LIMIT = 200
"""How many operations a page has unless the caller says so, and at most."""

LONGEST_REASON = 200
"""Characters of the reason that is looked for, at most."""

RECENT = timedelta(days=1)
"""How long before its end the span begins that is listed, unless the caller says so."""

_ALL_STATES = get_args(State.__value__)
_STATES: TypeAdapter[frozenset[State]] = TypeAdapter(frozenset[State])
_CURSOR = re.compile(r"[A-Za-z0-9_-]{1,300}")
_LEAP_SECOND = re.compile(r"(?<=:\d\d):60(?=\D)")
_LATEST = datetime(9999, 1, 1, tzinfo=UTC)


class Place(NamedTuple):
    """A place in the list: that of an operation, or, without an id, behind all that was created at that time or later.

    Of two places, the greater one comes first in the list.
    """

    created_at: datetime
    id: str = ""


def place_of(operation: Operation) -> Place:
    """Where an operation stands in the list."""
    return Place(operation.created_at or BEGINNING, operation.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuery:
    """Which operations are to be listed. All times are UTC.

    Attributes:
        since: Only those that were created at this time or later.
        until: Only those that were created before; None for no end.
        states: Only those in one of these; None for all.
        warning: Only those of which the API took a record with an answer that could not be read.
        may_be_stored: Only those with records that were not posted, and that the API may have all the same.
        reason: Only those in whose reason this stands, in upper or lower case (`Operation.reason`).
        limit: How many a page has at most.
        after: Only those that stand behind this place in the list; None for the first page.
    """

    since: datetime
    until: datetime | None = None
    states: Annotated[frozenset[State], PlainSerializer(sorted)] | None = None  # in the same order in each process
    warning: bool = False
    may_be_stored: bool = False
    reason: str = ""
    limit: int = DEFAULT_LIMIT
    after: Place | None = None

    @classmethod
    def read(cls, parameters: Mapping[str, str], now: datetime) -> Self:
        """Read the parameters of a request.

        Raises:
            RequestError: 400, one of them is not as expected.
        """
        until = _read_time(parameters, "until")
        since = _read_time(parameters, "since")
        if since is None:
            since = max(until or now, BEGINNING + RECENT).replace(microsecond=0) - RECENT
        elif until is not None and since >= until:
            raise bad_parameter("until", "a time after since")
        return cls(
            since=max(since, BEGINNING),
            until=until,
            states=_read_states(parameters),
            warning=read_flag(parameters, "warning"),
            may_be_stored=read_flag(parameters, "may_be_stored"),
            reason=_read_reason(parameters),
            limit=_read_limit(parameters),
            after=_read_cursor(parameters),
        )

    @property
    def end(self) -> datetime | None:
        """The time before which what is still to be listed was created; None for no end."""
        if self.after is None:
            return self.until
        end = self.after.created_at + timedelta(seconds=1 if self.after.id else 0)
        return end if self.until is None else min(end, self.until)

    def includes(self, operation: Operation) -> bool:
        """Whether an operation that was created in the span is among those to be listed."""
        return (
            (self.states is None or operation.state in self.states)
            and (operation.warned or not self.warning)
            and (operation.may_be_stored or not self.may_be_stored)
            and self.reason.casefold() in operation.reason.casefold()
            and (self.after is None or place_of(operation) < self.after)
        )

    def link(self, path: str, place: Place) -> str:
        """The path and query of the next page: the same, but behind a place, and without a key for the app."""
        following = urlencode({"limit": self.limit, "cursor": _write_cursor(place)})
        return f"{path}?{self.filter}&{following}"

    @property
    def filter(self) -> str:
        """Which operations, as a query says it; the page that is asked for is not part of it."""
        values = {
            "since": _written(self.since),
            "until": self.until and _written(self.until),
            "state": self.states and ",".join(sorted(self.states)),
            "warning": "true" if self.warning else None,
            "may_be_stored": "true" if self.may_be_stored else None,
            "reason": self.reason or None,
        }
        return urlencode({k: v for k, v in values.items() if v is not None}, safe=":,", quote_via=quote)


class _Cursor(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    at: datetime
    id: str


def _write_cursor(place: Place) -> str:
    cursor = _Cursor(at=place.created_at, id=place.id).model_dump_json()
    return base64.urlsafe_b64encode(cursor.encode()).decode().rstrip("=")


def _read_cursor(parameters: Mapping[str, str]) -> Place | None:
    if (text := read_parameter(parameters, "cursor")) is None:
        return None
    refusal = bad_parameter("cursor", "the value that the link to the next page has")
    if not _CURSOR.fullmatch(text):
        raise refusal
    try:
        cursor = _Cursor.model_validate_json(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        at = cursor.at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise refusal from None
    if cursor.at.tzinfo is None or at.microsecond or not BEGINNING <= at < _LATEST:
        raise refusal
    return Place(at, cursor.id)


def _read_time(parameters: Mapping[str, str], name: str) -> datetime | None:
    """Read a time as RFC 3339 has it, with `t` and `z` in either case and leap seconds; without a zone, it is UTC."""
    if (text := read_parameter(parameters, name)) is None:
        return None
    text, leap_seconds = _LEAP_SECOND.subn(":59", text.upper())
    try:
        moment = datetime.fromisoformat(text) + timedelta(seconds=leap_seconds)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise bad_parameter(name, "a date and time such as 2026-01-31T12:00:00Z") from None


def _read_states(parameters: Mapping[str, str]) -> frozenset[State] | None:
    """States, separated by commas: so the Functions host joins what is repeated, and drops what is empty."""
    states = frozenset(filter(None, (read_parameter(parameters, "state") or "").split(",")))
    try:
        return _STATES.validate_python(states) if states else None
    except ValidationError:
        raise bad_parameter("state", f"some of {', '.join(_ALL_STATES)}, separated by commas") from None


def _read_reason(parameters: Mapping[str, str]) -> str:
    text = read_parameter(parameters, "reason") or ""
    if len(text) > LONGEST_REASON:
        raise bad_parameter("reason", f"at most {LONGEST_REASON} characters")
    return text


def _read_limit(parameters: Mapping[str, str]) -> int:
    text = read_parameter(parameters, "limit") or str(DEFAULT_LIMIT)
    if not (text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= MAX_LIMIT):
        raise bad_parameter("limit", f"a whole number from 1 to {MAX_LIMIT}")
    return int(text)


def _written(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
