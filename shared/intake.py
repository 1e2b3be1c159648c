"""Reads what callers send; whatever is wrong with it is refused in one answer that says where and what."""

import hashlib
import re
import uuid

from pydantic import ValidationError

from shared.business import Business
from shared.problems import RequestError

MAX_BODY_BYTES = 256 * 1024
MAX_IDEMPOTENCY_KEY_LENGTH = 255

_JSON_CONTENT_TYPE = re.compile(r"application/(?:[\w.+-]+\+)?json", re.IGNORECASE)


def read_business(content_type: str | None, body: bytes) -> Business:
    """Validate one record.

    Args:
        content_type: The request's `Content-Type`, if any.
        body: UTF-8 JSON, at most `MAX_BODY_BYTES`.

    Raises:
        RequestError: 413, 415, or 400 with `errors`: `{"field": …, "detail": …}` for all bad fields at once.
    """
    media_type = (content_type or "").split(";", 1)[0].strip()
    if not _JSON_CONTENT_TYPE.fullmatch(media_type):
        raise RequestError(
            415, "Unsupported Media Type", f"expected Content-Type application/json, got {media_type[:100] or 'none'}"
        )
    if len(body) > MAX_BODY_BYTES:
        raise RequestError(413, "Content Too Large", f"expected at most {MAX_BODY_BYTES} bytes, got {len(body)}")
    try:
        business = Business.model_validate_json(body, extra="forbid")
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=False, include_input=False)
        if details[0]["type"] == "json_invalid":
            raise RequestError(400, "Malformed JSON", details[0]["msg"]) from None
        raise _invalid_record(
            [{"field": ".".join(map(str, detail["loc"])) or "(body)", "detail": detail["msg"]} for detail in details]
        ) from None
    if business.id is not None:
        raise _invalid_record([{"field": "id", "detail": "Assigned by the API: leave it out"}])
    return business


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


def _invalid_record(errors: list[dict[str, str]]) -> RequestError:
    fields = ", ".join(error["field"] for error in errors)
    return RequestError(400, "Invalid record", f"not a valid business record, see {fields}", errors=errors)
