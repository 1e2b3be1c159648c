"""Records go the whole way: HTTP trigger, orchestrator, activity, typed client, token cache, protected API."""

import logging
from typing import Any

import httpx
import pytest

from devhost.testing import RunningHost
from shared.access_tokens import shared_cache
from shared.settings import BusinessApiSettings
from shared.wiring import token_source
from tests.sandboxed import NewRecord, Sandbox, key_of

from .conftest import operation


def start(app: httpx.Client, record: dict[str, Any], **headers: str) -> str:
    response = app.post("/api/businesses", json=record, headers=headers)
    assert response.status_code == 202, response.text
    operation_id: str = response.json()["id"]
    return operation_id


def test_a_record_is_posted_and_can_be_read_again(host: RunningHost, app: httpx.Client, new_record: NewRecord) -> None:
    record = new_record()
    accepted = app.post("/api/businesses", json=record)
    assert accepted.status_code == 202
    host.wait(accepted.json()["id"])

    finished = app.get(accepted.headers["Location"])
    assert finished.json()["state"] == "posted"
    assert finished.json()["attempt"] == 1
    assert "Retry-After" not in finished.headers
    posted = finished.json()["outcome"]
    assert posted["business"].items() > record.items()
    assert app.get(f"/api/businesses/{posted['id']}").json() == posted["business"]


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429, "retry_after": 7}, {"drop": "before"}, {"drop": "after"}]
)
def test_a_record_that_meets_a_passing_fault_is_deferred_then_posted_once(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, unpaced: None, new_record: NewRecord, fault: dict[str, Any]
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [fault]})
    before = sandbox.stats()
    operation_id = start(app, record)
    host.wait(operation_id, until=lambda status: bool((status.custom_status or {}).get("attempt")))

    deferred = operation(app, operation_id)
    assert deferred["state"] == "deferred"
    assert deferred["next_attempt_at"] > deferred["created_at"]
    assert deferred["outcome"]["reason"]
    assert deferred["outcome"].get("retry_after") == fault.get("retry_after")

    host.wait(operation_id, skip_timers=True)
    assert operation(app, operation_id)["state"] == "posted"
    assert operation(app, operation_id)["attempt"] == 2
    assert sandbox.stats()["stored"] == before["stored"] + 1


@pytest.mark.parametrize("activity", ["PostBusiness", "PostBusinesses"])
@pytest.mark.parametrize("retry_after", [7, 8, 60])
def test_no_attempt_comes_before_the_time_that_the_api_asked_for_though_timers_are_early(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord, retry_after: int, activity: str
) -> None:
    record = new_record()
    # A 429 would be about all records, and the pacer waits for real seconds.
    sandbox.disturb(records={key_of(record): [{"status": 423, "retry_after": retry_after}]})
    path, sent = ("/api/businesses/batch", [record]) if activity == "PostBusinesses" else ("/api/businesses", record)
    operation_id = app.post(path, json=sent).raise_for_status().json()["id"]
    host.settle()
    host.advance(retry_after - 0.001)
    assert host.invocations[activity] == 1

    host.wait(operation_id, skip_timers=True)
    assert host.invocations[activity] == 2


