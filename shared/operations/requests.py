"""Reads what callers send; whatever is wrong with it is refused in one answer that says where and what."""

import hashlib
import math
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Self
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from shared.business import Business, NewBusiness
from shared.delivery.answers import json_name
from shared.delivery.batches import MAX_RECORDS
from shared.delivery.results import ItemInvalid
from shared.http.printable import printable

from .bodies import CSV, JSON, NDJSON, has_body, read_text
from .csv_rows import columns_of, read_rows
from .problems import RequestError, bad_parameter
from .strict_json import NUMBER, Fault, JsonReader, MalformedError, Value

MAX_BODY_BYTES = 256 * 1024
MAX_BATCH_BYTES = 10 * 1000 * 1000
MAX_ERRORS = 100
"""How many errors an answer lists; how many there are, it says beside."""
MAX_UNKNOWN_MEMBERS = 100
"""How many members more than its model has a record may have to be looked at: each of them would be an error."""
MAX_IDEMPOTENCY_KEY_LENGTH = 255
MAX_WAIT_SECONDS = 60.0

_LONGEST = MAX_IDEMPOTENCY_KEY_LENGTH
IDEMPOTENCY_KEY = (
    rf'"[ -~]{{1,{_LONGEST}}}"'  # quoted; else bare, with a quote at no end, at the end, at the beginning
    rf'|[!#-~](?:[ -~]{{0,{_LONGEST - 2}}}[!-~])?|"(?:[ -~]{{0,{_LONGEST - 2}}}[!#-~])?'
)
"""Pattern of the header `Idempotency-Key`: printable ASCII, quoted as the IETF draft wants it or bare."""

_KEY = re.compile(IDEMPOTENCY_KEY)
_WAIT = re.compile(r"[0-9]{1,9}")
_ENTITY_TAGS = re.compile(r'"[^"]*"')
_FIELD_LENGTH = 100


@dataclass(frozen=True, slots=True)
class _Errors:
    """What is wrong with a record: how many errors there are, and as many of the first as were asked for."""

    total: int
    first: list[dict[str, Any]]


def read_business[M: BaseModel = NewBusiness](
    headers: Mapping[str, str],
    body: bytes,
    model: type[M] = NewBusiness,  # type: ignore[assignment]
) -> M:
    """Validate one record.

    Args:
        headers: Of the request.
        body: UTF-8 JSON, at most `MAX_BODY_BYTES`.
        model: What a record is.

    Raises:
        RequestError: 411, 413, 415, or 400 with `errors`: `{"field": …, "detail": …}` for the bad fields, at most
            `MAX_ERRORS`, and `errors_total`.
    """
    _, text = read_text(headers, body, JSON, limit=MAX_BODY_BYTES)
    try:
        value = JsonReader().value(_decoded(text))
    except MalformedError as error:
        raise RequestError(400, "Malformed JSON", str(error)) from None
    record = _validated(value, model, MAX_ERRORS)
    if not isinstance(record, _Errors):
        return record
    fields = printable(", ".join(error["field"] for error in record.first))
    detail = f"not a valid record, see {fields}"
    raise RequestError(400, "Invalid record", detail, errors=record.first, errors_total=record.total)


