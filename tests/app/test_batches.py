"""The decisions of a batch's orchestrators: how it is divided, what follows each round."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.business import NewBusiness, example
from shared.delivery.batches import Batch, ItemPending, ItemPosted, ItemResult, divide
from shared.delivery.outcomes import Cancelled, Deferred, GaveUp, Rejected
from shared.rest import ProblemDetails
from shared.settings import DeliverySettings

START = datetime(2026, 1, 1, tzinfo=UTC)
POSTED = ItemPosted(id="b-1")
DEFERRED = Deferred(reason="the API answered 503")
REJECTED = Rejected(status=422, problem=ProblemDetails(title="No", status=422))


class WithText(NewBusiness):
    """The record with a text of any kind in it."""

    text: str


def batch(total: int, **settings: float) -> Batch:
    businesses = [NewBusiness.model_validate(example(n)) for n in range(1, total + 1)]
    new = Batch.of(businesses, DeliverySettings.model_validate(settings))
    return new.model_copy(update={"started_at": START})


@given(st.integers(1, 10_000))
def test_a_batch_is_divided_into_at_most_twenty_sections_that_hold_every_record_once_in_order(total: int) -> None:
    sections = list(divide(range(total)))
    assert len(sections) <= 20
    assert [index for section in sections for index in section] == list(range(total))


@given(st.integers(1, 10_000))
def test_two_divisions_are_enough_to_reach_sections_that_one_orchestration_posts(total: int) -> None:
    for _, section in batch(total).sections("b"):
        parts = [section] if section.small else list(section.divide())
        assert len(parts) <= 20
        assert all(part.small for part in parts)


def test_a_small_section_is_posted_in_waves_of_the_parallelism() -> None:
    ((_, section),) = batch(50, parallelism=20).sections("b")
    assert [len(wave) for wave in section.waves()] == [20, 20, 10]


def test_a_record_has_the_same_idempotency_key_in_every_round() -> None:
    first = batch(3)
    results = [ItemResult(index=0, result=POSTED), ItemResult(index=1, result=POSTED)]
    second, _ = first.with_results([*results, ItemResult(index=2, result=DEFERRED)]).after_round(START, "b")
    keys = []
    for round_ in (first, second):
        ((_, section),) = round_.sections("b")
        keys.append({item.index: section.attempt(item).idempotency_key for item in section.items}[2])
    assert keys == ["b-2", "b-2"]


def test_the_next_round_takes_the_deferred_records_only_and_comes_after_the_longest_retry_after() -> None:
    tried = batch(3).with_results(
        [
            ItemResult(index=0, result=POSTED),
            ItemResult(index=1, result=DEFERRED.model_copy(update={"retry_after": 120.0})),
            ItemResult(index=2, result=DEFERRED),
        ]
    )
    following, due = tried.after_round(START, "b")
    assert due == START + timedelta(seconds=120)
    assert following.round == 2
    assert [item.index for item in following.items] == [1, 2]


def test_with_every_record_settled_the_batch_ends() -> None:
    results = [ItemResult(index=0, result=POSTED), ItemResult(index=1, result=REJECTED)]
    ended, due = batch(2).with_results(results).after_round(START, "b")
    assert due is None
    assert ended.items == ()
    assert ended.results == (POSTED, REJECTED)


def test_at_the_deadline_what_is_deferred_is_given_up() -> None:
    tried = batch(1, deadline=60).with_results([ItemResult(index=0, result=DEFERRED)])
    ended, due = tried.after_round(START + timedelta(seconds=59), "b")
    assert due is None
    assert ended.results == (GaveUp(reason=DEFERRED.reason),)


def test_a_cancelled_batch_says_which_records_were_sent_and_which_were_not() -> None:
    tried = batch(3).with_results([ItemResult(index=0, result=POSTED), ItemResult(index=1, result=DEFERRED)])
    assert tried.cancelled().results == (POSTED, Cancelled(reason=DEFERRED.reason), Cancelled(reason="not sent"))


@pytest.mark.parametrize(("seconds", "rate"), [(0, 0.0), (4, 0.5)])
def test_progress_counts_the_records_and_their_rate(seconds: int, rate: float) -> None:
    results = [ItemResult(index=0, result=POSTED), ItemResult(index=1, result=REJECTED)]
    progress = (
        batch(4)
        .with_results([*results, ItemResult(index=2, result=DEFERRED)])
        .progress(START + timedelta(seconds=seconds))
    )
    tally = progress.tally
    assert (tally.total, tally.posted, tally.rejected, tally.deferred, tally.pending) == (4, 1, 1, 1, 1)
    assert progress.rate == rate


def test_a_new_batch_is_all_pending() -> None:
    assert batch(2).results == (ItemPending(), ItemPending())


@pytest.mark.parametrize("text", ["Acme", "Müller & Söhne", 'the "best"', "株式会社"])
def test_what_a_batch_takes_in_the_task_hub_is_never_more_than_it_was_refused_for(text: str) -> None:
    businesses = [WithText.model_validate(example(n) | {"text": text}) for n in range(1, 51)]
    new = Batch.of(businesses, DeliverySettings())
    reason = "POST https://api.example.com/v1/businesses: 503 Service Unavailable"
    deferred = new.with_results(
        [ItemResult(index=n, result=Deferred(reason=reason, retry_after=120)) for n in range(50)]
    )
    second, _ = deferred.after_round(START, "b")
    for state in (new, second, deferred.cancelled()):
        assert len(json.dumps(json.dumps(state.model_dump(mode="json")))) < new.stored_size
