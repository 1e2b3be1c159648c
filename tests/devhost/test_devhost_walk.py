"""The walk over history and actions by itself: how tasks are numbered, and what counts as non-determinism."""

from typing import Any

import pytest

from devhost.orchestration import ActionType, Command, EventType, NonDeterminismError, OrchestrationError, Walk

TIME = "2026-01-01T00:00:00.000000Z"

type Action = dict[str, Any]


def call(name: str) -> Action:
    return {"actionType": ActionType.CALL_ACTIVITY, "functionName": name, "input": "1"}


def retried(name: str, attempts: int) -> Action:
    options = {"firstRetryIntervalInMilliseconds": 5000, "maxNumberOfAttempts": attempts}
    return call(name) | {"actionType": ActionType.CALL_ACTIVITY_WITH_RETRY, "retryOptions": options}


def timer(*, cancelled: bool = False) -> Action:
    return {"actionType": ActionType.CREATE_TIMER, "fireAt": TIME, "isCanceled": cancelled}


def event(name: str) -> Action:
    return {"actionType": ActionType.WAIT_FOR_EXTERNAL_EVENT, "externalEventName": name, "reason": "ExternalEvent"}


def together(action_type: ActionType, *actions: Action) -> Action:
    return {"actionType": action_type, "compoundActions": list(actions)}


STARTED = [
    {"EventType": EventType.ORCHESTRATOR_STARTED, "EventId": -1, "Timestamp": TIME},
    {"EventType": EventType.EXECUTION_STARTED, "EventId": -1, "Timestamp": TIME},
]


def completed(task_id: int) -> dict[str, Any]:
    return {"EventType": EventType.TASK_COMPLETED, "EventId": -1, "TaskScheduledId": task_id}


def failed(task_id: int) -> dict[str, Any]:
    return {"EventType": EventType.TASK_FAILED, "EventId": -1, "TaskScheduledId": task_id}


def fired(task_id: int) -> dict[str, Any]:
    return {"EventType": EventType.TIMER_FIRED, "EventId": -1, "TimerId": task_id}


def walked(actions: list[Action], *events: dict[str, Any]) -> tuple[Walk, list[Command]]:
    walk = Walk(actions)
    for one in [*STARTED, *events]:
        walk.feed(one)
    return walk, walk.end_turn()


def numbered(commands: list[Command]) -> list[tuple[int, str]]:
    return [(command.task_id, command.name or command.kind) for command in commands]


def test_tasks_are_numbered_in_the_order_they_are_reached() -> None:
    _, commands = walked([call("a"), timer(), call("b")], completed(0), fired(1))

    assert numbered(commands) == [(0, "a"), (1, "timer"), (2, "b")]


def test_waits_for_events_take_no_number() -> None:
    walk, commands = walked([together(ActionType.WHEN_ANY, event("Go"), call("a"), event("Stop"), call("b"))])

    assert numbered(commands) == [(0, "a"), (1, "b")]
    assert walk.waits == ["Go", "Stop"]


def test_the_pause_and_the_attempts_of_a_retry_are_numbered_as_they_happen() -> None:
    pair = together(ActionType.WHEN_ALL, retried("a", 3), retried("b", 3))

    _, commands = walked([pair], failed(1), failed(0), fired(2), fired(3))

    assert numbered(commands) == [(0, "a"), (1, "b"), (2, "timer"), (3, "timer"), (4, "b"), (5, "a")]
    assert commands[2].fire_at == "2026-01-01T00:00:05.000000Z"


def test_what_follows_a_retry_that_gives_up_is_reached_after_one_more_timer() -> None:
    _, commands = walked([retried("a", 1), call("b")], failed(0), fired(1))

    assert numbered(commands) == [(0, "a"), (1, "timer"), (2, "b")]


def test_when_all_is_over_at_the_first_failure() -> None:
    _, commands = walked([together(ActionType.WHEN_ALL, call("a"), call("b")), call("c")], failed(1))

    assert numbered(commands)[-1] == (2, "c")


