"""Counters of what happens to tokens, for OpenTelemetry and for anybody in the process, and the tracer of fetches."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING

from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Observation

SOURCE = "access_token.source"
"""The attribute that names the token source on metrics and spans."""

tracer = trace.get_tracer("shared.access_tokens")


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """What has happened so far.

    Attributes:
        used: Tokens handed out, for a request each.
        fetched: Fetches that obtained a token.
        failed: Fetches that obtained none, after all their tries.
        resent: Requests sent again with a new token after the API had rejected the first one.
    """

    used: int = 0
    fetched: int = 0
    failed: int = 0
    resent: int = 0

    def __add__(self, other: "TokenStatistics") -> "TokenStatistics":
        return TokenStatistics(
            self.used + other.used,
            self.fetched + other.fetched,
            self.failed + other.failed,
            self.resent + other.resent,
        )


def publish(read: Callable[[], Mapping[str, TokenStatistics]]) -> None:
    """Make OpenTelemetry metrics of what `read` returns, by the name of the source.

    The counters are observed when they are exported, not added to when something happens: looking up a fresh token
    costs less than adding to an OpenTelemetry counter would.
    """
    from opentelemetry import metrics  # here, since a cold start should not wait for it

    meter = metrics.get_meter("shared.access_tokens")
    for field, description in (
        ("used", "Tokens handed out, for a request each"),
        ("fetched", "Fetches that obtained a token"),
        ("failed", "Fetches that obtained no token"),
        ("resent", "Requests sent again with a new token after a 401"),
    ):
        count = attrgetter(field)

        def observe(_: "CallbackOptions", count: Callable[[TokenStatistics], int] = count) -> "Iterable[Observation]":
            return [metrics.Observation(count(statistics), {SOURCE: source}) for source, statistics in read().items()]

        meter.create_observable_counter(f"access_token.{field}", [observe], description=description)
