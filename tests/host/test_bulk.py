"""After a bad night, one request retries all that gave up, and another one cancels what is under way."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dev.processes import CommandHost
from tests.sandboxed import LATER, REFUSED, NewRecord, Sandbox, key_of

from .conftest import KEY, NOT_OURS, PATIENCE, URL, Caller, command, settings_with

MANY, STILL_REFUSED = 300, 30
DEADLINE = 3


@pytest.fixture
def soon(sandbox: Sandbox, tmp_path: Path) -> Iterator[Caller]:
    """A caller of a host beside the first, which gives records up after three seconds."""
    if URL:
        pytest.skip(NOT_OURS)
    settings = settings_with(sandbox) | {"DELIVERY_DEADLINE": str(DEADLINE)}
    host = CommandHost(command(tmp_path), settings, tmp_path / "host.log")
    host.start()
    try:
        with closing(Caller(host.url, KEY)) as caller:
            yield caller
    finally:
        host.stop()


@pytest.mark.timeout(3 * PATIENCE)
def test_300_operations_that_gave_up_are_retried_by_one_request(
    soon: Caller, sandbox: Sandbox, new_record: NewRecord
) -> None:
    records = [new_record() for _ in range(MANY)]
    sandbox.disturb(records={key_of(record): [LATER] for record in records})
    before = sandbox.stats()
    with ThreadPoolExecutor(10) as callers:
        operations = list(callers.map(soon.start, records))
        assert {ended["state"] for ended in callers.map(soon.end, operations)} == {"gave_up"}
        # An API that knows a key gives the same refusal again: what is retried is refused under both of its keys.
        sandbox.disturb(records={key_of(record): [REFUSED, REFUSED] for record in records[:STILL_REFUSED]})

        url, wanted = "/api/businesses/operations/retry", {"state": "gave_up", "reason": "423 locked"}
        found = soon.http.post(url, params=wanted | {"dry_run": "true"}).raise_for_status().json()
        assert (found["matching"], found["complete"], len(found["operations"])) == (MANY, True, 10)
        begun = soon.http.post(url, params=wanted, headers={"Idempotency-Key": "after a bad night"})
        again = soon.http.post(url, params=wanted, headers={"Idempotency-Key": "after a bad night"})
        assert (begun.status_code, again.status_code, begun.json()["id"]) == (202, 202, again.json()["id"])
        ended = soon.end(begun.json()["id"])
        assert (ended["state"], ended["bulk"]["changed"], ended["bulk"]["refused"]) == ("completed", MANY, 0)

        states = [told["state"] for told in callers.map(soon.end, operations)]
    assert states == ["rejected"] * STILL_REFUSED + ["posted"] * (MANY - STILL_REFUSED)
    after = sandbox.stats()
    assert (after["stored"] - before["stored"], after["duplicates"]) == (MANY - STILL_REFUSED, before["duplicates"])


def test_what_is_under_way_is_cancelled_by_one_request(app: Caller, sandbox: Sandbox, new_record: NewRecord) -> None:
    records = [new_record() for _ in range(20)]
    sandbox.disturb(records={key_of(record): [LATER] for record in records})
    operations = [app.start(record) for record in records[:10]] + [app.start_batch(records[10:])]
    since = min(app.until(one, lambda told: told["state"] == "deferred")["created_at"] for one in operations)
    wanted: dict[str, Any] = {"state": "deferred", "since": since}
    begun = app.http.post("/api/businesses/operations/cancel", params=wanted).raise_for_status().json()
    ended = app.end(begun["id"])
    assert ended["bulk"]["changed"] >= len(operations)  # what other tests have left behind is cancelled, too
    assert {app.end(one)["state"] for one in operations} == {"cancelled"}
    assert app.http.post(f"/api/businesses/operations/{begun['id']}/retry").status_code == 409
    assert app.http.delete(f"/api/businesses/operations/{begun['id']}").status_code == 204
