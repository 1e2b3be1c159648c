"""Who did it: each change of operations is one line in the log, with the caller as the platform tells it."""

import logging

import httpx
import pytest

from devhost.testing import RunningHost
from shared.operations import resource
from shared.operations.problems import TaskHubError
from tests.sandboxed import LATER, REFUSED, NewRecord, Sandbox, key_of

NAME = "X-MS-CLIENT-PRINCIPAL-NAME"


@pytest.fixture
def rejected(host: RunningHost, app: httpx.Client, sandbox: Sandbox, new_record: NewRecord) -> str:
    """An operation whose record was refused, and is not the next time."""
    record = new_record()
    sandbox.disturb(records={key_of(record): [REFUSED]})
    operation_id: str = app.post("/api/businesses", json=record).json()["id"]
    host.wait(operation_id)
    return operation_id


def written(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "post_business.audit"]


@pytest.fixture(autouse=True)
def audited(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="post_business.audit")


def test_retry_cancel_and_erasure_are_a_line_each(
    host: RunningHost,
    app: httpx.Client,
    sandbox: Sandbox,
    rejected: str,
    new_record: NewRecord,
    caplog: pytest.LogCaptureFixture,
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [LATER]})
    app.post(f"/api/businesses/operations/{rejected}/retry", json=record, headers={"X-Request-Id": "r-1"})
    host.wait(rejected, until=lambda status: bool((status.custom_status or {}).get("next_attempt_at")))
    app.post(f"/api/businesses/operations/{rejected}/cancel")
    host.wait(rejected)
    app.post(f"/api/businesses/operations/{rejected}/retry?not_stored=true")
    host.wait(rejected)
    app.delete(f"/api/businesses/operations/{rejected}")
    caller = "by a caller with a key, request"
    assert written(caplog) == [
        f"Audit: retry of {rejected} with corrections, {caller} r-1",
        f"Audit: cancel of {rejected}, {caller} without an id",
        f"Audit: retry of {rejected}, since nothing of it is stored, {caller} without an id",
        f"Audit: erasure of {rejected}, {caller} without an id",
    ]


def test_many_at_once_are_a_line_when_they_are_asked_for_and_one_at_the_end(
    host: RunningHost, app: httpx.Client, rejected: str, one_clock: None, caplog: pytest.LogCaptureFixture
) -> None:
    url = "/api/businesses/operations/retry?state=rejected&since=2026-01-01T00:00:00Z"
    app.post(f"{url}&dry_run=true").raise_for_status()
    begun = app.post(url).raise_for_status()
    host.wait(begun.json()["id"])
    changed = app.get(begun.headers["Location"]).json()["bulk"]["changed"]
    found, operation_id = "since=2026-01-01T00:00:00Z&state=rejected", begun.json()["id"]
    location = f"/api/businesses/operations/{operation_id}"
    assert written(caplog) == [
        f"Audit: retry of all with {found}, as {location}, by a caller with a key, request without an id",
        f"Audit: retry {found}: {changed} changed, 0 refused, as operation {operation_id}, which has ended",
    ]


def test_what_is_refused_is_no_change(app: httpx.Client, rejected: str, caplog: pytest.LogCaptureFixture) -> None:
    assert app.post(f"/api/businesses/operations/{rejected}/cancel").status_code == 409
    assert app.delete("/api/businesses/operations/unknown").status_code == 404
    assert app.post("/api/businesses/operations/retry").status_code == 400
    assert written(caplog) == []


def test_what_has_not_shown_in_time_may_be_changed_all_the_same(
    host: RunningHost,
    app: httpx.Client,
    sandbox: Sandbox,
    rejected: str,
    new_record: NewRecord,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    record = new_record()
    sandbox.disturb(records={key_of(record): [LATER]})
    deferred = app.post("/api/businesses", json=record).json()["id"]
    host.wait(deferred, until=lambda status: bool((status.custom_status or {}).get("next_attempt_at")))
    monkeypatch.setattr(resource, "_WAIT_STEP_SECONDS", 0.0001)
    monkeypatch.setattr(resource, "_CONFIRM_SECONDS", 0.0)
    assert app.post(f"/api/businesses/operations/{rejected}/retry").status_code == 503
    monkeypatch.setattr(resource, "_CONFIRM_SECONDS", 0.0001)
    assert app.post(f"/api/businesses/operations/{deferred}/cancel").status_code == 503
    host.wait(rejected)
    host.wait(deferred)
    states = [app.get(f"/api/businesses/operations/{one}").json()["state"] for one in (rejected, deferred)]
    assert states == ["posted", "cancelled"]
    end = "which has not shown yet, by a caller with a key, request without an id"
    assert written(caplog) == [f"Audit: retry of {rejected}, {end}", f"Audit: cancel of {deferred}, {end}"]


def test_who_asks_for_many_is_told_though_their_end_cannot_be_waited_for(
    host: RunningHost, app: httpx.Client, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def get(*_: object, **__: object) -> None:
        raise TaskHubError("no answer")

    monkeypatch.setattr(resource.Operations, "get", get)
    url = "/api/businesses/operations/retry?state=failed&since=2026-01-01T00:00:00Z"
    assert app.post(url, headers={"Prefer": "wait=10", "X-Request-Id": "r-2"}).status_code == 503
    assert [line for line in written(caplog) if "request r-2" in line]


@pytest.mark.parametrize(
    ("enabled", "sent", "caller"),
    [
        ("True", "alice@example.com", "alice@example.com"),
        ("True", None, "a caller with a key"),
        ("True", "a\tb" + "x" * 300, "a b" + "x" * 196 + "\N{HORIZONTAL ELLIPSIS}"),
        ("False", "mallory@example.com", "a caller with a key"),
        (None, "mallory@example.com", "a caller with a key"),
    ],
)
def test_a_name_is_believed_only_where_app_service_authenticates(
    enabled: str | None,
    sent: str | None,
    caller: str,
    app: httpx.Client,
    rejected: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if enabled is not None:
        monkeypatch.setenv("WEBSITE_AUTH_ENABLED", enabled)
    app.delete(f"/api/businesses/operations/{rejected}", headers={NAME: sent} if sent else {})
    assert written(caplog) == [f"Audit: erasure of {rejected}, by {caller}, request without an id"]
