"""The simulated task hub, where it does what one would not expect, as Microsoft's engine does."""

import asyncio
import json
from collections.abc import Callable, Coroutine, Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df
import pytest

from devhost.orchestration import CUSTOM_STATUS_LIMIT
from tests.simulation.chance import Calm
from tests.simulation.front import BASE, Answer, Front
from tests.simulation.task_hub import TaskHub
from tests.virtual_time import run_virtually

type Ask = Callable[..., Coroutine[Any, Any, Answer]]
"""Sends a method, and a path of the durable extension's API."""

SHOW_ALL = "?showHistory=true&showHistoryOutput=true"


def timer_or_event(context: Any) -> Generator[Any, Any, Any]:
    timer, event = context.create_timer(context.current_utc_datetime + timedelta(seconds=10)), event_of(context)
    if (yield context.task_any([timer, event])) is timer:
        return "timer"
    timer.cancel()
    return "event"


def event_alone(context: Any) -> Generator[Any, Any, Any]:
    yield event_of(context)
    return "event"


def two_works(context: Any) -> Generator[Any, Any, Any]:
    yield context.call_activity("work", 5)
    context.set_custom_status("half")
    return (yield context.call_activity("work", 1))


def rounds(context: Any) -> Generator[Any, Any, Any]:
    timer, event = context.create_timer(context.current_utc_datetime + timedelta(seconds=90)), event_of(context)
    if (yield context.task_any([timer, event])) is event:
        timer.cancel()
        context.continue_as_new(None)


def too_large_a_status(context: Any) -> Generator[Any, Any, Any]:
    context.set_custom_status("x" * CUSTOM_STATUS_LIMIT)
    yield context.call_activity("work", 1)


def echo(context: Any) -> Any:
    return context.get_input()


def event_of(context: Any) -> Any:
    return context.wait_for_external_event("E")


def play(orchestrator: Callable[[Any], Any], scene: Callable[[Ask], Coroutine[Any, Any, None]]) -> list[str]:
    """Start an orchestration under the id `one`, and do something to it after a second; returns what has happened."""
    happened: list[str] = []

    async def work(name: str, given: str) -> str:
        await asyncio.sleep(json.loads(given))
        return given

    async def main() -> None:
        hub = TaskHub({"it": df.Orchestrator.create(orchestrator)}, work, Calm(0), happened.append)
        front = Front(hub, Calm(0))

        async def ask(method: str, path: str, body: Any = None, token: str = "") -> Answer:
            answer = await front(method, f"{BASE}/{path}", body, token)
            await asyncio.sleep(1)
            return answer

        assert (await ask("POST", "orchestrators/it/one"))[0] == 202
        await scene(ask)

    run_virtually(main())
    return happened


async def state_of(ask: Ask) -> tuple[str, Any]:
    told = (await ask("GET", "instances/one"))[1]
    return told["runtimeStatus"], told["output"]


async def history_of(ask: Ask) -> list[str]:
    return [event["EventType"] for event in (await ask("GET", f"instances/one{SHOW_ALL}"))[1]["historyEvents"]]


def test_a_timer_that_fires_while_it_is_suspended_is_history_at_once_and_ends_it_when_it_is_resumed() -> None:
    async def scene(ask: Ask) -> None:
        await ask("POST", "instances/one/suspend?reason=a%20break")
        await asyncio.sleep(20)
        assert await state_of(ask) == ("Suspended", "a break")
        assert (await history_of(ask))[-1] == "TimerFired"
        await ask("POST", "instances/one/resume")
        assert await state_of(ask) == ("Completed", "timer")
        assert (await history_of(ask))[2:] == [
            "ExecutionSuspended",
            "TimerFired",
            "ExecutionResumed",
            "ExecutionCompleted",
        ]

    play(timer_or_event, scene)


@pytest.mark.parametrize(("orchestrator", "ends"), [(timer_or_event, True), (event_alone, False)])
def test_an_event_ends_it_while_it_is_suspended_only_if_that_cancels_a_timer(orchestrator: Any, *, ends: bool) -> None:
    async def scene(ask: Ask) -> None:
        await ask("POST", "instances/one/suspend")
        await ask("POST", "instances/one/raiseEvent/E", 1)
        await asyncio.sleep(30)
        assert await state_of(ask) == (("Completed", "event") if ends else ("Suspended", ""))
        await ask("POST", "instances/one/resume")
        assert await state_of(ask) == ("Completed", "event")

    play(orchestrator, scene)


