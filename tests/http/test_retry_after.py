"""A `Retry-After` is understood, or ignored: no value that a server can send is an error."""

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.retry_after import LONGEST_WAIT, parse_retry_after

MIDNIGHT = datetime(2026, 1, 1, tzinfo=UTC)
NOW = MIDNIGHT.timestamp()

# A date in the form of RFC 9110, whose numbers may be anything in any position.
NUMBERS = st.integers(-(10**25), 10**25) | st.sampled_from([0, 1, 60, 61, 10**9, 10**10, 2**31, 2**63])
ODD_DATES = st.builds(
    "Mon, {} Jan {} {}:{}:{} {}".format,
    *[NUMBERS] * 5,
    st.sampled_from(["GMT", "", "-0000"]) | NUMBERS.map("{:+}".format),
)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-1", None),
        ("abc", None),
        ("", None),
        ("\u0661", None),
        ("9" * 400, LONGEST_WAIT),
        ("Thu, 01 Jan 2026 00:02:00 GMT", 120.0),
        ("Thu, 01 Jan 2026 00:02:00 -0000", 120.0),
        ("Thursday, 01-Jan-26 00:02:00 GMT", 120.0),
        ("Wed, 31 Dec 2025 23:59:00 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", LONGEST_WAIT),
        ("Thu, 99 Jan 2026 00:02:00 GMT", None),
        ("Mon, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Thu, 01 Jan 2026 00:02:00 +99999999999999999999", None),
    ],
)
def test_seconds_or_a_date_are_read_and_anything_else_is_ignored(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, now=NOW) == seconds


def test_a_date_without_a_time_zone_is_in_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Asia/Tokyo")
        time.tzset()
        assert parse_retry_after("Thu, 01 Jan 2026 00:02:00 -0000", now=NOW) == 120.0
    time.tzset()


@given(st.integers(0, 10**7))
def test_a_date_is_the_delay_until_then(seconds: int) -> None:
    assert parse_retry_after(format_datetime(MIDNIGHT + timedelta(seconds=seconds), usegmt=True), now=NOW) == seconds


@given(st.text() | ODD_DATES | st.from_regex(r"[0-9]+(\.[0-9]+)?", fullmatch=True))
def test_whatever_is_sent_the_wait_is_unknown_or_within_its_bounds(value: str) -> None:
    seconds = parse_retry_after(value, now=NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_WAIT
