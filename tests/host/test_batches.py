"""Batches go the whole way, are told record by record, and are cancelled."""

import codecs
import csv
import io
import json

from shared.business import NATURAL_KEY, Record
from tests.sandboxed import REFUSED, NewRecord, Sandbox, key_of, of_rows

from .conftest import Caller


def test_a_batch_is_posted_with_each_record_stored_once_and_told_in_order(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(230)]
    sandbox.disturb(records={key_of(records[7]): [REFUSED]})
    before = sandbox.stats()
    finished = app.end(operation_id := app.start_batch(records))
    assert finished["state"] == "completed"
    tally = finished["batch"]["tally"]
    assert (tally["total"], tally["posted"], tally["rejected"]) == (230, 229, 1)
    assert sandbox.stats()["stored"] - before["stored"] == 229
    assert [len(app.results(operation_id, page)) for page in (1, 2, 3)] == [100, 100, 30]
    first = app.results(operation_id)
    assert [item["index"] for item in first] == list(range(100))
    assert first[7]["result"]["outcome"] == "rejected"
    stored = app.http.get(f"/api/businesses/{first[0]['result']['id']}").json()
    assert stored.items() >= records[0].items()


def test_deferred_records_come_again_in_later_rounds_under_the_same_keys(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(40)]
    steps = [{"status": 503}, {"drop": "after"}]
    sandbox.disturb(records={key_of(record): steps for record in records[::4]})  # not in a row: that is an outage
    before = sandbox.stats()
    finished = app.end(app.start_batch(records))
    assert (finished["state"], finished["attempt"]) == ("completed", 3)
    after = sandbox.stats()
    assert after["stored"] - before["stored"] == 40
    assert after["replays"] - before["replays"] == 10


def test_lines_of_json_are_a_batch_too(app: Caller, new_record: NewRecord) -> None:
    body = "\n".join(json.dumps(new_record()) for _ in range(3)) + "\n"
    headers = {"Content-Type": "application/x-ndjson", "Prefer": "wait=60"}
    accepted = app.http.post("/api/businesses/batch", content=body, headers=headers)
    assert accepted.status_code == 200
    assert accepted.json()["batch"]["tally"]["posted"] == 3


def csv_of(records: list[Record]) -> str:
    """Records as CSV, with the columns of the first."""
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, list(records[0]))
    writer.writeheader()
    writer.writerows(records)
    return written.getvalue()


def test_a_batch_is_retried_until_every_record_is_posted_some_of_them_corrected(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(30)]
    sandbox.disturb(records={key_of(records[3]): [REFUSED | {"always": True}], key_of(records[20]): [REFUSED]})
    before = sandbox.stats()
    operation_id = app.start_batch(records)
    assert app.end(operation_id)["batch"]["tally"]["rejected"] == 2
    corrected = new_record()
    corrections = [{"index": 3, "record": corrected}]
    operation = f"/api/businesses/operations/{operation_id}"
    retried = app.http.post(f"{operation}/retry", json=corrections)
    assert (retried.status_code, retried.json()["id"], retried.headers["Location"]) == (202, operation_id, operation)
    ended = app.end(operation_id)
    assert (ended["state"], ended["batch"]["tally"]["posted"]) == ("completed", 30)
    assert sandbox.stats()["stored"] - before["stored"] == 30
    ids = [item["result"]["id"] for item in app.results(operation_id)]
    stored = app.http.get(f"/api/businesses/{ids[3]}").json()
    assert stored.items() >= corrected.items()
    assert app.http.post(f"{operation}/retry").status_code == 409


def test_results_are_told_by_outcome_and_all_at_once_as_lines_or_csv(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(120)]
    sandbox.disturb(records={key_of(records[n]): [REFUSED] for n in (3, 110)})
    app.end(operation_id := app.start_batch(records))
    results = f"/api/businesses/operations/{operation_id}/results"
    found = app.http.get(results, params={"outcome": "rejected,gave_up"}).json()
    assert [item["index"] for item in found["results"]] == [3, 110]
    lines = app.http.get(results, headers={"Accept": "application/x-ndjson"})
    assert lines.headers["Content-Type"].startswith("application/x-ndjson")
    told = [json.loads(line) for line in lines.text.splitlines()]
    assert told == app.results(operation_id) + app.results(operation_id, 2)
    rows = app.http.get(results, params={"outcome": "rejected"}, headers={"Accept": "text/csv"})
    assert rows.headers["Content-Type"].startswith("text/csv")
    found_there = [(row["index"], row["status"]) for row in csv.DictReader(io.StringIO(rows.text))]
    assert found_there == [("3", "422"), ("110", "422")]
    assert app.http.get(results, params={"outcome": "lost"}).status_code == 400