def test_when_any_has_no_failure() -> None:
    race = together(ActionType.WHEN_ANY, call("a"))
    actions = [together(ActionType.WHEN_ALL, race, retried("b", 2)), call("c")]

    _, commands = walked(actions, failed(0), failed(1), fired(2), completed(3))

    assert numbered(commands) == [(0, "a"), (1, "b"), (2, "timer"), (3, "b"), (4, "c")]


def raised(name: str) -> dict[str, Any]:
    return {"EventType": EventType.EVENT_RAISED, "EventId": -1, "Name": name}


def test_an_event_that_comes_early_ends_every_later_wait_for_it() -> None:
    walk, commands = walked([call("a"), event("Go"), call("b"), event("Go"), call("c")], raised("Go"), completed(0))
    assert (numbered(commands), walk.waits) == ([(0, "a"), (1, "b"), (2, "c")], [])


def test_an_event_of_another_case_ends_no_wait() -> None:
    walk, _ = walked([event("Go"), call("a")], raised("go"))
    assert walk.waits == ["Go"]


def test_a_timer_that_is_cancelled_after_a_retry_changes_the_ids_of_what_followed() -> None:
    def race(*, cancelled: bool) -> list[Action]:
        return [together(ActionType.WHEN_ANY, retried("a", 3), timer(cancelled=cancelled)), call("b")]

    events = [failed(0), fired(2), completed(3)]
    walk, commands = walked(race(cancelled=False), *events)
    assert numbered(commands) == [(0, "a"), (1, "timer"), (2, "timer"), (3, "a"), (4, "b")]

    assert walk.extend(race(cancelled=True)) is None
    _, commands = walked(race(cancelled=True), *events)
    assert numbered(commands)[:4] == [(0, "a"), (1, "timer"), (2, "b"), (3, "timer")]


def test_work_that_the_history_knows_is_no_new_work() -> None:
    scheduled = {"EventType": EventType.TASK_SCHEDULED, "EventId": 0, "Name": "a"}

    _, commands = walked([call("a"), call("b")], scheduled, completed(0))

    assert numbered(commands) == [(1, "b")]


def test_a_walk_goes_on_from_turn_to_turn() -> None:
    walk, first = walked([call("a")])
    assert walk.extend([call("a"), call("b")]) == []
    for command in first:
        walk.feed(command.event())
    walk.feed(completed(0))

    assert numbered(walk.end_turn()) == [(1, "b")]


def test_timers_that_were_cancelled_since_are_named() -> None:
    race = [together(ActionType.WHEN_ANY, call("a"), timer(), timer())]
    walk, _ = walked(race)

    cancelled = [together(ActionType.WHEN_ANY, call("a"), timer(), timer(cancelled=True))]

    assert walk.extend(cancelled) == [2]


@pytest.mark.parametrize("other", [[], [call("b")], [call("a") | {"input": "2"}]])
def test_a_list_of_actions_that_does_not_continue_the_known_one_asks_for_a_new_walk(other: list[Action]) -> None:
    walk, _ = walked([call("a")])

    assert walk.extend(other) is None


@pytest.mark.parametrize(
    ("actions", "complaint"),
    [
        ([call("b")], "scheduled an activity task named 'b' with sequence id 0 instead"),
        ([timer()], "scheduled a timer task with sequence id 0 instead"),
        ([], "hasn't"),
    ],
)
def test_other_work_than_the_history_says_is_non_determinism(actions: list[Action], complaint: str) -> None:
    scheduled = {"EventType": EventType.TASK_SCHEDULED, "EventId": 0, "Name": "a"}

    with pytest.raises(NonDeterminismError, match=r"Non-Deterministic workflow detected.*'a'") as caught:
        walked(actions, scheduled)

    assert complaint in str(caught.value)


def test_a_result_for_an_unknown_task_is_ignored() -> None:
    walk, commands = walked([call("a"), call("b")], completed(7))

    assert numbered(commands) == [(0, "a"), (1, "b")]
    assert set(walk.open) == {0, 1}


def test_an_action_that_is_not_emulated_is_an_error() -> None:
    with pytest.raises(OrchestrationError, match="durable entities"):
        walked([{"actionType": ActionType.SIGNAL_ENTITY}])
