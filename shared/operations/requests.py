"""Reads what callers send; whatever is wrong with it is refused in one answer that says where and what."""

import hashlib
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, from_json

from shared.business import NewBusiness
from shared.delivery.batches import MAX_RECORDS
from shared.http.media_types import media_type

from .model import State
from .problems import RequestError

MAX_BODY_BYTES = 256 * 1024
MAX_BATCH_BYTES = 10 * 1000 * 1000
MAX_IDEMPOTENCY_KEY_LENGTH = 255
MAX_WAIT_SECONDS = 60.0

_JSON = re.compile(r"application/(?:[\w.+-]+\+)?json")
_NDJSON = re.compile(r"application/(?:x-ndjson|ndjson|jsonl|x-jsonlines)")
_RECENT = timedelta(days=1)
_NOTHING_BEFORE = datetime(2000, 1, 1, tzinfo=UTC)  # the SDK writes earlier years in a way that the host cannot read


@dataclass(frozen=True, slots=True)
class Taken:
    """The records of a batch that were taken in, and what was wrong with the others.

    Attributes:
        businesses: In the order in which they were sent.
        skipped: `{"index": …, "field": …, "detail": …}` for each error in a record that was left out.
    """

    businesses: list[NewBusiness]
    skipped: list[dict[str, Any]]


def read_business(content_type: str | None, body: bytes) -> NewBusiness:
    """Validate one record.

    Args:
        content_type: The request's `Content-Type`, if any.
        body: UTF-8 JSON, at most `MAX_BODY_BYTES`.

    Raises:
        RequestError: 413, 415, or 400 with `errors`: `{"field": …, "detail": …}` for all bad fields at once.
    """
    _demand(_JSON.fullmatch(media_type(content_type)), content_type, "application/json")
    _demand_size(body, MAX_BODY_BYTES)
    try:
        return NewBusiness.model_validate_json(body)
    except ValidationError as error:
        details = _details(error)
    if details[0]["type"] == "json_invalid":
        raise RequestError(400, "Malformed JSON", details[0]["msg"])
    errors = [_error(detail) for detail in details]
    fields = ", ".join(error["field"] for error in errors)
    raise RequestError(400, "Invalid record", f"not a valid business record, see {fields}", errors=errors)


def read_batch(content_type: str | None, body: bytes, *, skip_invalid: bool = False) -> Taken:
    """Validate the records of a batch, all of them before the first is refused.

    Args:
        content_type: `application/json` for an array of records, `application/x-ndjson` for one record a line.
        body: UTF-8, at most `MAX_BATCH_BYTES` and `MAX_RECORDS` records.
        skip_invalid: Leave invalid records out rather than refuse the batch, unless no valid one is left.

    Raises:
        RequestError: 413, 415, or 400 with `errors`: `{"index": …, "field": …, "detail": …}`, the index from 0.
    """
    lines = _NDJSON.fullmatch(media_type(content_type)) is not None
    _demand(
        lines or _JSON.fullmatch(media_type(content_type)), content_type, "application/json or application/x-ndjson"
    )
    _demand_size(body, MAX_BATCH_BYTES)
    if lines:
        records: list[Any] = [line for line in body.splitlines() if line.strip()]
    else:
        try:
            array = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise RequestError(400, "Malformed JSON", str(error)) from None
        if not isinstance(array, list):
            raise RequestError(400, "Invalid batch", "expected a JSON array of records")
        records = array
    if not 1 <= len(records) <= MAX_RECORDS:
        status, title = (400, "Invalid batch") if not records else (413, "Content Too Large")
        raise RequestError(status, title, f"expected 1 to {MAX_RECORDS} records, got {len(records)}")
    validate: Callable[[Any], NewBusiness] = NewBusiness.model_validate_json if lines else NewBusiness.model_validate
    businesses: list[NewBusiness] = []
    errors: list[dict[str, Any]] = []
    for index, record in enumerate(records):
        try:
            businesses.append(validate(record))
        except ValidationError as error:
            errors += [{"index": index, **_error(detail)} for detail in _details(error)]
    if errors and not (skip_invalid and businesses):
        bad = len({error["index"] for error in errors})
        raise RequestError(
            400, "Invalid batch", f"{bad} of {len(records)} records are invalid, nothing was started", errors=errors
        )
    return Taken(businesses, errors)


