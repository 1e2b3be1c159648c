"""A batch as its orchestration keeps it: what goes out, what comes back, what follows, and how much room it takes."""

import itertools
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.business import NewBusiness, example
from shared.delivery.batches import Batch, Tally
from shared.delivery.bounds import BATCH_LIMIT, ID_LIMIT, bounded, size, stored
from shared.delivery.chunks import Chunk, Counts, Deferral, Report
from shared.delivery.outcomes import Cancelled, GaveUp, Rejected, may_be_stored
from shared.delivery.results import (
    LEAST,
    ItemInvalid,
    ItemPending,
    ItemPosted,
    is_posted,
    read_line,
    write_line,
    write_lines,
)
from shared.delivery.rounds import Round
from shared.rest import ProblemDetails
from shared.settings import DeliverySettings
from tests.sandboxed import business

START = datetime(2026, 1, 1, tzinfo=UTC)
REJECTED = Rejected(status=422, problem=ProblemDetails(title="No", status=422))
INVALID = ItemInvalid(field="name", detail="Field required")


class WithText(NewBusiness):
    """The record with a text of any kind in it."""

    text: str


def batch(total: int, **settings: float) -> Batch:
    """A batch in its first round."""
    new = Batch.of([business(n) for n in range(1, total + 1)], DeliverySettings.model_validate(settings))
    return new.begun("b", START)


def at(seconds: float) -> datetime:
    """So long after the start."""
    return START + timedelta(seconds=seconds)


def posted(indexes: Iterable[int]) -> Report:
    """What an activity returns that has posted these."""
    settled = tuple(indexes)
    return Report(
        settled=settled, results="\n".join(f'"{index}"' for index in settled), counts=Counts(posted=len(settled))
    )


def deferred(*indexes: int, **told: Any) -> Report:
    """What an activity returns that could not post these."""
    return Report(deferred=(Deferral.model_validate({"indexes": indexes, "reason": "503", **told}),))


def rejected(*indexes: int) -> Report:
    """What an activity returns to which the API refused these."""
    line = write_line(REJECTED)
    return Report(settled=indexes, results="\n".join([line] * len(indexes)), counts=Counts(rejected=len(indexes)))


def chunks_of(round_: Round, now: datetime = START) -> list[Chunk]:
    """What goes out at once."""
    return list(iter(lambda: round_.next_chunk(now), None))


def tried(given: Batch, *reports: Report, now: datetime = START) -> Round:
    """A round in which all that is due went out, and this came back."""
    round_ = Round(given, now)
    chunks_of(round_, now)
    for report in reports:
        round_.take_in(report, now)
    return round_


# What goes out


@given(total=st.integers(1, 10_000), parallelism=st.integers(1, 1000))
def test_every_record_goes_out_once_in_order_and_no_more_at_once_than_wanted(total: int, parallelism: int) -> None:
    round_ = Round(batch(total, parallelism=parallelism), START)
    sent: list[int] = []
    while chunks := chunks_of(round_):
        assert sum(chunk.width for chunk in chunks) <= parallelism
        for chunk in chunks:
            assert 1 <= len(chunk.indexes) <= 500
            sent += chunk.indexes
            round_.returned(chunk, posted(chunk.indexes), START)
        if len(sent) > total:
            break
        round_ = round_ if not round_._ending else Round(round_.following(START), START)
    assert sent == list(range(total))
    assert round_.finished


def test_ten_thousand_records_take_a_few_dozen_activities() -> None:
    round_, activities = Round(batch(10_000), START), 0
    while chunks := chunks_of(round_):
        for chunk in chunks:
            activities += 1
            round_.returned(chunk, posted(chunk.indexes), START)
    assert (activities, round_.finished) == (20, True)


