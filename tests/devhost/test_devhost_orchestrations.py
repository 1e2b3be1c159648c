"""Orchestrators written with the durable SDK, run by the engine on a state file, with a clock that the test moves."""

import asyncio
import json
from collections.abc import Generator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from azure.durable_functions import EntityId, RetryOptions

from devhost.clock import parse_time
from devhost.engine import (
    InstanceExistsError,
    InstanceGoneError,
    InstanceNotFoundError,
    ResultLostError,
    UnknownFunctionError,
)
from devhost.orchestration import EventType
from devhost.protocol import TypedData
from devhost.store import Activity, Instance
from devhost.worker import Function, Outcome
from tests.devhost.harness import Context, Durable

type Steps = Generator[Any, Any, Any]


@pytest.fixture(autouse=True)
def activities(durable: Durable) -> None:
    @durable.app.activity
    def double(value: int) -> int:
        return 2 * value

    @durable.app.activity
    def refuse(value: Any) -> None:
        raise ValueError(f"no to {value}")


@pytest.fixture
def gate(durable: Durable) -> asyncio.Event:
    """Holds up the activity `slow`, which returns its input, until it is set."""
    gate = asyncio.Event()

    @durable.app.activity
    async def slow(value: Any) -> Any:
        await gate.wait()
        return value

    return gate


# Activities


async def test_an_activity_gets_its_input_and_returns_its_result(durable: Durable) -> None:
    @durable.app.orchestrator
    def one(context: Context) -> Steps:
        return (yield context.call_activity("double", context.get_input()))

    instance = await durable.run(one, 21)

    assert (instance.status, instance.output) == ("Completed", "42")


async def test_activities_in_a_row_see_each_others_results(durable: Durable) -> None:
    @durable.app.orchestrator
    def chain(context: Context) -> Steps:
        value = 1
        for _ in range(5):
            value = yield context.call_activity("double", value)
        return value

    assert (await durable.run(chain)).output == "32"


async def test_a_fan_out_returns_results_in_the_order_of_its_calls(durable: Durable) -> None:
    @durable.app.orchestrator
    def fan(context: Context) -> Steps:
        return (yield context.task_all([context.call_activity("double", value) for value in range(50)]))

    assert json.loads((await durable.run(fan)).output or "") == [2 * value for value in range(50)]


async def test_a_failed_activity_raises_inside_the_orchestrator(durable: Durable) -> None:
    @durable.app.orchestrator
    def careful(context: Context) -> Steps:
        try:
            yield context.call_activity("refuse", 1)
        except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
            return str(error)

    assert "ValueError: no to 1" in durable.output((await durable.run(careful)).instance_id)


async def test_an_unhandled_failure_fails_the_orchestration_with_its_name(durable: Durable) -> None:
    @durable.app.orchestrator
    def careless(context: Context) -> Steps:
        yield context.call_activity("refuse", 1)

    instance = await durable.run(careless)

    assert instance.status == "Failed"
    assert "Orchestrator function 'careless' failed: Activity function 'refuse' failed" in (instance.output or "")


async def test_an_unknown_activity_fails_the_orchestration_and_names_the_known_ones(durable: Durable) -> None:
    @durable.app.orchestrator
    def wrong(context: Context) -> Steps:
        yield context.call_activity("dubble", 1)

    instance = await durable.run(wrong)

    assert instance.status == "Failed"
    assert "'dubble' doesn't exist" in (instance.output or "")
    assert "'double'" in (instance.output or "")


async def test_function_names_ignore_case(durable: Durable) -> None:
    @durable.app.orchestrator
    def one(context: Context) -> Steps:
        return (yield context.call_activity("DOUBLE", 4))

    assert (await durable.run("ONE")).output == "8"


async def test_no_more_activities_run_at_once_than_host_json_allows(durable: Durable) -> None:
    durable.settings = replace(durable.settings, max_activities=3)
    running: list[int] = []
    highest: list[int] = []

    @durable.app.activity
    async def busy(value: int) -> None:
        running.append(value)
        highest.append(len(running))
        await asyncio.sleep(0)
        running.remove(value)

    @durable.app.orchestrator
    def fan(context: Context) -> Steps:
        yield context.task_all([context.call_activity("busy", value) for value in range(20)])

    await durable.run(fan)

    assert max(highest) == 3


# Retries


def failing_at_first(durable: Durable, failures: int) -> None:
    @durable.app.activity
    def moody(value: Any) -> str:
        if len([name for name, _ in durable.app.calls if name == "moody"]) <= failures:
            raise ValueError("not now")
        return "fine"


async def test_a_call_with_retries_succeeds_at_a_later_attempt_after_the_interval(durable: Durable) -> None:
    failing_at_first(durable, 2)

    @durable.app.orchestrator
    def patient(context: Context) -> Steps:
        result = yield context.call_activity_with_retry("moody", RetryOptions(60_000, 3), 1)
        return [result, (context.current_utc_datetime).isoformat()]

    instance = await durable.run(patient)

    assert durable.output(instance.instance_id) == ["fine", "2026-01-01T00:01:58+00:00"]


