"""What the embedded host's page shows of the app's access tokens, under `make run`."""

from shared.access_tokens import shared_cache


def devhost_panel() -> dict[str, object]:
    """The counters of the process and the remaining life of its token, never the token."""
    counters = shared_cache.statistics()
    remaining = max((token.remaining for token in shared_cache.tokens()), default=0.0)
    return {
        "Tokens used": counters.used,
        "Tokens fetched": counters.fetched,
        "Fetches failed": counters.failed,
        "Requests resent after a 401": counters.resent,
        "Token usable for (s)": round(remaining),
    }