@pytest.mark.parametrize("text", ["a", "\u6f22", '"', "\\", "\n"])
def test_large_records_go_out_in_smaller_chunks_that_every_backend_takes(text: str) -> None:
    large = Batch.of([business(1, WithText, text=text * 10_000)] * 200, DeliverySettings(parallelism=1))
    (chunk,) = chunks_of(Round(large.begun("b", START), START))
    assert 1 < len(chunk.indexes) < 200
    assert 400_000 < size(stored(chunk)) < 900_000


def test_a_record_goes_out_as_it_was_accepted_under_the_key_of_its_batch_and_its_place() -> None:
    (chunk,) = chunks_of(Round(batch(2, parallelism=1), START))
    assert [(index, one.idempotency_key, one.record) for index, one in chunk.attempts()] == [
        (0, "b-0", example(1)),
        (1, "b-1", example(2)),
    ]


def test_what_an_activity_did_not_get_to_goes_out_again_first_and_in_smaller_chunks() -> None:
    round_ = Round(batch(1000, parallelism=1), START)
    (first,) = chunks_of(round_)
    round_.returned(first, posted(first.indexes[:30]), at(20))
    (second,) = chunks_of(round_)
    assert second.indexes == tuple(range(30, 90))


def test_chunks_grow_again_once_they_get_done() -> None:
    round_ = Round(batch(1000, parallelism=1), START)
    lengths = []
    for done in (0, 10, 20, 7, 14):
        (chunk,) = chunks_of(round_)
        lengths.append(len(chunk.indexes))
        round_.returned(chunk, posted(chunk.indexes[:done]), START)
    assert lengths == [500, 10, 20, 40, 14]


def test_nothing_goes_out_while_the_api_wants_nothing_and_then_at_once() -> None:
    round_ = Round(batch(30, parallelism=20), START)
    first, second = chunks_of(round_)
    round_.returned(first, Report(paused=60.0), START)
    assert chunks_of(round_) == []
    round_.returned(second, posted(second.indexes), START)
    assert round_.next_at(START) == at(61)
    again = chunks_of(Round(round_.following(START, due=at(61)), at(60.5)), at(60.5))
    assert tuple(index for chunk in again for index in chunk.indexes) == first.indexes


def test_a_round_that_ends_early_keeps_the_pause() -> None:
    round_ = Round(batch(30, parallelism=20), START)
    failed, paused = chunks_of(round_)
    round_.failed(failed)
    round_.returned(paused, Report(paused=600.0), START)
    assert round_.next_at(START) == at(601)


def test_a_pause_is_slept_through_though_some_of_the_records_were_due_before() -> None:
    current = tried(batch(2, first_delay=1), deferred(0), deferred(1, retry_after=20.0)).following(START, due=at(10))
    round_ = Round(current, at(10))
    (chunk,) = chunks_of(round_, at(10))
    assert chunk.indexes == (0,)
    round_.returned(chunk, Report(paused=600.0), at(10))
    assert round_.next_at(at(10)) == at(611)
    again = Round(round_.following(at(10), due=at(611)), at(610))
    assert {index for chunk in chunks_of(again, at(610)) for index in chunk.indexes} == {0, 1}


def test_a_pause_is_no_longer_than_a_single_record_would_wait_so_that_no_record_is_given_up_for_it() -> None:
    round_ = Round(batch(3, max_retry_after=60, deadline=3600), START)
    (chunk,) = chunks_of(round_)
    round_.returned(chunk, Report(paused=1e12), START)
    assert round_.next_at(START) == at(61)


def test_what_was_due_but_not_got_to_stays_due_however_many_others_wait() -> None:
    new = batch(100, parallelism=1)
    current = tried(new, deferred(*range(100), retry_after=20.0)).following(START, due=at(21))
    round_ = Round(current, at(21))
    (chunk,) = chunks_of(round_, at(21))
    told = [deferred(index, retry_after=100.0 * index, reason=f"{index}").deferred[0] for index in range(1, 100)]
    round_.returned(chunk, Report(deferred=tuple(told)), at(21))
    again = Round(round_.following(at(21)), at(21))
    assert [chunk.indexes for chunk in chunks_of(again, at(21))] == [(0,)]


