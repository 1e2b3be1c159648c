"""When a token is handed out, refreshed and fetched, by the clocks and by the number of requests that arrive."""

import asyncio
import itertools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from shared.access_tokens import AccessToken, CachePolicy, TokenCache, TokenError

from .scripted import Answer, FakeTime, Server, until

UNAVAILABLE = Answer({"error": "temporarily_unavailable"}, 503)
REFUSED = Answer({"error": "invalid_scope"}, 400)


def issued(value: str, expires_in: object) -> Answer:
    return Answer({"access_token": value, "token_type": "Bearer", "expires_in": expires_in})


# Concurrency


async def test_200_cold_tasks_make_one_token_request(server: Server, cache: TokenCache) -> None:
    token = cache.of(server.source())
    server.open.clear()
    tasks = [asyncio.create_task(token.get_async()) for _ in range(200)]
    await asyncio.to_thread(until, lambda: server.requests)
    server.open.set()
    assert {result.value for result in await asyncio.gather(*tasks)} == {"token-1"}
    assert len(server.requests) == 1


def test_threads_and_tasks_on_two_loops_share_one_token_request(server: Server, cache: TokenCache) -> None:
    token = cache.of(server.source())
    everybody = threading.Barrier(52)
    server.open.clear()

    def blocking() -> set[AccessToken]:
        everybody.wait()
        return {token.get()}

    async def tasks() -> set[AccessToken]:
        return set(await asyncio.gather(*(token.get_async() for _ in range(25))))

    def looping() -> set[AccessToken]:
        everybody.wait()
        return asyncio.run(tasks())

    with ThreadPoolExecutor(52) as pool:
        results = [*(pool.submit(blocking) for _ in range(50)), *(pool.submit(looping) for _ in range(2))]
        until(lambda: server.requests)
        server.open.set()
        tokens: set[AccessToken] = set().union(*(result.result() for result in results))
    assert {result.value for result in tokens} == {"token-1"}
    assert len(server.requests) == 1


async def test_a_cancelled_waiter_does_not_cancel_the_flight(server: Server, cache: TokenCache) -> None:
    token = cache.of(server.source())
    server.open.clear()
    first, *others = [asyncio.create_task(token.get_async()) for _ in range(5)]
    await asyncio.to_thread(until, lambda: server.requests)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.open.set()
    assert {result.value for result in await asyncio.gather(*others)} == {"token-1"}
    assert len(server.requests) == 1


async def test_after_all_waiters_were_cancelled_the_next_caller_gets_the_token(
    server: Server, cache: TokenCache
) -> None:
    token = cache.of(server.source())
    server.open.clear()
    tasks = [asyncio.create_task(token.get_async()) for _ in range(5)]
    await asyncio.to_thread(until, lambda: server.requests)
    for task in tasks:
        task.cancel()
    assert all(isinstance(end, asyncio.CancelledError) for end in await asyncio.gather(*tasks, return_exceptions=True))
    server.open.set()
    assert (await token.get_async()).value == "token-1"
    assert len(server.requests) == 1


def test_a_loop_that_was_closed_in_the_middle_of_a_flight_disturbs_nobody(server: Server, cache: TokenCache) -> None:
    token = cache.of(server.source())
    server.open.clear()

    async def leave() -> None:
        asyncio.create_task(token.get_async())  # noqa: RUF006 - cancelled when the loop closes
        await asyncio.to_thread(until, lambda: server.requests)

    asyncio.run(leave())
    server.open.set()
    assert token.get().value == "token-1"
    assert len(server.requests) == 1


