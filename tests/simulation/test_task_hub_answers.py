"""The model of the task hub is no kinder than the engine: it refuses, cuts off and sends what that does."""

import asyncio
import json
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.durable_functions import DurableOrchestrationContext, Orchestrator

from shared.operations.status import CHUNK, DELIVERY

from .staged import StagedHub
from .task_hub import START

pytestmark = pytest.mark.virtual_time

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def test_a_listing_goes_by_id_without_inputs_and_tells_whole_seconds() -> None:
    hub = StagedHub()
    for number in (3, 1, 2):
        hub.put(f"{9 - number}", given={"number": number}, created=START + timedelta(seconds=number + 0.7))
    pages = [page async for page in hub.client.pages(2, LONG_AGO)]
    assert [[status.instance_id for status in page] for page in pages] == [["6", "7"], ["8"]]
    found = pages[0]
    assert [status.input_ for status in found] == [None, None]
    assert found[0].created_time == START + timedelta(seconds=3)
    to = START + timedelta(seconds=2.7)
    assert [[status.instance_id for status in page] async for page in hub.client.pages(2, to, to)] == [["7"]]


async def test_a_look_up_leaves_out_the_input_unless_it_is_asked_for() -> None:
    hub = StagedHub()
    hub.put("put", given={"a": 1})
    await hub.client.start_new(DELIVERY, "started", {"a": 1})
    for instance_id in ("put", "started"):
        assert (await hub.client.get_status(instance_id)).input_ is None
        assert (await hub.client.get_status(instance_id, show_input=True)).input_ == '{"a": 1}'


async def test_a_look_up_leaves_out_the_history_and_its_results_unless_they_are_asked_for() -> None:
    hub = StagedHub()
    hub.put("abc", given={"a": 1}, returned=[{"b": 2}])
    assert (await hub.client.get_status("abc", show_input=True)).history is None
    (started, ended) = (await hub.client.get_status("abc", show_history=True)).history or []
    assert ("Input" in started, "Result" in ended) == (False, False)
    shown = await hub.client.get_status("abc", show_history=True, show_history_output=True, show_input=True)
    (started, ended) = shown.history or []
    assert (started["EventType"], started["Input"]) == ("ExecutionStarted", shown.input_)
    assert (ended["EventType"], ended["FunctionName"], ended["Result"]) == ("TaskCompleted", CHUNK, {"b": 2})


@pytest.mark.parametrize(("instance_id", "said"), [("ended", "gone"), ("unknown", "No instance")])
async def test_an_event_for_what_has_ended_or_never_was_raises(instance_id: str, said: str) -> None:
    hub = StagedHub()
    hub.put("ended", "Completed")
    with pytest.raises(Exception, match=said):
        await hub.client.raise_event(instance_id, "Cancel")


@pytest.mark.parametrize("status", ["Running", "Pending", "Suspended"])
async def test_a_start_of_a_running_id_raises_and_one_of_an_ended_id_starts_afresh(status: str) -> None:
    hub = StagedHub()
    hub.put("abc", status)
    with pytest.raises(Exception, match="already exists"):
        await hub.client.start_new(DELIVERY, "abc", {})
    hub.put("abc", "Failed")
    assert await hub.client.start_new(DELIVERY, "abc", {}) == "abc"


@pytest.mark.parametrize("status", ["Running", "Pending", "Suspended"])
async def test_a_purge_of_what_has_not_ended_raises_and_one_of_what_never_was_does_not(status: str) -> None:
    hub = StagedHub()
    hub.put("abc", status)
    with pytest.raises(Exception, match="412"):
        await hub.client.purge_instance_history("abc")
    await hub.client.purge_instance_history("unknown")
    assert hub.instances.keys() == {"abc"}


@pytest.mark.parametrize(
    ("custom_status", "status"), [("x" * 8190, "Completed"), ("x" * 8191, "Failed"), ("😀" * 4096, "Failed")]
)
async def test_a_custom_status_over_16_kb_of_utf_16_makes_the_orchestration_fail(
    custom_status: Any, status: str
) -> None:
    def show(context: DurableOrchestrationContext) -> Generator[Any]:
        context.set_custom_status(custom_status)
        yield from ()

    hub = StagedHub(orchestrators={"Show": Orchestrator.create(show)})
    await hub.client.start_new("Show", "abc", None)
    await asyncio.sleep(1.0)
    one = hub.instances["abc"]
    assert (one.status, "UTF-16" in json.dumps(one.output)) == (status, status == "Failed")
