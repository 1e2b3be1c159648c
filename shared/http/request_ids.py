"""How a server calls a request that it has answered."""

from collections.abc import Mapping

from .printable import printable

_FIELDS = ("X-Request-Id", "Request-Id", "X-Ms-Request-Id", "X-Amzn-RequestId", "X-Correlation-Id")


def request_id(headers: Mapping[str, str]) -> str | None:
    """The id by the usual header fields of an answer, whose names compare without case; None if it has none.

    It is printable, and of at most 200 characters.
    """
    return next((printable(headers[name]) for name in _FIELDS if name in headers), None)
