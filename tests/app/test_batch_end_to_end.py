"""Batches go the whole way, and are cancelled, listed and read page by page."""

import json
from typing import Any

import httpx
import pytest

from devhost.testing import RunningHost

from .conftest import NewRecord, Sandbox, operation


def start_batch(app: httpx.Client, records: list[dict[str, Any]], **headers: str) -> str:
    response = app.post("/api/businesses/batch", json=records, headers=headers)
    assert response.status_code == 202, response.text
    operation_id: str = response.json()["id"]
    return operation_id


def results(app: httpx.Client, operation_id: str, page: int = 1) -> list[dict[str, Any]]:
    answer = app.get(f"/api/businesses/operations/{operation_id}/results", params={"page": page})
    found: list[dict[str, Any]] = answer.raise_for_status().json()["results"]
    return found


def test_a_batch_is_posted_with_each_record_stored_once_and_told_in_order(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(230)]
    records[7]["country"] = "AQ"
    before = sandbox.stats()
    operation_id = start_batch(app, records)
    host.wait(operation_id)

    finished = operation(app, operation_id)
    assert finished["state"] == "completed"
    tally = finished["batch"]["tally"]
    assert (tally["total"], tally["posted"], tally["rejected"]) == (230, 229, 1)
    assert sandbox.stats()["stored"] - before["stored"] == 229
    assert [len(results(app, operation_id, page)) for page in (1, 2, 3)] == [100, 100, 30]
    first = results(app, operation_id)
    assert [item["index"] for item in first] == list(range(100))
    assert first[7]["result"]["outcome"] == "rejected"
    assert (
        app.get(f"/api/businesses/{first[0]['result']['id']}").json()["registration_number"]
        == (records[0]["registration_number"])
    )


def test_deferred_records_come_again_in_later_rounds_under_the_same_keys(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(40)]
    steps = [{"status": 503}, {"drop": "after"}]
    sandbox.disturb(records={record["registration_number"]: steps for record in records[:10]})
    before = sandbox.stats()
    operation_id = start_batch(app, records)
    host.wait(operation_id, skip_timers=True)
    finished = operation(app, operation_id)
    assert (finished["state"], finished["attempt"]) == ("completed", 3)
    after = sandbox.stats()
    assert after["stored"] - before["stored"] == 40
    assert after["replays"] - before["replays"] == 10


def test_lines_of_json_are_a_batch_too(host: RunningHost, app: httpx.Client, new_record: NewRecord) -> None:
    body = "\n".join(json.dumps(new_record()) for _ in range(3)) + "\n"
    accepted = app.post(
        "/api/businesses/batch", content=body, headers={"Content-Type": "application/x-ndjson", "Prefer": "wait=30"}
    )
    assert accepted.status_code == 200
    assert accepted.headers["Preference-Applied"] == "wait=30"
    assert accepted.json()["batch"]["tally"]["posted"] == 3


def test_one_bad_record_stops_the_whole_batch_and_every_bad_one_is_named(
    app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    before = sandbox.stats()
    records = [new_record(), {"name": "x"}, new_record(), {**new_record(), "country": "Germany"}]
    refused = app.post("/api/businesses/batch", json=records)
    assert refused.status_code == 400
    assert {error["index"] for error in refused.json()["errors"]} == {1, 3}
    assert sandbox.stats()["posts"] == before["posts"]


def test_with_skip_invalid_the_good_records_are_posted_and_the_others_named(
    host: RunningHost, app: httpx.Client, new_record: NewRecord
) -> None:
    records = [new_record(), {"name": "x"}, new_record()]
    accepted = app.post("/api/businesses/batch?skip_invalid=true", json=records, headers={"Prefer": "wait=30"})
    assert accepted.json()["batch"]["tally"]["posted"] == 2
    assert {error["index"] for error in accepted.json()["skipped"]} == {1}


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b"[{", "application/json", 400),
        (b"", "application/x-ndjson", 400),
        (b"[]", "text/csv", 415),
        (b"[" + b"{}," * 10_000 + b"{}]", "application/json", 413),
        (b" " * 10_000_001, "application/json", 413),
    ],
)
def test_a_body_that_is_no_batch_is_refused(app: httpx.Client, content: bytes, content_type: str, status: int) -> None:
    refused = app.post("/api/businesses/batch", content=content, headers={"Content-Type": content_type})
    assert refused.status_code == status
    assert refused.headers["Content-Type"] == "application/problem+json"


def test_a_repeated_batch_under_one_idempotency_key_is_one_operation_even_rounds_later(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(5)]
    sandbox.disturb(records={records[0]["registration_number"]: [{"status": 503}]})
    key = {"Idempotency-Key": records[0]["registration_number"]}
    first = start_batch(app, records, **key)
    host.wait(first, skip_timers=True)
    assert start_batch(app, records, **key) == first
    assert app.post("/api/businesses/batch", json=records[:4], headers=key).status_code == 422
    assert app.post("/api/businesses", json=records[0], headers=key).status_code == 422


