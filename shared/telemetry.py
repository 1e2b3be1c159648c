"""What operators count and follow: OpenTelemetry counters of outcomes, and traces that reach into the API.

Without an OpenTelemetry SDK that exports them somewhere, all of this does nothing.
"""

import httpx
from opentelemetry import metrics, propagate, trace

tracer = trace.get_tracer("post_business")

_meter = metrics.get_meter("post_business")
_outcomes = _meter.create_counter(
    "post_business.outcomes", unit="{attempt}", description="Attempts by outcome: posted, rejected, deferred, ..."
)
_duplicates_avoided = _meter.create_counter(
    "post_business.duplicates_avoided", unit="{record}", description="Records that the API had stored before"
)


def count_outcome(outcome: str, *, replayed: bool = False) -> None:
    """Count what became of an attempt, or what the end of a delivery was.

    Args:
        outcome: Such as `posted`.
        replayed: The API had stored the record before, so that a duplicate was avoided.
    """
    _outcomes.add(1, {"outcome": outcome})
    if replayed:
        _duplicates_avoided.add(1)


def add_trace_context(request: httpx.Request) -> None:
    """Send the API the context of the current trace (W3C Trace Context: `traceparent`, `tracestate`)."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    request.headers.update(carrier)
