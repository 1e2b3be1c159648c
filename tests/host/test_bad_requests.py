"""What must be refused is, with problem details, on whatever host; nothing of it reaches the API."""

import httpx
import pytest

from .conftest import Caller

VALID = {"registration_number": "HRB 1", "name": "Acme GmbH", "country": "DE"}


def assert_refused(answer: httpx.Response, status: int) -> None:
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")
    assert answer.json()["status"] == status


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b'{"name": "Acme"}', "application/json", 400),
        (b'{"name": ', "application/json", 400),
        (b"name=Acme", "application/x-www-form-urlencoded", 415),
        (b'{"name": "%s"}' % (b"x" * 256 * 1024), "application/json", 413),
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
        (b"[]", "text/csv", 415),
        (b"[" + b"{}," * 10_000 + b"{}]", "application/json", 413),
        (b" " * 10_000_001, "application/json", 413),
    ],
)
def test_a_body_that_is_no_batch_is_refused(app: Caller, content: bytes, content_type: str, status: int) -> None:
    headers = {"Content-Type": content_type}
    assert_refused(app.http.post("/api/businesses/batch", content=content, headers=headers), status)


def test_one_bad_record_stops_the_whole_batch_and_every_bad_one_is_named(app: Caller) -> None:
    records = [VALID, {"name": "x"}, VALID, {**VALID, "country": "Germany"}]
    refused = app.http.post("/api/businesses/batch", json=records)
    assert_refused(refused, 400)
    assert {error["index"] for error in refused.json()["errors"]} == {1, 3}


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_no_key_is_refused(app: Caller, key: str) -> None:
    refused = app.http.post("/api/businesses", json=VALID, headers={"Idempotency-Key": f'"{key}"'})
    assert_refused(refused, 400)
    assert "Idempotency-Key" in refused.json()["detail"]
