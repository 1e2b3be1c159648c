"""What the limits make of each answer, by themselves: no event loop, and a time that the test passes."""

import itertools
import logging
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.rate_limits import RateLimit
from shared.pacing.limits import FAILURES, PROBE, STALL, Call, Limits


@pytest.fixture
def limits() -> Limits:
    return Limits(max_concurrency=20, longest_pause=900.0)


def down(limits: Limits, now: float = 0.0) -> None:
    for _ in range(FAILURES):
        limits.failed(limits.sent(now), now)


def taken(limits: Limits, calls: int, now: float, latency: float = 0.05) -> None:
    for _ in range(calls):
        limits.answered(limits.sent(now), now + latency, 201)


def test_at_first_a_few_calls_may_be_under_way(limits: Limits) -> None:
    assert [limits.delay(0.0), limits.sent(0.0), limits.delay(0.0), limits.sent(0.0)][::2] == [0.0, 0.0]
    assert limits.delay(0.0) == STALL


def test_calls_that_hang_hold_the_others_for_a_moment_only_but_never_more_than_may_be_under_way() -> None:
    limits, sent = Limits(max_concurrency=4, longest_pause=900.0), []
    for second in range(60):
        if limits.delay(second) <= 0:
            limits.sent(second)
            sent.append(second)
            if limits.delay(second) <= 0:
                limits.sent(second)
                sent.append(second)
    assert sent == [0, 0, 4, 8]
    assert limits.delay(60.0) == math.inf


def test_a_call_that_hangs_loses_its_place_once_and_for_all(limits: Limits) -> None:
    hanging = [limits.sent(0.0), limits.sent(0.0)]
    assert limits.delay(STALL) == 0.0
    limits.sent(STALL)
    assert (limits.under_way, limits.delay(STALL)) == (2, STALL)
    limits.abandoned(hanging[0])
    assert (limits.under_way, limits.delay(STALL)) == (2, STALL)
    limits.abandoned(hanging[1])
    assert (limits.under_way, limits.delay(STALL)) == (1, 0.0)


def test_look_ups_beyond_the_limit_do_not_put_off_the_moment_at_which_a_call_counts_as_hanging(limits: Limits) -> None:
    for now in (0.0, 0.0, 2.0, 3.0):
        limits.sent(now)
    assert limits.delay(3.0) == STALL - 3.0


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_pauses_all(limits: Limits, status: int) -> None:
    limits.answered(limits.sent(0.0), 1.0, status, retry_after=30.0)
    assert limits.delay(1.0) == 30.0
    assert limits.delay(31.0) == 0.0


def test_a_refusal_that_names_no_time_pauses_for_a_second(limits: Limits) -> None:
    limits.answered(limits.sent(0.0), 1.0, 429)
    assert limits.delay(1.0) == 1.0


def test_of_several_refusals_the_latest_end_counts(limits: Limits) -> None:
    first, second = limits.sent(0.0), limits.sent(0.0)
    limits.answered(first, 1.0, 429, retry_after=30.0)
    limits.answered(second, 1.1, 429, retry_after=2.0)
    assert limits.delay(1.1) == pytest.approx(29.9)


@pytest.mark.parametrize("first", ["refused", "taken"])
def test_if_a_call_that_was_sent_later_is_taken_the_pause_is_short(limits: Limits, first: str) -> None:
    odd, later = limits.sent(0.0), limits.sent(0.1)
    if first == "taken":
        limits.answered(later, 1.0, 201)
    limits.answered(odd, 1.0, 429, retry_after=3600.0)
    if first == "refused":
        limits.answered(later, 1.0, 201)
    assert limits.delay(1.0) == 4.0


def test_if_a_call_that_was_sent_before_is_taken_the_pause_holds(limits: Limits) -> None:
    before, refused = limits.sent(0.0), limits.sent(0.1)
    limits.answered(refused, 1.0, 429, retry_after=3600.0)
    limits.answered(before, 1.0, 201)
    assert limits.closed_for(1.0) > 50


def test_a_pause_of_an_hour_is_tried_after_a_minute_then_two_and_ends_when_a_call_is_taken(limits: Limits) -> None:
    limits.answered(limits.sent(0.0), 0.0, 429, retry_after=3600.0)
    assert limits.delay(0.0) == 60.0
    probe = limits.sent(60.0)
    assert limits.delay(60.0) == 120.0
    limits.answered(probe, 61.0, 429, retry_after=3600.0)
    probe = limits.sent(180.0)
    assert limits.delay(180.0) == 240.0
    limits.answered(probe, 181.0, 201)
    assert limits.delay(181.0) == 0.0


