"""The decisions of a batch's orchestrators: how it is divided, what follows each round."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.business import NewBusiness, example
from shared.delivery.batches import Batch, ItemInvalid, ItemPending, ItemPosted, ItemResult, divide
from shared.delivery.bounds import BATCH_LIMIT, ID_LIMIT, size, stored
from shared.delivery.outcomes import Cancelled, Deferred, GaveUp, Posted, Rejected, may_be_stored
from shared.rest import ProblemDetails
from shared.settings import DeliverySettings
from tests.sandboxed import business

START = datetime(2026, 1, 1, tzinfo=UTC)
POSTED = ItemPosted(id="b-1")
DEFERRED = Deferred(reason="the API answered 503")
REJECTED = Rejected(status=422, problem=ProblemDetails(title="No", status=422))


class WithText(NewBusiness):
    """The record with a text of any kind in it."""

    text: str


INVALID = ItemInvalid(field="name", detail="Field required")


def batch(total: int, **settings: float) -> Batch:
    new = Batch.of([business(n) for n in range(1, total + 1)], DeliverySettings.model_validate(settings))
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


def test_a_batch_started_again_under_another_id_uses_the_keys_of_the_first() -> None:
    ((_, section),) = batch(1).model_copy(update={"key": "first"}).sections("second")
    assert section.attempt(section.items[0]).idempotency_key == "first-0"


def test_a_batch_started_again_under_another_id_doubts_every_record_until_the_api_says_yes() -> None:
    again = batch(3).model_copy(update={"key": "first"}).begun("second", START)
    tried = again.with_results([ItemResult(index=0, result=POSTED), ItemResult(index=1, result=REJECTED)])
    assert [may_be_stored(result) for result in tried.results] == [False, True, True]
    assert tried.cancelled().results[2] == Cancelled(reason="not sent", may_be_stored=True)
    assert batch(1).model_copy(update={"key": "b"}).begun("b", START).results == (ItemPending(),)


def test_of_a_batch_that_was_cut_short_everything_without_an_end_is_in_doubt() -> None:
    tried = batch(4).with_results(
        [ItemResult(index=0, result=POSTED), ItemResult(index=1, result=REJECTED), ItemResult(index=2, result=DEFERRED)]
    )
    assert [may_be_stored(result) for result in tried.cut_short().results] == [False, False, True, True]


def test_the_records_of_a_part_that_failed_are_in_doubt_and_tried_again() -> None:
    ((_, section),) = batch(2).sections("b")
    failed = batch(2).with_results(section.failed())
    assert [may_be_stored(result) for result in failed.results] == [True, True]
    following, due = failed.after_round(START, "b")
    assert due is not None
    assert len(following.items) == 2


def test_a_batch_that_is_cancelled_while_it_waits_counts_the_rounds_that_were() -> None:
    waiting, due = batch(1).with_results([ItemResult(index=0, result=DEFERRED)]).after_round(START, "b")
    assert waiting.progress(START, next_round_at=due).round == 1
    assert waiting.cancelled(before_round=True).progress(START).round == 1


def test_the_doubt_about_a_record_is_kept_through_the_rounds_and_counted() -> None:
    doubtful = DEFERRED.model_copy(update={"may_be_stored": True})
    first = batch(4).with_results([ItemResult(index=index, result=doubtful) for index in range(3)])
    second = first.with_results(
        [ItemResult(index=0, result=REJECTED), ItemResult(index=1, result=POSTED), ItemResult(index=2, result=DEFERRED)]
    )
    assert second.results[0] == REJECTED.model_copy(update={"may_be_stored": True})
    assert second.results[1] == POSTED
    assert second.results[2] == doubtful
    assert second.progress(START).may_be_stored == 2
    cancelled = Cancelled(reason=DEFERRED.reason, may_be_stored=True)
    assert second.cancelled().results[2:] == (cancelled, Cancelled(reason="not sent"))
    given_up, _ = second.after_round(START + timedelta(days=2), "b")
    assert given_up.results[2] == GaveUp(reason=DEFERRED.reason, may_be_stored=True)


def test_of_what_the_api_told_about_a_record_of_a_batch_half_as_much_is_kept() -> None:
    ((_, section),) = batch(1).sections("b")
    problem = ProblemDetails(title="No", status=422, detail="d" * 9000)
    kept = section.result(section.items[0], Rejected(status=422, problem=problem)).result
    assert kept.model_dump()["truncated"]
    assert BATCH_LIMIT / 2 < size(stored(kept)) <= BATCH_LIMIT


@given(records=st.integers(1, 30), spare=st.integers(0, 100_000), text=st.sampled_from(['"', "d", "\u00e9", "\n"]))
def test_a_batch_that_was_taken_never_outgrows_the_limit_whatever_the_api_says(
    records: int, spare: int, text: str
) -> None:
    new = batch(records).model_copy(update={"key": "k" * 32})
    limit = new.stored_size + spare
    ((_, section),) = new.within(limit).sections("b")
    told = ProblemDetails(title="No", status=422, detail=text * 9000)
    outcomes = (
        Rejected(status=422, problem=told, may_be_stored=True),
        Rejected(status=422, excerpt=text * 9000),
        Deferred(reason=text * 900, problem=told, excerpt=text),
        Posted(id="i" * 128, business={"name": text * 9000}, warning=text * 900),
        Posted(id="i" * ID_LIMIT, warning=text * 900),
    )
    for outcome in outcomes:
        results = [section.result(item, outcome) for item in section.items]
        assert size(stored(new.with_results(results))) <= limit


def test_the_next_round_takes_the_deferred_records_only_and_comes_after_the_longest_retry_after() -> None:
    tried = batch(3).with_results(
        [
            ItemResult(index=0, result=POSTED),
            ItemResult(index=1, result=DEFERRED.model_copy(update={"retry_after": 120.0})),
            ItemResult(index=2, result=DEFERRED),
        ]
    )
    following, due = tried.after_round(START, "b")
    assert due == START + timedelta(seconds=121)
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
    businesses = [business(n, WithText, text=text) for n in range(1, 51)]
    new = Batch.of(businesses, DeliverySettings())
    reason = "POST https://api.example.com/v1/businesses: 503 Service Unavailable"
    deferred = new.with_results(
        [ItemResult(index=n, result=Deferred(reason=reason, retry_after=120)) for n in range(50)]
    )
    second, _ = deferred.after_round(START, "b")
    for state in (new, second, deferred.cancelled()):
        assert size(stored(state)) < new.stored_size


# Records that were skipped, since they are not valid.


def test_a_skipped_record_keeps_its_place_and_so_do_the_others() -> None:
    new = Batch.of([INVALID, business(1), INVALID, business(3)], DeliverySettings())
    assert new.results == (INVALID, ItemPending(), INVALID, ItemPending())
    ((_, section),) = new.sections("b")
    assert [section.attempt(item).idempotency_key for item in section.items] == ["b-1", "b-3"]
    assert [item.record for item in section.items] == [example(1), example(3)]
    ended, due = new.with_results([ItemResult(index=n, result=POSTED) for n in (1, 3)]).after_round(START, "b")
    assert (due, ended.results) == (None, (INVALID, POSTED, INVALID, POSTED))
    assert ended.cancelled().results == ended.results


def test_skipped_records_are_counted_apart_and_are_no_part_of_the_rate() -> None:
    new = Batch.of([INVALID, business(1)], DeliverySettings()).model_copy(update={"started_at": START})
    progress = new.with_results([ItemResult(index=1, result=POSTED)]).progress(START + timedelta(seconds=1))
    assert (progress.tally.total, progress.tally.posted, progress.tally.invalid, progress.rate) == (2, 1, 1, 1.0)


def test_a_batch_is_read_again_as_it_was_stored() -> None:
    new = Batch.of([INVALID, business(1)], DeliverySettings())
    assert Batch.model_validate(json.loads(json.dumps(new.model_dump(mode="json")))) == new


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.lists(st.booleans(), min_size=1, max_size=6))
def test_batches_that_skip_other_places_are_other_batches(one: list[bool], other: list[bool]) -> None:
    fingerprints = []
    for valid in (one, other):
        numbers = itertools.count(1)
        records = [business(next(numbers)) if there else INVALID for there in valid]
        fingerprints.append(Batch.of(records, DeliverySettings()).fingerprint)
    assert (fingerprints[0] == fingerprints[1]) == (one == other)


def test_what_a_batch_takes_in_the_task_hub_counts_what_was_skipped() -> None:
    longest = ItemInvalid(field="\N{GRINNING FACE}" * 100, detail="\N{GRINNING FACE}" * 200)
    new = Batch.of([business(1), *[longest] * 50], DeliverySettings())
    assert size(stored(new)) < new.stored_size