def test_its_code_goes_on_while_it_is_suspended_but_what_that_asks_for_begins_when_it_is_resumed() -> None:
    async def scene(ask: Ask) -> None:
        await ask("POST", "instances/one/suspend")
        await asyncio.sleep(30)
        assert (await ask("GET", "instances/one"))[1]["customStatus"] == "half"
        assert len(await history_of(ask)) == 3
        await ask("POST", "instances/one/resume")
        await asyncio.sleep(5)
        assert await state_of(ask) == ("Completed", 1)

    assert sum("runs" in text for text in play(two_works, scene)) == 2


def test_it_is_no_longer_suspended_once_it_has_continued_as_new() -> None:
    async def scene(ask: Ask) -> None:
        await ask("POST", "instances/one/suspend")
        await ask("POST", "instances/one/raiseEvent/E", 1)
        assert (await state_of(ask))[0] == "Running"
        assert await history_of(ask) == ["ExecutionStarted", "TimerCreated"]

    play(rounds, scene)


def test_a_custom_status_that_is_too_large_is_never_seen_and_nothing_begins() -> None:
    async def scene(ask: Ask) -> None:
        told = (await ask("GET", f"instances/one{SHOW_ALL}"))[1]
        assert (told["runtimeStatus"], told["customStatus"]) == ("Failed", None)
        assert [event["EventType"] for event in told["historyEvents"]] == ["ExecutionStarted", "ExecutionCompleted"]

    assert not any("runs" in text for text in play(too_large_a_status, scene))


def test_what_the_last_turn_has_asked_for_is_history() -> None:
    def after_an_event(context: Any) -> Generator[Any, Any, Any]:
        yield context.call_activity("work", 3)
        return (yield from timer_or_event(context))

    async def scene(ask: Ask) -> None:
        await ask("POST", "instances/one/raiseEvent/E", {"a": 1})
        await asyncio.sleep(9)
        events = (await ask("GET", f"instances/one{SHOW_ALL}"))[1]["historyEvents"]
        assert [event["EventType"] for event in events[1:]] == [
            "EventRaised",
            "TaskCompleted",
            "TimerCreated",
            "ExecutionCompleted",
        ]
        assert events[1]["Input"] == '{"a":1}'

    play(after_an_event, scene)


def test_ids_are_decoded_twice_and_have_no_slash() -> None:
    async def scene(ask: Ask) -> None:
        assert (await ask("POST", "orchestrators/it/%2541%2Bb"))[1] == {"id": "A b"}
        assert (await ask("GET", "instances/%2541%2Bb"))[1]["instanceId"] == "A b"
        assert (await ask("POST", "orchestrators/it/a%2Fb"))[0] == 404

    play(echo, scene)


def test_a_list_ignores_what_it_cannot_read_but_shows_nothing_to_who_wants_nothing() -> None:
    async def scene(ask: Ask) -> None:
        for query in ("top=x", "runtimeStatus=Nonsense", "createdTimeFrom=nonsense"):
            assert [row["instanceId"] for row in (await ask("GET", f"instances?{query}"))[1]] == ["one"]
        status, rows, headers = await ask("GET", "instances?top=0")
        assert (status, rows) == (200, [])
        assert len((await ask("GET", "instances", None, headers["x-ms-continuation-token"]))[1]) == 1

    play(echo, scene)


def test_nothing_is_purged_without_a_time_and_only_what_is_there_and_has_ended_is_restarted_under_its_id() -> None:
    async def scene(ask: Ask) -> None:
        assert (await ask("DELETE", "instances?runtimeStatus=Completed"))[0] == 400
        assert (await ask("POST", "instances/two/restart"))[0] == 400
        assert (await ask("POST", "instances/one/restart?restartWithNewInstanceId=false"))[0] == 409
        await ask("POST", "instances/one/terminate?reason=enough")
        assert (await ask("POST", "instances/one/restart?restartWithNewInstanceId=false"))[0] == 202

    play(rounds, scene)