async def test_a_call_with_retries_fails_after_the_last_attempt_and_one_more_timer(durable: Durable) -> None:
    @durable.app.orchestrator
    def patient(context: Context) -> Steps:
        try:
            yield context.call_activity_with_retry("refuse", RetryOptions(60_000, 2), 1)
        except Exception:  # noqa: BLE001  the SDK raises nothing narrower
            return (yield context.call_activity("double", 4))

    instance = await durable.run(patient)

    assert instance.output == "8"
    assert [name for name, _ in durable.app.calls] == ["refuse", "refuse", "double"]
    created = [
        event for event in durable.history(instance.instance_id) if event["EventType"] == EventType.TIMER_CREATED
    ]
    assert len(created) == 2


async def test_calls_with_retries_side_by_side_keep_their_results_apart(durable: Durable) -> None:
    @durable.app.activity
    def odd_fails_once(value: int) -> int:
        if value % 2 and durable.app.calls.count(("odd_fails_once", value)) == 1:
            raise ValueError
        return value

    @durable.app.orchestrator
    def fan(context: Context) -> Steps:
        options = RetryOptions(1000, 2)
        calls = [context.call_activity_with_retry("odd_fails_once", options, value) for value in range(6)]
        results = yield context.task_all(calls)
        return [*results, (yield context.call_activity("double", 50))]

    assert json.loads((await durable.run(fan)).output or "") == [0, 1, 2, 3, 4, 5, 100]


async def test_a_sub_orchestration_with_retries_runs_again(durable: Durable) -> None:
    failing_at_first(durable, 1)

    @durable.app.orchestrator
    def child(context: Context) -> Steps:
        return (yield context.call_activity("moody", context.get_input()))

    @durable.app.orchestrator
    def parent(context: Context) -> Steps:
        return (yield context.call_sub_orchestrator_with_retry("child", RetryOptions(1000, 2), 7, "the-child"))

    assert (await durable.run(parent)).output == '"fine"'


# Sub-orchestrations


async def test_a_sub_orchestration_knows_its_parent_and_returns_its_result(durable: Durable) -> None:
    @durable.app.orchestrator
    def child(context: Context) -> Steps:
        value = yield context.call_activity("double", context.get_input()["value"])
        return [value, context.parent_instance_id]

    @durable.app.orchestrator
    def parent(context: Context) -> Steps:
        return (yield context.call_sub_orchestrator("child", {"value": 5}))

    instance = await durable.run(parent)

    assert durable.output(instance.instance_id) == [10, instance.instance_id]


async def test_a_failed_sub_orchestration_raises_in_its_parent(durable: Durable) -> None:
    @durable.app.orchestrator
    def child(context: Context) -> Steps:
        yield context.call_activity("refuse", 1)

    @durable.app.orchestrator
    def parent(context: Context) -> Steps:
        try:
            yield context.call_sub_orchestrator("child")
        except Exception as error:  # noqa: BLE001  the SDK raises nothing narrower
            return str(error)

    assert "no to 1" in durable.output((await durable.run(parent)).instance_id)


async def test_a_sub_orchestration_takes_the_place_of_what_runs_under_its_id(
    durable: Durable, gate: asyncio.Event
) -> None:
    @durable.app.orchestrator
    def other(context: Context) -> Steps:
        yield context.call_activity("slow", 1)
        yield context.wait_for_external_event("never")

    @durable.app.orchestrator
    def child(context: Context) -> Steps:
        return (yield context.call_activity("double", 4))

    @durable.app.orchestrator
    def parent(context: Context) -> Steps:
        return (yield context.call_sub_orchestrator("child", None, "taken"))

    durable.start(other, instance_id="taken")
    parent_id = durable.start(parent)
    await durable.engine.wait(parent_id)
    gate.set()
    await durable.settle()

    assert (durable.output(parent_id), durable.output("taken")) == (8, 8)
    assert durable.engine.require("taken").name == "child"


@pytest.mark.parametrize("breaks_down", [False, True])
async def test_a_turn_of_what_was_replaced_meanwhile_comes_to_nothing(durable: Durable, breaks_down: bool) -> None:
    gate = asyncio.Event()
    invoke = durable.app.invoke

    async def held_up(function: Function, data: TypedData, **options: Any) -> Outcome:
        outcome = await invoke(function, data, **options)
        if function.name == "other":
            await gate.wait()
            return Outcome(error="the worker is gone") if breaks_down else outcome
        return outcome

    @durable.app.orchestrator
    def other(context: Context) -> Steps:
        yield context.call_activity("double", 1)

    @durable.app.orchestrator
    def child(context: Context) -> Steps:
        return (yield context.call_activity("double", 4))

    @durable.app.orchestrator
    def parent(context: Context) -> Steps:
        return (yield context.call_sub_orchestrator("child", None, "taken"))

    durable.app.invoke = held_up  # type: ignore[method-assign]
    durable.start(other, instance_id="taken")
    parent_id = durable.start(parent)
    await durable.engine.wait(parent_id, lambda one: one.status == "Running")
    assert durable.engine.require("taken").name == "child"
    gate.set()
    await durable.settle()

    assert durable.output(parent_id) == 8
    assert durable.app.calls == [("double", 4)]


async def test_an_orchestration_can_not_be_its_own_sub_orchestration(durable: Durable) -> None:
    @durable.app.orchestrator
    def selfish(context: Context) -> Steps:
        yield context.call_sub_orchestrator("selfish", None, context.instance_id)

    assert "its own sub-orchestration" in ((await durable.run(selfish)).output or "")


# Timers


