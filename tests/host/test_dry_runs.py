"""With `validate_only` a start is only checked: it answers as the start would, and starts nothing."""

import json

import pytest

from shared.business import NATURAL_KEY, example
from tests.sandboxed import NewRecord, Sandbox

from .conftest import Caller

DRY = {"validate_only": "true"}


def test_what_would_be_taken_is_told_and_nothing_is_started(
    app: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    before = sandbox.stats()
    record = new_record()
    key = {"Idempotency-Key": str(record[NATURAL_KEY]), "Prefer": "wait=60"}
    single = app.http.post("/api/businesses", params=DRY, json=record, headers=key)
    assert (single.status_code, single.json()) == (200, {"valid": 1})
    batch = app.http.post("/api/businesses/batch", params=DRY, json=[record, new_record()], headers=key)
    assert (batch.status_code, batch.json()) == (200, {"valid": 2})
    assert not {"Location", "Retry-After"} & {*single.headers, *batch.headers}
    started = app.http.post("/api/businesses", params={"validate_only": "false"}, json=record, headers=key)
    assert started.status_code == 201  # the key was not used before
    assert sandbox.stats()["posts"] - before["posts"] == 1


def test_what_would_be_skipped_is_told_as_the_start_tells_it(app: Caller, new_record: NewRecord) -> None:
    lines = "\n".join([json.dumps(new_record()), "", "null", json.dumps(new_record()), *["{}"] * 120])
    headers = {"Content-Type": "application/x-ndjson"}
    skipping = {"skip_invalid": "true"}
    dry = app.http.post("/api/businesses/batch", params=skipping | DRY, content=lines, headers=headers)
    assert (dry.status_code, dry.json()["valid"], dry.json()["skipped_total"]) == (200, 2, 121)
    real = app.http.post("/api/businesses/batch", params=skipping, content=lines, headers=headers)
    assert real.status_code == 202
    assert {name: real.json()[name] for name in ("skipped", "skipped_total")} == {
        name: dry.json()[name] for name in ("skipped", "skipped_total")
    }


# What follows is refused by the start, too.


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        ("", "{}", {}),
        ("", json.dumps(example()), {"Idempotency-Key": "x" * 256}),
        ("", json.dumps(example()), {"Content-Type": "text/plain"}),
        ("/batch", json.dumps([example(), {}]), {}),
        ("/batch", "[]", {}),
        ("/batch", "name;other\n", {"Content-Type": "text/csv"}),
        ("/batch", "[" + "{}," * 10_000 + "{}]", {}),
    ],
)
def test_what_would_be_refused_is_refused_with_the_same_answer(
    app: Caller, path: str, content: str, headers: dict[str, str]
) -> None:
    sent = {"Content-Type": "application/json"} | headers
    real = app.http.post(f"/api/businesses{path}", content=content, headers=sent)
    dry = app.http.post(f"/api/businesses{path}", params=DRY, content=content, headers=sent)
    assert real.status_code >= 400
    assert (dry.status_code, dry.json()) == (real.status_code, real.json())


@pytest.mark.parametrize("path", ["", "/batch"])
def test_a_flag_that_is_none_is_refused_before_anything_is_read(app: Caller, path: str) -> None:
    refused = app.http.post(f"/api/businesses{path}?validate_only=yes", json={})
    assert refused.status_code == 400
    assert "validate_only" in refused.json()["detail"]


@pytest.mark.parametrize("query", ["validate_only", "validate_only="])
@pytest.mark.parametrize("path", ["", "/batch"])
def test_a_dry_run_that_has_lost_its_value_starts_nothing(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, path: str, query: str
) -> None:
    """The host drops a parameter that is empty: what was to be a dry run would be none."""
    before, record = sandbox.stats()["posts"], new_record()
    refused = app.http.post(f"/api/businesses{path}?{query}", json=[record] if path else record)
    assert (refused.status_code, refused.json()["detail"]) == (
        400,
        "expected a value in the query parameter validate_only",
    )
    assert sandbox.stats()["posts"] == before
