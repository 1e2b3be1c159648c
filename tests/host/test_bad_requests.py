"""What must be refused is, with problem details, on whatever host; nothing of it reaches the API."""

import gzip
import json
from collections.abc import Iterator

import httpx
import pytest

from shared.business import NATURAL_KEY, example
from tests.sandboxed import invalid, of_rows

from .conftest import Caller

VALID = example(1)
TEXT = json.dumps(VALID)
TWICE = f'{TEXT[:-1]}, "{NATURAL_KEY}": {json.dumps(VALID[NATURAL_KEY])}}}'


def assert_refused(answer: httpx.Response, status: int) -> None:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"{}", "application/json", 400),
        (b'{"unfinished": ', "application/json", 400),
        (b"a=form", "application/x-www-form-urlencoded", 415),
        (b'{"long": "%s"}' % (b"x" * 256 * 1024), "application/json", 413),
        (TWICE.encode(), "application/json", 400),
        (b"\xff" + TEXT.encode(), "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"9" * 5_000, "application/json", 400),
        (b"", "application/json", 400),
        (gzip.compress(TEXT.encode()), "application/json", 415),
        (TEXT.encode("utf-16"), "application/json", 415),
        (TEXT.encode("utf-32-le"), "application/json", 415),
        (TEXT.encode(), "application/json; charset=iso-8859-1", 415),
    ],
)
def test_a_body_that_is_no_record_is_refused(app: Caller, content: bytes, content_type: str, status: int) -> None:
    assert_refused(app.http.post("/api/businesses", content=content, headers={"Content-Type": content_type}), status)


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b"[{", "application/json", 400),
        (b"\n", "application/x-ndjson", 400),
        (b"[]", "text/plain", 415),
        (b"", "text/csv", 400),
        (b"[]", "text/csv", 400),
        (",".join(VALID).encode(), "text/csv", 400),
        (b";".join(name.encode() for name in VALID), "text/csv", 400),
        (",".join(VALID).encode("utf-16"), "text/csv", 415),
        (b'%s\n"\n\n' % ",".join(VALID).encode(), "text/csv", 400),
        (b"%s\n%s" % (",".join(VALID).encode(), b"," * 9_000_000), "text/csv", 400),
        pytest.param(b"%s\n%s" % (",".join(VALID).encode(), b",,,,\n" * 10_001), "text/csv", 413, marks=of_rows),
        (b"[" + b"{}," * 10_000 + b"{}]", "application/json", 413),
        (b" " * 10_000_001, "application/json", 413),
    ],
)
def test_a_body_that_is_no_batch_is_refused(app: Caller, content: bytes, content_type: str, status: int) -> None:
    headers = {"Content-Type": content_type}
    assert_refused(app.http.post("/api/businesses/batch", content=content, headers=headers), status)


def test_one_bad_record_stops_the_whole_batch_and_every_bad_one_is_named(app: Caller) -> None:
    records = [VALID, invalid(), VALID, {**VALID, NATURAL_KEY: []}]
    refused = app.http.post("/api/businesses/batch", json=records)
    assert_refused(refused, 400)
    assert {error["index"] for error in refused.json()["errors"]} == {1, 3}


def test_a_member_that_comes_twice_is_named_with_the_index_of_its_record(app: Caller) -> None:
    for content, content_type in (
        (f"[{TEXT}, {TWICE}]", "application/json"),
        (f"{TEXT}\n{TWICE}\n", "application/x-ndjson"),
    ):
        headers = {"Content-Type": content_type}
        refused = app.http.post("/api/businesses/batch", content=content, headers=headers)
        assert_refused(refused, 400)
        assert [(error["index"], error["field"]) for error in refused.json()["errors"]] == [(1, NATURAL_KEY)]