@pytest.mark.parametrize(
    ("asked", "waited"), [(0, 0), (0.4, 0), (0.9, 0), (1, 0), (1.5, 1), (2, 1), (3.3, 3), (60, 59)]
)
async def test_a_timer_fires_after_whole_seconds_cut_off_and_so_up_to_a_second_early(
    durable: Durable, asked: float, waited: float
) -> None:
    @durable.app.orchestrator
    def sleeper(context: Context) -> Steps:
        began = context.current_utc_datetime
        yield context.create_timer(began + timedelta(seconds=asked))
        return (context.current_utc_datetime - began).total_seconds()

    instance = await durable.run(sleeper)

    assert durable.output(instance.instance_id) == waited
    asked_for = [
        (parse_time(event["FireAt"]) - parse_time("2026-01-01T00:00:00Z")).total_seconds()
        for event in durable.history(instance.instance_id)
        if "FireAt" in event
    ]
    assert asked_for == [asked, asked]


async def test_the_time_until_a_timer_counts_from_the_end_of_the_turn_that_sets_it(durable: Durable) -> None:
    @durable.app.orchestrator
    def sleeper(context: Context) -> Steps:
        due = context.current_utc_datetime + timedelta(seconds=10)
        if not context.is_replaying:
            durable.clock.advance(2.5)  # the turn takes so long
        yield context.create_timer(due)

    durable.start(sleeper)
    await durable.settle()

    assert durable.store.next_due() == "2026-01-01T00:00:09.500000Z"


async def test_a_timer_of_months_fires_no_earlier_than_a_second_before_its_time(durable: Durable) -> None:
    @durable.app.orchestrator
    def sleeper(context: Context) -> Steps:
        yield context.create_timer(context.current_utc_datetime + timedelta(days=100))
        return context.current_utc_datetime.isoformat()

    instance_id = durable.start(sleeper)
    await durable.settle()
    await durable.advance(100 * 86400 - 1.1)
    assert durable.status(instance_id) == "Running"

    await durable.advance(0.1)

    assert durable.output(instance_id) == "2026-04-10T23:59:59+00:00"


async def test_thousands_of_timers_need_no_task_each(durable: Durable) -> None:
    @durable.app.orchestrator
    def sleepers(context: Context) -> Steps:
        due = context.current_utc_datetime + timedelta(days=30)
        yield context.task_all([context.create_timer(due) for _ in range(3000)])

    instance_id = durable.start(sleepers)
    await durable.settle()
    assert len(asyncio.all_tasks()) < 10

    await durable.advance(30 * 86400)

    assert durable.status(instance_id) == "Completed"


async def test_a_cancelled_timer_is_forgotten(durable: Durable) -> None:
    @durable.app.orchestrator
    def impatient(context: Context) -> Steps:
        deadline = context.create_timer(context.current_utc_datetime + timedelta(days=1))
        work = context.call_activity("double", 1)
        winner = yield context.task_any([work, deadline])
        deadline.cancel()
        yield context.create_timer(context.current_utc_datetime + timedelta(days=2))
        return winner == work

    instance_id = durable.start(impatient)
    await durable.settle()

    assert durable.store.next_due() == "2026-01-02T23:59:59.000000Z"
    assert (await durable.finish(instance_id)).output == "true"


async def test_a_timer_that_is_due_at_once_fires_without_help(durable: Durable) -> None:
    @durable.app.orchestrator
    def brisk(context: Context) -> Steps:
        yield context.create_timer(context.current_utc_datetime)

    instance = await durable.engine.wait(durable.start(brisk))

    assert instance.status == "Completed"


# Waiting for several things


@pytest.mark.parametrize(
    ("failures", "goes_on", "status"), [(1, True, "Failed"), (1, False, "Completed"), (0, True, "Completed")]
)
async def test_a_timer_cancelled_beside_a_call_that_was_retried_fails_what_goes_on_after_it(
    durable: Durable, failures: int, goes_on: bool, status: str
) -> None:
    failing_at_first(durable, failures)

    @durable.app.orchestrator
    def race(context: Context) -> Steps:
        retried = context.call_activity_with_retry("moody", RetryOptions(500, 3), 1)
        timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        yield context.task_any([retried, timer])
        timer.cancel()
        if goes_on:
            yield context.call_activity("double", 4)

    instance = await durable.run(race)

    assert instance.status == status
    if status == "Failed":
        assert "Non-Deterministic workflow detected" in (instance.output or "")


async def test_when_any_goes_on_with_the_first_to_end(durable: Durable) -> None:
    @durable.app.orchestrator
    def race(context: Context) -> Steps:
        event = context.wait_for_external_event("Go")
        timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        winner = yield context.task_any([event, timer])
        return "timer" if winner == timer else "event"

    assert (await durable.run(race)).output == '"timer"'


async def test_when_any_and_when_all_may_be_nested(durable: Durable) -> None:
    @durable.app.orchestrator
    def nested(context: Context) -> Steps:
        pair = context.task_all([context.call_activity("double", 1), context.call_activity("double", 2)])
        never = context.task_all([context.wait_for_external_event("a"), context.wait_for_external_event("b")])
        winner = yield context.task_any([never, pair])
        return winner.result

    assert (await durable.run(nested)).output == "[2, 4]"


