"""Where requests may go - URLs that can be called at all, places where a token is safe - and what a URL names."""

from urllib.parse import unquote, urlsplit

import httpx

_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether a request to `host` stays on this machine."""
    return host in _LOOPBACK_HOSTS


def is_protected(scheme: str, host: str) -> bool:
    """Whether nobody on the way can read what is sent (RFC 6749, sections 3.2 and 10.3; RFC 6750, section 5.3)."""
    return scheme == "https" or (scheme == "http" and is_loopback(host))


def checked_url(url: str, *, protected: bool = True, query: bool = False) -> httpx.URL:
    """Parse an absolute URL that has neither credentials nor a fragment.

    Args:
        url: As somebody has written it.
        protected: Whether a token or a secret goes there: then only https will do, or http to this very machine.
        query: Whether it may have a query.

    Raises:
        ValueError: It is another kind of URL. The message does not repeat it, since it may hold credentials.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL()
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError("expected an absolute URL such as https://api.example.com/v1")
    if protected and not is_protected(parsed.scheme, parsed.host):
        raise ValueError("expected https; plain http is accepted on the loopback interface only")
    if parsed.userinfo or parsed.fragment or (parsed.query and not query):
        raise ValueError(f"expected a URL without credentials, {'' if query else 'query '}or fragment")
    return parsed


def last_segment(url: str | None, *, limit: int = 128) -> str | None:
    """What a URL, such as that of a `Location`, says about the resource it names: the last segment of its path.

    Args:
        url: Absolute or relative, as somebody else has written it; anything at all.
        limit: Characters that a segment may have, decoded.

    Returns:
        The segment, percent-decoded; None if there is none that can stand in a path, such as of `/` or `..`.
    """
    try:
        segments = urlsplit(url or "").path.rstrip("/").rpartition("/")
        segment = unquote(segments[2], errors="strict")
    except ValueError:
        return None
    return segment if segment.isprintable() and len(segment) <= limit and segment not in {"", ".", ".."} else None
