"""The operator's receiver is told of each operation that ends, at least once and under one id, and of nothing in it."""

import asyncio
import base64
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp import web
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from standardwebhooks.webhooks import Webhook

from devhost.testing import RunningHost
from shared.operations.status import CANCEL
from tests.receiver import Receiver, hang, receiving
from tests.sandboxed import LATER, REFUSED, NewRecord, Sandbox, key_of

from .conftest import operation

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef0123456789abcdef").decode()
OTHER_SECRET = "whsec_" + base64.b64encode(b"fedcba9876543210fedcba9876543210").decode()
DAY = 86_400


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """A receiver that the app knows."""
    with receiving() as receiver:
        monkeypatch.setenv("OPERATIONS_EVENTS_URL", receiver.url)
        yield receiver


def start(app: httpx.Client, record: dict[str, Any]) -> str:
    started: str = app.post("/api/businesses", json=record).raise_for_status().json()["id"]
    return started


def start_batch(app: httpx.Client, records: list[dict[str, Any]]) -> str:
    started: str = app.post("/api/businesses/batch", json=records).raise_for_status().json()["id"]
    return started


def told_of(receiver: Receiver, operation_id: str) -> list[tuple[str, str]]:
    """Id and state of each event of an operation, in order."""
    return [(event["id"], event["data"]["state"]) for event in receiver.events if event["subject"] == operation_id]


def event_of(host: RunningHost, operation_id: str) -> str:
    """The instance that tells the end of an operation."""
    scheduled = [one for one in host.history(operation_id) if one.get("Name") == "AnnounceEnd"]
    found: str = json.loads(scheduled[-1]["Input"])["event_id"]
    return found


# What is told


def test_a_record_that_is_posted_is_told_once_with_nothing_of_it(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    record = new_record()
    operation_id = start(app, record)
    host.settle()
    (message,) = receiver.messages
    event = message.event
    source = "/api/businesses/operations"
    assert re.fullmatch("[0-9a-f]{32}", event["id"])
    assert event == {
        "specversion": "1.0",
        "id": event["id"],
        "source": source,
        "type": "business.operation.ended",
        "subject": operation_id,
        "time": event["time"],
        "datacontenttype": "application/json",
        "data": {"id": operation_id, "state": "posted", "url": f"{source}/{operation_id}"},
    }
    assert abs(datetime.fromisoformat(event["time"]) - host.now) < timedelta(seconds=60)
    assert message.headers["content-type"] == "application/cloudevents+json"
    told = json.dumps([dict(message.headers), message.body.decode(), message.path])
    assert [value for value in record.values() if len(str(value)) > 2 and str(value) in told] == []
    assert app.get(event["data"]["url"]).json()["state"] == "posted"


def test_a_library_reads_the_event(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    operation_id = start(app, new_record())
    host.settle()
    (message,) = receiver.messages
    event = from_http_event(HTTPMessage(dict(message.headers), message.body))
    assert (event.get_type(), event.get_subject()) == ("business.operation.ended", operation_id)
    assert event.get_data() == message.event["data"]


def test_on_azure_the_link_is_absolute(
    host: RunningHost,
    app: httpx.Client,
    new_record: NewRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WEBSITE_HOSTNAME", "func-x.azurewebsites.net")
    operation_id = app.post("/API/businesses", json=new_record()).raise_for_status().json()["id"]
    host.settle()
    (event,) = receiver.events
    assert event["source"] == "https://func-x.azurewebsites.net/api/businesses/operations"
    assert event["data"]["url"] == f"{event['source']}/{operation_id}"


def test_a_batch_is_told_with_its_tally(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord, receiver: Receiver
) -> None:
    records = [new_record() for _ in range(3)]
    sandbox.disturb(records={key_of(records[1]): [REFUSED]})
    operation_id = start_batch(app, records)
    host.settle()
    (event,) = receiver.events
    assert event["data"]["state"] == "completed"
    assert event["data"]["tally"] == operation(app, operation_id)["batch"]["tally"]
    assert event["data"]["tally"]["rejected"] == 1


@pytest.mark.parametrize("path", ["/api/businesses", "/api/businesses/batch"])
@pytest.mark.parametrize("end", ["cancelled", "gave_up"])
def test_what_is_cancelled_or_given_up_is_told(
    host: RunningHost,
    app: httpx.Client,
    sandbox: Sandbox,
    new_record: NewRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    end: str,
) -> None:
    monkeypatch.setenv("DELIVERY_DEADLINE", "1000")
    record = new_record()
    sandbox.disturb(records={key_of(record): [LATER] * 3})
    operation_id = app.post(path, json=[record] if "batch" in path else record).raise_for_status().json()["id"]
    host.settle()
    assert receiver.events == []
    if end == "cancelled":
        host.raise_event(operation_id, CANCEL)
    host.wait(operation_id, skip_timers=True)
    host.settle()
    (event,) = receiver.events
    state = operation(app, operation_id)["state"]
    assert event["data"]["state"] == state == ("completed" if "batch" in path and end == "gave_up" else end)
    assert event["data"].get("tally", {end: 1})[end] == 1


def test_a_record_that_is_refused_and_retried_is_told_twice_under_two_ids(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord, receiver: Receiver
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [REFUSED]})
    operation_id = start(app, record)
    host.settle()
    app.post(f"/api/businesses/operations/{operation_id}/retry").raise_for_status()
    host.settle()
    (first, rejected), (second, posted) = told_of(receiver, operation_id)
    assert (rejected, posted) == ("rejected", "posted")
    assert first != second


def test_what_is_retried_with_many_others_is_told_again_and_so_is_the_work_itself(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord, receiver: Receiver, one_clock: None
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [REFUSED]})
    operation_id = start(app, record)
    host.settle()
    begun = app.post("/api/businesses/operations/retry?state=rejected&since=2020-01-01T00:00:00Z").raise_for_status()
    host.settle()
    (first, refused), (second, posted) = told_of(receiver, operation_id)
    assert (refused, posted, first != second) == ("rejected", "posted", True)
    assert [state for _, state in told_of(receiver, begun.json()["id"])] == ["completed"]


@pytest.mark.parametrize("batch", [False, True])
def test_what_an_operator_starts_again_is_told_again(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver, batch: bool
) -> None:
    operation_id = start_batch(app, [new_record()]) if batch else start(app, new_record())
    host.settle()
    host.advance(5)
    control = f"/runtime/webhooks/durabletask/instances/{operation_id}"
    app.post(f"{control}/restart?restartWithNewInstanceId=false").raise_for_status()
    host.settle()
    (first, _), (second, _) = told_of(receiver, operation_id)
    assert first != second


def test_what_an_operator_terminates_is_not_told(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord, receiver: Receiver
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [LATER]})
    operation_id = start(app, record)
    host.settle()
    app.post(f"/runtime/webhooks/durabletask/instances/{operation_id}/terminate?reason=no").raise_for_status()
    host.wait(operation_id)
    host.settle()
    assert operation(app, operation_id)["state"] == "cancelled"
    assert receiver.messages == []


