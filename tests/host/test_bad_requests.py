"""What must be refused is, with problem details, on whatever host; nothing of it reaches the API."""

import httpx
import pytest

from shared.business import NATURAL_KEY, example
from tests.sandboxed import invalid

from .conftest import Caller

VALID = example()


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
    records = [VALID, invalid(), VALID, {**VALID, NATURAL_KEY: []}]
    refused = app.http.post("/api/businesses/batch", json=records)
    assert_refused(refused, 400)
    assert {error["index"] for error in refused.json()["errors"]} == {1, 3}


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_a_key_that_is_no_key_is_refused(app: Caller, key: str) -> None:
    refused = app.http.post("/api/businesses", json=VALID, headers={"Idempotency-Key": f'"{key}"'})
    assert_refused(refused, 400)
    assert "Idempotency-Key" in refused.json()["detail"]