async def test_100_callers_of_a_dead_endpoint_share_three_tries_and_the_error(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    server.answers.extend([UNAVAILABLE] * 3)
    server.open.clear()
    token = cache.of(server.source())
    tasks = [asyncio.create_task(token.get_async()) for _ in range(100)]
    await asyncio.to_thread(until, lambda: server.requests)
    server.open.set()
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert {str(error) for error in errors} == {
        "no access token: 503 temporarily_unavailable: the token endpoint refused the request"
    }
    assert len({id(error) for error in errors}) == 100  # each has a traceback of its own
    assert len(server.requests) == 3
    assert time.sleeps == [1.0, 2.0]


def test_in_the_cool_down_after_a_failure_no_request_is_made_and_after_it_one(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    server.answers.append(REFUSED)
    token = cache.of(server.source())
    with pytest.raises(TokenError) as first:
        token.get()
    time.advance(4.9)
    with pytest.raises(TokenError) as second:
        token.get()
    assert repr(second.value) == repr(first.value)
    assert len(server.requests) == 1
    time.advance(0.2)
    assert token.get().value == "token-2"


@pytest.mark.parametrize(("retry_after", "pause"), [("120", 120), ("99999", 3600), ("0", 5)])
def test_the_cool_down_lasts_as_long_as_the_endpoint_asks(
    server: Server, cache: TokenCache, time: FakeTime, retry_after: str, pause: float
) -> None:
    server.answers.append(Answer({"error": "invalid_request"}, 400, headers={"Retry-After": retry_after}))
    token = cache.of(server.source())
    with pytest.raises(TokenError):
        token.get()
    time.advance(pause - 0.1)
    with pytest.raises(TokenError):
        token.get()
    assert len(server.requests) == 1
    time.advance(0.2)
    assert token.get().value == "token-2"


def test_two_resources_at_once_get_two_tokens(server: Server, cache: TokenCache) -> None:
    server.open.clear()
    with ThreadPoolExecutor(2) as pool:
        results = [
            pool.submit(cache.of(replace(server.source(), resource=resource)).get)
            for resource in ("urn:example:a", "urn:example:b")
        ]
        until(lambda: len(server.requests) == 2)
        server.open.set()
        assert {result.result().value for result in results} == {"token-1", "token-2"}
    assert {request.form["resource"] for request in server.requests} == {"urn:example:a", "urn:example:b"}


def test_equal_sources_share_a_token_whatever_their_secrets_are(server: Server, cache: TokenCache) -> None:
    assert cache.of(server.source(secret="old")).get() == cache.of(server.source(secret="new")).get()
    assert len(server.requests) == 1


def test_of_equal_sources_the_latest_is_asked(server: Server, cache: TokenCache, time: FakeTime) -> None:
    token = cache.of(server.source(secret="old"))
    token.get()
    cache.of(server.source(secret="new"))
    time.advance(3600)
    token.get()
    first, second = server.requests
    assert first.headers["Authorization"] != second.headers["Authorization"]


def test_what_a_refresh_brings_is_dropped_if_the_token_is_rejected_meanwhile(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    token = cache.of(server.source())
    rejected = token.get()
    time.advance(3400)
    server.open.clear()
    assert token.get() == rejected
    until(lambda: len(server.requests) == 2)
    token.invalidate(rejected)
    server.open.set()
    assert token.get().value == "token-3"
    assert len(server.requests) == 3


def test_a_fetch_that_takes_too_long_is_given_up_and_the_next_one_succeeds(server: Server) -> None:
    cache = TokenCache(CachePolicy(fetch_timeout=0.05, failure_pause=0))
    token = cache.of(server.source())
    server.open.clear()
    with pytest.raises(TokenError, match=r"took longer than 0\.05 s"):
        token.get()
    server.open.set()
    until(lambda: _fetched(token.get))


async def test_a_fetch_that_takes_too_long_is_given_up_by_coroutines_too(server: Server) -> None:
    token = TokenCache(CachePolicy(fetch_timeout=0.05)).of(server.source())
    server.open.clear()
    with pytest.raises(TokenError, match=r"took longer than 0\.05 s") as caught:
        await token.get_async()
    assert caught.value.retryable


def test_a_background_fetch_that_hangs_is_given_up_by_a_later_look_up(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    token = cache.of(server.source())
    token.get()
    time.advance(3400)
    server.open.clear()
    token.get()
    until(lambda: len(server.requests) == 2)
    time.advance(31)
    token.get()
    assert token.statistics.failed == 1
    time.advance(31)
    server.open.set()
    token.get()
    until(lambda: token.statistics.fetched == 2)


def _fetched(get: object) -> bool:
    assert callable(get)
    try:
        get()
    except TokenError:
        return False
    return True


# Time


@pytest.mark.parametrize(
    ("left", "requests"),
    [pytest.param(301, 1, id="301 s left: cached"), pytest.param(239, 2, id="239 s left: refreshed")],
)
def test_a_token_is_fresh_until_its_advisory_window(
    server: Server, cache: TokenCache, time: FakeTime, left: float, requests: int
) -> None:
    token = cache.of(server.source())
    token.get()
    time.advance(3600 - left)
    assert (token.fresh() is not None) == (requests == 1)
    assert token.get().value == "token-1"
    until(lambda: token.statistics.fetched == requests)
    assert len(server.requests) == requests


@pytest.mark.parametrize(("share", "refresh_at"), [(0.0, 3300), (0.5, 3330), (1.0, 3360)])
def test_the_advisory_window_is_shortened_at_random_by_up_to_a_fifth(
    server: Server, cache: TokenCache, time: FakeTime, share: float, refresh_at: float
) -> None:
    time.share = share
    token = cache.of(server.source())
    token.get()
    time.advance(refresh_at - 0.1)
    assert token.fresh() is not None
    time.advance(0.2)
    assert token.fresh() is None


def test_a_fresh_token_is_handed_out_while_the_lock_is_held(server: Server, cache: TokenCache) -> None:
    token = cache.of(server.source())
    token.get()
    with token._lock:
        assert token.get().value == "token-1"


def test_200_s_before_expiry_nobody_waits_and_one_refresh_runs(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    token = cache.of(server.source())
    token.get()
    time.advance(3400)
    server.open.clear()
    assert {token.get().value for _ in range(10)} == {"token-1"}  # while no token request can be answered
    server.open.set()
    until(lambda: token.statistics.fetched == 2)
    assert token.get().value == "token-2"
    assert len(server.requests) == 2


def test_59_s_before_expiry_callers_wait_for_the_new_token(server: Server, cache: TokenCache, time: FakeTime) -> None:
    token = cache.of(server.source())
    token.get()
    time.advance(3541)
    assert token.get().value == "token-2"


def test_a_token_of_50_s_serves_many_calls(server: Server, cache: TokenCache, time: FakeTime) -> None:
    server.lifetime = 50
    token = cache.of(server.source())
    for _ in range(10):
        assert token.get().value == "token-1"
        time.advance(3.5)
    assert len(server.requests) == 1


def test_a_server_that_repeats_a_shrinking_token_is_asked_once_in_30_s(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    token = cache.of(server.source())
    end = time.monotonic + 1000
    asked_at: list[float] = []
    while time.monotonic <= end - 1:
        left = int(end - time.monotonic)
        server.answers.clear()
        server.answers.append(issued("same", left))
        fetched = token.statistics.fetched
        assert token.get().value == "same"
        until(lambda: token._flight is None)
        if token.statistics.fetched > fetched:
            asked_at.append(time.monotonic)
        time.advance(1)
    assert len(server.requests) == len(asked_at) < 30
    assert all(later - earlier >= 30 for earlier, later in itertools.pairwise(asked_at))


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_no_token_is_used_past_its_monotonic_age_when_the_wall_clock_is_set(
    server: Server, cache: TokenCache, time: FakeTime, jump: float
) -> None:
    token = cache.of(server.source())
    token.get()
    time.wall += jump
    assert token.get().value == ("token-2" if jump > 0 else "token-1")
    current = token.get().value
    time.advance(3541)
    assert token.get().value != current


def test_a_process_that_was_suspended_past_expiry_fetches_before_it_sends(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    token = cache.of(server.source())
    token.get()
    time.wall += 3600  # the monotonic clock stood still
    assert token.fresh() is None
    assert token.get().value == "token-2"


def test_the_lifetime_counts_from_the_sending_of_the_request(server: Server, cache: TokenCache, time: FakeTime) -> None:
    token = cache.of(server.source())
    server.open.clear()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(token.get)
        until(lambda: server.requests)
        time.advance(20)
        server.open.set()
        result.result()
    assert token.remaining == 3600 - 60 - 20


def test_a_token_that_has_expired_when_it_comes_is_not_handed_out(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    server.lifetime = 10
    token = cache.of(server.source())
    server.open.clear()
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(token.get)
        until(lambda: server.requests)
        time.advance(10)
        server.open.set()
        assert result.result().value == "token-2"


@pytest.mark.parametrize(("expires_in", "refresh_in"), [(86_400, 43_200), (3600, 1800)])
def test_the_issuers_wish_for_an_early_refresh_is_honoured(
    server: Server, cache: TokenCache, time: FakeTime, expires_in: int, refresh_in: int
) -> None:
    server.answers.append(Answer({"access_token": "first", "expires_in": expires_in, "refresh_in": refresh_in}))
    token = cache.of(server.source())
    token.get()
    time.advance(refresh_in - 1)
    assert token.fresh() is not None
    time.advance(2)
    assert token.get().value == "first"
    until(lambda: token.statistics.fetched == 2)
    assert token.get().value == "token-2"


@pytest.mark.parametrize("expires_in", [0, -5, float("nan"), float("inf"), True, [], "abc", {}])
def test_a_token_without_a_usable_lifetime_is_used_once_with_a_warning(
    server: Server, cache: TokenCache, caplog: pytest.LogCaptureFixture, expires_in: object
) -> None:
    server.lifetime = expires_in
    token = cache.of(server.source())
    assert [token.get().value, token.get().value] == ["token-1", "token-2"]
    assert [record.levelno for record in caplog.records if record.name == "shared.access_tokens"] == [30, 30]


def test_a_token_whose_server_tells_no_lifetime_serves_600_s(server: Server, cache: TokenCache, time: FakeTime) -> None:
    server.lifetime = None
    token = cache.of(server.source())
    token.get()
    assert token.remaining == 540


def test_a_token_that_is_ready_starts_its_refresh_and_one_that_is_not_is_awaited_elsewhere(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    token = cache.of(server.source())
    assert token.ready() is None
    assert token.get().value == "token-1"
    time.advance(3400)
    old = token.ready()
    assert old is not None
    assert old.value == "token-1"
    until(lambda: token.statistics.fetched == 2)


# Failures


def test_a_failed_refresh_leaves_the_old_token_in_use_and_is_not_repeated_for_30_s(
    server: Server, cache: TokenCache, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    token = cache.of(server.source())
    token.get()
    time.advance(3400)
    server.answers.append(REFUSED)
    assert token.get().value == "token-1"
    until(lambda: "stays in use" in caplog.text)
    assert [record.levelno for record in caplog.records if "stays in use" in record.message] == [logging.WARNING]
    time.advance(29)
    assert token.get().value == "token-1"
    assert token._flight is None
    assert len(server.requests) == 2
    time.advance(2)
    assert token.get().value == "token-1"
    until(lambda: token.statistics.fetched == 2)
    assert token.get().value == "token-3"


def test_when_the_endpoint_asks_for_a_pause_after_a_failed_refresh_it_is_kept(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    token = cache.of(server.source())
    token.get()
    time.advance(3520)
    server.answers.append(Answer({"error": "invalid_request"}, 400, headers={"Retry-After": "100"}))
    token.get()
    until(lambda: token.statistics.failed == 1)
    time.advance(60)  # the old token may not be used any more
    with pytest.raises(TokenError, match="invalid_request"):
        token.get()
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "answer",
    [
        Answer({"error": "server_error"}, 400),
        Answer({"error": "temporarily_unavailable"}, 400),
        Answer({}, 408),
        Answer({}, 429),
        Answer({}, 500),
        Answer(body=b"<html>bad gateway</html>", status=502),
        Answer(body=b"<html>firewall</html>", status=403),
    ],
    ids=lambda answer: f"{answer.status} {answer.document}",
)
def test_a_transient_error_is_tried_again_in_the_same_fetch(
    server: Server, cache: TokenCache, time: FakeTime, answer: Answer
) -> None:
    server.answers.extend([answer, answer])
    assert cache.of(server.source()).get().value == "token-3"
    assert time.sleeps == [1.0, 2.0]


@pytest.mark.parametrize(("share", "pauses"), [(0.0, [0.9, 1.8]), (1.0, [1.1, 2.2])])
def test_the_pause_between_tries_varies_by_a_tenth(
    server: Server, cache: TokenCache, time: FakeTime, share: float, pauses: list[float]
) -> None:
    time.share = share
    server.answers.extend([UNAVAILABLE, UNAVAILABLE])
    cache.of(server.source()).get()
    assert time.sleeps == pytest.approx(pauses)


def test_the_pause_between_tries_is_as_long_as_the_endpoint_asks(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    server.answers.append(Answer({}, 429, headers={"Retry-After": "7"}))
    cache.of(server.source()).get()
    assert time.sleeps == [7.0]


def test_a_pause_longer_than_the_fetch_may_take_ends_the_fetch(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    server.answers.append(Answer({}, 429, headers={"Retry-After": "60"}))
    with pytest.raises(TokenError) as caught:
        cache.of(server.source()).get()
    assert caught.value.retry_after == 60
    assert time.sleeps == []


def test_a_transport_error_is_tried_again(cache: TokenCache, time: FakeTime, server: Server) -> None:
    server.url = "http://127.0.0.1:1"  # nothing listens there
    with pytest.raises(TokenError) as caught:
        cache.of(server.source()).get()
    assert caught.value.retryable
    assert caught.value.status is None
    assert time.sleeps == [1.0, 2.0]


@pytest.mark.parametrize("error", ["invalid_client", "invalid_scope", "unauthorized_client"])
def test_a_refusal_with_an_oauth_error_is_permanent(
    server: Server, cache: TokenCache, time: FakeTime, error: str
) -> None:
    server.answers.append(Answer({"error": error}, 401))
    with pytest.raises(TokenError) as caught:
        cache.of(server.source()).get()
    assert (caught.value.status, caught.value.error, caught.value.retryable) == (401, error, False)
    assert time.sleeps == []


class BrokenSource:
    """A source that does not keep its promise to raise nothing but `TokenError`."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def fetch(self) -> AccessToken:
        raise self.error


def test_a_source_with_a_bug_gives_every_caller_an_error_that_names_it(cache: TokenCache) -> None:
    with pytest.raises(TokenError, match="ZeroDivisionError") as caught:
        cache.of(BrokenSource(ZeroDivisionError("text that may hold a secret"))).get()
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_source_that_ends_its_thread_leaves_nobody_waiting(cache: TokenCache) -> None:
    with pytest.raises(TokenError, match="SystemExit"):
        cache.of(BrokenSource(SystemExit())).get()
