"""The orchestrator's decisions: what follows an attempt, and how long to wait."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.business import assigned, example
from shared.delivery.outcomes import Deferred, GaveUp, Posted, Rejected
from shared.delivery.records import after_attempt
from shared.delivery.retries import retry_delay
from shared.rest import ProblemDetails
from shared.settings import DeliverySettings

START = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS = DeliverySettings()
STORED = assigned(1) | example()


@pytest.mark.parametrize(
    "outcome",
    [Posted(id="b-1", business=STORED), Rejected(status=422, problem=ProblemDetails(title="No", status=422))],
)
def test_a_permanent_answer_ends_the_delivery(outcome: Posted | Rejected) -> None:
    progress = after_attempt(outcome, attempt=3, started_at=START, now=START, instance_id="a", settings=SETTINGS)
    assert (progress.outcome, progress.attempt, progress.next_attempt_at) == (outcome, 3, None)


@pytest.mark.parametrize(
    ("attempt", "retry_after", "shortest", "longest"),
    [
        (1, None, 4, 6),
        (2, None, 8, 12),
        (4, None, 32, 48),
        (9, None, 720, 1080),
        (1000, None, 720, 1080),
        (1, 120.0, 120, 120),
        (1, 1.0, 4, 6),
        (1, 0.0, 4, 6),
        (1, 99_999.0, 3600, 3600),
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
    progress = after_attempt(
        deferred, attempt=1, started_at=START, now=START + timedelta(hours=1), instance_id="a", settings=SETTINGS
    )
    assert progress.outcome == deferred
    assert progress.next_attempt_at is not None
    assert progress.next_attempt_at > START + timedelta(hours=1)


def test_at_the_deadline_the_delivery_is_given_up_with_the_last_reason() -> None:
    progress = after_attempt(
        Deferred(reason="the API answered 503"),
        attempt=99,
        started_at=START,
        now=START + timedelta(hours=24),
        instance_id="a",
        settings=SETTINGS,
    )
    assert progress.outcome == GaveUp(reason="the API answered 503")
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
        after_attempt(
            Deferred(reason="x", retry_after=retry_after),
            attempt=attempt,
            started_at=START,
            now=now,
            instance_id=instance_id,
            settings=SETTINGS,
        )
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