async def test_an_event_waited_for_again_and_again_is_still_heard(durable: Durable) -> None:
    @durable.app.orchestrator
    def reminding(context: Context) -> Steps:
        approval = context.wait_for_external_event("Approval")
        reminders = 0
        while True:
            timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
            winner = yield context.task_any([approval, timer])
            if winner == approval:
                timer.cancel()
                return [reminders, (yield context.call_activity("double", 4))]
            reminders += 1

    instance_id = durable.start(reminding)
    await durable.settle()
    for _ in range(3):
        await durable.advance(3600)
    durable.engine.raise_event(instance_id, "Approval", "true")
    await durable.settle()

    assert durable.output(instance_id) == [3, 8]


async def test_a_restart_amid_a_wait_for_several_things_changes_nothing(durable: Durable) -> None:
    @durable.app.orchestrator
    def reminding(context: Context) -> Steps:
        approval = context.wait_for_external_event("Approval")
        for _ in range(2):
            timer = context.create_timer(context.current_utc_datetime + timedelta(hours=1))
            yield context.task_any([approval, timer])
        yield approval
        return (yield context.call_activity("double", 4))

    instance_id = durable.start(reminding)
    await durable.settle()
    await durable.advance(3600)
    await durable.close()
    durable.engine.raise_event(instance_id, "Approval", "true")

    assert (await durable.finish(instance_id)).output == "8"


# The end


async def test_an_orchestration_ends_once_its_timers_have_fired_or_were_cancelled(durable: Durable) -> None:
    @durable.app.orchestrator
    def hasty(context: Context) -> Steps:
        timers = [context.create_timer(context.current_utc_datetime + timedelta(hours=hours)) for hours in (1, 2)]
        yield context.task_any([*timers, context.call_activity("double", 1)])
        timers[1].cancel()
        return "done"

    instance_id = durable.start(hasty)
    await durable.settle()
    assert durable.status(instance_id) == "Running"

    await durable.advance(3600)

    assert (durable.status(instance_id), durable.output(instance_id)) == ("Completed", "done")
    assert durable.store.next_due() is None


@pytest.mark.parametrize("in_the_end", ["fail", "continue as new"])
async def test_an_orchestration_waits_for_its_activities_whatever_its_end(
    durable: Durable, gate: asyncio.Event, in_the_end: str
) -> None:
    @durable.app.orchestrator
    def hasty(context: Context) -> Steps:
        if context.get_input() == "again":
            return "again"
        yield context.task_any([context.call_activity("slow", 1), context.call_activity("double", 1)])
        context.set_custom_status("at the end")
        if in_the_end == "fail":
            raise ValueError("no luck")
        context.continue_as_new("again")

    instance_id = durable.start(hasty)
    await durable.engine.wait(instance_id, lambda one: one.custom_status is not None)
    assert durable.status(instance_id) == "Running"
    gate.set()
    await durable.settle()

    if in_the_end == "fail":
        assert durable.status(instance_id) == "Failed"
        assert durable.output(instance_id) == "Orchestrator function 'hasty' failed: no luck"
    else:
        assert durable.output(instance_id) == "again"


async def test_a_call_that_this_host_can_not_make_fails_the_orchestration(durable: Durable) -> None:
    @durable.app.orchestrator
    def odd(context: Context) -> Steps:
        yield context.call_sub_orchestrator("odd", 1, "an id that is no text: \ud800")

    instance = await durable.run(odd)

    assert instance.status == "Failed"
    assert durable.output(instance.instance_id).startswith("UnicodeEncodeError in the host: ")


async def test_an_orchestrator_that_takes_too_long_later_on_fails_with_that(durable: Durable) -> None:
    @durable.app.orchestrator
    def patient(context: Context) -> Steps:
        yield context.call_activity("double", 1)
        yield context.wait_for_external_event("Go")

    instance_id = durable.start(patient)
    await durable.settle()
    durable.app.breakdown = "FunctionTimeoutException: 'patient' took longer than 5 s"
    durable.engine.raise_event(instance_id, "Go", "1")
    await durable.settle()

    assert durable.output(instance_id) == durable.app.breakdown


# External events


async def test_of_events_that_come_before_they_are_waited_for_the_last_is_handed_out_again_and_again(
    durable: Durable, gate: asyncio.Event
) -> None:
    @durable.app.orchestrator
    def listener(context: Context) -> Steps:
        yield context.call_activity("slow", 1)
        first = yield context.wait_for_external_event("Go")
        return [first, (yield context.wait_for_external_event("Go")), (yield context.call_activity("double", 4))]

    instance_id = durable.start(listener)
    await durable.engine.wait(instance_id, lambda one: one.status == "Running")
    for number in range(3):
        durable.engine.raise_event(instance_id, "Go", str(number))
    gate.set()
    await durable.settle()

    assert durable.output(instance_id) == [2, 2, 8]


async def test_events_that_come_after_their_waits_are_handed_out_once_each(durable: Durable) -> None:
    @durable.app.orchestrator
    def listener(context: Context) -> Steps:
        first = yield context.wait_for_external_event("Go")
        return [first, (yield context.wait_for_external_event("Go"))]

    instance_id = durable.start(listener)
    for number in range(2):
        await durable.settle()
        durable.engine.raise_event(instance_id, "Go", str(number))
    await durable.settle()

    assert durable.output(instance_id) == [0, 1]