class Correction(BaseModel):
    """A record of a batch, to be sent in place of another."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    index: Annotated[int, Field(ge=0)]
    record: NewBusiness


@dataclass(frozen=True, slots=True)
class Corrections:
    """What a caller sends with a retry: nothing, or what is to be sent instead; read when it is known what is retried.

    Attributes:
        headers: Of the request.
        body: Of the request.
    """

    headers: Mapping[str, str]
    body: bytes

    @classmethod
    def of(cls, headers: Mapping[str, str], body: bytes) -> Self:
        """The body of a retry, as far as it can be checked before anybody knows what is retried.

        Raises:
            RequestError: 411, 413 or 415.
        """
        if has_body(headers, body):
            read_text(headers, body, JSON, limit=MAX_BATCH_BYTES)
        return cls(headers, body)

    def record(self) -> NewBusiness | None:
        """The record in place of a single one, if there is one.

        Raises:
            RequestError: As `read_business`.
        """
        return read_business(self.headers, self.body) if has_body(self.headers, self.body) else None

    def records(self, total: int) -> dict[int, NewBusiness]:
        """The records in place of some of a batch, by index: `[{"index": 3, "record": {…}}, …]`.

        Args:
            total: How many records the batch has.

        Raises:
            RequestError: 411, 413, 415, or 400 with `errors` as those of `read_batch`; nothing of it is used then.
        """
        if not has_body(self.headers, self.body):
            return {}
        read_text(self.headers, self.body, JSON, limit=MAX_BATCH_BYTES)  # no lines and no rows
        corrections = list(read_batch(self.headers, self.body, model=Correction))
        corrected: dict[int, NewBusiness] = {}
        errors = []
        for number, one in enumerate(corrections):
            if not isinstance(one, Correction):
                continue
            if one.index >= total:
                errors.append({"index": number, **_bounded("index", f"expected 0 to {total - 1}, got {one.index}")})
            elif one.index in corrected:
                errors.append({"index": number, **_bounded("index", f"{one.index} stands there twice")})
            corrected[one.index] = one.record
        if errors:
            detail = f"{len(errors)} of {len(corrections)} corrections are invalid, nothing was started"
            raise RequestError(400, "Invalid batch", detail, errors=errors[:MAX_ERRORS], errors_total=len(errors))
        return corrected


def read_batch[M: BaseModel = NewBusiness](
    headers: Mapping[str, str],
    body: bytes,
    *,
    skip_invalid: bool = False,
    model: type[M] = NewBusiness,  # type: ignore[assignment]
) -> Iterator[M | ItemInvalid]:
    """Validate the records of a batch one by one; whether the batch is refused is known after the last.

    Args:
        headers: Of the request. `application/json` says that the body is an array, `application/x-ndjson` that each
            line of it is a record, `text/csv` that each row but the first is one.
        body: UTF-8, at most `MAX_BATCH_BYTES` and `MAX_RECORDS` records of at most `MAX_BODY_BYTES` each.
        skip_invalid: Tell what is wrong with invalid records rather than refuse the batch, unless no valid one is left.
        model: What a record is.

    Yields:
        What came of each record, in the order in which they were sent.

    Raises:
        RequestError: 411, 413, 415, or 400 with `errors`: `{"index": …, "field": …, "detail": …}`, the index from 0, at
            most `MAX_ERRORS`, and `errors_total`. Of lines and rows, `line` is the physical line on which the record
            begins, from 1.
    """
    kind, text = read_text(headers, body, JSON, NDJSON, CSV, limit=MAX_BATCH_BYTES)
    errors: list[dict[str, Any]] = []
    count = invalid = total = 0
    try:
        for index, (line, value) in enumerate(_values(kind, text, model)):
            count += 1
            if count > MAX_RECORDS:
                raise RequestError(413, "Content Too Large", f"expected 1 to {MAX_RECORDS} records, got more")
            # Of each record the first error is kept only if the batch goes on without it.
            read = _validated(value, model, max(MAX_ERRORS - len(errors), int(skip_invalid)))
            if isinstance(read, _Errors):
                invalid += 1
                total += read.total
                place = {} if line is None else {"line": line}
                errors += [{"index": index, **place, **error} for error in read.first[: MAX_ERRORS - len(errors)]]
                yield ItemInvalid.model_validate(place | (read.first[0] if read.first else {}))
            else:
                yield read
    except MalformedError as error:
        raise RequestError(400, "Malformed JSON", str(error)) from None
    if not count:
        raise RequestError(400, "Invalid batch", f"expected 1 to {MAX_RECORDS} records, got none")
    if invalid and not (skip_invalid and invalid < count):
        detail = f"{invalid} of {count} records are invalid, nothing was started"
        raise RequestError(400, "Invalid batch", detail, errors=errors, errors_total=total)


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
    if not _KEY.fullmatch(key):
        raise RequestError(
            400,
            "Invalid Idempotency-Key",
            f"expected 1 to {MAX_IDEMPOTENCY_KEY_LENGTH} printable ASCII characters in the header Idempotency-Key",
        )
    if len(key) >= 2 and key[0] == key[-1] == '"':
        key = key[1:-1]
    return hashlib.sha256(f"Idempotency-Key:{key}".encode()).hexdigest()[:32]


def is_known(entity_tag: str, if_none_match: str | None) -> bool:
    """Whether the caller of a GET has what it would get, by the header `If-None-Match`: `*`, or a list of entity tags.

    Weak and strong tags compare the same (RFC 9110, section 13.1.2).
    """
    value = (if_none_match or "").strip()
    return value == "*" or entity_tag in _ENTITY_TAGS.findall(value)


def read_preferred_wait(prefer: str | None) -> float:
    """Seconds that the caller would rather wait for the end (RFC 7240 `Prefer: wait=N`), at most a minute; else 0.

    Preferences that cannot be understood are ignored, as the RFC demands; `respond-async` alone is the default here.
    """
    for preference in (prefer or "").split(","):
        name, _, value = preference.split(";")[0].partition("=")
        if name.strip().lower() == "wait" and _WAIT.fullmatch(value.strip()):
            return min(float(value), MAX_WAIT_SECONDS)
    return 0.0


def read_parameter(query: Mapping[str, str], name: str) -> str | None:
    """Read a parameter of the query string; None if it is absent or empty, since the Functions host drops empty ones.

    The values of a parameter that is repeated come separated by commas.
    """
    return query.get(name) or None


def refuse_empty(url: str, *names: str) -> None:
    """Refuse parameters without a value where a lot depends on them: the Functions host drops them from the others.

    Args:
        url: Of a request, with its query, which still has them.
        names: Of the parameters that need a value if they are there; all do if none is named.

    Raises:
        RequestError: 400, there is one.
    """
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if not value and (not names or name in names):
            raise bad_parameter(printable(name), "a value")


def read_number(query: Mapping[str, str], name: str, default: float, lowest: float, highest: float) -> float:
    """Read a number, as JSON writes it, from the query string.

    Raises:
        RequestError: 400, it is none, or out of its bounds.
    """
    text = read_parameter(query, name)
    value = default if text is None else float(text) if NUMBER.fullmatch(text) else math.nan
    if not lowest <= value <= highest:
        raise bad_parameter(name, f"a number from {lowest:g} to {highest:g}")
    return value


def read_page(query: Mapping[str, str]) -> int:
    """Read the number of a page, from 1.

    Raises:
        RequestError: 400, it is not a whole number above 0.
    """
    text = read_parameter(query, "page") or "1"
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9 and int(text)):
        raise bad_parameter("page", "a whole number from 1")
    return int(text)


def read_id(segment: str) -> str:
    """The id of a record in a path.

    Raises:
        RequestError: 404, no record has such an id: it would change the path.
    """
    if segment in {"", ".", ".."}:
        raise RequestError(404, "Not Found", "there is no record with this id")
    return segment


def read_flag(query: Mapping[str, str], name: str) -> bool:
    """Read `true` or `false`, which is the default.

    Raises:
        RequestError: 400, it is neither.
    """
    text = (read_parameter(query, name) or "false").lower()
    if text not in {"true", "false"}:
        raise bad_parameter(name, "true or false")
    return text == "true"


def read_dry_run(url: str, query: Mapping[str, str]) -> bool:
    """Read whether a start is only to be checked (`validate_only`).

    Raises:
        RequestError: 400, it is neither `true` nor `false`, or has no value, and would be missed.
    """
    refuse_empty(url, "validate_only")
    return read_flag(query, "validate_only")


_SENT_ID = "Assigned by the API: leave it out"


def _values(kind: str, text: bytes, model: type[BaseModel]) -> Iterator[tuple[int | None, Value]]:
    """The records of a body, each with its physical line, if that says anything."""
    if kind == CSV:
        return read_rows(text, columns_of(model))
    return _lines(text) if kind == NDJSON else _elements(text)


def _elements(text: bytes) -> Iterator[tuple[None, Value]]:
    elements = JsonReader().array(_decoded(text))
    if elements is None:
        raise RequestError(400, "Invalid batch", "expected a JSON array of records")
    return ((None, value) for value in elements)


def _lines(text: bytes) -> Iterator[tuple[int, Value]]:
    """The records of lines, of which a malformed one spoils no other, each with its line; blank ones are none."""
    reader = JsonReader()
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, reader.value(_decoded(line), line=number)
            except MalformedError as error:
                yield number, Value("", fault=Fault("", f"Invalid JSON: {error}"))


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"expected UTF-8, got 0x{text[error.start]:02x} at byte {error.start + 1}") from None


def _validated[M: BaseModel](value: Value, model: type[M], limit: int) -> M | _Errors:
    """The record, or what is wrong with it: how much, and the first errors up to a limit."""
    if value.fault is not None:
        return _Errors(1, [_bounded(value.fault.name, value.fault.detail)])
    if value.kind != "an object":
        return _Errors(1, [_bounded("", f"expected an object, got {value.kind}")])
    if (size := len(value.text.encode())) > MAX_BODY_BYTES:
        return _Errors(1, [_bounded("", f"expected a record of at most {MAX_BODY_BYTES} bytes, got {size}")])
    if value.members > (most := len(model.model_fields) + MAX_UNKNOWN_MEMBERS):
        return _Errors(1, [_bounded("", f"expected a record of at most {most} members, got {value.members}")])
    try:
        # From the text: only so pydantic, be it strict, reads dates, decimal numbers and the like from JSON.
        return model.model_validate_json(value.text)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False) if limit else []
        return _Errors(error.error_count(), [_error(detail) for detail in details[:limit]])


def _error(detail: ErrorDetails) -> dict[str, str]:
    field, message, got = (
        ".".join(map(str, detail["loc"])),
        detail["msg"].removeprefix("Value error, "),
        detail["input"],
    )
    if field == json_name(Business, "id") and detail["type"] == "extra_forbidden":
        message = _SENT_ID
    if detail["type"] == "string_pattern_mismatch" and isinstance(got, str) and got != got.strip():
        message = f"{message}; it has white space at an end"
    return _bounded(field, message)


def _bounded(field: str, detail: str) -> dict[str, str]:
    return {"field": printable(field, _FIELD_LENGTH) or "(record)", "detail": printable(detail)}
