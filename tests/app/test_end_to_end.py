"""Records go the whole way: HTTP trigger, orchestrator, activity, typed client, token cache, protected API."""

import logging
from typing import Any

import httpx
import pytest

from devhost.testing import RunningHost
from shared.access_tokens import shared_cache
from shared.settings import BusinessApiSettings
from shared.wiring import token_source

from .conftest import NewRecord, Sandbox, operation


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
    posted = finished.json()["outcome"]["business"]
    assert app.get(f"/api/businesses/{posted['id']}").json() == {**record, "id": posted["id"]}


def test_the_answer_to_a_start_names_no_management_url(app: httpx.Client, new_record: NewRecord) -> None:
    response = app.post("/api/businesses", json=new_record())
    assert response.headers["Location"] == f"/api/businesses/operations/{response.json()['id']}"
    assert "runtime/webhooks" not in response.text + str(response.headers)
    assert response.json().keys() == {"id", "state", "attempt"}


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429, "retry_after": 7}, {"drop": "before"}, {"drop": "after"}]
)
def test_a_record_that_meets_a_passing_fault_is_deferred_then_posted_once(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord, fault: dict[str, Any]
) -> None:
    record = new_record()
    sandbox.disturb(records={record["registration_number"]: [fault]})
    before = sandbox.stats()
    operation_id = start(app, record)
    host.wait(operation_id, until=lambda status: status.custom_status is not None)

    deferred = operation(app, operation_id)
    assert deferred["state"] == "deferred"
    assert deferred["next_attempt_at"] > deferred["created_at"]
    assert deferred["outcome"]["reason"]
    assert deferred["outcome"].get("retry_after") == fault.get("retry_after")

    host.wait(operation_id, skip_timers=True)
    assert operation(app, operation_id)["state"] == "posted"
    assert operation(app, operation_id)["attempt"] == 2
    assert sandbox.stats()["stored"] == before["stored"] + 1


def test_a_refused_record_is_rejected_with_the_problem_details_of_the_api(
    host: RunningHost, app: httpx.Client, new_record: NewRecord
) -> None:
    operation_id = start(app, {**new_record(), "country": "AQ"})
    host.wait(operation_id)
    outcome = operation(app, operation_id)["outcome"]
    assert (outcome["outcome"], outcome["status"]) == ("rejected", 422)
    assert outcome["problem"]["errors"][0]["field"] == "country"


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
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    sandbox.disturb(rates={"503": 1.0})
    operation_id = start(app, new_record())
    started_at = host.now
    host.wait(operation_id, skip_timers=True)
    given_up = operation(app, operation_id)
    assert given_up["state"] == "gave_up"
    assert "503" in given_up["outcome"]["reason"]
    assert 23 * 3600 < (host.now - started_at).total_seconds() <= 24 * 3600


def test_a_repeated_start_under_one_idempotency_key_is_one_operation(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record, before = new_record(), sandbox.stats()
    key = {"Idempotency-Key": f'"{record["registration_number"]}"'}
    first = start(app, record, **key)
    host.wait(first)
    assert start(app, record, **key) == first
    other = app.post("/api/businesses", json=new_record(), headers=key)
    assert other.status_code == 422
    assert other.headers["Content-Type"] == "application/problem+json"
    assert sandbox.stats()["posts"] - before["posts"] == 1


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b'{"name": "Acme"}', "application/json", 400),
        (b'{"name": ', "application/json", 400),
        (b"name=Acme", "application/x-www-form-urlencoded", 415),
        (b'{"name": "%s"}' % (b"x" * 256 * 1024), "application/json", 413),
    ],
)
def test_a_bad_request_is_answered_with_problem_details(
    app: httpx.Client, body: bytes, content_type: str, status: int
) -> None:
    response = app.post("/api/businesses", content=body, headers={"Content-Type": content_type})
    assert response.status_code == status
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["status"] == status


@pytest.mark.parametrize("path", ["/api/businesses/operations/unknown", "/api/businesses/unknown"])
def test_what_is_not_there_is_a_404_with_problem_details(app: httpx.Client, path: str) -> None:
    response = app.get(path)
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"


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
    sandbox.disturb(records={record["registration_number"]: [{"status": 503}]})
    operation_id = start(app, record)
    host.wait(operation_id, skip_timers=True)

    said = caplog.text + host.dump() + str(host.history(operation_id)) + str(operation(app, operation_id))
    assert record["registration_number"] in said  # it is the right place to look
    secret = settings.client_secret.get_secret_value()
    assert [hidden for hidden in (revoked, token.get().value, secret) if hidden in said] == []