async def test_the_names_of_events_mind_case(durable: Durable) -> None:
    @durable.app.orchestrator
    def listener(context: Context) -> Steps:
        return (yield context.wait_for_external_event("Go"))

    instance_id = durable.start(listener)
    await durable.settle()
    durable.engine.raise_event(instance_id, "gO", "1")
    await durable.settle()
    assert durable.status(instance_id) == "Running"

    durable.engine.raise_event(instance_id, "Go", "2")
    await durable.settle()

    assert durable.output(instance_id) == 2


# Continue as new


async def test_continue_as_new_begins_again_with_another_input_and_an_empty_history(durable: Durable) -> None:
    @durable.app.orchestrator
    def countdown(context: Context) -> Steps:
        left = context.get_input()
        yield context.call_activity("double", left)
        if left:
            context.continue_as_new(left - 1)
        return "lift-off"

    instance = await durable.run(countdown, 5)

    assert instance.output == '"lift-off"'
    assert durable.app.calls == [("double", left) for left in (5, 4, 3, 2, 1, 0)]
    scheduled = [one for one in durable.history(instance.instance_id) if one["EventType"] == EventType.TASK_SCHEDULED]
    assert len(scheduled) == 1


async def test_what_continues_as_new_counts_as_created_then(durable: Durable) -> None:
    @durable.app.orchestrator
    def twice(context: Context) -> Steps:
        if context.get_input():
            yield context.create_timer(context.current_utc_datetime + timedelta(seconds=60))
            context.continue_as_new(0)

    instance = await durable.run(twice, 1)

    assert instance.created == "2026-01-01T00:00:59.000000Z"


async def test_continue_as_new_drops_the_events_that_nobody_waited_for(durable: Durable, gate: asyncio.Event) -> None:
    @durable.app.orchestrator
    def collector(context: Context) -> Steps:
        collected = context.get_input()
        collected.append((yield context.wait_for_external_event("Item")))
        yield context.call_activity("slow", None)
        if len(collected) < 2:
            context.continue_as_new(collected)
        return collected

    instance_id = durable.start(collector, [])
    await durable.engine.wait(instance_id, lambda one: one.waits == '["Item"]')
    for number in range(3):
        durable.engine.raise_event(instance_id, "Item", str(number))
        await asyncio.sleep(0.01)
    gate.set()
    await durable.settle()
    assert durable.engine.require(instance_id).waits == '["Item"]'

    durable.engine.raise_event(instance_id, "Item", "3")
    await durable.settle()

    assert durable.output(instance_id) == [0, 3]


# Status, suspension, end


async def test_a_custom_status_can_be_taken_back(durable: Durable) -> None:
    @durable.app.orchestrator
    def secretive(context: Context) -> Steps:
        context.set_custom_status("busy")
        yield context.wait_for_external_event("Go")
        context.set_custom_status(None)
        yield context.wait_for_external_event("Go")

    instance_id = durable.start(secretive)
    await durable.settle()
    assert durable.engine.require(instance_id).custom_status == '"busy"'
    durable.engine.raise_event(instance_id, "Go", "1")
    await durable.settle()

    assert durable.engine.require(instance_id).custom_status is None


async def test_the_custom_status_is_kept_from_turn_to_turn(durable: Durable) -> None:
    @durable.app.orchestrator
    def reporting(context: Context) -> Steps:
        context.set_custom_status({"step": 1})
        yield context.wait_for_external_event("Go")

    instance_id = durable.start(reporting)
    await durable.settle()

    assert durable.engine.require(instance_id).custom_status == '{"step": 1}'


@pytest.fixture
def listener(durable: Durable) -> str:
    @durable.app.orchestrator
    def listening(context: Context) -> Steps:
        return (yield context.wait_for_external_event("Go"))

    return "listening"


@pytest.mark.parametrize(("size", "status"), [(8190, "Completed"), (8191, "Failed"), (9000, "Failed")])
async def test_a_custom_status_over_16_kb_of_utf_16_fails_the_orchestration(
    durable: Durable, size: int, status: str
) -> None:
    @durable.app.orchestrator
    def talkative(context: Context) -> Steps:
        context.set_custom_status("\u00fc" * size)
        yield context.call_activity("double", 1)

    instance = await durable.run(talkative)

    assert instance.status == status
    if status == "Failed":
        assert "must not exceed 16 KB" in (instance.output or "")
        assert instance.custom_status is None
        assert not durable.app.calls


async def test_a_suspended_orchestration_ends_all_the_same_with_an_event(durable: Durable, listener: str) -> None:
    instance_id = durable.start(listener)
    durable.engine.suspend(instance_id, "a break")
    await durable.settle()
    assert (durable.status(instance_id), durable.output(instance_id)) == ("Suspended", "a break")

    durable.engine.raise_event(instance_id, "Go", "1")
    await durable.settle()

    assert (durable.status(instance_id), durable.output(instance_id)) == ("Completed", 1)


async def test_a_suspended_orchestration_hears_nothing_but_events_until_it_is_resumed(durable: Durable) -> None:
    @durable.app.orchestrator
    def sleeper(context: Context) -> Steps:
        yield context.create_timer(context.current_utc_datetime + timedelta(seconds=60))
        return "awake"

    instance_id = durable.start(sleeper)
    await durable.settle()
    durable.engine.suspend(instance_id, "a break")
    await durable.advance(60)
    assert durable.status(instance_id) == "Suspended"

    durable.engine.resume(instance_id, "go on")
    await durable.settle()

    assert durable.output(instance_id) == "awake"