def test_an_activity_whose_result_was_lost_runs_again_and_stores_once(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    before = sandbox.stats()
    host.lose_result("PostBusiness")
    operation_id = start(app, new_record())
    host.wait(operation_id)
    after = sandbox.stats()
    assert host.invocations["PostBusiness"] == 2
    assert after["stored"] - before["stored"] == 1
    assert after["replays"] - before["replays"] == 1


def test_a_record_survives_the_sudden_end_of_the_host(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    before = sandbox.stats()
    with host.held("PostBusiness") as held:
        operation_id = start(app, new_record())
        held.wait()
        host.restart()
    host.wait(operation_id)
    assert operation(app, operation_id)["state"] == "posted"
    assert sandbox.stats()["stored"] - before["stored"] == 1


def test_after_all_tokens_were_revoked_the_same_attempt_succeeds_with_one_renewal(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    host.wait(start(app, new_record()))
    sandbox.revoke_tokens()
    before = sandbox.stats()
    operation_id = start(app, new_record())
    host.wait(operation_id)
    assert operation(app, operation_id)["attempt"] == 1
    assert sandbox.stats()["token_requests"] - before["token_requests"] == 1


def test_many_records_share_one_token(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    host.wait(start(app, new_record()))
    before = sandbox.stats()
    for operation_id in [start(app, new_record()) for _ in range(20)]:
        host.wait(operation_id)
    assert sandbox.stats()["token_requests"] == before["token_requests"]


def test_an_api_that_never_recovers_is_given_up_at_the_deadline_with_the_last_reason(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, unpaced: None, new_record: NewRecord
) -> None:
    sandbox.disturb(rates={"503": 1.0})
    operation_id = start(app, new_record())
    started_at = host.now
    host.wait(operation_id, skip_timers=True)
    given_up = operation(app, operation_id)
    assert given_up["state"] == "gave_up"
    assert "503" in given_up["outcome"]["reason"]
    assert 23 * 3600 < (host.now - started_at).total_seconds() <= 24 * 3600


@pytest.mark.parametrize("path", ["", "/batch"])
def test_an_instance_that_an_operator_starts_again_under_another_id_stores_nothing_twice(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord, path: str
) -> None:
    record = new_record()
    before = sandbox.stats()
    operation_id = app.post(f"/api/businesses{path}", json=[record] if path else record).json()["id"]
    host.wait(operation_id)
    restarted = app.post(f"/runtime/webhooks/durabletask/instances/{operation_id}/restart").json()["id"]
    assert restarted != operation_id
    host.wait(restarted)
    assert operation(app, restarted)["state"] == operation(app, operation_id)["state"]
    after = sandbox.stats()
    assert (after["posts"] - before["posts"], after["stored"] - before["stored"]) == (2, 1)


@pytest.mark.parametrize("path", ["/api/businesses/operations/unknown", "/api/businesses/unknown"])
def test_what_is_not_there_is_a_404_with_problem_details(app: httpx.Client, path: str) -> None:
    response = app.get(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"


def test_a_cancelled_batch_sends_nothing_more_and_tells_what_was_sent(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    before = sandbox.stats()
    with host.held("PostBusinesses") as held:
        started = app.post("/api/businesses/batch", json=[new_record() for _ in range(1200)]).raise_for_status()
        operation_id = started.json()["id"]
        held.wait()
        assert app.post(f"/api/businesses/operations/{operation_id}/cancel").status_code == 202
    host.wait(operation_id)
    ended = operation(app, operation_id)
    assert ended["state"] == "cancelled"
    tally = ended["batch"]["tally"]
    assert tally["posted"] == sandbox.stats()["stored"] - before["stored"]
    assert (tally["posted"], tally["cancelled"]) == (1000, 200)  # the chunks that were under way, and the others


def test_no_token_and_no_secret_reaches_logs_or_durable_state(
    host: RunningHost,
    app: httpx.Client,
    sandbox: Sandbox,
    new_record: NewRecord,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("azure", "httpx", "httpcore"):
        caplog.set_level(logging.DEBUG, logger=name)
    settings = BusinessApiSettings.from_environment()
    token = shared_cache.of(token_source(settings))
    revoked = token.get().value
    sandbox.revoke_tokens()
    record = new_record()
    sandbox.disturb(records={key_of(record): [{"status": 503}]})
    operation_id = start(app, record)
    host.wait(operation_id, skip_timers=True)

    said = caplog.text + host.dump() + str(host.history(operation_id)) + str(operation(app, operation_id))
    assert key_of(record) in said  # it is the right place to look
    secret = settings.client_secret.get_secret_value()
    assert [hidden for hidden in (revoked, token.get().value, secret) if hidden in said] == []