def test_after_so_much_history_the_orchestration_starts_anew_at_once() -> None:
    round_ = Round(batch(10_000, parallelism=1), START)
    while chunks := chunks_of(round_):
        long = Report(
            settled=chunks[0].indexes,
            results="\n".join([json.dumps("i" * 100)] * len(chunks[0].indexes)),
            counts=Counts(posted=len(chunks[0].indexes)),
        )
        round_.returned(chunks[0], long, START)
    assert not round_.finished
    assert round_.next_at(START) == START
    following = round_.following(START)
    assert (following.round, following.counts.posted) == (1, 5_000)
    assert chunks_of(Round(following, START))[0].indexes[0] == 5_000


# What follows


def test_the_next_round_takes_what_was_deferred_under_the_same_key() -> None:
    round_ = tried(batch(3, first_delay=4), posted((0, 1)), deferred(2))
    due = round_.next_at(START)
    assert due is not None
    assert at(3) < due < at(5)
    following = round_.following(START, due=due)
    assert following.round == 2
    (again,) = chunks_of(Round(following, due), due)
    assert [one.idempotency_key for _, one in again.attempts()] == ["b-2"]


def test_of_what_is_posted_the_record_is_forgotten_and_of_nothing_else() -> None:
    round_ = Round(batch(3), START)
    round_.take_in(posted((0,)), START)
    round_.take_in(rejected(1), START)
    round_.take_in(deferred(2), START)
    assert [bool(line) for line in round_.following(START, due=at(5)).lines] == [False, True, True]


def test_one_records_retry_after_delays_that_record_and_not_the_batch() -> None:
    round_ = tried(batch(3, first_delay=4), deferred(0, retry_after=3600.0), deferred(1, 2))
    due = round_.next_at(START)
    assert due is not None
    assert due < at(5)
    second = Round(round_.following(START, due=due), due)
    assert [index for chunk in chunks_of(second, due) for index in chunk.indexes] == [1, 2]
    second.take_in(posted((1, 2)), due)
    assert second.next_at(due) == at(3601)
    third = Round(second.following(due, due=at(3601)), at(3600.1))
    assert [chunk.indexes for chunk in chunks_of(third, at(3600.1))] == [(0,)]


def test_an_early_timer_neither_undercuts_a_retry_after_nor_makes_the_orchestrator_spin() -> None:
    round_ = tried(batch(1), deferred(0, retry_after=60.0))
    due = round_.next_at(START)
    assert due == at(61)
    early = due - timedelta(seconds=0.999)
    assert [chunk.indexes for chunk in chunks_of(Round(round_.following(START, due=due), early), early)] == [(0,)]


@pytest.mark.parametrize("reasons", [1, 200])
def test_a_timer_wakes_the_batch_when_records_are_due_by_what_is_kept_of_their_times(reasons: int) -> None:
    reports = [deferred(index, retry_after=5.3 + index, reason=f"{index}") for index in range(reasons)]
    round_ = tried(batch(reasons), *reports, now=at(0.4))
    due = round_.next_at(at(0.4))
    assert due is not None
    early = due - timedelta(seconds=0.999)
    assert chunks_of(Round(round_.following(at(0.4), due=due), early), early)


def test_nobody_waits_for_others_beyond_the_deadline() -> None:
    round_ = tried(batch(2, first_delay=1, deadline=60), deferred(0, retry_after=58.0), deferred(1, retry_after=60.0))
    assert round_.next_at(START) == at(59)


def test_what_is_due_soon_after_each_other_makes_one_round() -> None:
    round_ = tried(batch(2, first_delay=1), deferred(0, retry_after=2.0), deferred(1, retry_after=4.0))
    assert round_.next_at(START) == at(5)