@pytest.mark.parametrize("restart", [False, True])
async def test_what_a_suspended_orchestration_asks_for_when_an_event_comes_begins_when_it_is_resumed(
    durable: Durable, restart: bool
) -> None:
    @durable.app.orchestrator
    def steps(context: Context) -> Steps:
        yield context.wait_for_external_event("Go")
        context.set_custom_status("working")
        yield context.call_activity("double", 4)
        return (yield context.wait_for_external_event("Stop"))

    instance_id = durable.start(steps)
    durable.engine.suspend(instance_id, "a break")
    await durable.settle()
    for name in ("Go", "Stop"):
        durable.engine.raise_event(instance_id, name, "1")
        await durable.settle()
    instance = durable.engine.require(instance_id)
    assert (instance.status, instance.custom_status, durable.app.calls) == ("Suspended", '"working"', [])

    if restart:
        await durable.close()
    durable.engine.resume(instance_id, "go on")
    await durable.settle()

    assert (durable.output(instance_id), durable.app.calls) == (1, [("double", 4)])


async def test_what_was_suspended_and_runs_again_shows_the_reason_as_its_output(
    durable: Durable, listener: str
) -> None:
    instance_id = durable.start(listener)
    durable.engine.suspend(instance_id, "a break")
    durable.engine.resume(instance_id, "go on")
    await durable.settle()

    assert (durable.status(instance_id), durable.output(instance_id)) == ("Running", "go on")


async def test_a_terminated_orchestration_ends_with_the_reason(durable: Durable, listener: str) -> None:
    instance_id = durable.start(listener)
    durable.engine.terminate(instance_id, "enough")
    await durable.settle()

    assert (durable.status(instance_id), durable.output(instance_id)) == ("Terminated", "enough")


async def test_an_ended_orchestration_takes_no_events(durable: Durable, listener: str) -> None:
    instance_id = durable.start(listener)
    durable.engine.terminate(instance_id, "enough")
    await durable.settle()

    with pytest.raises(InstanceGoneError):
        durable.engine.raise_event(instance_id, "Go", "1")


async def test_an_unknown_instance_is_named_as_such(durable: Durable) -> None:
    with pytest.raises(InstanceNotFoundError):
        durable.engine.terminate("nobody", "why not")


async def test_the_results_of_a_terminated_orchestrations_activities_are_dropped(
    durable: Durable, gate: asyncio.Event
) -> None:
    @durable.app.orchestrator
    def waiting(context: Context) -> Steps:
        yield context.call_activity("slow", None)

    instance_id = durable.start(waiting)
    durable.engine.terminate(instance_id, "enough")
    await durable.engine.wait(instance_id)
    gate.set()
    await durable.settle()

    assert durable.status(instance_id) == "Terminated"
    assert not durable.store.has_messages(instance_id)


# Instance ids


async def test_an_id_that_is_running_can_not_be_started_again(durable: Durable, listener: str) -> None:
    durable.start(listener, instance_id="one")

    with pytest.raises(InstanceExistsError):
        durable.start(listener, instance_id="one")


async def test_an_id_whose_orchestration_has_ended_may_be_used_again(durable: Durable, listener: str) -> None:
    durable.start(listener, instance_id="one")
    durable.engine.terminate("one", "enough")
    await durable.settle()

    durable.start(listener, instance_id="one")
    await durable.settle()

    assert durable.status("one") == "Running"


async def test_an_unknown_orchestrator_can_not_be_started(durable: Durable, listener: str) -> None:
    with pytest.raises(UnknownFunctionError, match="'listening'"):
        durable.start("lisening")


async def test_purge_forgets_ended_instances_only(durable: Durable, listener: str) -> None:
    for instance_id in ("ended", "running"):
        durable.start(listener, instance_id=instance_id)
    durable.engine.terminate("ended", "enough")
    await durable.settle()

    assert durable.engine.purge(["ended", "running", "unknown"]) == 1
    assert [instance.instance_id for instance in durable.store.find()] == ["running"]
    assert durable.history("ended") == []


async def test_restart_runs_an_orchestration_again_with_its_input(durable: Durable) -> None:
    @durable.app.orchestrator
    def one(context: Context) -> Steps:
        return (yield context.call_activity("double", context.get_input()))

    first = await durable.run(one, 3)

    second = durable.engine.restart(first.instance_id, new_id=True)

    assert second.instance_id != first.instance_id
    assert (await durable.finish(second.instance_id)).output == "6"


# Rewind


async def test_rewind_runs_again_what_failed_and_not_what_succeeded(durable: Durable) -> None:
    failing_at_first(durable, 1)

    @durable.app.orchestrator
    def fragile(context: Context) -> Steps:
        first = yield context.call_activity("double", 1)
        return [first, (yield context.call_activity("moody", 2)), (yield context.call_activity("double", 3))]

    instance = await durable.run(fragile)
    assert instance.status == "Failed"

    durable.engine.rewind(instance.instance_id, "repaired")
    await durable.settle()

    assert durable.output(instance.instance_id) == [2, "fine", 6]
    assert [name for name, _ in durable.app.calls] == ["double", "moody", "moody", "double"]


