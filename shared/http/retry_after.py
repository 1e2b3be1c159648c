"""How long a server asks to wait before the next request: the header field `Retry-After` (RFC 9110)."""

import re
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_WAIT = 2.0**31
"""Seconds: what a longer wait is taken for, as caches take such numbers (RFC 9111, section 1.2.2)."""

_SECONDS = re.compile(r"[0-9]+(\.[0-9]+)?")


def parse_retry_after(value: str | None, *, now: float) -> float | None:
    """Read a `Retry-After` in seconds or as a date (RFC 9110, section 10.2.3).

    Args:
        value: The field's value; None if there is none. Decimals are not in the RFC, but are sent.
        now: The wall clock, in seconds since the epoch.

    Returns:
        Seconds to wait, from 0 to `LONGEST_WAIT`; None if there is no field, or if it makes no sense.
    """
    text = (value or "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), LONGEST_WAIT)
    try:
        date = parsedate_to_datetime(text)
        # A date without a known zone, "-0000" or asctime's, is in universal time.
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), LONGEST_WAIT)