def test_rounds_that_settle_nothing_wait_longer_and_longer_and_one_that_does_resets_that() -> None:
    current, now, waits = batch(3, first_delay=10, max_delay=1000), START, []
    for settled in (False, False, False, True, False):
        round_ = tried(current, *([posted((0,))] if settled else []), deferred(1, 2), now=now)
        due = round_.next_at(now)
        assert due is not None
        waits.append((due - now).total_seconds())
        current, now = round_.following(now, due=due), due
    for wait, expected in zip(waits, (10, 20, 40, 10, 10), strict=True):
        assert 0.8 * expected <= wait <= 1.2 * expected


def test_with_every_record_settled_the_batch_is_finished() -> None:
    round_ = Round(Batch.of([INVALID, business(1), business(2)], DeliverySettings()).begun("b", START), START)
    round_.take_in(posted((1,)), START)
    assert not round_.finished
    round_.take_in(rejected(2), START)
    assert round_.finished


def test_at_the_deadline_nothing_goes_out_and_everything_is_given_up() -> None:
    round_ = Round(batch(2, deadline=60), START)
    round_.take_in(deferred(0), at(59))
    assert round_.next_chunk(at(61)) is None
    assert round_.next_at(at(59)) == at(59)  # the other one
    assert round_.next_at(at(61)) is None
    closed = round_.closed(GaveUp, at(61))
    assert closed.outcomes == [GaveUp(reason="503"), GaveUp(reason="not sent")]
    assert Round(closed, at(61)).finished
    assert Round(closed, at(61)).status(at(61)).tally.gave_up == 2


def test_a_cancelled_batch_says_which_records_were_sent_and_which_were_not() -> None:
    round_ = Round(batch(3), START)
    round_.take_in(posted((0,)), START)
    round_.take_in(deferred(1), START)
    closed = round_.closed(Cancelled, START)
    assert closed.outcomes == [ItemPosted(id="0"), Cancelled(reason="503"), Cancelled(reason="not sent")]
    again = Round(closed, START)
    assert (again.finished, chunks_of(again), again.status(START).tally.cancelled) == (True, [], 2)


def test_an_activity_that_failed_leaves_its_records_in_doubt_and_ends_the_round_so_that_this_is_written_down() -> None:
    round_ = Round(batch(20, parallelism=20), START)
    first, second = chunks_of(round_)
    round_.failed(first)
    assert chunks_of(round_) == []
    round_.returned(second, posted(second.indexes), START)
    assert round_.next_at(START) == START
    following = round_.following(START)
    assert {may_be_stored(one) for one in following.outcomes[: len(first.indexes)]} == {True}
    again = Round(following, START)
    due = again.next_at(START)
    assert due is not None
    assert due > START
    (chunk, *_) = chunks_of(Round(again.following(START, due=due), due), due)
    assert chunk.doubts == chunk.indexes == first.indexes


# Doubt


def test_a_result_that_belongs_to_another_chunk_settles_its_records_once() -> None:
    """The engine ran a turn twice, which made other chunks of the same records the second time."""
    round_ = Round(batch(30, parallelism=20), START)
    first, second = chunks_of(round_)
    round_.returned(first, posted(range(5, 18)), START)
    assert round_.status(START).tally.posted == 13
    round_.returned(second, posted(second.indexes), START)
    (left,) = chunks_of(round_)
    assert left.indexes == (0, 1, 2, 3, 4)
    round_.returned(left, deferred(0, 1, 2, 3, 4, 20), START)
    assert round_.status(START).tally == Tally(total=30, posted=25, deferred=5)
    assert [one.outcome for one in round_.following(START).outcomes] == ["deferred"] * 5 + ["posted"] * 25


