"""What kind of content a message carries (RFC 9110, section 8.3)."""

import re

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""What some senders put before JSON, and receivers may ignore (RFC 8259, section 8.1)."""

_JSON = re.compile(r"(application|text)/(json|[^/]+\+json)")


def media_type(content_type: str | None) -> str:
    """The media type that a `Content-Type` names, in lower case and without parameters; empty if there is none."""
    return (content_type or "").partition(";")[0].strip().lower()


def is_json(content_type: str | None) -> bool:
    """Whether a `Content-Type` says that the content is JSON."""
    return _JSON.fullmatch(media_type(content_type)) is not None