# Receivers who are not well


def test_a_receiver_that_is_down_for_a_while_gets_every_event_under_one_id(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    receiver.answers.extend([503, 404, 500, 500])
    ids = [start(app, new_record()), start_batch(app, [new_record(), new_record()])]
    host.settle()
    for operation_id in ids:
        host.wait(event_of(host, operation_id), skip_timers=True)
    for operation_id in ids:
        assert len(set(told_of(receiver, operation_id))) == 1
    assert len(receiver.messages) == 6
    assert len({message.body for message in receiver.messages}) == 2


def test_a_receiver_that_nobody_finds_is_found_later(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    monkeypatch.setenv("OPERATIONS_EVENTS_URL", f"http://127.0.0.1:{port}/hook")
    operation_id = start(app, new_record())
    host.settle()
    assert operation(app, operation_id)["state"] == "posted"
    assert host.status(event_of(host, operation_id)).custom_status["reason"].startswith("ConnectError")
    with receiving(port) as receiver:
        host.wait(event_of(host, operation_id), skip_timers=True)
        assert len(told_of(receiver, operation_id)) == 1


def test_a_receiver_that_hangs_is_asked_again(
    host: RunningHost,
    app: httpx.Client,
    new_record: NewRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.operations.events.PATIENCE", 0.2)
    receiver.answers.append(hang)
    operation_id = start(app, new_record())
    host.settle()
    host.wait(event_of(host, operation_id), skip_timers=True)
    assert len(set(told_of(receiver, operation_id))) == 1
    assert len(receiver.messages) == 2


def test_a_receiver_that_takes_its_time_is_told_once(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    async def slowly() -> int:
        await asyncio.sleep(0.5)
        return 202

    receiver.answers.append(slowly)
    operation_id = start(app, new_record())
    host.settle()
    host.advance(DAY)
    assert len(told_of(receiver, operation_id)) == 1


def test_receivers_that_hang_leave_places_for_deliveries(
    host: RunningHost,
    app: httpx.Client,
    new_record: NewRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.operations.events.PATIENCE", 2.0)
    receiver.answers.extend([hang] * 8)
    ids = [start(app, new_record()) for _ in range(10)]
    host.settle()
    assert len(receiver.messages) <= 10
    reasons = [host.status(event_of(host, one)).custom_status.get("reason", "") for one in ids]
    assert any("messages are under way" in reason for reason in reasons)
    for operation_id in ids:
        host.wait(event_of(host, operation_id), skip_timers=True)
        assert len(set(told_of(receiver, operation_id))) == 1


def test_a_wish_for_a_later_time_is_granted(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    receiver.answers.append(web.Response(status=503, headers={"Retry-After": "600"}))
    operation_id = start(app, new_record())
    host.settle()
    host.advance(599)
    assert len(receiver.messages) == 1
    host.advance(3)
    assert len(told_of(receiver, operation_id)) == 2


def test_redirects_are_not_followed(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    receiver.answers.append(web.Response(status=307, headers={"Location": "/elsewhere"}))
    operation_id = start(app, new_record())
    host.settle()
    host.wait(event_of(host, operation_id), skip_timers=True)
    assert [message.path for message in receiver.messages] == ["/hook", "/hook"]


def test_who_is_gone_is_asked_no_more(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    receiver.answers.append(410)
    operation_id = start(app, new_record())
    host.settle()
    assert host.wait(event_of(host, operation_id)).output["outcome"] == "refused"
    host.advance(2 * DAY)
    assert len(receiver.messages) == 1


def test_an_endless_answer_is_not_read(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    read = 0

    async def endless() -> web.Response:
        nonlocal read

        async def chunks() -> Any:
            nonlocal read
            while True:
                read += 1
                yield b"x" * 2**16

        return web.Response(body=chunks())

    receiver.answers.append(endless)
    operation_id = start(app, new_record())
    host.settle()
    assert host.wait(event_of(host, operation_id)).output["outcome"] == "sent"
    assert read < 1000


def test_after_a_day_the_event_is_given_up_with_one_error(
    host: RunningHost,
    app: httpx.Client,
    new_record: NewRecord,
    receiver: Receiver,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def in_an_hour() -> web.Response:
        return web.Response(status=500, headers={"Retry-After": "3600"})

    receiver.answers.extend([in_an_hour] * 100)
    began = host.now
    operation_id = start(app, new_record())
    host.settle()
    ended = host.wait(event_of(host, operation_id), skip_timers=True)
    assert ended.output["outcome"] == "gave_up"
    assert timedelta(hours=22) < host.now - began <= timedelta(days=1)
    assert len(receiver.messages) == 24
    errors = [one.getMessage() for one in caplog.records if one.levelname == "ERROR" and one.name == "post_business"]
    assert len(errors) == 1
    assert operation_id in errors[0]
    assert "status 500" in errors[0]
    assert operation(app, operation_id)["state"] == "posted"


# Engines that do things twice, and operations that are not there when they are looked for


@pytest.mark.parametrize("activity", ["AnnounceEnd", "SendEvent"])
def test_an_activity_that_runs_twice_makes_no_other_event(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver, activity: str
) -> None:
    host.lose_result(activity)
    operation_id = start(app, new_record())
    host.settle()
    assert host.invocations[activity] == 2
    assert len(set(told_of(receiver, operation_id))) == 1
    assert len(receiver.messages) == host.invocations["SendEvent"]


@pytest.mark.parametrize("activity", ["AnnounceEnd", "SendEvent"])
def test_a_restart_of_the_worker_loses_no_event(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver, activity: str
) -> None:
    with host.held(activity) as held:
        operation_id = start(app, new_record())
        held.wait()
        assert receiver.messages == []
        host.restart()
    host.settle()
    assert len(told_of(receiver, operation_id)) == 1


def test_nobody_is_told_before_the_operation_has_ended(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    host.lose_result("AnnounceEnd")
    with host.held("SendEvent") as sending:
        operation_id = start(app, new_record())
        sending.wait()
        state = host.status(operation_id)
    host.settle()
    assert state.runtime_status in {"Running", "Completed"}
    assert len(told_of(receiver, operation_id)) == 1
    assert host.status(operation_id).runtime_status == "Completed"


def test_an_end_that_cannot_be_announced_is_an_end_all_the_same(
    host: RunningHost,
    app: httpx.Client,
    new_record: NewRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("no task hub")

    monkeypatch.setattr("shared.functions.events.durable_client", fail)
    operation_id = start(app, new_record())
    host.settle()
    assert operation(app, operation_id)["state"] == "posted"
    assert host.invocations["AnnounceEnd"] == 3
    assert f"Operation {operation_id}: nobody is told of its end" in caplog.text
    assert receiver.messages == []


@pytest.mark.parametrize("meanwhile", ["retried", "erased"])
def test_an_operation_that_goes_on_or_is_erased_before_the_receiver_is_up_is_told_as_it_ended(
    host: RunningHost,
    app: httpx.Client,
    sandbox: Sandbox,
    new_record: NewRecord,
    receiver: Receiver,
    meanwhile: str,
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [REFUSED]})
    with host.held("SendEvent") as sending:
        operation_id = start(app, record)
        sending.wait()
        host.wait(operation_id)
        host.advance(2)
        url = f"/api/businesses/operations/{operation_id}"
        (app.post(f"{url}/retry") if meanwhile == "retried" else app.delete(url)).raise_for_status()
    host.settle()
    assert {state for _, state in told_of(receiver, operation_id)} >= {"rejected"}
    assert len(set(told_of(receiver, operation_id))) == (2 if meanwhile == "retried" else 1)


# Signatures and secrets


@pytest.mark.parametrize("secret", [SECRET, f"{OTHER_SECRET} {SECRET}", f"{SECRET}  {OTHER_SECRET}"])
def test_a_library_verifies_the_signature(
    host: RunningHost,
    app: httpx.Client,
    new_record: NewRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    secret: str,
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("OPERATIONS_EVENTS_SECRET", secret)
    receiver.answers.append(503)
    start(app, new_record())
    host.settle()
    host.advance(10)
    first, second = receiver.messages
    for message in (first, second):
        assert Webhook(SECRET).verify(message.body, dict(message.headers)) == message.event
        assert message.headers["webhook-id"] == message.event["id"]
    assert first.body == second.body
    told = caplog.text + host.dump() + json.dumps([dict(message.headers) for message in receiver.messages])
    for one in secret.split():
        assert one.removeprefix("whsec_") not in told
    assert receiver.url not in caplog.text + host.dump()


def test_without_a_secret_nothing_is_signed(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    start(app, new_record())
    host.settle()
    headers = receiver.messages[0].headers
    assert "webhook-id" in headers
    assert "webhook-signature" not in headers


@pytest.mark.parametrize(
    "bad",
    [
        {"OPERATIONS_EVENTS_URL": "http://receiver.example.com/hook"},
        {"OPERATIONS_EVENTS_URL": "nonsense"},
        {"OPERATIONS_EVENTS_SECRET": "whsec_short"},
    ],
)
def test_a_bad_setting_stops_no_delivery_and_what_ended_meanwhile_is_told_once_it_is_mended(
    host: RunningHost,
    app: httpx.Client,
    new_record: NewRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    bad: dict[str, str],
) -> None:
    with monkeypatch.context() as environment:
        for name, value in bad.items():
            environment.setenv(name, value)
        operation_id = start(app, new_record())
        host.settle()
        assert operation(app, operation_id)["state"] == "posted"
        assert f"No event is sent: {next(iter(bad))}: expected" in caplog.text
    assert receiver.messages == []
    host.wait(event_of(host, operation_id), skip_timers=True)
    assert len(told_of(receiver, operation_id)) == 1


def test_a_receiver_that_is_not_named_any_more_is_not_told(
    host: RunningHost,
    app: httpx.Client,
    new_record: NewRecord,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    receiver.answers.append(503)
    operation_id = start(app, new_record())
    host.settle()
    monkeypatch.delenv("OPERATIONS_EVENTS_URL")
    assert host.wait(event_of(host, operation_id), skip_timers=True).output["outcome"] == "refused"
    assert len(receiver.messages) == 1


# What else there is in the task hub


def test_what_tells_an_end_is_no_operation(
    host: RunningHost, app: httpx.Client, new_record: NewRecord, receiver: Receiver
) -> None:
    operation_id = start(app, new_record())
    host.settle()
    event_id = event_of(host, operation_id)
    assert host.status(event_id).runtime_status == "Completed"
    assert app.get(f"/api/businesses/operations/{event_id}").status_code == 404
    assert app.delete(f"/api/businesses/operations/{event_id}").status_code == 404
    listed = app.get("/api/businesses/operations").raise_for_status().json()["operations"]
    assert [one["id"] for one in listed] == [operation_id]


def test_without_the_setting_nothing_of_it_is_stored_or_run(
    host: RunningHost, app: httpx.Client, new_record: NewRecord
) -> None:
    for operation_id in (start(app, new_record()), start_batch(app, [new_record()])):
        host.wait(operation_id)
        host.settle()
        events = [one["EventType"] for one in host.history(operation_id)]
        # OrchestratorStarted, ExecutionStarted, TaskScheduled, OrchestratorCompleted; then TaskCompleted, and the end
        assert events == [12, 0, 4, 13, 12, 5, 1]
    assert host.invocations.keys() == {"PostBusiness", "PostBusinesses"}
    assert "announced" not in host.dump()
    assert "ended_at" not in host.dump()


def test_without_the_setting_its_code_is_not_even_imported() -> None:
    app = Path(__file__).parents[2]
    program = "import function_app, shared.operations.resource, sys; print('shared.operations.events' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", program], cwd=app, text=True).strip() == "False"