@pytest.mark.parametrize("yes_first", [True, False])
def test_of_two_results_for_one_record_a_yes_counts(yes_first: bool) -> None:
    round_ = Round(batch(3), START)
    results = (posted([0]), rejected(0)) if yes_first else (rejected(0), posted([0]))
    for result in results:
        round_.take_in(result, START)
    assert round_.following(START).outcomes[0].outcome == "posted"
    assert round_.status(START).tally == Tally(total=3, posted=1, pending=2)


def test_a_batch_started_again_under_another_id_uses_the_keys_of_the_first_and_doubts_every_record() -> None:
    again = Batch.of([business(1), business(2)], DeliverySettings()).model_copy(update={"key": "first"})
    round_ = Round(again.begun("second", START), START)
    (chunk, *_) = chunks_of(round_)
    assert (next(chunk.attempts())[1].idempotency_key, chunk.doubts) == ("first-0", chunk.indexes)
    assert round_.status(START).may_be_stored == 2
    round_.take_in(posted((0,)), START)
    assert round_.status(START).may_be_stored == 1
    assert round_.closed(Cancelled, START).outcomes[1] == Cancelled(reason="not sent", may_be_stored=True)
    assert Round(again.begun("first", START), START).status(START).may_be_stored == 0


def test_a_batch_started_again_rounds_later_doubts_what_has_no_end_and_its_time_begins_anew() -> None:
    round_ = tried(batch(3, deadline=60), posted((0,)), deferred(1))
    later = at(1000)
    again = round_.following(START, due=at(5)).begun("second", later)
    assert ([may_be_stored(one) for one in again.outcomes], again.key) == ([False, True, True], "b")
    second = tried(again, deferred(1, 2, may_be_stored=True), now=later)
    assert second.next_at(later) is not None
    third = tried(second.following(later, due=at(1010)).begun("second", at(1010)), posted((1, 2)), now=at(1010))
    assert (third.finished, third.status(at(1010)).may_be_stored) == (True, 0)


def test_a_retry_of_a_batch_that_was_started_again_doubts_no_more_than_is_known() -> None:
    again = tried(batch(2).begun("second", START), rejected(0, 1)).closed(GaveUp, START)
    retried = again.again({}).model_copy(update={"instance": "second"}).begun("second", at(9))
    assert not any(map(may_be_stored, retried.outcomes))


def test_the_doubt_about_a_record_is_kept_through_the_rounds_and_counted() -> None:
    round_ = Round(batch(3), START)
    round_.take_in(deferred(0, 1, may_be_stored=True), START)
    second = Round(round_.following(START, due=at(10)), at(10))
    (first_chunk, *_) = chunks_of(second, at(10))
    assert set(first_chunk.doubts) == {0, 1} & set(first_chunk.indexes)
    assert second.status(at(10)).may_be_stored == 2
    second.take_in(posted((0,)), at(10))
    assert second.status(at(10)).may_be_stored == 1
    assert [may_be_stored(one) for one in second.closed(GaveUp, at(10)).outcomes] == [False, True, False]


def test_of_a_batch_that_was_cut_short_everything_without_an_end_is_in_doubt() -> None:
    round_ = Round(batch(4), START)
    for report in (posted((0,)), rejected(1), deferred(2)):
        round_.take_in(report, START)
    outcomes = round_.following(START).doubted().outcomes
    assert [may_be_stored(one) for one in outcomes] == [False, False, True, True]


# How far it is


@pytest.mark.parametrize(("seconds", "rate"), [(0, 0.0), (4, 0.5)])
def test_the_status_counts_the_records_and_tells_their_rate_and_the_expected_end(seconds: int, rate: float) -> None:
    round_ = Round(batch(5), START)
    for report in (posted((0,)), rejected(1), deferred(2)):
        round_.take_in(report, START)
    status = round_.status(at(seconds))
    tally = status.tally
    assert (tally.total, tally.posted, tally.rejected, tally.deferred, tally.pending) == (5, 1, 1, 1, 2)
    assert (status.rate, status.reason) == (rate, "503")
    assert status.expected_end_at == (at(8) if seconds else None)
    assert round_.status(at(seconds), next_round_at=at(9)).expected_end_at is None


