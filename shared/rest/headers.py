"""Header fields: checked so that none can smuggle in another, merged so that the later one counts."""

import re
from collections.abc import Mapping

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_UNSENDABLE = re.compile(r"[^\t\x20-\x7e]")
_FRAMING = frozenset({"content-length", "transfer-encoding"})

type HeaderFields = dict[str, tuple[bytes, bytes]]
"""Name and value as they are sent, by the name in lower case."""


def checked_name(name: str) -> str:
    """The name, if it is one (RFC 9110 §5.1) and not the client's own business.

    Raises:
        ValueError: It is not.
    """
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"expected a header name, not {name!r}")
    if name.lower() in _FRAMING:
        raise ValueError(f"{name} follows from the body and cannot be set")
    return name


def checked_value(name: str, value: str) -> bytes:
    """The value as it is sent.

    Raises:
        ValueError: It holds control characters, such as CR and LF, or characters outside ASCII (RFC 9110 §5.5).
    """
    if _UNSENDABLE.search(value):
        raise ValueError(f"header {name}: expected visible ASCII characters, spaces and tabs only")
    return value.encode("ascii")


def checked_headers(headers: Mapping[str, str | None]) -> dict[str, tuple[bytes, bytes] | None]:
    """Headers as they are sent, by their name in lower case; None stays None.

    Raises:
        ValueError: A name or value cannot be sent.
    """
    return {
        checked_name(name).lower(): None if value is None else (name.encode(), checked_value(name, value))
        for name, value in headers.items()
    }


def merged(*layers: Mapping[str, str | None]) -> HeaderFields:
    """One set of headers; of each name the last layer that has it counts, and None removes it."""
    fields: dict[str, tuple[bytes, bytes] | None] = {}
    for layer in layers:
        fields |= checked_headers(layer)
    return {name: field for name, field in fields.items() if field is not None}
