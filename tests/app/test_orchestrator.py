"""The orchestrators, replayed by the SDK against histories as the Durable Task extension writes them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.durable_functions.models import DurableOrchestrationContext
from azure.durable_functions.orchestrator import Orchestrator

import function_app
from shared.business import assigned, example
from shared.functions.batches import PostSectionOrchestrator

from .task_hub import checked_custom_status

INSTANCE = "0123456789abcdef"
START = datetime(2026, 1, 1, tzinfo=UTC)
BUSINESS = example()
POSTED = {"outcome": "posted", "id": "b-1", "business": assigned(1) | BUSINESS}
REJECTED = {"outcome": "rejected", "status": 422, "problem": {"title": "No", "status": 422}}
DEFERRED = {"outcome": "deferred", "reason": "the API answered 503", "retry_after": None}


class History:
    """Writes the events of one orchestration, and replays the orchestrator against them."""

    def __init__(self, orchestrator: Any = function_app.PostBusinessOrchestrator, **given: Any) -> None:
        self.given = given if "items" in given else {"record": BUSINESS, **given}
        self.orchestrator = orchestrator.build().get_user_function().orchestrator_function
        self.now = START
        self.events: list[dict[str, Any]] = []
        self._turn()
        self._add(0, Name="PostBusinessOrchestrator", Version=None, Input=json.dumps(self.given))

    def _add(self, event_type: int, **fields: Any) -> None:
        timestamp = self.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.events.append(
            {"EventType": event_type, "EventId": -1, "IsPlayed": False, "Timestamp": timestamp, **fields}
        )

    def _turn(self) -> None:
        self._add(12)

    def activities(self, *results: Any, cancelled_after: int | None = None) -> None:
        """Calls that were made together, whose results came in a turn of their own each."""
        for task in range(len(results)):
            self._add(4, EventId=task, Name="PostBusiness")
        self._add(13)
        for task, result in enumerate(results):
            self._turn()
            self._ended(task, result)
            if task == cancelled_after:
                self.cancelled()

    def activity(self, task: int, result: Any) -> None:
        self._add(4, EventId=task, Name="PostBusiness")
        self._add(13)
        self._turn()
        self._ended(task, result)

    def under_way(self, task: int) -> None:
        """A call whose result has not come, and another turn."""
        self._add(4, EventId=task, Name="PostBusiness")
        self._add(13)
        self._turn()

    def ended(self, task: int, result: Any) -> None:
        """The result of a call, in a turn of its own."""
        self._add(13)
        self._turn()
        self._ended(task, result)

    def asleep(self, task: int, fire_at: str) -> None:
        """A timer that has not fired, and another turn."""
        self._add(10, EventId=task, FireAt=fire_at)
        self._add(13)
        self._turn()

    def cancelled(self) -> None:
        self._add(15, Name="Cancel", Input="null")

    def _ended(self, task: int, result: Any) -> None:
        if isinstance(result, Exception):
            self._add(6, TaskScheduledId=task, Reason=str(result), Details="")
        else:
            self._add(5, TaskScheduledId=task, Result=json.dumps(result))

    def timer(self, task: int, fire_at: str) -> None:
        """A timer that fires as early as the engine's do."""
        self._add(10, EventId=task, FireAt=fire_at)
        self._add(13)
        self.now = datetime.fromisoformat(fire_at) - timedelta(seconds=1)
        self._turn()
        self._add(11, TimerId=task, FireAt=fire_at)

    def replay(self) -> dict[str, Any]:
        body = {
            "history": self.events,
            "input": json.dumps(self.given),
            "instanceId": INSTANCE,
            "isReplaying": False,
            "parentInstanceId": "",
            "upperSchemaVersion": 1,
            "upperSchemaVersionNew": 2,
            "longRunningTimerIntervalDuration": "3.00:00:00",
            "maximumShortTimerDuration": "6.00:00:00",
        }
        state: dict[str, Any] = json.loads(
            Orchestrator(self.orchestrator).handle(DurableOrchestrationContext.from_json(json.dumps(body)))
        )
        checked_custom_status(state.get("customStatus"))
        return state


def actions_of(state: dict[str, Any]) -> list[dict[str, Any]]:
    """All actions asked for, in order; those that are waited for together as if they were single ones."""
    found: list[dict[str, Any]] = []
    pending = [action for actions in state["actions"] for action in actions]
    while pending:
        action = pending.pop(0)
        pending = [*action.get("compoundActions", []), *pending]
        found += [] if "compoundActions" in action else [action]
    return found


