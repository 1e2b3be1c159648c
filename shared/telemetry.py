"""What operators count and follow: OpenTelemetry counters of outcomes, and traces that reach into the API.

Without an OpenTelemetry SDK that exports them somewhere, all of this does nothing.
"""

from functools import cache
from typing import TYPE_CHECKING

import httpx
from opentelemetry import trace
from opentelemetry.trace import SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from opentelemetry.metrics import Counter

tracer = trace.get_tracer("post_business")

_propagator = TraceContextTextMapPropagator()


@cache
def _counters() -> "tuple[Counter, Counter, Counter]":
    """Of outcomes, duplicates avoided and warnings; made at the first count, not at a cold start."""
    from opentelemetry import metrics

    meter = metrics.get_meter("post_business")
    outcomes = meter.create_counter(
        "post_business.outcomes", unit="{attempt}", description="Attempts by outcome: posted, rejected, deferred, ..."
    )
    duplicates_avoided = meter.create_counter(
        "post_business.duplicates_avoided", unit="{record}", description="Records that the API had stored before"
    )
    warnings = meter.create_counter(
        "post_business.warnings", unit="{record}", description="Records taken with an answer that could not be read"
    )
    return outcomes, duplicates_avoided, warnings


def count_outcomes(outcome: str, number: int = 1, *, replayed: int = 0, warned: int = 0) -> None:
    """Count what became of attempts, or what the ends of deliveries were.

    Args:
        outcome: Such as `posted`.
        number: How many had this outcome.
        replayed: Of how many the API had stored the record before, so that a duplicate was avoided.
        warned: Of how many the API took the record, but its answer could not be read.
    """
    outcomes, duplicates_avoided, warnings = _counters()
    for counter, count in ((outcomes, number), (duplicates_avoided, replayed), (warnings, warned)):
        if count:
            counter.add(count, {"outcome": outcome} if counter is outcomes else None)


@cache
def _events() -> "Counter":
    from opentelemetry import metrics

    return metrics.get_meter("post_business").create_counter(
        "post_business.events", unit="{event}", description="Events about ends of operations: sent, gave_up, refused"
    )


def count_event(outcome: str) -> None:
    """Count what became of an event: `sent`, `gave_up`, or `refused`, since nobody wants it."""
    _events().add(1, {"outcome": outcome})


def trace_request(request: httpx.Request) -> None:
    """Send the API the context of the current trace (W3C Trace Context: `traceparent`, `tracestate`).

    If the current span is that of a call (kind `CLIENT`), it is told what is called, by the names of OpenTelemetry's
    semantic conventions for HTTP. The whole URL is not among them: its path and query may tell which record it is.
    """
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    request.headers.update(carrier)
    span = trace.get_current_span()
    if getattr(span, "kind", None) is SpanKind.CLIENT:  # a span that nobody records has no kind
        span.set_attributes(
            {
                "http.request.method": request.method,
                "server.address": request.url.host,
                "url.template": request.extensions["url_template"],
            }
        )
