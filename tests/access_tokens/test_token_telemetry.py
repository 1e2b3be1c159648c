"""What is counted and traced, as the OpenTelemetry SDK and the process itself see it."""

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.access_tokens import TokenCache, TokenError, TokenStatistics
from shared.access_tokens import cache as cache_module
from shared.access_tokens.telemetry import publish

from .scripted import Answer, Server


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(cache_module, "tracer", provider.get_tracer("test"))
    return exporter


def only(exporter: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exporter.get_finished_spans()
    return span


def test_used_fetched_failed_and_resent_are_counted(server: Server, client: httpx.Client, cache: TokenCache) -> None:
    client.get(server.api_url)
    client.get(server.api_url)
    server.valid.clear()
    client.get(server.api_url)
    server.valid.clear()
    server.answers.append(Answer({"error": "invalid_scope"}, 400))
    with pytest.raises(TokenError):
        client.get(server.api_url)
    assert cache.statistics() == TokenStatistics(used=5, fetched=2, failed=1, resent=1)


def test_the_counts_of_all_sources_are_added_up(server: Server, cache: TokenCache) -> None:
    cache.of(server.source("read")).get()
    cache.of(server.source("write")).get()
    assert cache.statistics() == TokenStatistics(used=2, fetched=2)


def test_opentelemetry_exports_the_counts_by_source(
    server: Server, client: httpx.Client, cache: TokenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr("opentelemetry.metrics.get_meter", provider.get_meter)
    publish(lambda: {"client at api": cache.statistics()})
    client.get(server.api_url)
    server.valid.clear()
    client.get(server.api_url)
    data = reader.get_metrics_data()
    assert data is not None
    counts: dict[str, tuple[object, object]] = {}
    for metric in data.resource_metrics[0].scope_metrics[0].metrics:
        (point,) = metric.data.data_points
        assert isinstance(point, NumberDataPoint)
        assert point.attributes is not None
        counts[metric.name] = (point.value, point.attributes["access_token.source"])
    assert counts == {
        "access_token.used": (3, "client at api"),
        "access_token.fetched": (2, "client at api"),
        "access_token.failed": (0, "client at api"),
        "access_token.resent": (1, "client at api"),
    }


def test_the_caches_of_the_process_are_observed_as_long_as_they_live(server: Server) -> None:
    source = server.source()
    cache = TokenCache()
    cache.of(source).get()
    before = cache_module._statistics_by_source()[str(source)]
    assert before.fetched >= 1
    del cache
    after = cache_module._statistics_by_source().get(str(source), TokenStatistics())
    assert after.fetched < before.fetched


def test_a_fetch_is_a_span_in_the_trace_of_who_caused_it(
    server: Server, cache: TokenCache, spans: InMemorySpanExporter
) -> None:
    caller = trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED))
    with trace.use_span(trace.NonRecordingSpan(caller)):
        cache.of(server.source()).get()
    span = only(spans)
    assert span.name == "access_token.fetch"
    assert span.attributes == {"access_token.source": "client at 127.0.0.1"}
    assert span.parent == caller
    assert span.status.is_ok


def test_the_span_of_a_failed_fetch_says_why_and_shows_no_secret(
    server: Server, cache: TokenCache, spans: InMemorySpanExporter
) -> None:
    server.answers.append(Answer({"error": "invalid_scope"}, 400))
    with pytest.raises(TokenError):
        cache.of(server.source()).get()
    span = only(spans)
    assert span.attributes is not None
    assert span.attributes["error.type"] == "invalid_scope"
    assert not span.status.is_ok
    assert "correct-horse" not in span.to_json()