def test_the_rate_of_a_retry_counts_what_is_settled_since_its_start() -> None:
    before = tried(batch(100), posted(range(98)), deferred(98, 99)).closed(GaveUp, START)
    round_ = Round(before.again({}).begun("b", at(1000)), at(1000))
    assert round_.status(at(1001)).rate == 0.0
    round_.take_in(posted((98,)), at(1002))
    assert round_.status(at(1002)).rate == 0.5


def test_skipped_records_keep_their_places_are_counted_apart_and_are_no_part_of_the_rate() -> None:
    new = Batch.of([INVALID, business(1), INVALID, business(3)], DeliverySettings()).begun("b", START)
    round_ = Round(new, START)
    (chunk, *_) = chunks_of(round_)
    assert [(one.idempotency_key, one.record) for _, one in chunk.attempts()] == [
        ("b-1", example(1)),
        ("b-3", example(3)),
    ]
    assert new.outcomes == [INVALID, ItemPending(), INVALID, ItemPending()]
    assert list(new.skipped) == [(0, INVALID), (2, INVALID)]
    round_.take_in(posted((1,)), at(1))
    status = round_.status(at(1))
    assert (status.tally.total, status.tally.posted, status.tally.invalid, status.rate) == (4, 1, 2, 1.0)


# What it takes


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.lists(st.booleans(), min_size=1, max_size=6))
def test_batches_that_skip_other_places_are_other_batches(one: list[bool], other: list[bool]) -> None:
    fingerprints = []
    for valid in (one, other):
        numbers = itertools.count(1)
        records = [business(next(numbers)) if there else INVALID for there in valid]
        fingerprints.append(Batch.of(records, DeliverySettings()).fingerprint)
    assert (fingerprints[0] == fingerprints[1]) == (one == other)


def test_a_batch_is_read_again_as_it_was_stored() -> None:
    round_ = Round(Batch.of([INVALID, business(1), business(2)], DeliverySettings()).begun("b", START), START)
    round_.take_in(deferred(1, retry_after=7.0), START)
    kept = round_.following(START, due=at(8)).model_copy(update={"revisions": ((2, 1),)})
    assert Batch.model_validate(json.loads(json.dumps(stored(kept)))) == kept


OUTCOMES = (
    ItemPosted(id="7"),
    ItemPosted(),
    ItemPosted(id="7", warning="204: expected JSON"),
    REJECTED,
    REJECTED.model_copy(update={"may_be_stored": True}),
    GaveUp(reason="503"),
    Cancelled(reason="not sent", may_be_stored=True),
    INVALID,
)


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_a_result_is_one_line_that_is_read_again_as_it_was(outcome: Any) -> None:
    line = write_line(outcome)
    assert "\n" not in line
    assert read_line(line) == outcome
    assert is_posted(line) == isinstance(outcome, ItemPosted)


def test_a_text_with_line_breaks_of_any_kind_stays_on_its_line() -> None:
    text = "a\nb\r\u2028\u2029\x85\x0b"
    new = Batch.of([business(1, WithText, text=text), business(2)], DeliverySettings(parallelism=1)).begun("b", START)
    (chunk,) = chunks_of(Round(new, START))
    assert next(chunk.attempts())[1].record["text"] == text
    assert read_line(write_line(GaveUp(reason=text))) == GaveUp(reason=text)


TEXTS = ['"', "d", "\u00e9", "\n", "\\", "\N{GRINNING FACE}"]


