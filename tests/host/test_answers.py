"""What an answer of the API means for the record: posted with a warning, rejected, deferred, in doubt."""

from typing import Any

import pytest

from tests.sandboxed import REFUSED, NewRecord, Sandbox, key_of

from .conftest import Caller


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 204},
        {"status": 201, "headers": {"Location": "/somewhere/7"}},
        {"status": 202, "body": {"job": 1}},
        {"status": 200, "body": "<html>", "headers": {"Content-Type": "text/html"}},
        {"status": 201, "body": "Created.", "headers": {"Content-Type": "text/plain"}},
        {"status": 201, "body": {"data": {"name": "enveloped"}}},
        {"status": 201, "body": "{"},
        {"status": 201, "body": "x", "headers": {"Content-Encoding": "gzip"}},
        {"status": 201, "body": "x", "headers": {"Content-Encoding": "x-unknown"}},
    ],
)
def test_a_yes_that_cannot_be_read_is_not_sent_again(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, answer: dict[str, Any]
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [{**answer, "store": True}]})
    before = sandbox.stats()
    operation = app.end(app.start(record))
    assert (operation["state"], operation["attempt"]) == ("posted", 1)
    assert operation["outcome"]["warning"].startswith(f"{answer['status']}: ")
    assert operation["outcome"].get("id") == ("7" if "Location" in answer.get("headers", {}) else None)
    after = sandbox.stats()
    assert (after["posts"] - before["posts"], after["stored"] - before["stored"]) == (1, 1)


def test_a_status_that_says_nothing_of_the_record_defers_it(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = {status: new_record() for status in (401, 402, 403, 404, 405, 407, 410, 421, 426, 431, 451)}
    answers = {status: [{"status": status}] for status in records}
    answers[401] *= 2  # the client itself renews the token and tries again
    sandbox.disturb(records={key_of(record): answers[status] for status, record in records.items()})
    operations = {status: app.start(record) for status, record in records.items()}
    for status, operation_id in operations.items():
        deferred = app.until(operation_id, lambda operation: operation["attempt"])
        if deferred["state"] == "deferred":  # it may be posted by now
            assert f": {status} " in deferred["outcome"]["reason"]
            assert deferred["outcome"]["reason"].startswith("POST /")
            assert "may_be_stored" not in deferred
    for operation_id in operations.values():
        ended = app.end(operation_id)
        assert (ended["state"], ended["attempt"]) == ("posted", 2)


@pytest.mark.parametrize("status", [400, 413, 415, 422])
def test_a_status_that_judges_the_content_rejects_it(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, status: int
) -> None:
    record = new_record()
    body = {"message": "refused"}
    answer = {"status": status, "body": body, "headers": {"Content-Type": "application/json"}}
    sandbox.disturb(records={key_of(record): [answer]})
    operation = app.end(app.start(record))
    assert (operation["state"], operation["attempt"]) == ("rejected", 1)
    assert operation["outcome"]["excerpt"].replace(" ", "") == '{"message":"refused"}'


def test_a_refusal_after_an_attempt_of_unknown_fate_is_not_corrected_by_mistake(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    unknown = [{"drop": "after"}, {"status": 500, "store": True}, {"status": 504, "store": True}]
    known = [{"status": 503}, {"status": 501}, {"status": 404}]
    records = [new_record() for _ in (*unknown, *known)]
    before = sandbox.stats()
    faults = zip(records, [*unknown, *known], strict=True)
    sandbox.disturb(records={key_of(record): [answer, REFUSED] for record, answer in faults})
    operations = [app.start(record) for record in records]
    corrected = new_record()
    for number, operation_id in enumerate(operations):
        may_be_stored = number < len(unknown)
        rejected = app.end(operation_id)
        assert (rejected["state"], rejected.get("may_be_stored", False)) == ("rejected", may_be_stored)
        assert rejected["outcome"].get("may_be_stored", False) is may_be_stored
        retry = f"/api/businesses/operations/{operation_id}/retry"
        if may_be_stored:
            refusal = app.http.post(retry, json=corrected)
            assert refusal.status_code == 409
            assert "not_stored=true" in refusal.json()["detail"]
            assert app.http.post(retry).status_code == 202  # the same record: under the same key
        else:
            corrected = new_record()
            assert app.http.post(retry, json=corrected).status_code == 202
    assert {app.end(operation_id)["state"] for operation_id in operations} == {"posted"}
    assert app.end(operations[-1])["outcome"]["business"].items() >= corrected.items()
    assert sandbox.stats()["stored"] - before["stored"] == len(records)


def test_who_knows_that_a_record_is_not_stored_may_correct_it(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record, corrected = new_record(), new_record()
    sandbox.disturb(records={key_of(record): [{"drop": "before"}, REFUSED]})
    before = sandbox.stats()
    operation_id = app.start(record)
    assert app.end(operation_id)["may_be_stored"]
    retry = f"/api/businesses/operations/{operation_id}/retry"
    assert app.http.post(f"{retry}?not_stored=perhaps", json=corrected).status_code == 400
    assert app.http.post(f"{retry}?not_stored=true", json=corrected).status_code == 202
    assert app.end(operation_id)["outcome"]["business"].items() >= corrected.items()
    assert sandbox.stats()["stored"] - before["stored"] == 1


def test_the_records_of_a_batch_keep_their_doubts_and_warnings(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    lost, warned, fine = new_record(), new_record(), new_record()
    faults = {key_of(lost): [{"drop": "after"}, REFUSED], key_of(warned): [{"status": 204, "store": True}]}
    sandbox.disturb(records=faults)
    batch = app.end(app.start_batch([lost, warned, fine]))
    assert (batch["batch"]["warnings"], batch["batch"]["may_be_stored"], batch["may_be_stored"]) == (1, 1, True)
    first, second, third = (item["result"] for item in app.results(batch["id"]))
    assert (first["outcome"], first["may_be_stored"]) == ("rejected", True)
    assert (second["outcome"], second["warning"]) == ("posted", "204: expected JSON, the body is empty")
    assert (third["outcome"], third.get("warning")) == ("posted", None)
    with_warnings = app.http.get(f"/api/businesses/operations/{batch['id']}/results?warning=true").json()["results"]
    assert [item["index"] for item in with_warnings] == [1]


@pytest.mark.parametrize("detail", ["d" * 9_000, "\u6f22" * 9_000, "\U0001f600" * 9_000])
def test_a_long_refusal_is_a_refusal_that_can_be_corrected(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, detail: str
) -> None:
    record, corrected = new_record(), new_record()
    sandbox.disturb(records={key_of(record): [{"status": 422, "body": {"title": "No", "detail": detail}}]})
    operation_id = app.start(record)
    rejected = app.end(operation_id)
    assert (rejected["state"], rejected["outcome"]["truncated"]) == ("rejected", True)
    assert detail.startswith(rejected["outcome"]["problem"]["detail"])
    assert app.http.post(f"/api/businesses/operations/{operation_id}/retry", json=corrected).status_code == 202
    assert app.end(operation_id)["state"] == "posted"
