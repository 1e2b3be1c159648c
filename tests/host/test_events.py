"""The operator's receiver is told of the ends of operations, however late it is up and whatever the host meets."""

import base64
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook

from dev.processes import CommandHost
from tests.receiver import Receiver, receiving
from tests.sandboxed import REFUSED, NewRecord, Sandbox, key_of

from .conftest import KEY, PATIENCE, Caller, command, settings_with

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def telling(host: CommandHost, sandbox: Sandbox, receiver: Receiver, tmp_path: Path) -> Iterator[CommandHost]:
    """A host beside the first, which tells the receiver of the ends."""
    events = {"OPERATIONS_EVENTS_URL": receiver.url, "OPERATIONS_EVENTS_SECRET": SECRET}
    telling = CommandHost(command(tmp_path), settings_with(sandbox) | events, tmp_path / "host.log")
    try:
        telling.start()
        yield telling
    finally:
        telling.stop()


@pytest.mark.timeout(2 * PATIENCE)
def test_a_receiver_that_is_down_while_the_host_is_killed_is_told_of_every_end(
    telling: CommandHost, sandbox: Sandbox, receiver: Receiver, new_record: NewRecord
) -> None:
    receiver.answers.extend([503, 503, 503])
    good, bad, batch = new_record(), new_record(), [new_record(), new_record()]
    sandbox.disturb(records={key_of(bad): [REFUSED]})
    with closing(Caller(telling.url, KEY)) as app:
        states = {app.start(good): "posted", app.start(bad): "rejected", app.start_batch(batch): "completed"}
        for operation_id, state in states.items():
            assert app.end(operation_id)["state"] == state
        receiver.wait(3)
        telling.kill()
        telling.start()
        receiver.wait(6, PATIENCE)
        for message in receiver.messages:
            event = Webhook(SECRET).verify(message.body, dict(message.headers))
            assert event["data"]["state"] == states[event["subject"]]
            assert app.http.get(event["data"]["url"]).json()["state"] == event["data"]["state"]
        assert len({event["id"] for event in receiver.events}) == len(states)
        assert {one["id"] for one in app.listed()} == states.keys()
        retried = next(one for one, state in states.items() if state == "rejected")
        app.http.post(f"/api/businesses/operations/{retried}/retry").raise_for_status()
        receiver.wait(7, PATIENCE)
    ids = {event["id"]: event["data"]["state"] for event in receiver.events if event["subject"] == retried}
    assert list(ids.values()) == ["rejected", "posted"]