@given(kept=st.integers(LEAST, 3000), large=st.integers(0, 30), small=st.integers(1, 30), text=st.sampled_from(TEXTS))
def test_results_share_the_room_that_there_is(kept: int, large: int, small: int, text: str) -> None:
    told = bounded(
        Rejected(status=422, problem=ProblemDetails(title="No", detail=text * 9000), may_be_stored=True), BATCH_LIMIT
    )
    lines = write_lines([*[told] * large, *[ItemPosted(id="7")] * small], kept)
    assert sum(map(size, lines)) <= kept * len(lines)
    assert [read_line(line).outcome for line in lines] == ["rejected"] * large + ["posted"] * small
    if large * (BATCH_LIMIT + 200) < (large + small) * kept:
        assert all(size(line) > BATCH_LIMIT * 0.6 for line in lines[:large])


@given(records=st.integers(1, 30), spare=st.integers(0, 100_000), text=st.sampled_from(TEXTS))
def test_a_batch_that_was_taken_never_outgrows_the_limit_whatever_the_api_says(
    records: int, spare: int, text: str
) -> None:
    new = batch(records)
    limit = new.least_size + spare
    new = new.within(limit)
    told = ProblemDetails(title="No", status=422, detail=text * 9000)
    for outcome in (
        Rejected(status=422, problem=told, may_be_stored=True),
        Rejected(status=422, excerpt=text * 9000),
        ItemPosted(id="i" * ID_LIMIT, warning=text * 900),
    ):
        round_ = Round(new, START)
        lines = write_lines([outcome] * records, new.kept)
        round_.take_in(Report(settled=tuple(range(records)), results="\n".join(lines)), START)
        assert size(stored(round_.following(START, due=at(5)))) <= limit
    round_ = Round(new, START)
    for index in range(records):
        round_.take_in(deferred(index, reason=text * 25, retry_after=index + 0.5, may_be_stored=True), START)
    assert size(stored(round_.following(START, due=at(5)))) <= limit
    assert size(stored(round_.closed(GaveUp, START))) <= limit


@given(records=st.integers(2, 60), spare=st.integers(0, 30_000))
def test_a_batch_that_was_taken_can_be_retried_whatever_the_api_says(records: int, spare: int) -> None:
    new = Batch.of([INVALID, *[business(n) for n in range(1, records)]], DeliverySettings()).begun("b", START)
    limit = new.least_size + spare
    new = new.within(limit)
    lines = write_lines([ItemPosted(id="i" * ID_LIMIT, warning="204: expected JSON" * 90)] * (records - 2), new.kept)
    round_ = Round(new, START)
    told = tuple(range(2, records))
    round_.take_in(Report(settled=told, results="\n".join(lines), counts=Counts(posted=len(told))), START)
    assert round_.closed(GaveUp, START).again({}).least_size <= limit


def test_very_many_reasons_and_times_are_kept_as_a_few() -> None:
    round_ = Round(batch(1000), START)
    for index in range(1000):
        round_.take_in(deferred(index, reason=f"reason {index}", retry_after=float(index)), START)
    waiting = round_.following(START, due=at(5)).waiting
    assert len(waiting) <= 50
    assert sorted(index for group in waiting for index in group.indexes) == list(range(1000))
    for group in waiting:
        for index in group.indexes:
            assert group.until >= at(index + 1)


@pytest.mark.parametrize("text", ["Acme", "Müller & Söhne", 'the "best"', "株式会社"])
def test_what_a_batch_takes_in_the_task_hub_is_never_more_than_it_was_refused_for(text: str) -> None:
    businesses = [business(n, WithText, text=text) for n in range(1, 51)]
    longest = ItemInvalid(field="\N{GRINNING FACE}" * 100, detail="\N{GRINNING FACE}" * 200)
    new = Batch.of([*businesses, *[longest] * 50], DeliverySettings()).begun("b", START)
    round_ = Round(new, START)
    reason = "POST https://api.example.com/v1/businesses: 503 Service Unavailable"
    round_.take_in(deferred(*range(50), reason=reason, retry_after=120.0), START)
    for state in (new, round_.following(START, due=at(5)), round_.closed(Cancelled, START)):
        assert size(stored(state)) < new.least_size
