"""The orchestrators, replayed by the SDK against histories as the Durable Task extension writes them."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import ANY

import pytest
from azure.durable_functions.models import DurableOrchestrationContext
from azure.durable_functions.orchestrator import Orchestrator

import function_app
from devhost.orchestration import CUSTOM_STATUS_LIMIT, utf_16_size
from shared.business import assigned, example
from shared.delivery.batches import Batch
from shared.delivery.bounds import stored
from shared.delivery.outcomes import Cancelled, may_be_stored
from shared.delivery.rounds import Round
from shared.functions.batches import PostBusinessesOrchestrator
from shared.settings import DeliverySettings
from tests.sandboxed import business

INSTANCE = "0123456789abcdef"
START = datetime(2026, 1, 1, tzinfo=UTC)
BUSINESS = example()
POSTED = {"outcome": "posted", "id": "b-1", "business": assigned(1) | BUSINESS}
REJECTED = {"outcome": "rejected", "status": 422, "problem": {"title": "No", "status": 422}}
DEFERRED = {"outcome": "deferred", "reason": "the API answered 503", "retry_after": None}


class History:
    """Writes the events of one orchestration, and replays the orchestrator against them."""

    def __init__(
        self, orchestrator: Any = function_app.PostBusinessOrchestrator, *, now: datetime = START, **given: Any
    ) -> None:
        self.given = given if "records" in given else {"record": BUSINESS, **given}
        self.orchestrator = orchestrator.build().get_user_function().orchestrator_function
        self.now = now
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

    def activities(self, *results: Any, together: int = 2) -> None:
        """Calls that were made together, the first of which have ended, in a turn of their own each."""
        for task in range(together):
            self._add(4, EventId=task, Name="PostBusinesses")
        self._add(13)
        for task, result in enumerate(results):
            self._turn()
            self._ended(task, result)

    def activity(self, task: int, result: Any, name: str = "PostBusiness") -> None:
        self._add(4, EventId=task, Name=name)
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
        assert utf_16_size(state.get("customStatus")) <= CUSTOM_STATUS_LIMIT
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


def test_a_timer_that_fires_after_the_deadline_brings_no_other_attempt() -> None:
    """It was late, or the orchestration was suspended meanwhile."""
    history = History(settings={"deadline": 10.0, "first_delay": 1.0})
    history.activity(0, DEFERRED)
    history.timer(1, (START + timedelta(seconds=12)).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    state = history.replay()
    assert (state["isDone"], state["output"]["attempt"], state["output"]["outcome"]["outcome"]) == (True, 1, "gave_up")


# Batches


def batch(total: int = 30, **given: Any) -> History:
    """The history of a batch that has just begun, in two chunks if it has more than ten records."""
    new = Batch.of([business(n) for n in range(1, total + 1)], DeliverySettings())
    return History(PostBusinessesOrchestrator, **{**stored(new), "key": INSTANCE, **given})


def chunks_of(state: dict[str, Any]) -> list[dict[str, Any]]:
    """The chunks that were handed out, in order."""
    return [json.loads(one["input"]) for one in actions_of(state) if one.get("functionName") == "PostBusinesses"]


def posted(*indexes: int) -> dict[str, Any]:
    """What the activity returns that has posted these."""
    lines = "\n".join(f'"{index}"' for index in indexes)
    return {"settled": indexes, "results": lines, "counts": {"posted": len(indexes)}}


def deferred(*indexes: int, **told: Any) -> dict[str, Any]:
    """What the activity returns that could post none of these."""
    return {"deferred": [{"indexes": indexes, "reason": "503", **told}]}


def continued(state: dict[str, Any]) -> Batch:
    """The batch with which the orchestration starts anew."""
    (action,) = [one for one in actions_of(state) if one["actionType"] == 4]
    return Batch.model_validate(json.loads(action["input"]) if isinstance(action["input"], str) else action["input"])


def tally_of(state: dict[str, Any]) -> dict[str, int]:
    """How many records are where, leaving out where none is."""
    return {name: count for name, count in state["customStatus"]["tally"].items() if count}


def test_a_batch_goes_out_in_chunks_to_activities_at_the_same_time() -> None:
    state = batch(mark="m").replay()
    first, second = chunks_of(state)
    assert (first["indexes"], second["indexes"]) == (list(range(15)), list(range(15, 30)))
    assert (first["key"], first["width"], second["width"]) == (INSTANCE, 10, 10)
    assert state["customStatus"] == {
        "tally": ANY,
        "round": 1,
        "rate": 0.0,
        "started_at": "2026-01-01T00:00:00Z",
        "warnings": 0,
        "may_be_stored": 0,
        "mark": "m",
    }
    assert tally_of(state) == {"total": 30, "pending": 30}


def test_progress_is_shown_after_every_chunk_and_the_output_is_no_more_than_that() -> None:
    history = batch()
    history.activities(posted(*range(15)))
    assert tally_of(history.replay()) == {"total": 30, "posted": 15, "pending": 15}
    history.ended(1, posted(*range(15, 30)))
    state = history.replay()
    assert state["isDone"]
    assert tally_of(state) == {"total": 30, "posted": 30}
    assert state["output"] == state["customStatus"]


def test_what_an_activity_did_not_get_to_is_handed_out_again() -> None:
    history = batch(20)
    history.activities(posted(0, 1, 2), together=2)
    assert chunks_of(history.replay())[-1]["indexes"] == [3, 4, 5, 6, 7, 8, 9]


def test_what_is_deferred_sleeps_and_then_the_orchestration_starts_anew_with_it() -> None:
    history = batch(3)
    history.activity(0, deferred(1) | posted(0, 2))
    asleep = history.replay()
    timer = next(action for action in actions_of(asleep) if "fireAt" in action)
    assert datetime.fromisoformat(timer["fireAt"]) == datetime.fromisoformat(asleep["customStatus"]["next_round_at"])
    history.timer(1, timer["fireAt"])
    following = continued(history.replay())
    assert [one.outcome for one in following.outcomes] == ["posted", "deferred", "posted"]
    assert following.round == 2


def test_a_batch_that_starts_anew_knows_what_was_settled() -> None:
    history = batch(3)
    history.activity(0, deferred(1) | posted(0, 2))
    timer = next(action for action in actions_of(history.replay()) if "fireAt" in action)
    history.timer(1, timer["fireAt"])
    again = History(PostBusinessesOrchestrator, now=history.now, **stored(continued(history.replay())))
    (chunk,) = chunks_of(again.replay())
    assert chunk["indexes"] == [1]
    again.activity(0, posted(1))
    state = again.replay()
    assert (state["isDone"], tally_of(state)) == (True, {"total": 3, "posted": 3})


def test_an_activity_that_failed_leaves_its_records_in_doubt_and_the_orchestration_writes_that_down() -> None:
    history = batch()
    history.activities(RuntimeError("the worker died"))
    assert len(chunks_of(history.replay())) == 2
    history.ended(1, posted(*range(15, 30)))
    following = continued(history.replay())
    assert [may_be_stored(one) for one in following.outcomes] == [True] * 15 + [False] * 15


def test_what_another_version_of_the_activity_returned_counts_as_failed() -> None:
    history = batch(3)
    history.activity(0, {"settled": "all"})
    assert [may_be_stored(one) for one in continued(history.replay()).outcomes] == [True] * 3


@pytest.mark.filterwarnings("ignore:Potential duplicate Task completion")  # the SDK's, of the second event
@pytest.mark.parametrize("times", [1, 2])
def test_a_cancel_is_shown_at_once_and_nothing_more_goes_out(times: int) -> None:
    history = batch(1500)
    history.activities(posted(*range(500)), together=2)
    for _ in range(times):
        history.cancelled()
    state = history.replay()
    assert (state["isDone"], state["customStatus"]["cancelling"], len(chunks_of(state))) == (False, True, 3)
    history.ended(1, posted(*range(500, 1000)))
    assert history.replay()["customStatus"]["cancelling"]
    history.ended(2, deferred(*range(1000, 1500)))
    following = continued(history.replay())
    assert {one.outcome for one in following.outcomes[:1000]} == {"posted"}
    assert {one.outcome for one in following.outcomes[1000:]} == {"cancelled"}
    state = History(PostBusinessesOrchestrator, **stored(following)).replay()
    assert (state["isDone"], tally_of(state)) == (True, {"total": 1500, "posted": 1000, "cancelled": 500})


def test_a_cancel_while_the_batch_waits_ends_it() -> None:
    history = batch(3)
    history.activity(0, deferred(0, 1, 2))
    timer = next(action for action in actions_of(history.replay()) if "fireAt" in action)
    history.asleep(1, timer["fireAt"])
    history.cancelled()
    assert {one.outcome for one in continued(history.replay()).outcomes} == {"cancelled"}


def test_a_batch_that_is_posted_while_somebody_cancels_is_posted() -> None:
    history = batch(3)
    history.under_way(0)
    history.cancelled()
    history.ended(0, posted(0, 1, 2))
    state = history.replay()
    assert (state["isDone"], tally_of(state)) == (True, {"total": 3, "posted": 3})


def test_at_the_deadline_what_is_left_of_a_batch_is_given_up() -> None:
    history = batch(3, settings={"deadline": 3.0, "first_delay": 10.0})
    history.activity(0, deferred(0, 1) | posted(2))
    following = continued(history.replay())
    assert [one.outcome for one in following.outcomes] == ["gave_up", "gave_up", "posted"]
    state = History(PostBusinessesOrchestrator, **stored(following)).replay()
    assert (state["isDone"], state["customStatus"]["reason"]) == (True, "503")


# Ends that are told

TOLD = "/api/businesses/operations"


def announced(state: dict[str, Any]) -> dict[str, Any]:
    """What the last action announces."""
    action = actions_of(state)[-1]
    assert action["functionName"] == "AnnounceEnd"
    end: dict[str, Any] = json.loads(action["input"])
    return end


def test_an_end_is_announced_before_it_is_shown() -> None:
    history = History(announced=TOLD)
    history.activity(0, POSTED)
    state = history.replay()
    assert not state["isDone"]
    assert "outcome" not in state["customStatus"]
    end = announced(state)
    assert (end["operation"], end["operations"], end["state"]) == (INSTANCE, TOLD, "posted")
    assert "Acme" not in json.dumps(end)
    history.activity(1, None, "AnnounceEnd")
    state = history.replay()
    assert state["isDone"]
    assert state["output"]["outcome"]["outcome"] == "posted"


def test_an_end_that_cannot_be_announced_three_times_is_shown_all_the_same() -> None:
    history = History(announced=TOLD)
    history.activity(0, POSTED)
    for task in (1, 2, 3):
        history.activity(task, RuntimeError("no task hub"), "AnnounceEnd")
    state = history.replay()
    assert state["isDone"]
    assert state["output"]["outcome"]["outcome"] == "posted"


@pytest.mark.parametrize("batch", [False, True])
def test_a_turn_that_is_begun_anew_announces_the_end_under_the_same_id(batch: bool) -> None:
    ids = set()
    for late in (timedelta(), timedelta(minutes=5)):
        if batch:
            whole = Batch.of([business()], DeliverySettings()).model_copy(update={"announced": TOLD})
            given = stored(Round(whole.begun(INSTANCE, START), START).closed(Cancelled, START))
            history = History(PostBusinessesOrchestrator, now=START + late, **given)
        else:
            history = History(announced=TOLD)
            history.now += late
            history.activity(0, REJECTED)
        ids.add(announced(history.replay())["event_id"])
    assert len(ids) == 1
