"""The tests' task hub is no kinder than the engine: it refuses, cuts off and sends what that does."""

from datetime import UTC, datetime
from typing import Any

import pytest

from .task_hub import RuntimeStatus, Status, TaskHub

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def test_a_listing_goes_by_id_without_inputs_and_tells_whole_seconds() -> None:
    hub = TaskHub()
    for number in (3, 1, 2):
        created = datetime(2026, 1, 1, 0, 0, number, 700_000, tzinfo=UTC)
        hub.add(Status(f"{9 - number}", created_time=created), {"number": number})
    pages = [page async for page in hub.pages(2, LONG_AGO)]
    assert [[status.instance_id for status in page] for page in pages] == [["6", "7"], ["8"]]
    found = pages[0]
    assert [status.input_ for status in found] == [None, None]
    assert found[0].created_time == datetime(2026, 1, 1, 0, 0, 3, tzinfo=UTC)
    to = datetime(2026, 1, 1, 0, 0, 2, 700_000, tzinfo=UTC)
    assert [status.instance_id for status in await hub.get_status_by(to, to)] == ["7"]


async def test_a_look_up_leaves_out_the_input_unless_it_is_asked_for() -> None:
    hub = TaskHub()
    hub.add(Status("abc"), {"a": 1})
    assert (await hub.get_status("abc")).input_ is None
    assert (await hub.get_status("abc", show_input=True)).input_ == '"{\\"a\\": 1}"'


@pytest.mark.parametrize(("instance_id", "said"), [("ended", "gone"), ("unknown", "No instance")])
async def test_an_event_for_what_has_ended_or_never_was_raises(instance_id: str, said: str) -> None:
    hub = TaskHub()
    hub.add(Status("ended", runtime_status=RuntimeStatus.Completed))
    with pytest.raises(Exception, match=said):
        await hub.raise_event(instance_id, "Cancel")


@pytest.mark.parametrize("status", [RuntimeStatus.Running, RuntimeStatus.Pending, RuntimeStatus.Suspended])
async def test_a_start_of_a_running_id_raises_and_one_of_an_ended_id_starts_afresh(status: RuntimeStatus) -> None:
    hub = TaskHub()
    hub.add(Status("abc", runtime_status=status))
    with pytest.raises(Exception, match="already exists"):
        await hub.start_new("PostBusinessOrchestrator", "abc", {})
    hub.add(Status("abc", runtime_status=RuntimeStatus.Failed))
    assert await hub.start_new("PostBusinessOrchestrator", "abc", {}) == "abc"


@pytest.mark.parametrize(("custom_status", "taken"), [("x" * 8190, True), ("x" * 8191, False), ("😀" * 4096, False)])
def test_a_custom_status_over_16_kb_of_utf_16_is_refused(custom_status: Any, taken: bool) -> None:
    if taken:
        Status("abc", custom_status=custom_status)
    else:
        with pytest.raises(AssertionError, match="UTF-16"):
            Status("abc", custom_status=custom_status)