def test_the_first_turn_posts_the_record_under_a_key_made_of_the_instance_id() -> None:
    state = History().replay()
    action, _ = actions_of(state)  # and the wait for a cancel
    attempt = json.loads(action["input"])
    assert action["functionName"] == "PostBusiness"
    assert attempt["idempotency_key"] == INSTANCE
    assert attempt["record"] == BUSINESS
    assert not state["isDone"]


@pytest.mark.parametrize("outcome", [POSTED, REJECTED])
def test_a_permanent_outcome_is_the_output(outcome: dict[str, Any]) -> None:
    history = History()
    history.activity(0, outcome)
    state = history.replay()
    assert state["isDone"]
    assert state["output"]["attempt"] == 1
    assert state["output"]["outcome"]["outcome"] == outcome["outcome"]


def test_a_deferred_record_sleeps_and_is_posted_again_under_the_same_key() -> None:
    history = History()
    history.activity(0, DEFERRED)
    asleep = history.replay()
    timer = next(action for action in actions_of(asleep) if "fireAt" in action)
    assert asleep["customStatus"]["outcome"]["reason"] == "the API answered 503"
    assert datetime.fromisoformat(timer["fireAt"]) == datetime.fromisoformat(asleep["customStatus"]["next_attempt_at"])
    history.timer(1, timer["fireAt"])
    again = actions_of(history.replay())
    assert [action["input"] for action in again if action.get("functionName")] == [again[0]["input"]] * 2


def test_a_bug_in_the_activity_defers_the_record() -> None:
    history = History()
    history.activity(0, RuntimeError("ZeroDivisionError: division by zero"))
    state = history.replay()
    assert not state["isDone"]
    assert state["customStatus"]["outcome"]["outcome"] == "deferred"
    assert state["customStatus"]["outcome"]["may_be_stored"]  # it may have failed after the API had answered


def test_the_first_turn_shows_which_start_it_is() -> None:
    assert History(mark="m").replay()["customStatus"] == {"attempt": 0, "mark": "m"}


def keys_of(state: dict[str, Any]) -> list[str]:
    return [json.loads(one["input"])["idempotency_key"] for one in actions_of(state) if one.get("functionName")]


def test_a_refusal_of_what_was_refused_before_is_asked_for_again_under_another_key() -> None:
    """It may be the last refusal, which the API remembers by its key."""
    history = History(was_refused=True)
    history.activity(0, REJECTED)
    state = history.replay()
    assert keys_of(state) == [INSTANCE, f"{INSTANCE}.1"]
    # Shown before the attempt ends: whoever retries what was terminated meanwhile must not go back to the old key.
    assert state["customStatus"]["revision"] == 1
    history.activity(1, REJECTED)
    output = history.replay()["output"]
    assert (output["outcome"]["outcome"], output["attempt"], output["revision"]) == ("rejected", 1, 1)


def test_what_a_kill_had_hidden_is_found_under_the_old_key() -> None:
    history = History(was_refused=True)
    history.activity(0, {**POSTED, "replayed": True})
    state = history.replay()
    assert (keys_of(state), state["output"]["outcome"]["outcome"]) == ([INSTANCE], "posted")


def test_what_may_be_stored_is_never_asked_for_under_another_key() -> None:
    history = History(was_refused=True)
    history.activity(0, {**DEFERRED, "may_be_stored": True})
    history.timer(1, "2026-01-01T00:00:06.000000Z")
    history.activity(2, REJECTED)
    assert keys_of(history.replay()) == [INSTANCE] * 2


def test_a_cancel_is_shown_at_once_and_takes_effect_after_the_attempt_under_way() -> None:
    history = History(mark="m")
    history.under_way(0)
    history.cancelled()
    state = history.replay()
    assert state["customStatus"] == {"attempt": 0, "mark": "m", "cancelling": True}
    assert not state["isDone"]
    history.ended(0, DEFERRED)
    outcome = history.replay()["output"]["outcome"]
    assert (outcome["outcome"], outcome["reason"]) == ("cancelled", DEFERRED["reason"])


@pytest.mark.parametrize("times", [1, 2])
def test_a_cancel_while_the_record_waits_ends_the_delivery_however_often_it_comes(times: int) -> None:
    history = History()
    history.activity(0, DEFERRED)
    timer = next(action for action in actions_of(history.replay()) if "fireAt" in action)
    history.asleep(1, timer["fireAt"])
    for _ in range(times):
        history.cancelled()
    state = history.replay()
    assert state["isDone"]
    assert state["output"]["outcome"]["outcome"] == "cancelled"


