"""What operators see: a log line and a count for every transition, never for a replay, and one trace to the API."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from aiohttp import web
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import TracerProvider

from dev.sandbox.serving import serve
from devhost.testing import RunningHost
from shared.business import BusinessApi
from shared.delivery.attempts import Attempt, post_record
from shared.rest import ClientOptions
from shared.telemetry import add_trace_context
from tests.sandboxed import NewRecord, Sandbox


@pytest.fixture(scope="session")
def reader() -> Iterator[InMemoryMetricReader]:
    """OpenTelemetry takes one provider a process; this one keeps what it is told in memory."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics.set_meter_provider(provider)
    trace.set_tracer_provider(TracerProvider())
    yield reader
    provider.shutdown()


@pytest.fixture
def counted(reader: InMemoryMetricReader) -> Callable[[], Counter[str]]:
    """What has been counted since the start of the test, by outcome or name."""

    def totals() -> Counter[str]:
        found: Counter[str] = Counter()
        data = reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        for metric in (metric for scope in scopes if scope.scope.name == "post_business" for metric in scope.metrics):
            for point in metric.data.data_points:
                if isinstance(point, NumberDataPoint):
                    found[str((point.attributes or {}).get("outcome", metric.name))] += int(point.value)
        return found

    before = totals()
    return lambda: totals() - before


def test_every_attempt_is_counted_once_and_so_is_an_avoided_duplicate(
    counted: Callable[[], Counter[str]],
    host: RunningHost,
    app: httpx.Client,
    sandbox: Sandbox,
    new_record: NewRecord,
) -> None:
    record = new_record()
    sandbox.disturb(records={record["registration_number"]: [{"status": 503}, {"drop": "after"}]})
    host.wait(app.post("/api/businesses", json=record).json()["id"], skip_timers=True)
    host.wait(app.post("/api/businesses", json={**new_record(), "country": "AQ"}).json()["id"])
    assert counted() == {"deferred": 2, "posted": 1, "rejected": 1, "post_business.duplicates_avoided": 1}


def test_the_records_of_a_batch_are_counted_one_by_one(
    counted: Callable[[], Counter[str]], host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(30)]
    sandbox.disturb(records={records[0]["registration_number"]: [{"status": 503}]})
    host.wait(app.post("/api/businesses/batch", json=records).json()["id"], skip_timers=True)
    assert counted() == {"deferred": 1, "posted": 30}


def test_each_transition_is_one_log_line_that_names_operation_attempt_and_outcome(
    caplog: pytest.LogCaptureFixture, host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    caplog.set_level(logging.INFO, logger="post_business")
    record = new_record()
    sandbox.disturb(records={record["registration_number"]: [{"status": 503}]})
    operation_id = app.post("/api/businesses", json=record).json()["id"]
    host.wait(operation_id, skip_timers=True)
    lines = [record.getMessage() for record in caplog.records if record.name == "post_business"]
    assert len(lines) == 2
    assert lines[0].startswith(f"Operation {operation_id}: attempt 1 deferred, next attempt at ")
    assert lines[1] == f"Operation {operation_id}: attempt 2 posted"


async def test_the_api_is_told_the_trace_that_the_activity_belongs_to(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        told.append(request.headers["traceparent"])
        return web.json_response({**await request.json(), "id": "b-1"}, status=201)

    application = web.Application()
    application.router.add_post("/businesses", answer)
    record = {"registration_number": "HRB 1", "name": "Acme", "country": "DE"}
    with serve(application) as url, trace.get_tracer("test").start_as_current_span("activity") as activity:
        async with BusinessApi(ClientOptions(base_url=url, on_request=add_trace_context)) as api:
            monkeypatch.setattr("shared.business.business_api", api)
            await post_record(Attempt(record=record, idempotency_key="k"))
    assert told[0].split("-")[1] == f"{activity.get_span_context().trace_id:032x}"
    assert told[0].split("-")[2] != f"{activity.get_span_context().span_id:016x}"