@of_rows
def test_rows_of_csv_are_a_batch_too_with_the_same_records_as_json(app: Caller, new_record: NewRecord) -> None:
    records = [new_record() for _ in range(3)]
    content = codecs.BOM_UTF8 + csv_of(records).encode()
    headers = {"Content-Type": "text/csv; charset=utf-8", "Idempotency-Key": key_of(records[0])}
    started = app.http.post("/api/businesses/batch", content=content, headers=headers)
    assert started.status_code == 202
    assert app.end(started.json()["id"])["batch"]["tally"]["posted"] == 3
    assert app.start_batch(records, **{"Idempotency-Key": key_of(records[0])}) == started.json()["id"]
    for record, item in zip(records, app.results(started.json()["id"]), strict=True):
        assert app.http.get(f"/api/businesses/{item['result']['id']}").json().items() >= record.items()


@of_rows
def test_a_bad_row_of_csv_is_skipped_with_its_line_and_spoils_no_other(app: Caller, new_record: NewRecord) -> None:
    header, first, last = csv_of([new_record(), new_record()]).splitlines()
    rows = [header, first, "", '"x"y', b"\xff".decode(errors="surrogateescape"), "," * header.count(","), last]
    headers = {"Content-Type": "text/csv", "Prefer": "wait=60"}
    content = "\r\n".join(rows).encode(errors="surrogateescape")
    ended = app.http.post("/api/businesses/batch?skip_invalid=true", content=content, headers=headers).json()
    assert [(one["index"], one["line"]) for one in ended["skipped"]] == [(1, 4), (2, 5), (3, 6)]
    assert ended["batch"]["tally"]["posted"] == 2


def test_with_skip_invalid_the_good_records_are_posted_and_the_others_told_in_their_places(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [{"unknown": 1}, new_record(), *[{}] * 120, new_record()]
    before = sandbox.stats()
    headers = {"Prefer": "wait=60"}
    ended = app.http.post("/api/businesses/batch?skip_invalid=true", json=records, headers=headers).json()
    tally = ended["batch"]["tally"]
    assert (ended["state"], tally["total"], tally["posted"], tally["invalid"]) == ("completed", 123, 2, 121)
    assert ([one["index"] for one in ended["skipped"]], ended["skipped_total"]) == ([0, *range(2, 101)], 121)
    results = app.results(ended["id"]) + app.results(ended["id"], 2)
    assert [item["index"] for item in results] == list(range(123))
    outcomes = [item["result"]["outcome"] for item in results]
    assert outcomes == ["invalid", "posted", *["invalid"] * 120, "posted"]
    assert {"index": 2, **results[2]["result"]} == {"outcome": "invalid", **ended["skipped"][1]}
    stored = app.http.get(f"/api/businesses/{results[122]['result']['id']}").json()
    assert stored[NATURAL_KEY] == records[122][NATURAL_KEY]
    assert sandbox.stats()["stored"] - before["stored"] == 2


def test_the_same_records_in_other_places_are_another_batch(app: Caller, new_record: NewRecord) -> None:
    record = new_record()
    key = {"Idempotency-Key": str(record[NATURAL_KEY])}
    starts = [
        app.http.post("/api/businesses/batch?skip_invalid=true", json=records, headers=key)
        for records in ([record, {}], [record, {}], [{}, record])
    ]
    assert [start.status_code for start in starts] == [202, 202, 422]
    assert starts[0].json()["id"] == starts[1].json()["id"]


def test_a_byte_order_mark_is_ignored_and_a_bad_line_spoils_no_other(app: Caller, new_record: NewRecord) -> None:
    lines = [json.dumps(new_record()).encode(), b'{"name": ', b'{"\xff": 1}', json.dumps(new_record()).encode()]
    headers = {"Content-Type": "application/x-ndjson", "Prefer": "wait=60"}
    content = codecs.BOM_UTF8 + b"\n\n".join(lines)
    ended = app.http.post("/api/businesses/batch?skip_invalid=true", content=content, headers=headers).json()
    assert [(one["index"], one["line"]) for one in ended["skipped"]] == [(1, 3), (2, 5)]
    assert [item["result"].get("line") for item in app.results(ended["id"])] == [None, 3, 5, None]
    assert [item["result"]["outcome"] for item in app.results(ended["id"])] == [
        "posted",
        "invalid",
        "invalid",
        "posted",
    ]


def test_a_repeated_batch_under_one_idempotency_key_is_one_operation_even_rounds_later(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(5)]
    sandbox.disturb(records={key_of(records[0]): [{"status": 503}]})
    key = {"Idempotency-Key": key_of(records[0])}
    first = app.start_batch(records, **key)
    assert app.end(first)["attempt"] == 2
    assert app.start_batch(records, **key) == first
    assert app.http.post("/api/businesses/batch", json=records[:4], headers=key).status_code == 422
    assert app.http.post("/api/businesses", json=records[0], headers=key).status_code == 422


def test_a_batch_that_sleeps_between_rounds_is_cancelled_at_once(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    sandbox.disturb(rates={"503": 1.0}, retry_after=600)
    operation_id = app.start_batch([new_record() for _ in range(3)])
    app.until(operation_id, lambda operation: operation["state"] == "deferred")
    app.http.post(f"/api/businesses/operations/{operation_id}/cancel").raise_for_status()
    ended = app.end(operation_id)
    assert (ended["state"], ended["batch"]["tally"]["cancelled"]) == ("cancelled", 3)
