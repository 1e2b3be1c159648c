"""The orchestrator's decisions: what follows an attempt, and how long to wait."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.business import example
from shared.delivery.outcomes import AttemptOutcome, Cancelled, Deferred, GaveUp, Posted, Rejected
from shared.delivery.records import Delivery, Progress, after_attempt
from shared.delivery.retries import retry_delay
from shared.rest import ProblemDetails
from shared.settings import DeliverySettings
from tests.sandboxed import business

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = DeliverySettings()
DELIVERY = Delivery.of(business(1), SETTINGS)
PROBLEM = ProblemDetails(title="No", status=422)


def after(
    outcome: AttemptOutcome,
    before: Progress = Progress(),  # noqa: B008 (frozen)
    *,
    delivery: Delivery = DELIVERY,
    now: datetime = START,
    instance_id: str = "a",
) -> Progress:
    return after_attempt(outcome, delivery, before, started_at=START, now=now, instance_id=instance_id)


def tried(attempt: int, *, may_be_stored: bool = False) -> Progress:
    """How far a delivery is whose attempts were all deferred."""
    deferred = Deferred(reason="503", may_be_stored=may_be_stored)
    return Progress(attempt=attempt, outcome=deferred, may_be_stored=may_be_stored)


@pytest.mark.parametrize("outcome", [Posted(id="7", business=example(1)), Rejected(status=422, problem=PROBLEM)])
def test_a_permanent_answer_ends_the_delivery(outcome: Posted | Rejected) -> None:
    progress = after(outcome, tried(2))
    assert (progress.outcome, progress.attempt, progress.next_attempt_at) == (outcome, 3, None)


@pytest.mark.parametrize(
    ("outcomes", "may_be_stored"),
    [
        ([Deferred(reason="503"), Rejected(status=422)], False),
        ([Deferred(reason="lost", may_be_stored=True), Rejected(status=422)], True),
        ([Deferred(reason="lost", may_be_stored=True), Deferred(reason="503"), Rejected(status=422)], True),
        ([Deferred(reason="503"), Deferred(reason="lost", may_be_stored=True), Rejected(status=422)], True),
        ([Deferred(reason="lost", may_be_stored=True), Posted()], False),
    ],
)
def test_once_the_fate_of_an_attempt_is_unknown_only_a_yes_ends_the_doubt(
    outcomes: list[AttemptOutcome], may_be_stored: bool
) -> None:
    progress = Progress()
    for outcome in outcomes:
        progress = after(outcome, progress)
    assert progress.may_be_stored is may_be_stored
    assert getattr(progress.outcome, "may_be_stored", False) is may_be_stored
    assert progress.outcome
    assert progress.outcome.outcome == outcomes[-1].outcome


def test_the_doubt_outlives_the_end_of_a_delivery() -> None:
    begun = DELIVERY.model_copy(update={"may_be_stored": True}).begun("a")
    assert begun.may_be_stored  # shown before the first attempt has ended
    assert after(Rejected(status=422), begun).may_be_stored
    assert after(Deferred(reason="503"), begun, now=START + timedelta(days=1)).may_be_stored
    assert tried(1, may_be_stored=True).cancelled().outcome == Cancelled(reason="503", may_be_stored=True)


def test_what_an_operator_starts_again_under_another_id_is_in_doubt() -> None:
    """The first instance may have brought the record there, which the second cannot know."""
    started = DELIVERY.model_copy(update={"key": "first"})
    assert after(Rejected(status=422), started.begun("second")).may_be_stored
    assert not after(Posted(), started.begun("second")).may_be_stored
    assert not after(Rejected(status=422), started.begun("first")).may_be_stored
    retried = started.model_copy(update={"instance": "second"})  # by somebody who knows what became of the second
    assert not after(Rejected(status=422), retried.begun("second")).may_be_stored


def test_a_corrected_record_is_another_one_under_another_key_and_without_doubt() -> None:
    other = Delivery.of(business(2), SETTINGS)
    corrected = DELIVERY.model_copy(update={"may_be_stored": True, "key": "k"}).corrected(other)
    assert (corrected.record, corrected.may_be_stored) == (other.record, False)
    assert corrected.attempt("x").idempotency_key == "k.1"
    assert corrected.corrected(DELIVERY).attempt("x").idempotency_key == "k.2"


def test_an_instance_that_an_operator_starts_again_under_another_id_uses_the_key_of_the_first() -> None:
    started = DELIVERY.model_copy(update={"key": "first"})
    assert {started.attempt(instance).idempotency_key for instance in ("first", "second")} == {"first"}
    assert DELIVERY.attempt("a").idempotency_key == "a"  # begun before keys travelled with the input


@pytest.mark.parametrize(
    ("attempt", "retry_after", "shortest", "longest"),
    [
        (1, None, 4, 6),
        (2, None, 8, 12),
        (4, None, 32, 48),
        (9, None, 720, 1080),
        (1000, None, 720, 1080),
        (1, 120.0, 121, 121),  # a timer may fire a second early
        (1, 1.0, 4, 6),
        (1, 0.0, 4, 6),
        (1, 99_999.0, 3601, 3601),
        (9, 60.0, 720, 1080),
    ],
)
def test_the_delay_is_the_longer_of_backoff_and_retry_after(
    attempt: int, retry_after: float | None, shortest: float, longest: float
) -> None:
    delay = retry_delay(retry_after, attempt=attempt, instance_id="a", settings=SETTINGS).total_seconds()
    assert shortest <= delay <= longest


def test_deferred_before_the_deadline_is_tried_again() -> None:
    deferred = Deferred(reason="the API answered 503")
    progress = after(deferred, now=START + timedelta(hours=1))
    assert progress.outcome == deferred
    assert progress.next_attempt_at is not None
    assert progress.next_attempt_at > START + timedelta(hours=1)


def test_at_the_deadline_the_delivery_is_given_up_with_all_that_is_known_of_the_last_attempt() -> None:
    last = Deferred(reason="503", retry_after=9.0, problem=PROBLEM, truncated=True, may_be_stored=True)
    progress = after(last, tried(98), now=START + timedelta(hours=24))
    assert progress.outcome == GaveUp(reason="503", problem=PROBLEM, truncated=True, may_be_stored=True)
    assert progress.next_attempt_at is None


@given(
    attempt=st.integers(1, 10_000),
    instance_id=st.text(min_size=1, max_size=100),
    retry_after=st.none() | st.floats(0, 1e9),
    elapsed=st.floats(0, 200_000),
)
def test_every_next_attempt_lies_between_now_and_the_deadline_and_a_replay_computes_the_same(
    attempt: int, instance_id: str, retry_after: float | None, elapsed: float
) -> None:
    now = START + timedelta(seconds=elapsed)
    first, replayed = (
        after(Deferred(reason="x", retry_after=retry_after), tried(attempt), now=now, instance_id=instance_id)
        for _ in range(2)
    )
    assert first == replayed
    if first.next_attempt_at is None:
        assert isinstance(first.outcome, GaveUp)
    else:
        assert now < first.next_attempt_at <= START + timedelta(seconds=SETTINGS.deadline)


def test_records_deferred_together_come_back_spread_out() -> None:
    delays = {retry_delay(None, attempt=1, instance_id=f"i{n}", settings=SETTINGS) for n in range(100)}
    assert len(delays) == 100
