"""The host is killed in the middle of a batch, twice, and goes on: nothing is lost and nothing stored twice."""

import pytest

from dev.processes import CommandHost
from dev.storage_requests import stored
from tests.sandboxed import NewRecord, Sandbox

from .conftest import PATIENCE, Caller

RECORDS = 1_200


@pytest.mark.timeout(4 * PATIENCE)
def test_a_batch_survives_two_kills_of_the_host_with_every_record_stored_once(
    app: Caller, sandbox: Sandbox, host: CommandHost, new_record: NewRecord
) -> None:
    before = sandbox.stats()
    operation_id = app.start_batch([new_record() for _ in range(RECORDS)])
    for share in (0.25, 0.6):
        stored(sandbox.url, before["stored"] + round(share * RECORDS))
        host.kill()
        assert sandbox.stats()["stored"] < before["stored"] + RECORDS
        host.start()
    ended = app.end(operation_id)
    after = sandbox.stats()
    assert (ended["state"], ended["batch"]["tally"]["posted"]) == ("completed", RECORDS)
    assert after["stored"] - before["stored"] == RECORDS
    assert after["duplicates"] == before["duplicates"]
