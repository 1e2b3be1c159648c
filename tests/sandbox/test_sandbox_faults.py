"""The sandbox's faults on demand and its counters."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from dev.sandbox.api import CLIENT_ID, CLIENT_SECRET, TOKEN_PATH

type Stats = Callable[[], dict[str, Any]]


def set_faults(client: httpx.Client, **plan: Any) -> None:
    assert client.post("/faults", json=plan).status_code == 204


def outcomes(client: httpx.Client, records: Sequence[dict[str, Any]]) -> list[int | None]:
    """The status of each post, None for a connection that was dropped."""
    statuses: list[int | None] = []
    for record in records:
        try:
            statuses.append(client.post("/books", json=record).status_code)
        except httpx.RemoteProtocolError:
            statuses.append(None)
    return statuses


def test_a_script_disturbs_the_first_tries_of_a_record(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"978-1": [{"status": 503}, {"drop": "before"}, {}, {"status": 429}]})
    assert outcomes(client, [book] * 5) == [503, None, 201, 429, 201]


def test_a_script_does_not_disturb_other_records(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"978-1": [{"status": 503}]})
    assert outcomes(client, [book | {"isbn": "978-2"}, book]) == [201, 503]


def test_retry_after_goes_with_a_scripted_status(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"978-1": [{"status": 429, "retry_after": 2}, {"status": 503}]})
    limited, unavailable = (client.post("/books", json=book) for _ in range(2))
    assert (limited.headers["Retry-After"], limited.headers["Content-Type"]) == ("2", "application/problem+json")
    assert "Retry-After" not in unavailable.headers


def test_a_status_without_a_name_can_be_scripted(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"978-1": [{"status": 599}]})
    assert client.post("/books", json=book).json()["title"] == "Status 599"


def test_a_scripted_401_carries_the_challenge_of_an_invalid_token(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"978-1": [{"status": 401}]})
    challenge = client.post("/books", json=book).headers["WWW-Authenticate"]
    assert challenge == 'Bearer realm="sandbox", error="invalid_token"'


def test_an_answer_of_any_kind_can_be_scripted(client: httpx.Client, book: dict[str, Any], stats: Stats) -> None:
    answers = [
        {"status": 200, "body": {"bookId": "odd"}},
        {"status": 302, "headers": {"Location": "https://elsewhere.example/"}},
        {"status": 502, "headers": {"content-type": "text/html"}, "body": "<h1>Bad Gateway</h1>"},
        {"status": 422, "body": {"title": "No", "errors": [{"field": "isbn"}]}},
    ]
    set_faults(client, records={"978-1": answers})
    ok, moved, page, problem = (client.post("/books", json=book) for _ in answers)
    assert (ok.status_code, ok.json(), ok.headers["Content-Type"]) == (200, {"bookId": "odd"}, "application/json")
    assert (moved.status_code, moved.headers["Location"], moved.content) == (302, "https://elsewhere.example/", b"")
    assert (page.text, page.headers["Content-Type"]) == ("<h1>Bad Gateway</h1>", "text/html")
    assert (problem.json()["title"], problem.headers["Content-Type"]) == ("No", "application/problem+json")
    assert stats()["stored"] == 0


def test_a_record_can_be_stored_before_the_scripted_answer(
    client: httpx.Client, book: dict[str, Any], stats: Stats
) -> None:
    set_faults(client, records={"978-1": [{"status": 500, "store": True}]})
    headers = {"Idempotency-Key": "k1"}
    assert client.post("/books", json=book, headers=headers).status_code == 500
    assert stats()["stored"] == 1
    assert client.post("/books", json=book, headers=headers).headers["Idempotency-Replayed"] == "true"


def test_a_step_can_be_met_by_all_tries(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"978-1": [{}, {"status": 422, "always": True}, {}]})
    assert outcomes(client, [book] * 4) == [201, 422, 422, 422]


def test_a_record_is_known_by_a_natural_key_that_is_no_text(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"9781": [{"status": 503}], "null": [{"status": 500}]})
    assert outcomes(client, [book | {"isbn": 9781}, {"title": "No number"}, book]) == [503, 500, 201]


def test_a_connection_dropped_before_stores_nothing(client: httpx.Client, book: dict[str, Any], stats: Stats) -> None:
    set_faults(client, records={"978-1": [{"drop": "before"}]})
    assert outcomes(client, [book]) == [None]
    counted = stats()
    assert (counted["stored"], counted["posts"], counted["dropped"], counted["posts_by_status"]) == (0, 1, 1, {})


def test_a_connection_dropped_after_has_stored_the_record_and_its_key(
    client: httpx.Client, book: dict[str, Any], stats: Stats
) -> None:
    set_faults(client, records={"978-1": [{"drop": "after"}]})
    headers = {"Idempotency-Key": "k1"}
    with pytest.raises(httpx.RemoteProtocolError):
        client.post("/books", json=book, headers=headers)
    assert stats()["stored"] == 1
    assert client.post("/books", json=book, headers=headers).headers["Idempotency-Replayed"] == "true"
    assert stats()["stored"] == 1


@pytest.mark.parametrize("plan", [{"records": {"978-1": [{"delay": 0.1}]}}, {"latency": 0.1}])
def test_a_post_can_be_delayed(client: httpx.Client, book: dict[str, Any], plan: dict[str, Any]) -> None:
    set_faults(client, **plan)
    started = time.perf_counter()
    assert client.post("/books", json=book).status_code == 201
    assert time.perf_counter() - started > 0.09


def test_a_request_without_a_valid_token_uses_up_no_step(
    client: httpx.Client, anonymous: httpx.Client, book: dict[str, Any]
) -> None:
    set_faults(client, records={"978-1": [{"status": 503}]})
    assert outcomes(anonymous, [book]) == [401]
    assert outcomes(client, [book]) == [503]


@pytest.mark.parametrize(("name", "outcome"), [("503", 503), ("429", 429), ("drop_before", None), ("drop_after", None)])
def test_a_rate_of_one_disturbs_every_post(
    client: httpx.Client, book: dict[str, Any], name: str, outcome: int | None
) -> None:
    set_faults(client, rates={name: 1})
    assert outcomes(client, [book] * 3) == [outcome] * 3


def test_a_rate_of_zero_disturbs_none(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, rates={"503": 0.0})
    assert outcomes(client, [book] * 3) == [201] * 3


def test_the_same_seed_disturbs_the_same_posts(client: httpx.Client, book: dict[str, Any]) -> None:
    rounds = []
    for seed in (7, 7, 8):
        set_faults(client, seed=seed, rates={"503": 0.3, "429": 0.2, "drop_after": 0.1, "drop_before": 0.1})
        rounds.append(outcomes(client, [book] * 60))
    assert rounds[0] == rounds[1] != rounds[2]
    assert set(rounds[0]) == {201, 503, 429, None}


def test_retry_after_goes_with_random_statuses(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, rates={"429": 1.0}, retry_after=3)
    assert client.post("/books", json=book).headers["Retry-After"] == "3"


def test_a_quota_refuses_the_posts_that_are_too_many(
    client: httpx.Client, book: dict[str, Any], advance: Callable[[float], None], stats: Stats
) -> None:
    set_faults(client, quota={"rate": 2})
    assert outcomes(client, [book] * 3) == [201, 201, 429]
    refused = client.post("/books", json=book)
    assert (refused.headers["Retry-After"], refused.headers["Content-Type"]) == ("1", "application/problem+json")
    assert "RateLimit" not in refused.headers
    advance(0.5)
    assert outcomes(client, [book] * 2) == [201, 429]
    advance(60)
    assert outcomes(client, [book] * 3) == [201, 201, 429]
    assert stats()["posts_by_status"] == {"201": 5, "429": 4}


def test_a_quota_can_be_told_in_the_fields_of_all_answers(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, quota={"rate": 2, "fields": True}, records={"978-1": [{}, {"status": 500}]})
    answers = [client.post("/books", json=book) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [201, 500, 429]
    assert [answer.headers["RateLimit"] for answer in answers] == [
        '"posts";r=1;t=1', '"posts";r=0;t=1', '"posts";r=0;t=1'
    ]  # fmt: skip
    assert {answer.headers["RateLimit-Policy"] for answer in answers} == {'"posts";q=2;w=1'}


def test_contention_makes_a_post_wait_for_each_other_one(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, latency=0.1, contention=0.05)

    def timed(number: int) -> float:
        started = time.perf_counter()
        assert client.post("/books", json=book | {"isbn": f"978-{number}"}).status_code == 201
        return time.perf_counter() - started

    with ThreadPoolExecutor(5) as threads:
        assert max(threads.map(timed, range(5))) > 0.24
    assert timed(6) < 0.2


def test_a_script_comes_before_the_random_faults(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"978-1": [{}, {"status": 500}]}, rates={"503": 1.0})
    assert outcomes(client, [book] * 3) == [201, 500, 503]


def test_a_reset_ends_all_faults(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, records={"978-1": [{"status": 500}]}, rates={"503": 1.0})
    assert client.delete("/faults").status_code == 204
    assert outcomes(client, [book]) == [201]


def test_new_faults_take_the_place_of_those_before(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, rates={"503": 1.0})
    set_faults(client, records={"978-1": [{"status": 500}]})
    assert outcomes(client, [book] * 2) == [500, 201]


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        ({"recrods": {}}, "recrods"),
        ({"records": {"978-9": [{"status": 199}]}}, "records.978-9.0.status"),
        ({"records": {"978-9": [{}, {"drop": "never"}]}}, "records.978-9.1.drop"),
        ({"records": {"978-9": [{"delay": -1}]}}, "records.978-9.0.delay"),
        ({"records": {"978-9": [{"status": 503, "drop": "after"}]}}, "records.978-9.0"),
        ({"records": {"978-9": [{"retry_after": 1}]}}, "records.978-9.0"),
        ({"records": {"978-9": [{"store": True}]}}, "records.978-9.0"),
        ({"records": {"978-9": [{"status": 500, "headers": {"X": "a\nb"}}]}}, "records.978-9.0.headers.X"),
        ({"records": {"978-9": {"status": 503}}}, "records.978-9"),
        ({"token": [{"state": 503}]}, "token.0.state"),
        ({"rates": {"200": 0.5}}, "rates.200.[key]"),
        ({"rates": {"503": 1.5}}, "rates.503"),
        ({"rates": {"503": 0.6, "429": 0.6}}, "rates"),
        ({"seed": "seven"}, "seed"),
        ({"retry_after": -1}, "retry_after"),
        ({"latency": "slow"}, "latency"),
        ({"contention": -1}, "contention"),
        ({"quota": {"rate": 0}}, "quota.rate"),
        ({"quota": {"rate": 5, "header": True}}, "quota.header"),
    ],
)
def test_faults_that_cannot_be_set_are_refused_with_the_field(
    anonymous: httpx.Client, plan: dict[str, Any], field: str
) -> None:
    answer = anonymous.post("/faults", json=plan)
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")
    assert [error["field"] for error in answer.json()["errors"]] == [field]


def test_refused_faults_leave_those_in_force(client: httpx.Client, book: dict[str, Any]) -> None:
    set_faults(client, rates={"503": 1.0})
    client.post("/faults", json={"rates": {"503": 2}})
    assert outcomes(client, [book]) == [503]


def test_a_script_disturbs_the_next_token_requests(anonymous: httpx.Client, stats: Stats) -> None:
    set_faults(anonymous, token=[{"status": 503, "retry_after": 1}, {"drop": "before"}, {"drop": "after"}])

    def fetch() -> httpx.Response:
        return anonymous.post(TOKEN_PATH, data={"grant_type": "client_credentials"}, auth=(CLIENT_ID, CLIENT_SECRET))

    unavailable = fetch()
    assert (unavailable.status_code, unavailable.headers["Retry-After"]) == (503, "1")
    for _ in range(2):
        with pytest.raises(httpx.RemoteProtocolError):
            fetch()
    assert fetch().status_code == 200
    counted = stats()
    assert (counted["token_requests"], counted["tokens_issued"]) == (4, 2)


def test_every_counter_starts_at_zero(stats: Stats) -> None:
    assert stats() == {
        "token_requests": 0, "tokens_issued": 0, "revocations": 0, "posts": 0, "posts_by_status": {}, "dropped": 0,
        "replays": 0, "unauthorized": 0, "stored": 0, "distinct": 0, "idempotency_keys": 0,
        "duplicates": 0,
    }  # fmt: skip


def test_posts_are_counted_by_their_status(
    client: httpx.Client, anonymous: httpx.Client, book: dict[str, Any], stats: Stats
) -> None:
    set_faults(client, records={"978-2": [{"status": 503}, {"drop": "after"}], "978-3": [{"status": 422}]})
    outcomes(anonymous, [book])
    outcomes(client, [book, book | {"isbn": "978-3"}, *[book | {"isbn": "978-2"}] * 3])
    client.post("/books", content=b"x" * 2**21, headers={"Content-Type": "application/json"})
    counted = stats()
    assert counted["posts_by_status"] == {"401": 1, "201": 2, "422": 1, "503": 1, "413": 1}
    assert counted["posts"] == sum(counted["posts_by_status"].values()) + counted["dropped"]
    assert (counted["unauthorized"], counted["dropped"]) == (1, 1)
    assert (counted["stored"], counted["distinct"], counted["duplicates"]) == (3, 2, 1)


def test_revocations_are_counted(anonymous: httpx.Client, stats: Stats) -> None:
    anonymous.post("/auth/revoke")
    anonymous.post("/auth/revoke")
    assert stats()["revocations"] == 2
