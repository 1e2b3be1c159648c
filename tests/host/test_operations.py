"""Operations are cancelled, retried, listed and looked up."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.sandboxed import LATER, REFUSED, NewRecord, Sandbox, key_of

from .conftest import Caller


def test_a_single_deferred_record_is_cancelled_and_can_be_retried(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record = new_record()
    lost_and_busy = [{"drop": "before"}, LATER]
    sandbox.disturb(records={key_of(record): lost_and_busy})
    before = sandbox.stats()
    operation_id = app.start(record)
    app.until(operation_id, lambda operation: operation["attempt"] == 2)
    cancelled = app.http.post(f"/api/businesses/operations/{operation_id}/cancel").raise_for_status()
    assert cancelled.headers["Location"] == f"/api/businesses/operations/{operation_id}"
    assert app.end(operation_id)["state"] == "cancelled"
    assert app.http.post(f"/api/businesses/operations/{operation_id}/cancel").status_code == 409

    corrected = app.http.post(f"/api/businesses/operations/{operation_id}/retry", json=new_record())
    assert corrected.status_code == 409  # the API may have stored the first one
    assert app.http.post(f"/api/businesses/operations/{operation_id}/retry").status_code == 202
    assert app.end(operation_id)["state"] == "posted"
    assert sandbox.stats()["stored"] - before["stored"] == 1
    assert app.http.post(f"/api/businesses/operations/{operation_id}/retry").status_code == 409


def test_a_rejected_record_is_corrected_and_posted_under_the_same_operation(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    wrong, record = new_record(), new_record()
    sandbox.disturb(records={key_of(wrong): [REFUSED]})
    operation_id = app.start(wrong)
    assert app.end(operation_id)["state"] == "rejected"
    assert "business_url" not in app.operation(operation_id)
    retried = app.http.post(f"/api/%62usinesses/OPERATIONS/{operation_id}/retry", json=record)
    assert retried.status_code == 202
    assert retried.headers["Location"] == f"/api/businesses/operations/{operation_id}"
    posted = app.until(operation_id, lambda operation: operation["state"] == "posted")
    assert posted["outcome"]["business"].items() >= record.items()


def test_a_refusal_that_the_api_remembers_by_its_key_is_not_the_last_word(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [REFUSED, REFUSED]})
    before = sandbox.stats()
    operation_id = app.start(record)
    assert app.end(operation_id)["state"] == "rejected"
    assert app.http.post(f"/api/businesses/operations/{operation_id}/retry").status_code == 202
    assert app.end(operation_id)["state"] == "posted"
    after = sandbox.stats()
    assert (after["posts"] - before["posts"], after["stored"] - before["stored"]) == (3, 1)


def test_a_posted_operation_links_to_its_record_however_its_path_is_spelled(app: Caller, new_record: NewRecord) -> None:
    record = new_record()
    waited = app.http.post("/api/BUSINESSES", json=record, headers={"Prefer": "wait=60"})
    assert waited.status_code == 201
    told = waited.json()
    assert told["business_url"] == f"/api/businesses/{told['outcome']['id']}"
    assert app.http.get(told["business_url"]).json().items() >= record.items()
    assert app.http.get(f"/api/businesses/%6fperations/{told['id']}").json()["business_url"] == told["business_url"]
    since = (datetime.now(UTC) - timedelta(minutes=2)).isoformat()
    listed = {one["id"]: one for one in app.listed(since=since, state="posted")}
    assert listed[told["id"]]["business_url"] == told["business_url"]
    page = app.http.get("/api/%62usinesses/Operations?limit=1").json()
    assert page.get("next", "/api/businesses/operations?").startswith("/api/businesses/operations?")


def test_operations_are_listed_by_state_and_time_the_latest_first(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    since = datetime.now(UTC) - timedelta(seconds=2)  # the engine tells whole seconds
    good, bad = new_record(), new_record()
    sandbox.disturb(records={key_of(bad): [REFUSED]})
    posted, rejected = app.start(good), app.start(bad)
    batch = app.start_batch([new_record() for _ in range(3)])
    for operation_id in (posted, rejected, batch):
        app.end(operation_id)

    def listed(**query: Any) -> list[str]:
        operations = app.listed(since=since.isoformat(), **query)
        times = [operation["created_at"] for operation in operations]
        assert times == sorted(times, reverse=True)
        return [operation["id"] for operation in operations]

    assert {posted, rejected, batch} <= set(listed())
    assert rejected in listed(state="rejected")
    assert not {posted, batch} & set(listed(state="rejected"))
    for several in ("rejected,completed", ["rejected", "completed"]):
        assert {rejected, batch} <= set(listed(state=several))
        assert posted not in listed(state=several)
    assert not {posted, rejected, batch} & set(listed(until=(since + timedelta(seconds=1)).isoformat()))
    assert app.listed(since=(datetime.now(UTC) + timedelta(hours=1)).isoformat()) == []


def test_more_operations_than_the_engine_lists_at_once_are_listed_all_page_by_page_while_others_begin(
    app: Caller, new_record: NewRecord
) -> None:
    since = (datetime.now(UTC) - timedelta(seconds=2)).isoformat().replace("+00:00", "z").replace("T", "t")
    batch = app.start_batch([new_record() for _ in range(100)])
    with ThreadPoolExecutor(16) as callers:
        started = {batch, *callers.map(app.start, [new_record() for _ in range(260)])}
    first = app.http.get("/api/businesses/operations", params={"since": since}).raise_for_status().json()
    assert len(first["operations"]) == 50
    for _ in range(3):
        app.start(new_record())
    found, following = first["operations"], first["next"]
    while following:
        assert following.startswith("/api/businesses/operations?since=")
        page = app.http.get(following).raise_for_status().json()
        found, following = found + page["operations"], page.get("next")
    ids = [operation["id"] for operation in found]
    assert len(ids) == len(set(ids))
    assert started <= set(ids)


def test_an_unchanged_operation_is_a_304(app: Caller, new_record: NewRecord) -> None:
    operation_id = app.start(new_record())
    app.end(operation_id)
    seen = app.http.get(f"/api/businesses/operations/{operation_id}")
    etag = {"If-None-Match": seen.headers["ETag"]}
    again = app.http.get(f"/api/businesses/operations/{operation_id}", headers=etag)
    assert (again.status_code, again.content) == (304, b"")


def test_what_has_ended_is_erased_with_its_parts_and_what_runs_is_not(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [LATER]})
    running = app.start(record)
    ended = [app.start(new_record()), app.start_batch([new_record() for _ in range(150)])]
    for operation_id in ended:
        app.end(operation_id)
        assert app.http.delete(f"/api/businesses/operations/{operation_id}").status_code == 204
        assert app.http.get(f"/api/businesses/operations/{operation_id}").status_code == 404
        assert app.http.delete(f"/api/businesses/operations/{operation_id}").status_code == 404
    assert app.http.delete(f"/api/businesses/operations/{running}").status_code == 409
    app.until(running, lambda operation: operation["state"] == "deferred")
    app.http.post(f"/api/businesses/operations/{running}/cancel").raise_for_status()
    app.end(running)


# What follows sends nothing that would be stored, so that it can be asked of any app.


def test_the_list_of_operations_is_answered_by_the_list(app: Caller) -> None:
    found = app.http.get("/api/businesses/operations?limit=1").raise_for_status().json()
    assert isinstance(found["operations"], list)
    assert len(found["operations"]) <= 1


@pytest.mark.parametrize(
    "query",
    [
        {"state": "lost"},
        {"state": "deferred,lost"},
        {"limit": "0"},
        {"limit": "201"},
        {"limit": "x"},
        {"since": "yesterday"},
        {"since": "0001-01-01T00:00+23:00"},
        {"until": "tomorrow"},
        {"until": "2026-01-01T00:00:00Z", "since": "2026-01-01T00:00:00Z"},
        {"cursor": "x"},
        {"cursor": "e30"},
        {"warning": "perhaps"},
        {"limit": ["5", "5"]},
        {"warning": ["true", "true"]},
    ],
)
def test_a_bad_query_is_a_400_that_names_the_parameter(app: Caller, query: dict[str, Any]) -> None:
    refused = app.http.get("/api/businesses/operations", params=query)
    assert refused.status_code == 400
    assert next(iter(query)) in refused.json()["detail"]


def test_empty_parameters_are_as_absent_ones(app: Caller) -> None:
    query = "state=&since=&until=&warning=&may_be_stored=&limit=&cursor="
    assert app.http.get(f"/api/businesses/operations?{query}").status_code == 200
    assert app.http.get("/api/businesses/operations/unknown?wait=").status_code == 404
    assert app.http.get("/api/businesses/operations/unknown/results?page=&warning=&may_be_stored=").status_code == 404
    assert app.http.post("/api/businesses/operations/unknown/retry?not_stored=").status_code == 404
    for skip_invalid in ("", "skip_invalid=", "skip_invalid&skip_invalid=false"):
        refused = app.http.post(f"/api/businesses/batch?{skip_invalid}", json=[{}])
        assert (refused.status_code, refused.json()["title"]) == (400, "Invalid batch")
    twice = app.http.post("/api/businesses/batch?skip_invalid=true&skip_invalid=true", json=[{}])
    assert "skip_invalid" in twice.json()["detail"]


def test_an_operation_that_is_not_there_is_a_404_with_problem_details(app: Caller) -> None:
    for action in ("", "/results"):
        answer = app.http.get(f"/api/businesses/operations/unknown{action}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    erased = app.http.delete("/api/businesses/operations/unknown")
    assert (erased.status_code, erased.headers["Content-Type"]) == (404, "application/problem+json")
    for action in ("/cancel", "/retry"):
        answer = app.http.post(f"/api/businesses/operations/unknown{action}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_the_interface_describes_itself(app: Caller) -> None:
    document = app.http.get("/api/openapi.json").raise_for_status().json()
    assert document["openapi"].startswith("3.1")
    assert {"/businesses", "/businesses/batch", "/businesses/operations/{id}"} <= document["paths"].keys()


def test_an_operation_that_has_not_changed_is_a_304_that_says_when_to_look_again(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [LATER]})
    path = f"/api/businesses/operations/{app.start(record)}"
    app.until(path.rpartition("/")[2], lambda operation: operation["state"] == "deferred")
    tag = app.http.get(path).headers["ETag"]
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        unchanged = app.http.get(path, headers={"If-None-Match": known})
        assert (unchanged.status_code, unchanged.headers["Retry-After"], unchanged.content) == (304, "1", b"")
        assert unchanged.headers["ETag"] == tag
    assert app.http.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    app.http.post(f"{path}/cancel")
    ended = app.http.get(path)
    assert "Retry-After" not in app.http.get(path, headers={"If-None-Match": ended.headers["ETag"]}).headers


@pytest.mark.parametrize(
    "path", ["/api/businesses", "/api/BUSINESSES/", "/api/%62usinesses/Batch", "/api/businesses/%62atch"]
)
def test_a_start_tells_where_the_operation_is_however_its_path_is_spelled(
    app: Caller, new_record: NewRecord, path: str
) -> None:
    batch = "atch" in path
    answer = app.http.post(path, json=[new_record()] if batch else new_record())
    assert answer.status_code == 202
    assert answer.headers["Location"] == f"/api/businesses/operations/{answer.json()['id']}"
    assert app.http.get(answer.headers["Location"]).status_code == 200
