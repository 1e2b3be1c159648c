"""Reads the body of a request as text: UTF-8 of an expected media type, neither compressed nor sent in chunks."""

import json
import re
from collections.abc import Mapping

from shared.http.media_types import media_type
from shared.http.printable import printable

from .problems import RequestError

JSON = "application/json"
NDJSON = "application/x-ndjson"
CSV = "text/csv"

_MEDIA_TYPES = {
    JSON: re.compile(r"application/(?:[\w.+-]+\+)?json"),
    NDJSON: re.compile(r"application/(?:x-ndjson|ndjson|jsonl|x-jsonlines)"),
    CSV: re.compile(r"text/csv"),
}
_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s"';]*)""", re.IGNORECASE)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


def has_body(headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the caller has sent a body, even if it was lost: the Functions host hands a chunked one over empty."""
    lost = "Content-Length" not in headers and ("Content-Type" in headers or "Transfer-Encoding" in headers)
    return bool(body) or lost


def read_text(headers: Mapping[str, str], body: bytes, *expected: str, limit: int) -> tuple[str, bytes]:
    """Read the text of a body.

    Args:
        headers: Of the request.
        body: As the Functions host hands it over.
        expected: Of `JSON`, `NDJSON` and `CSV` those that will do.
        limit: The bytes that the body may have.

    Returns:
        Which of the expected it is, and the text without a byte order mark; whether it is valid UTF-8 is not known yet.

    Raises:
        RequestError: 411, 413 or 415.
    """
    if not body and "Content-Length" not in headers:
        raise RequestError(
            411, "Length Required", "expected a body and its Content-Length; chunked bodies are not read"
        )
    content_type = headers.get("Content-Type") or ""
    found = [kind for kind in expected if _MEDIA_TYPES[kind].fullmatch(media_type(content_type))]
    if not found:
        raise _unsupported(f"Content-Type {' or '.join(expected)}", media_type(content_type) or "none")
    charset = _CHARSET.search(content_type)
    if charset and charset[1].lower() not in {"utf-8", "utf8"}:
        raise _unsupported("the charset utf-8", charset[1])
    if (encoding := headers.get("Content-Encoding", "").strip().lower()) not in {"", "identity"}:
        raise _unsupported("a body that is not compressed", f"Content-Encoding {encoding}")
    if len(body) > limit:
        raise RequestError(413, "Content Too Large", f"expected at most {limit} bytes, got {len(body)}")
    for beginning, compression in _COMPRESSED.items():
        if body.startswith(beginning):
            raise _unsupported("a body that is not compressed", compression)
    if (unicode := json.detect_encoding(body)) not in {"utf-8", "utf-8-sig"}:
        raise _unsupported("UTF-8", unicode[:6].upper())
    return found[0], body.removeprefix(_BYTE_ORDER_MARK)


def _unsupported(expected: str, got: str) -> RequestError:
    return RequestError(415, "Unsupported Media Type", f"expected {expected}, got {printable(got, 100)}")