def test_an_error_in_lines_names_the_physical_line_and_what_was_expected(app: Caller) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    refused = app.http.post("/api/businesses/batch", content=f"\n{TEXT}\r\n\r\nnull", headers=headers)
    assert_refused(refused, 400)
    told = {"index": 1, "line": 4, "field": "(record)", "detail": "expected an object, got null"}
    assert refused.json()["errors"] == [told]


@of_rows
def test_a_header_that_is_not_as_expected_is_one_error(app: Caller) -> None:
    rows = "\n".join([",".join([*VALID, "phone", "fax", NATURAL_KEY]), *["x"] * 10])
    refused = app.http.post("/api/businesses/batch", content=rows, headers={"Content-Type": "text/csv"})
    assert_refused(refused, 400)
    assert [(error["line"], error["field"]) for error in refused.json()["errors"]] == [
        (1, "phone, fax"),
        (1, NATURAL_KEY),
    ]


@of_rows
def test_a_bad_row_is_named_with_its_index_and_physical_line(app: Caller) -> None:
    good = ",".join(map(str, VALID.values()))
    rows = "\r\n".join([",".join(VALID), good, "", "too few", good, good + ","])
    refused = app.http.post("/api/businesses/batch", content=rows, headers={"Content-Type": "text/csv"})
    assert_refused(refused, 400)
    assert [(error["index"], error["line"], error["detail"]) for error in refused.json()["errors"]] == [
        (1, 4, f"expected {len(VALID)} cells, got 1"),
        (3, 6, f"expected {len(VALID)} cells, got {len(VALID) + 1}"),
    ]


@pytest.mark.parametrize("value", [True, {}, []])
def test_a_value_of_another_type_is_refused_and_named(app: Caller, value: object) -> None:
    refused = app.http.post("/api/businesses", json={**VALID, NATURAL_KEY: value})
    assert_refused(refused, 400)
    assert refused.json()["errors"][0]["field"] == NATURAL_KEY


@pytest.mark.parametrize("path", ["/api/businesses", "/api/businesses/batch", "/api/businesses/operations/none/retry"])
def test_a_body_that_is_sent_in_chunks_is_refused_since_the_host_loses_it(app: Caller, path: str) -> None:
    def chunks() -> Iterator[bytes]:
        yield TEXT.encode()

    assert_refused(app.http.post(path, content=chunks(), headers={"Content-Type": "application/json"}), 411)


def test_what_says_that_it_is_compressed_is_refused(app: Caller) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert_refused(app.http.post("/api/businesses", content=gzip.compress(TEXT.encode()), headers=headers), 415)


@pytest.mark.parametrize("members", [50, 500, 500_000])
def test_the_answer_to_a_body_full_of_errors_is_short(app: Caller, members: int) -> None:
    bad = {**VALID, **{f"unknown{number}": 1 for number in range(members)}}
    refused = app.http.post("/api/businesses/batch", json=[bad] * min(1000, 500_000 // members))
    assert_refused(refused, 400)
    assert 1 <= len(refused.json()["errors"]) <= min(100, refused.json()["errors_total"])
    assert len(refused.content) < 50_000


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_no_key_is_refused(app: Caller, key: str) -> None:
    refused = app.http.post("/api/businesses", json=VALID, headers={"Idempotency-Key": f'"{key}"'})
    assert_refused(refused, 400)
    assert "Idempotency-Key" in refused.json()["detail"]


@pytest.mark.parametrize("segment", ["%2e", "%2E%2E", "."])
def test_an_id_that_would_change_the_path_is_a_404(app: Caller, segment: str) -> None:
    assert app.http.get(f"/api/businesses/{segment}").status_code == 404


@pytest.mark.parametrize("query", ["dry_run", "dry_run=", "dry_run=&dry_run=true", "reason=", "since=&until="])
def test_many_operations_are_not_changed_for_a_parameter_that_has_no_value(app: Caller, query: str) -> None:
    """The host drops it: what was to be a dry run would be none, and what was to be some would be all."""
    assert_refused(app.http.post(f"/api/businesses/operations/retry?state=gave_up&{query}"), 400)