def test_the_rate_is_learned_from_what_was_taken_until_the_refusal(limits: Limits) -> None:
    """A bucket of one second was full at the start: of 150 calls in two seconds it gave 50, and 50 a second came in."""
    for tick in range(150):
        now = tick * 2.0 / 150
        limits.answered(limits.sent(now), now, 201)
    limits.answered(limits.sent(2.0), 2.0, 429, retry_after=1.0)
    assert limits.rate(3.0) == pytest.approx(50, rel=0.02)


def test_a_refusal_after_a_few_calls_pauses_but_tells_no_rate(limits: Limits) -> None:
    taken(limits, 5, 0.0)
    limits.answered(limits.sent(1.0), 1.0, 429, retry_after=1.0)
    assert (limits.delay(1.0), limits.rate(2.0)) == (1.0, math.inf)


def test_a_refusal_among_calls_that_come_now_and_then_tells_no_rate(limits: Limits) -> None:
    for second in range(300):
        taken(limits, 1, float(second))
    limits.answered(limits.sent(300.0), 300.0, 429, retry_after=1.0)
    assert limits.rate(301.0) == math.inf


def test_a_refusal_soon_after_another_tells_the_rate_by_a_few_calls(limits: Limits) -> None:
    limits.answered(limits.sent(1.0), 1.0, 429, retry_after=1.0)
    taken(limits, 4, 2.0)
    limits.answered(limits.sent(3.0), 3.0, 429, retry_after=1.0)
    assert limits.rate(4.0) == pytest.approx(2.0, rel=0.05)


def test_several_refusals_of_one_moment_are_one(limits: Limits) -> None:
    taken(limits, 100, 0.0)
    calls = [limits.sent(1.0) for _ in range(5)]
    limits.answered(calls[0], 1.1, 429)
    rate = limits.rate(1.2)
    for call in calls[1:]:
        limits.answered(call, 1.2, 429)
    assert limits.rate(1.2) == rate


def test_the_rate_grows_slowly_at_first_and_then_faster(limits: Limits) -> None:
    taken(limits, 100, 0.0)
    limits.answered(limits.sent(1.0), 1.0, 429, retry_after=1.0)
    first = limits.rate(2.0)
    growth = [limits.rate(2.0 + seconds) / first - 1 for seconds in (1, 5, 10, 20)]
    assert growth[0] < 0.02 < growth[1] < 0.2 < growth[2] < 1.1 < growth[3]


def test_what_is_told_to_be_left_is_spread_until_the_reset(limits: Limits) -> None:
    limits.answered(limits.sent(0.0), 0.0, 201, quotas=[RateLimit(600, 60.0, "minute"), RateLimit(90_000, 86_400.0)])
    assert limits.rate(0.0) == pytest.approx(90_000 / 86_400)
    limits.answered(limits.sent(1.0), 1.0, 201, quotas=[RateLimit(600, 60.0)])
    assert limits.rate(1.0) == 10.0
    assert limits.rate(61.5) == math.inf


def test_nothing_left_is_a_pause_until_the_reset(limits: Limits) -> None:
    limits.answered(limits.sent(0.0), 0.0, 201, quotas=[RateLimit(0, 20.0)])
    assert (limits.delay(0.0), limits.delay(20.0)) == (20.0, 0.0)


def test_failures_in_a_row_are_an_outage_that_is_probed_every_four_seconds(limits: Limits) -> None:
    down(limits)
    assert limits.down
    times = []
    now = 0.0
    while now < 300:
        now += limits.delay(now)
        times.append(now)
        limits.sent(now)  # which hangs
    assert {round(later - earlier, 6) for earlier, later in itertools.pairwise(times)} == {PROBE}


def test_after_five_minutes_the_probes_become_rare(limits: Limits) -> None:
    down(limits)
    gaps, now = [], 300.0
    for _ in range(10):
        limits.failed(limits.sent(now), now)
        gaps.append(limits.delay(now))
        now += gaps[-1]
    assert gaps == [8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 900.0, 900.0, 900.0]