def read_operation_id(idempotency_key: str | None) -> str:
    """Turn the caller's `Idempotency-Key` into the id of the operation, so that a repeated start finds the first one.

    Args:
        idempotency_key: The header's value, quoted as the IETF draft wants it or bare; without one the id is random.

    Returns:
        32 hexadecimal digits: a digest, since keys may hold characters that ids may not.

    Raises:
        RequestError: 400, the key is blank, too long or not printable ASCII.
    """
    if idempotency_key is None:
        return uuid.uuid4().hex
    key = idempotency_key.strip()
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    if not key or len(key) > MAX_IDEMPOTENCY_KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise RequestError(
            400,
            "Invalid Idempotency-Key",
            f"expected 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} printable ASCII characters in the header Idempotency-Key",
        )
    return hashlib.sha256(f"Idempotency-Key:{key}".encode()).hexdigest()[:32]


def read_preferred_wait(prefer: str | None) -> float:
    """Seconds that the caller would rather wait for the end (RFC 7240 `Prefer: wait=N`), at most a minute; else 0.

    Preferences that cannot be understood are ignored, as the RFC demands; `respond-async` alone is the default here.
    """
    for preference in (prefer or "").split(","):
        name, _, value = preference.split(";")[0].partition("=")
        if name.strip().lower() == "wait" and value.strip().isdigit():
            return min(float(value), MAX_WAIT_SECONDS)
    return 0.0


def read_number(query: Mapping[str, str], name: str, default: float, lowest: float, highest: float) -> float:
    """Read a number from the query string.

    Raises:
        RequestError: 400, it is none, or out of its bounds.
    """
    text = query.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = float("nan")
    if not lowest <= value <= highest:
        raise _bad_parameter(name, f"a number from {lowest:g} to {highest:g}")
    return value


def read_page(query: Mapping[str, str]) -> int:
    """Read the number of a page, from 1.

    Raises:
        RequestError: 400, it is not a whole number above 0.
    """
    text = query.get("page", "1")
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9 and int(text)):
        raise _bad_parameter("page", "a whole number from 1")
    return int(text)


def read_flag(query: Mapping[str, str], name: str) -> bool:
    """Read `true` or `false`, which is the default.

    Raises:
        RequestError: 400, it is neither.
    """
    text = query.get(name, "false").lower()
    if text not in {"true", "false"}:
        raise _bad_parameter(name, "true or false")
    return text == "true"


def read_state(query: Mapping[str, str]) -> State | None:
    """Read the state to look for, if one is given.

    Raises:
        RequestError: 400, there is no such state.
    """
    if (text := query.get("state")) is None:
        return None
    try:
        return _STATE.validate_python(text)
    except ValidationError:
        raise _bad_parameter("state", f"one of {', '.join(get_args(State.__value__))}") from None


def read_since(query: Mapping[str, str], now: datetime) -> datetime:
    """Read the time from which on to look, by default a day ago.

    Raises:
        RequestError: 400, it is no date and time (RFC 3339).
    """
    if (text := query.get("since")) is None:
        return now - _RECENT
    try:
        since = datetime.fromisoformat(text)
        return max(_NOTHING_BEFORE, (since if since.tzinfo else since.replace(tzinfo=UTC)).astimezone(UTC))
    except (ValueError, OverflowError):
        raise _bad_parameter("since", "a date and time such as 2026-01-31T12:00:00Z") from None


_SENT_ID = "Assigned by the API: leave it out"
_STATE: TypeAdapter[State] = TypeAdapter(State)


def _details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_context=False, include_input=False)


def _error(detail: ErrorDetails) -> dict[str, str]:
    field = ".".join(map(str, detail["loc"])) or "(record)"
    sent_id = field == "id" and detail["type"] == "extra_forbidden"
    return {"field": field, "detail": _SENT_ID if sent_id else detail["msg"]}


def _demand(acceptable: object, content_type: str | None, expected: str) -> None:
    if not acceptable:
        got = media_type(content_type)[:100] or "none"
        raise RequestError(415, "Unsupported Media Type", f"expected Content-Type {expected}, got {got}")


def _demand_size(body: bytes, limit: int) -> None:
    if len(body) > limit:
        raise RequestError(413, "Content Too Large", f"expected at most {limit} bytes, got {len(body)}")


def _bad_parameter(name: str, expected: str) -> RequestError:
    return RequestError(400, "Invalid parameter", f"expected {expected} in the query parameter {name}")
