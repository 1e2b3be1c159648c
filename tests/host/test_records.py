"""One record goes the whole way: HTTP trigger, orchestrator, activity, typed client, token, protected API."""

import codecs
import json
from typing import Any

import pytest

from tests.sandboxed import PROBLEM, REFUSED, NewRecord, Sandbox, key_of

from .conftest import Caller


def test_a_record_is_posted_and_can_be_read_again(app: Caller, new_record: NewRecord) -> None:
    record = new_record()
    accepted = app.http.post("/api/businesses", json=record)
    assert accepted.status_code == 202
    finished = app.http.get(accepted.headers["Location"], params={"wait": 60})
    assert (finished.json()["state"], finished.json()["attempt"]) == ("posted", 1)
    assert "Retry-After" not in finished.headers
    posted = finished.json()["outcome"]
    assert posted["business"].items() > record.items()
    assert app.http.get(f"/api/businesses/{posted['id']}").json() == posted["business"]


def test_a_record_after_a_byte_order_mark_is_posted(app: Caller, new_record: NewRecord) -> None:
    headers = {"Content-Type": "application/json", "Prefer": "wait=60"}
    content = codecs.BOM_UTF8 + json.dumps(new_record()).encode()
    assert app.http.post("/api/businesses", content=content, headers=headers).status_code == 201


def test_the_answer_to_a_start_names_the_operation_and_no_management_url(app: Caller, new_record: NewRecord) -> None:
    answer = app.http.post("/api/businesses", json=new_record())
    assert answer.headers["Location"] == f"/api/businesses/operations/{answer.json()['id']}"
    assert "runtime/webhooks" not in answer.text + str(answer.headers)
    assert answer.json().keys() == {"id", "state", "attempt"}


@pytest.mark.parametrize(
    "fault", [{"status": 503}, {"status": 429, "retry_after": 3}, {"drop": "before"}, {"drop": "after"}]
)
def test_a_record_that_meets_a_passing_fault_is_deferred_then_posted_once(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, fault: dict[str, Any]
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [fault]})
    before = sandbox.stats()
    operation_id = app.start(record)
    deferred = app.until(operation_id, lambda operation: operation["attempt"])
    assert deferred["state"] == "deferred"
    assert deferred["next_attempt_at"] > deferred["created_at"]
    assert deferred["outcome"]["reason"]
    assert deferred["outcome"].get("retry_after") == fault.get("retry_after")
    finished = app.end(operation_id)
    assert (finished["state"], finished["attempt"]) == ("posted", 2)
    assert sandbox.stats()["stored"] == before["stored"] + 1


def test_a_refused_record_is_rejected_with_the_problem_details_of_the_api(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [REFUSED]})
    outcome = app.end(app.start(record))["outcome"]
    assert (outcome["outcome"], outcome["status"]) == ("rejected", 422)
    assert outcome["problem"] == PROBLEM


def test_after_all_tokens_were_revoked_the_same_attempt_succeeds(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    app.end(app.start(new_record()))
    sandbox.revoke_tokens()
    finished = app.end(app.start(new_record()))
    assert (finished["state"], finished["attempt"]) == ("posted", 1)


def test_a_repeated_start_under_one_idempotency_key_is_one_operation(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record, before = new_record(), sandbox.stats()
    key = {"Idempotency-Key": f'"{key_of(record)}"'}
    first = app.start(record, **key)
    assert app.start(record, **key) == first
    app.end(first)
    assert app.start(record, **key) == first
    other = app.http.post("/api/businesses", json=new_record(), headers=key)
    assert (other.status_code, other.headers["Content-Type"]) == (422, "application/problem+json")
    assert sandbox.stats()["posts"] - before["posts"] == 1


def test_a_caller_that_prefers_to_wait_gets_the_end_in_the_first_answer(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    posted = app.http.post("/api/businesses", json=new_record(), headers={"Prefer": "wait=60"})
    assert (posted.status_code, posted.json()["state"]) == (201, "posted")
    assert posted.headers["Preference-Applied"] == "wait=60"
    bad = new_record()
    sandbox.disturb(records={key_of(bad): [REFUSED]})
    rejected = app.http.post("/api/businesses", json=bad, headers={"Prefer": "wait=60"})
    assert (rejected.status_code, rejected.json()["state"]) == (200, "rejected")
    at_once = app.http.post("/api/businesses", json=new_record(), headers={"Prefer": "respond-async"})
    assert at_once.status_code == 202
