"""Where credentials may be sent: over TLS, or to this very machine."""

_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(host: str) -> bool:
    """Whether a request to `host` stays on this machine."""
    return host in _LOOPBACK_HOSTS


def is_protected(scheme: str, host: str) -> bool:
    """Whether nobody on the way can read what is sent (RFC 6749, sections 3.2 and 10.3; RFC 6750, section 5.3)."""
    return scheme == "https" or (scheme == "http" and host in _LOOPBACK_HOSTS)