@pytest.mark.parametrize("status", [200, 201, 401, 403, 404, 409, 422, 303])
def test_any_answer_ends_an_outage_and_begins_with_few_calls(limits: Limits, status: int) -> None:
    taken(limits, 200, -10.0)
    down(limits)
    limits.answered(limits.sent(PROBE), PROBE + 1, status)
    assert not limits.down
    assert (limits.under_way, limits.concurrency) == (0, 2)


def test_an_answer_to_what_was_sent_before_the_outage_does_not_end_it(limits: Limits) -> None:
    before = limits.sent(0.0)
    down(limits, 1.0)
    limits.answered(before, 1.1, 201)
    assert limits.down


def test_calls_that_hang_do_not_count_once_the_api_is_back_and_their_failures_teach_nothing(limits: Limits) -> None:
    hanging = [limits.sent(0.0) for _ in range(2 * FAILURES)]
    down(limits)
    limits.answered(limits.sent(PROBE), PROBE, 201)
    assert limits.under_way == 0
    for call in hanging:
        limits.failed(call, 30.0)
    assert (limits.down, limits.under_way) == (False, 0)


def test_a_poisoned_record_among_others_is_no_outage(limits: Limits) -> None:
    for _ in range(20):
        limits.answered(limits.sent(0.0), 0.1, 500)
        taken(limits, 1, 0.2)
    assert not limits.down


def test_a_call_that_nobody_waits_for_teaches_nothing(limits: Limits) -> None:
    for _ in range(3 * FAILURES):
        limits.abandoned(limits.sent(0.0))
    assert (limits.down, limits.under_way, limits.delay(0.0)) == (False, 0, 0.0)


def test_what_happens_is_told_once(limits: Limits) -> None:
    limits.answered(limits.sent(0.0), 0.0, 429, retry_after=2.0)
    limits.answered(limits.sent(0.0), 0.0, 429, retry_after=3.0)
    down(limits, 10.0)
    down(limits, 10.0)
    limits.answered(limits.sent(20.0), 20.0, 201)
    assert limits.news == [
        (logging.INFO, "the API wants no calls for 2 s"),
        (logging.WARNING, "the API is down: 5 calls in a row have failed"),
        (logging.WARNING, "the API answers again after 10 s"),
    ]


EVENTS: dict[str, Callable[[Limits, Call, float], None]] = {
    "taken": lambda limits, call, now: limits.answered(call, now, 201),
    "told": lambda limits, call, now: limits.answered(call, now, 201, quotas=[RateLimit(3, 5.0)]),
    "used up": lambda limits, call, now: limits.answered(call, now, 200, quotas=[RateLimit(0, 5.0)]),
    "refused": lambda limits, call, now: limits.answered(call, now, 429),
    "refused for long": lambda limits, call, now: limits.answered(call, now, 503, retry_after=2.0**31),
    "broken": lambda limits, call, now: limits.answered(call, now, 500),
    "missing": lambda limits, call, now: limits.answered(call, now, 404),
    "failed": lambda limits, call, now: limits.failed(call, now),
    "no token": lambda limits, call, now: limits.failed(call, now, retry_after=3.0),
    "abandoned": lambda limits, call, now: limits.abandoned(call),
}


@given(
    st.lists(st.tuples(st.sampled_from(sorted(EVENTS)), st.integers(0, 5), st.floats(0, 100)), max_size=80),
    st.sampled_from([1, 2, 20]),
    st.sampled_from([math.inf, 5.0]),
)
def test_whatever_happens_calls_are_counted_and_the_next_one_comes_in_time(
    events: list[tuple[str, int, float]], concurrency: int, rate: float
) -> None:
    limits = Limits(max_rate=rate, max_concurrency=concurrency, longest_pause=900.0)
    now, under_way = 0.0, list[Call]()
    for event, index, seconds in events:
        now += seconds
        if limits.delay(now) == 0.0:
            under_way.append(limits.sent(now))
        if under_way:
            EVENTS[event](limits, under_way.pop(index % len(under_way)), now)
        assert 0 <= limits.under_way <= len(under_way)
        assert 1 <= limits.concurrency <= concurrency
        assert 0 < limits.rate(now) <= rate
    for call in under_way:
        limits.abandoned(call)
    assert limits.under_way == 0
    assert limits.delay(now) <= 2.0**31