def test_a_cancelled_batch_sends_nothing_more_and_tells_what_was_sent(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    before = sandbox.stats()
    with host.held("PostBusiness") as held:
        operation_id = start_batch(app, [new_record() for _ in range(250)])
        held.wait()
        assert app.post(f"/api/businesses/operations/{operation_id}/cancel").status_code == 202
    host.wait(operation_id)
    ended = operation(app, operation_id)
    assert ended["state"] == "cancelled"
    tally = ended["batch"]["tally"]
    assert tally["posted"] == sandbox.stats()["stored"] - before["stored"]
    assert 0 < tally["posted"] <= 40
    assert tally["posted"] + tally["cancelled"] == 250


def test_a_batch_that_sleeps_between_rounds_is_cancelled_at_once(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    sandbox.disturb(rates={"503": 1.0})
    operation_id = start_batch(app, [new_record() for _ in range(3)])
    host.wait(operation_id, until=lambda status: bool((status.custom_status or {}).get("next_round_at")))
    assert operation(app, operation_id)["state"] == "deferred"
    app.post(f"/api/businesses/operations/{operation_id}/cancel").raise_for_status()
    host.wait(operation_id)
    assert operation(app, operation_id)["batch"]["tally"]["cancelled"] == 3


def test_a_single_deferred_record_is_cancelled_and_can_be_retried(
    host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record = new_record()
    sandbox.disturb(records={record["registration_number"]: [{"drop": "after"}]})
    before = sandbox.stats()
    operation_id = app.post("/api/businesses", json=record).json()["id"]
    host.wait(operation_id, until=lambda status: status.custom_status is not None)
    app.post(f"/api/businesses/operations/{operation_id}/cancel").raise_for_status()
    host.wait(operation_id)
    assert operation(app, operation_id)["state"] == "cancelled"
    assert app.post(f"/api/businesses/operations/{operation_id}/cancel").status_code == 409

    corrected = app.post(f"/api/businesses/operations/{operation_id}/retry", json=new_record())
    assert corrected.status_code == 409  # the API may have stored the first one
    assert app.post(f"/api/businesses/operations/{operation_id}/retry").status_code == 202
    host.wait(operation_id)
    assert operation(app, operation_id)["state"] == "posted"
    assert sandbox.stats()["stored"] - before["stored"] == 1
    assert app.post(f"/api/businesses/operations/{operation_id}/retry").status_code == 409


def test_a_rejected_record_is_corrected_and_posted_under_the_same_operation(
    host: RunningHost, app: httpx.Client, new_record: NewRecord
) -> None:
    record = new_record()
    operation_id = app.post("/api/businesses", json={**record, "country": "AQ"}).json()["id"]
    host.wait(operation_id)
    assert app.post(f"/api/businesses/operations/{operation_id}/retry", json=record).status_code == 202
    host.wait(operation_id)
    assert operation(app, operation_id)["outcome"]["business"]["country"] == "DE"


def test_operations_are_listed_by_state_and_time_the_latest_first(
    host: RunningHost, app: httpx.Client, new_record: NewRecord
) -> None:
    posted = app.post("/api/businesses", json=new_record()).json()["id"]
    host.wait(posted)
    host.advance(60)
    rejected = app.post("/api/businesses", json={**new_record(), "country": "AQ"}).json()["id"]
    batch = start_batch(app, [new_record() for _ in range(3)])
    for operation_id in (rejected, batch):
        host.wait(operation_id)

    def listed(**query: str) -> list[str]:
        found = app.get("/api/businesses/operations", params={"since": "2000-01-01T00:00:00Z", **query})
        return [operation["id"] for operation in found.raise_for_status().json()["operations"]]

    assert set(listed()) == {posted, rejected, batch}
    assert listed()[-1] == posted
    assert listed(state="rejected") == [rejected]
    assert posted not in listed(since=host.now.isoformat().replace("+00:00", "Z"))


@pytest.mark.parametrize(
    "query",
    [{"state": "lost"}, {"page": "0"}, {"page": "x"}, {"since": "yesterday"}, {"since": "0001-01-01T00:00+23:00"}],
)
def test_a_bad_query_is_a_400_that_names_the_parameter(app: httpx.Client, query: dict[str, str]) -> None:
    refused = app.get("/api/businesses/operations", params=query)
    assert refused.status_code == 400
    assert next(iter(query)) in refused.json()["detail"]


def test_an_unchanged_operation_is_a_304(host: RunningHost, app: httpx.Client, new_record: NewRecord) -> None:
    operation_id = app.post("/api/businesses", json=new_record()).json()["id"]
    host.wait(operation_id)
    seen = app.get(f"/api/businesses/operations/{operation_id}")
    again = app.get(f"/api/businesses/operations/{operation_id}", headers={"If-None-Match": seen.headers["ETag"]})
    assert again.status_code == 304
    assert again.content == b""


def test_a_caller_that_prefers_to_wait_gets_the_end_in_the_first_answer(
    host: RunningHost, app: httpx.Client, new_record: NewRecord
) -> None:
    posted = app.post("/api/businesses", json=new_record(), headers={"Prefer": "wait=30"})
    assert (posted.status_code, posted.json()["state"]) == (201, "posted")
    rejected = app.post("/api/businesses", json={**new_record(), "country": "AQ"}, headers={"Prefer": "wait=30"})
    assert (rejected.status_code, rejected.json()["state"]) == (200, "rejected")
    deferred = app.post("/api/businesses", json=new_record(), headers={"Prefer": "respond-async"})
    assert deferred.status_code == 202