def test_a_record_that_is_posted_while_somebody_cancels_is_posted() -> None:
    history = History()
    history.under_way(0)
    history.cancelled()
    history.ended(0, POSTED)
    assert history.replay()["output"]["outcome"]["outcome"] == "posted"


def test_a_refusal_after_an_attempt_of_unknown_fate_is_reported_with_the_doubt() -> None:
    history = History()
    history.activity(0, {**DEFERRED, "may_be_stored": True})
    history.timer(1, "2026-01-01T00:00:06.000000Z")
    history.activity(2, REJECTED)
    outcome = history.replay()["output"]["outcome"]
    assert (outcome["outcome"], outcome["may_be_stored"]) == ("rejected", True)


def test_an_instance_started_again_under_another_id_uses_the_key_of_the_first() -> None:
    action, _ = actions_of(History(key="first").replay())
    assert json.loads(action["input"])["idempotency_key"] == "first"


@pytest.mark.parametrize(
    "outcome",
    [
        {**REJECTED, "problem": {"title": "No", "detail": "\u6f22" * 9000}},
        {**DEFERRED, "reason": "because " * 2000},
        {**POSTED, "business": {"name": "a" * 9000}, "warning": "b" * 9000},
    ],
)
def test_what_an_earlier_version_of_the_activity_returned_does_not_burst_the_custom_status(
    outcome: dict[str, Any],
) -> None:
    history = History()
    history.activity(0, outcome)
    assert history.replay()["customStatus"]["outcome"]["truncated"]


def test_after_the_deadline_the_record_is_given_up_with_the_last_reason() -> None:
    history = History(settings={"deadline": 3.0, "first_delay": 1.0})
    history.activity(0, DEFERRED)
    history.timer(1, (START + timedelta(seconds=2.9)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    history.activity(2, DEFERRED)
    state = history.replay()
    assert state["isDone"]
    gave_up = state["output"]["outcome"]
    assert (gave_up["outcome"], gave_up["reason"]) == ("gave_up", "the API answered 503")


def section(total: int, parallelism: int = 20) -> History:
    items = [{"index": index, "record": BUSINESS} for index in range(total)]
    return History(PostSectionOrchestrator, items=items, key="batch", parallelism=parallelism)


def outcomes_of(state: dict[str, Any]) -> list[str]:
    return [item["result"]["outcome"] for item in state["output"]]


def test_a_section_posts_its_records_under_the_batchs_key_and_their_places() -> None:
    asked = actions_of(section(3).replay())
    keys = [json.loads(action["input"])["idempotency_key"] for action in asked if "input" in action]
    assert keys == ["batch-0", "batch-1", "batch-2"]


def test_a_wave_is_posted_before_the_next_one_begins() -> None:
    history = section(5, parallelism=2)
    assert len([action for action in actions_of(history.replay()) if "input" in action]) == 2
    history.activities(POSTED, POSTED)
    assert len([action for action in actions_of(history.replay()) if "input" in action]) == 4


def test_a_bug_at_one_record_of_a_wave_defers_that_one_only() -> None:
    history = section(3)
    history.activities(POSTED, RuntimeError("ZeroDivisionError: division by zero"), REJECTED)
    assert outcomes_of(history.replay()) == ["posted", "deferred", "rejected"]


@pytest.mark.parametrize("failed", [0, 1, 2])
def test_whichever_record_of_a_wave_fails_the_next_wave_follows(failed: int) -> None:
    history = section(6, parallelism=3)
    results: list[Any] = [POSTED, POSTED, POSTED]
    results[failed] = RuntimeError("the worker died")
    history.activities(*results)
    assert len([action for action in actions_of(history.replay()) if "input" in action]) == 6


def test_a_section_cancelled_between_two_posts_of_a_wave_sends_no_further_wave() -> None:
    history = section(4, parallelism=2)
    history.activities(POSTED, POSTED, cancelled_after=0)
    assert outcomes_of(history.replay()) == ["posted", "posted"]


def test_a_cancelled_section_ends_with_the_wave_that_is_under_way() -> None:
    history = section(4, parallelism=2)
    history.cancelled()
    assert not history.replay()["isDone"]
    history.activities(POSTED, POSTED)
    assert outcomes_of(history.replay()) == ["posted", "posted"]


def test_a_large_section_is_posted_through_smaller_ones() -> None:
    (part, _) = actions_of(section(250).replay())
    assert part["functionName"] == "PostSectionOrchestrator"
    assert len(json.loads(part["input"])["items"]) == 100
