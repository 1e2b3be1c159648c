"""Reads the answers of token endpoints (RFC 6749, sections 5.1 and 5.2), including those that bend the rules."""

import json
import math
import re
from collections.abc import Mapping

from shared.http.masking import Secrets
from shared.http.retry_after import parse_retry_after

from .errors import TokenError, readable
from .token import AccessToken

MAX_RETRY_AFTER = 3600.0
"""Seconds: a longer `Retry-After` is taken as this one."""

_TRANSIENT_STATUSES = frozenset({408, 429})
_TRANSIENT_ERRORS = frozenset({"server_error", "temporarily_unavailable"})
_MAX_SECONDS = 2**31 - 1
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_ERROR_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,100}")
_TOKEN_VALUE = re.compile(r"[\x21-\x7e]+")


def parse_token_response(
    status: int, headers: Mapping[str, str], body: bytes, *, now: float, secrets: Secrets | None = None
) -> AccessToken:
    """Read the answer of a token endpoint.

    Args:
        status: The HTTP status.
        headers: With names that compare without case.
        body: The whole body, decoded of any content coding.
        now: The wall clock in seconds since the epoch, for a `Retry-After` that is a date.
        secrets: What the request carried, and errors do not show if the answer repeats it.

    Raises:
        TokenError: The answer is an error, or is no token response. No text of a body that is not JSON is shown.
    """
    document = _json_object(body)
    error = document.get("error") if document else None
    if error is not None or not 200 <= status < 300:
        raise _refusal(status, document or {}, retry_after_of(headers, now=now), secrets or Secrets())
    if document is None:
        raise TokenError(status, description="the token endpoint's answer is not a JSON object")
    value = document.get("access_token")
    if not isinstance(value, str) or not _TOKEN_VALUE.fullmatch(value):
        raise TokenError(status, description="the token endpoint's answer has no usable access_token")
    token_type = document.get("token_type")
    if token_type is not None and (not isinstance(token_type, str) or token_type.strip().lower() != "bearer"):
        raise TokenError(status, description="the token endpoint's answer has a token_type other than Bearer")
    refresh_in = parse_lifetime(document.get("refresh_in"))
    return AccessToken(value, parse_lifetime(document.get("expires_in")), refresh_in or None)


def parse_lifetime(value: object) -> float | None:
    """Read `expires_in`: whole seconds from a number or numeric text, at most those of a 32-bit integer.

    Returns:
        None if the server did not say, zero if what it said is no lifetime: such a token is good for one use.
    """
    if value is None:
        return None
    if isinstance(value, str) and _NUMBER.fullmatch(text := value.strip()):
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    if isinstance(value, float) and not math.isfinite(value):
        return 0.0
    return float(int(min(max(value, 0), _MAX_SECONDS)))


def retry_after_of(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that an answer asks to wait for, at most `MAX_RETRY_AFTER`; None if it does not ask."""
    seconds = parse_retry_after(headers.get("Retry-After"), now=now)
    return None if seconds is None else min(seconds, MAX_RETRY_AFTER)


def is_transient(status: int, error: str | None) -> bool:
    """Whether an error answer may be followed by a better one.

    Args:
        status: The HTTP status.
        error: The error code of RFC 6749; None if there was none. Then the answer to a refused request does not come
            from the authorization server but from something before it, such as a firewall, and may pass.
    """
    return (
        error in _TRANSIENT_ERRORS
        or status in _TRANSIENT_STATUSES
        or status >= 500
        or (400 <= status < 500 and error is None)
    )


def _json_object(body: bytes) -> dict[str, object] | None:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _refusal(status: int, document: Mapping[str, object], retry_after: float | None, secrets: Secrets) -> TokenError:
    token = document.get("access_token")
    if isinstance(token, str):  # a refusal with a token is none that one should see
        secrets.add(token.encode("utf-8", "backslashreplace"))
    code = document.get("error")
    error = secrets.masked_text(code) if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else None
    description = document.get("error_description")
    return TokenError(
        status,
        error,
        readable(secrets.masked_text(description))
        if isinstance(description, str)
        else "the token endpoint refused the request",
        is_transient(status, error),
        retry_after,
    )
