"""What operators see: a log line and a count for every transition, never for a replay, and one trace to the API."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator

import httpx
import pytest
from aiohttp import web
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shared.business
from dev.sandbox.serving import serve
from devhost.testing import RunningHost
from shared.business import COLLECTION, BusinessApi, assigned, example
from shared.delivery.attempts import Attempt, post_record
from shared.rest import ClientOptions
from shared.telemetry import trace_request
from tests.receiver import receiving
from tests.sandboxed import REFUSED, NewRecord, Sandbox, key_of


@pytest.fixture(scope="session")
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture(scope="session")
def reader(exporter: InMemorySpanExporter) -> Iterator[InMemoryMetricReader]:
    """OpenTelemetry takes one provider a process; these keep what they are told in memory."""
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics.set_meter_provider(provider)
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(tracers)
    yield reader
    provider.shutdown()


@pytest.fixture
def spans(reader: InMemoryMetricReader, exporter: InMemorySpanExporter) -> Callable[[], list[ReadableSpan]]:
    """The spans that have ended since the start of the test."""
    exporter.clear()
    return lambda: list(exporter.get_finished_spans())


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
    record, bad = new_record(), new_record()
    sandbox.disturb(records={key_of(record): [{"status": 503}, {"drop": "after"}], key_of(bad): [REFUSED]})
    host.wait(app.post("/api/businesses", json=record).json()["id"], skip_timers=True)
    host.wait(app.post("/api/businesses", json=bad).json()["id"])
    assert counted() == {"deferred": 2, "posted": 1, "rejected": 1, "post_business.duplicates_avoided": 1}


def test_a_record_that_was_taken_with_an_answer_that_cannot_be_read_is_counted_and_logged_as_a_warning(
    counted: Callable[[], Counter[str]],
    host: RunningHost,
    app: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    new_record: NewRecord,
) -> None:
    scripted_api(monkeypatch, lambda request: httpx.Response(204))
    single = app.post("/api/businesses", json=new_record()).json()["id"]
    host.wait(single)
    batch = app.post("/api/businesses/batch", json=[new_record(), new_record()]).json()["id"]
    host.wait(batch)
    assert counted() == {"posted": 3, "post_business.warnings": 3}
    assert [record.levelname for record in caplog.records if "said yes, but" in record.getMessage()] == ["WARNING"] * 3
    operations = "/api/businesses/operations"
    assert app.get(f"{operations}/{single}").json()["outcome"]["warning"] == "204: expected JSON, the body is empty"
    assert app.get(f"{operations}/{batch}").json()["batch"]["warnings"] == 2
    assert len(app.get(f"{operations}/{batch}/results?warning=true").json()["results"]) == 2
    found = app.get(f"{operations}?warning=true").json()["operations"]
    assert {single, batch} <= {operation["id"] for operation in found}


def test_what_becomes_of_an_event_is_counted_and_logged_once(
    counted: Callable[[], Counter[str]],
    host: RunningHost,
    app: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    new_record: NewRecord,
) -> None:
    caplog.set_level("INFO", logger="post_business")
    with receiving() as receiver:
        monkeypatch.setenv("OPERATIONS_EVENTS_URL", receiver.url)
        receiver.answers.extend([503, 204, 410])
        taken = app.post("/api/businesses", json=new_record()).json()["id"]
        host.settle()
        host.advance(10)
        refused = app.post("/api/businesses", json=new_record()).json()["id"]
        host.settle()
    assert counted() == {"posted": 2, "sent": 1, "refused": 1}
    lines = [line for line in caplog.messages if line.startswith("Event ")]
    assert [re.sub("^Event [0-9a-f]{32} of operation ", "", line) for line in lines] == [
        f"{taken}: attempt 1 deferred: status 503",
        f"{taken}: attempt 2 sent",
        f"{refused}: attempt 1 refused: status 410",
    ]


def test_the_records_of_a_batch_are_counted_one_by_one(
    counted: Callable[[], Counter[str]], host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(30)]
    sandbox.disturb(records={key_of(records[0]): [{"status": 503}]})
    host.wait(app.post("/api/businesses/batch", json=records).json()["id"], skip_timers=True)
    assert counted() == {"deferred": 1, "posted": 30}


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "post_business"]


def test_each_transition_is_one_log_line_that_names_operation_attempt_and_outcome(
    caplog: pytest.LogCaptureFixture, host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    caplog.set_level(logging.INFO, logger="post_business")
    record = new_record()
    sandbox.disturb(records={key_of(record): [{"status": 503}]})
    operation_id = app.post("/api/businesses", json=record).json()["id"]
    host.wait(operation_id, skip_timers=True)
    lines = [line for line in logged(caplog) if line.startswith("Operation ")]
    assert len(lines) == 2
    assert lines[0].startswith(f"Operation {operation_id}: attempt 1 deferred, next attempt at ")
    assert lines[1] == f"Operation {operation_id}: attempt 2 posted"


async def test_the_api_is_told_the_trace_that_the_activity_belongs_to(
    reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        told.append(request.headers["traceparent"])
        return web.json_response(assigned() | await request.json(), status=201)

    application = web.Application()
    application.router.add_post(COLLECTION, answer)
    with serve(application) as url, trace.get_tracer("test").start_as_current_span("activity") as activity:
        async with BusinessApi(ClientOptions(base_url=url, on_request=trace_request)) as api:
            monkeypatch.setattr("shared.business.business_api", api)
            await post_record(Attempt(record=RECORD, idempotency_key="k"))
    assert told[0].split("-")[1] == f"{activity.get_span_context().trace_id:032x}"
    assert told[0].split("-")[2] != f"{activity.get_span_context().span_id:016x}"


RECORD = example()
STORED = assigned(7) | RECORD
ID = next(iter(assigned(7).values()))


def scripted_api(monkeypatch: pytest.MonkeyPatch, answer: Callable[[httpx.Request], httpx.Response]) -> None:
    """Have the activity call an API below a path of its own, that answers like this."""
    options = ClientOptions(
        base_url="https://api.example.com/v1",
        transport=lambda: httpx.MockTransport(answer),
        on_request=trace_request,
    )
    monkeypatch.setattr("shared.business.business_api", BusinessApi(options))


def existing(request: httpx.Request) -> httpx.Response:
    """An API that has the record already."""
    if request.method == "POST":
        return httpx.Response(409, headers={"Location": f"https://api.example.com/v1{COLLECTION}/{ID}"})
    return httpx.Response(200, json=STORED)


def unreachable(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("connection refused")


@pytest.mark.parametrize(
    ("answer", "line"),
    [
        (lambda request: httpx.Response(201, json=STORED), "Attempt k-1: posted, status 201, 1500 ms"),
        (lambda request: httpx.Response(503), "Attempt k-1: deferred, status 503, 1500 ms"),
        (lambda request: httpx.Response(422), "Attempt k-1: rejected, status 422, 1500 ms"),
        (existing, "Attempt k-1: posted, status 409, 1500 ms"),
        (unreachable, "Attempt k-1: deferred, status none, 1500 ms"),
    ],
)
async def test_each_attempt_is_a_log_line_with_status_and_duration(
    answer: Callable[[httpx.Request], httpx.Response],
    line: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO, logger="post_business")
    scripted_api(monkeypatch, answer)
    await post_record(Attempt(record=RECORD, idempotency_key="k-1"), clock=iter([10.0, 11.5]).__next__)
    assert logged(caplog)[0] == line


async def test_the_span_of_a_call_says_by_the_conventions_what_was_called_and_how_it_answered(
    spans: Callable[[], list[ReadableSpan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_api(monkeypatch, existing)
    await post_record(Attempt(record=RECORD, idempotency_key="k-1"))
    looked_up, posted = spans()
    assert (looked_up.name, dict(looked_up.attributes or {})) == (
        "get_business",
        {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "server.address": "api.example.com",
            "url.template": COLLECTION + "/{business_id}",
        },
    )
    assert (posted.name, dict(posted.attributes or {})) == (
        "post_business",
        {
            "http.request.method": "POST",
            "http.response.status_code": 409,
            "server.address": "api.example.com",
            "url.template": COLLECTION,
            "post_business.outcome": "posted",
            "post_business.idempotency_key": "k-1",
        },
    )


async def test_a_span_that_is_not_of_a_call_is_told_nothing_of_one(
    spans: Callable[[], list[ReadableSpan]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_api(monkeypatch, existing)
    with trace.get_tracer("test").start_as_current_span("invocation"):
        await shared.business.business_api.get_business(str(ID))
    (invocation,) = spans()
    assert dict(invocation.attributes or {}) == {}