async def test_rewind_can_not_deal_with_a_call_with_retries(durable: Durable) -> None:
    failing_at_first(durable, 3)

    @durable.app.orchestrator
    def fragile(context: Context) -> Steps:
        return (yield context.call_activity_with_retry("moody", RetryOptions(1000, 2), 1))

    instance = await durable.run(fragile)
    assert instance.status == "Failed"

    durable.engine.rewind(instance.instance_id, "repaired")

    output = (await durable.finish(instance.instance_id)).output or ""
    assert "Non-Deterministic workflow detected" in output
    assert "a timer task with sequence id 1" in output


async def test_rewind_goes_into_failed_sub_orchestrations(durable: Durable) -> None:
    failing_at_first(durable, 1)

    @durable.app.orchestrator
    def child(context: Context) -> Steps:
        yield context.call_activity("double", 1)
        return (yield context.call_activity("moody", 2))

    @durable.app.orchestrator
    def parent(context: Context) -> Steps:
        return (yield context.call_sub_orchestrator("child"))

    instance = await durable.run(parent)
    assert instance.status == "Failed"

    durable.engine.rewind(instance.instance_id, "repaired")
    await durable.settle()

    assert durable.output(instance.instance_id) == "fine"
    assert [name for name, _ in durable.app.calls] == ["double", "moody", "moody"]


@pytest.fixture
async def failed_amid_work(durable: Durable, gate: asyncio.Event) -> str:
    """The id of an orchestration that failed, for a mistake made since, amid a slow activity, a child and a timer."""
    first = "double"

    @durable.app.orchestrator
    def child(context: Context) -> Steps:
        return (yield context.call_activity("slow", 2))

    @durable.app.orchestrator
    def parent(context: Context) -> Steps:
        tasks = [context.call_activity(name, 1) for name in (first, "slow")]
        tasks.append(context.call_sub_orchestrator("child"))
        tasks.append(context.create_timer(context.current_utc_datetime + timedelta(minutes=1)))
        results = yield context.task_all([*tasks, context.wait_for_external_event("Go")])
        return results[:3]

    instance_id = durable.start(parent)
    await durable.engine.wait(instance_id, lambda one: one.waits == '["Go"]')
    first = "refuse"
    durable.engine.raise_event(instance_id, "Go", "1")
    assert (await durable.engine.wait(instance_id)).status == "Failed"
    first = "double"
    return instance_id


async def test_rewind_does_not_wait_for_what_ended_while_the_orchestration_had_failed(
    durable: Durable, gate: asyncio.Event, failed_amid_work: str
) -> None:
    gate.set()
    await durable.advance(60)

    durable.engine.rewind(failed_amid_work, "repaired")
    durable.engine.raise_event(failed_amid_work, "Go", "1")

    assert (await durable.finish(failed_amid_work)).output == "[2, 1, 2]"


async def test_rewind_waits_for_what_is_still_running(
    durable: Durable, gate: asyncio.Event, failed_amid_work: str
) -> None:
    durable.engine.rewind(failed_amid_work, "repaired")
    durable.engine.raise_event(failed_amid_work, "Go", "1")
    gate.set()

    assert (await durable.finish(failed_amid_work)).output == "[2, 1, 2]"
    assert sorted(durable.app.calls) == [("double", 1), ("slow", 1), ("slow", 2)]


async def test_rewind_runs_again_what_had_failed_and_was_dealt_with(durable: Durable) -> None:
    failing_at_first(durable, 2)

    @durable.app.orchestrator
    def careful(context: Context) -> Steps:
        try:
            first = yield context.call_activity("moody", 1)
        except Exception:  # noqa: BLE001  the SDK raises nothing narrower
            first = "caught"
        return [first, (yield context.call_activity("moody", 2))]

    instance = await durable.run(careful)
    assert instance.status == "Failed"

    durable.engine.rewind(instance.instance_id, "repaired")

    assert (await durable.finish(instance.instance_id)).output == '["fine", "fine"]'
    assert durable.app.calls == [("moody", 1), ("moody", 2)] * 2


async def test_rewind_trips_over_what_was_done_because_of_a_failure(durable: Durable) -> None:
    failing_at_first(durable, 2)

    @durable.app.orchestrator
    def careful(context: Context) -> Steps:
        try:
            yield context.call_activity("moody", 1)
        except Exception:  # noqa: BLE001  the SDK raises nothing narrower
            yield context.call_activity("double", 2)
        yield context.call_activity("moody", 3)

    instance = await durable.run(careful)
    durable.engine.rewind(instance.instance_id, "repaired")

    assert "Non-Deterministic workflow detected" in ((await durable.finish(instance.instance_id)).output or "")


async def test_only_a_failed_orchestration_can_be_rewound(durable: Durable, listener: str) -> None:
    instance_id = durable.start(listener)
    await durable.settle()

    with pytest.raises(InstanceGoneError):
        durable.engine.rewind(instance_id, "why not")


# What is not emulated, and what must not happen


async def test_an_entity_call_fails_and_says_why(durable: Durable) -> None:
    @durable.app.orchestrator
    def counting(context: Context) -> Steps:
        yield context.call_entity(EntityId("counter", "one"), "add", 1)

    instance = await durable.run(counting)

    assert instance.status == "Failed"
    assert "durable entities can't be used here" in (instance.output or "")


async def test_call_http_fails_and_says_why(durable: Durable) -> None:
    @durable.app.orchestrator
    def fetching(context: Context) -> Steps:
        yield context.call_http("GET", "http://localhost/")

    instance = await durable.run(fetching)

    assert instance.status == "Failed"
    assert "call_http can't be used here" in (instance.output or "")


async def test_an_orchestrator_that_changes_its_mind_is_found_out(durable: Durable) -> None:
    activity = "double"

    @durable.app.activity
    def triple(value: int) -> int:
        return 3 * value

    @durable.app.orchestrator
    def fickle(context: Context) -> Steps:
        yield context.call_activity(activity, 1)
        yield context.wait_for_external_event("Go")

    instance_id = durable.start(fickle)
    await durable.settle()
    activity = "triple"
    durable.engine.raise_event(instance_id, "Go", "1")
    await durable.settle()

    assert durable.status(instance_id) == "Failed"
    assert durable.output(instance_id).startswith("Non-Deterministic workflow detected")
    assert "an activity task named 'double' with sequence id 0" in durable.output(instance_id)
    assert "an activity task named 'triple' with sequence id 0" in durable.output(instance_id)


async def test_a_suspension_outlives_the_execution_that_it_met(durable: Durable) -> None:
    @durable.app.orchestrator
    def renewing(context: Context) -> Steps:
        yield context.wait_for_external_event("Go")
        context.continue_as_new(None)

    instance_id = durable.start(renewing)
    await durable.settle()
    durable.engine.raise_event(instance_id, "Go", "1")
    durable.engine.suspend(instance_id, "wait a moment")
    await durable.settle()

    assert durable.status(instance_id) == "Suspended"


@pytest.mark.filterwarnings("ignore:Potential duplicate Task completion")
async def test_an_orchestrator_that_forgets_a_call_is_found_out(durable: Durable) -> None:
    calls = True

    @durable.app.orchestrator
    def fickle(context: Context) -> Steps:
        if calls:
            yield context.call_activity("double", 1)
        yield context.wait_for_external_event("Go")

    instance_id = durable.start(fickle)
    await durable.settle()
    calls = False
    await durable.close()
    durable.engine.raise_event(instance_id, "Go", "1")
    await durable.settle()

    assert "hasn't (yet?) scheduled it" in durable.output(instance_id)


# After the end of the process


@pytest.mark.usefixtures("gate")
async def test_an_activity_that_is_gone_after_a_restart_fails(durable: Durable) -> None:
    @durable.app.orchestrator
    def waiting(context: Context) -> Steps:
        yield context.call_activity("slow", 1)

    instance_id = durable.start(waiting)
    await durable.engine.wait(instance_id, lambda one: one.status == "Running")
    await durable.close()
    durable.app.forget("slow")
    await durable.settle()

    assert durable.status(instance_id) == "Failed"
    assert "The function 'slow' doesn't exist" in durable.output(instance_id)


async def test_activities_in_flight_run_again_after_a_restart(durable: Durable) -> None:
    gate = asyncio.Event()

    @durable.app.activity
    async def slow(value: Any) -> str:
        await gate.wait()
        return "done"

    @durable.app.orchestrator
    def waiting(context: Context) -> Steps:
        return (yield context.call_activity("slow", 1))

    instance_id = durable.start(waiting)
    await durable.engine.wait(instance_id, lambda instance: instance.status == "Running")
    await durable.close()
    gate.set()
    await durable.settle()

    assert durable.output(instance_id) == "done"
    assert durable.app.calls == [("slow", 1), ("slow", 1)]


async def test_an_orchestration_started_but_not_begun_begins_after_a_restart(durable: Durable, listener: str) -> None:
    instance_id = durable.start(listener)
    await durable.close()
    durable.engine.raise_event(instance_id, "Go", "1")
    await durable.settle()

    assert durable.output(instance_id) == 1


async def test_timers_fire_after_a_restart_though_they_came_due_before(durable: Durable) -> None:
    @durable.app.orchestrator
    def sleeper(context: Context) -> Steps:
        yield context.create_timer(context.current_utc_datetime + timedelta(hours=1))
        return "awake"

    instance_id = durable.start(sleeper)
    await durable.settle()
    await durable.close()
    durable.clock.advance(7200)

    assert (await durable.engine.wait(instance_id)).output == '"awake"'


async def test_a_turn_cut_short_leaves_no_trace_and_is_made_again(durable: Durable) -> None:
    gate = asyncio.Event()

    @durable.app.activity
    async def slow(value: Any) -> str:
        await gate.wait()
        return "done"

    @durable.app.orchestrator
    def steps(context: Context) -> Steps:
        yield context.call_activity("double", 1)
        return (yield context.call_activity("slow", 2))

    instance_id = durable.start(steps)

    def first_result_arrived(_instance: Instance) -> bool:
        return len(durable.history(instance_id)) > 4

    await durable.engine.wait(instance_id, first_result_arrived)
    before = durable.history(instance_id)
    await durable.close()
    assert durable.history(instance_id) == before
    gate.set()
    await durable.settle()

    assert durable.output(instance_id) == "done"


async def test_a_result_that_is_lost_makes_the_activity_run_again(durable: Durable) -> None:
    lost = 1

    async def lose(activity: Activity, invoke: Any) -> Outcome:
        nonlocal lost
        outcome: Outcome = await invoke()
        if lost:
            lost -= 1
            raise ResultLostError
        return outcome

    @durable.app.orchestrator
    def one(context: Context) -> Steps:
        return (yield context.call_activity("double", 4))

    durable.engine.around_activity = lose
    instance = await durable.run(one)

    assert instance.output == "8"
    assert len(durable.app.calls) == 2
