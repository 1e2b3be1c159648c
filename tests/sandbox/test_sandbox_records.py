"""The sandbox's API: storing, replaying, refusing, reading, and what a restart keeps."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.sandbox.api import CLIENT_ID, CLIENT_SECRET, TOKEN_PATH, create_app
from dev.sandbox.serving import serve

from .conftest import BOOKS


def authorized(url: str) -> httpx.Client:
    answer = httpx.post(url + TOKEN_PATH, data={"grant_type": "client_credentials"}, auth=(CLIENT_ID, CLIENT_SECRET))
    return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {answer.json()['access_token']}"})


def test_a_posted_record_comes_back_with_its_id_and_location(client: httpx.Client, book: dict[str, Any]) -> None:
    answer = client.post("/books", json=book)
    assert answer.status_code == 201
    stored = answer.json()
    assert stored == {"bookId": 1, "copies": 1} | book
    assert answer.headers["Location"] == "/books/1"
    assert client.get(answer.headers["Location"]).json() == stored


def test_whatever_has_the_form_of_an_object_is_stored(client: httpx.Client) -> None:
    for book in ({}, {"isbn": [1, {"a": "b"}]}, {"title": {"de": "Über", "ratio": 0.5, "out of print": False}}):
        stored = client.post("/books", json=book).json()
        assert stored == book | {"bookId": stored["bookId"], "copies": 1}


def test_null_is_as_good_as_left_out(client: httpx.Client, book: dict[str, Any]) -> None:
    stored = client.post("/books", json=book | {"subtitle": None}).json()
    assert stored == book | {"bookId": stored["bookId"], "copies": 1}


def test_what_the_api_assigns_is_not_the_callers_to_choose(client: httpx.Client, book: dict[str, Any]) -> None:
    stored = client.post("/books", json=book | {"bookId": "mine", "copies": 7}).json()
    assert (stored["bookId"], stored["copies"]) == (1, 1)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded"])
def test_another_media_type_is_refused(client: httpx.Client, content_type: str) -> None:
    answer = client.post("/books", content=b"{}", headers={"Content-Type": content_type})
    assert (answer.status_code, answer.headers["Content-Type"]) == (415, "application/problem+json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"text"', b'{"pages": NaN}', b"\xff", b"[" * 10_000])
def test_a_body_that_is_no_json_object_is_refused(client: httpx.Client, content: bytes) -> None:
    answer = client.post("/books", content=content, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.headers["Content-Type"]) == (400, "application/problem+json")


def test_malformed_json_is_answered_with_its_position(client: httpx.Client) -> None:
    answer = client.post("/books", content=b'{"isbn":\n x}', headers={"Content-Type": "application/json"})
    assert "line 2 column 2" in answer.json()["detail"]


def test_a_body_over_one_mebibyte_is_refused(client: httpx.Client, book: dict[str, Any]) -> None:
    answer = client.post("/books", json=book | {"title": "x" * 2**20})
    assert (answer.status_code, answer.headers["Content-Type"]) == (413, "application/problem+json")


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("PUT", "/books", 405)])
def test_what_is_not_routed_is_answered_with_a_problem(
    anonymous: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = anonymous.request(method, path)
    assert (answer.status_code, answer.headers["Content-Type"]) == (status, "application/problem+json")


def test_an_unknown_id_is_not_found(client: httpx.Client) -> None:
    answer = client.get("/books/unknown")
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_records_are_found_by_their_natural_key(client: httpx.Client, book: dict[str, Any]) -> None:
    first = client.post("/books", json=book).json()
    second = client.post("/books", json=book).json()
    client.post("/books", json=book | {"isbn": "978-2"})
    found = client.get("/books", params={"isbn": "978-1"})
    assert found.json() == [first, second]


def test_a_natural_key_that_is_a_number_is_looked_for_as_text(client: httpx.Client, book: dict[str, Any]) -> None:
    stored = client.post("/books", json=book | {"isbn": 9781}).json()
    assert client.get("/books", params={"isbn": "9781"}).json() == [stored]


def test_no_records_are_an_empty_list(client: httpx.Client) -> None:
    assert client.get("/books", params={"isbn": "978-9"}).json() == []


def test_a_list_of_everything_is_refused(client: httpx.Client) -> None:
    assert client.get("/books").status_code == 400


class TestIdempotencyKey:
    """What the sandbox remembers under an `Idempotency-Key`."""

    def test_the_same_record_again_gets_the_first_answer_again(
        self, client: httpx.Client, book: dict[str, Any], stats: Callable[[], dict[str, Any]]
    ) -> None:
        headers = {"Idempotency-Key": "k1"}
        first = client.post("/books", json=book, headers=headers)
        again = client.post("/books", json=book, headers=headers)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["Location"] == first.headers["Location"]
        assert ("Idempotency-Replayed" in first.headers, again.headers["Idempotency-Replayed"]) == (False, "true")
        counted = stats()
        assert (counted["stored"], counted["replays"], counted["idempotency_keys"]) == (1, 1, 1)

    def test_the_order_of_members_and_null_make_no_other_record(
        self, client: httpx.Client, book: dict[str, Any]
    ) -> None:
        headers = {"Idempotency-Key": "k1"}
        client.post("/books", json=book, headers=headers)
        shuffled = dict(reversed(book.items())) | {"subtitle": None}
        assert client.post("/books", json=shuffled, headers=headers).headers["Idempotency-Replayed"] == "true"

    def test_another_record_with_the_same_key_is_refused(
        self, client: httpx.Client, book: dict[str, Any], stats: Callable[[], dict[str, Any]]
    ) -> None:
        headers = {"Idempotency-Key": "k1"}
        client.post("/books", json=book, headers=headers)
        answer = client.post("/books", json=book | {"title": "Another"}, headers=headers)
        assert (answer.status_code, answer.headers["Content-Type"]) == (422, "application/problem+json")
        assert "Idempotency-Key" in answer.json()["detail"]
        assert stats()["stored"] == 1

    def test_the_same_record_with_another_key_is_stored_again(
        self, client: httpx.Client, book: dict[str, Any], stats: Callable[[], dict[str, Any]]
    ) -> None:
        client.post("/books", json=book, headers={"Idempotency-Key": "k1"})
        client.post("/books", json=book, headers={"Idempotency-Key": "k2"})
        counted = stats()
        assert (counted["stored"], counted["distinct"], counted["duplicates"]) == (2, 1, 1)

    def test_without_a_key_every_post_stores(
        self, client: httpx.Client, book: dict[str, Any], stats: Callable[[], dict[str, Any]]
    ) -> None:
        for _ in range(3):
            client.post("/books", json=book)
        counted = stats()
        assert (counted["stored"], counted["duplicates"], counted["idempotency_keys"]) == (3, 2, 0)

    def test_a_refusal_is_not_remembered(self, client: httpx.Client, book: dict[str, Any]) -> None:
        headers = {"Idempotency-Key": "k1"}
        client.post("/faults", json={"records": {"978-2": [{"status": 422}]}})
        assert client.post("/books", json=book | {"isbn": "978-2"}, headers=headers).status_code == 422
        assert client.post("/books", json=book, headers=headers).status_code == 201

    @pytest.mark.parametrize("key", ["", "k" * 256])
    def test_a_key_that_is_empty_or_too_long_is_refused(
        self, client: httpx.Client, book: dict[str, Any], key: str
    ) -> None:
        assert client.post("/books", json=book, headers={"Idempotency-Key": key}).status_code == 400

    async def test_posts_with_one_key_at_the_same_time_store_once(
        self, client: httpx.Client, book: dict[str, Any], stats: Callable[[], dict[str, Any]]
    ) -> None:
        headers = {"Authorization": client.headers["Authorization"], "Idempotency-Key": "k1"}
        async with httpx.AsyncClient(base_url=client.base_url, headers=headers) as asynchronous:
            await asynchronous.post("/faults", json={"latency": 0.05})  # so that all are in before the first stores
            answers = await asyncio.gather(*(asynchronous.post("/books", json=book) for _ in range(8)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.content for answer in answers}) == 1
        counted = stats()
        assert (counted["stored"], counted["replays"]) == (1, 7)


def test_a_restart_keeps_records_and_keys(tmp_path: Path, book: dict[str, Any]) -> None:
    options = replace(BOOKS, state=tmp_path / "new folder" / "sandbox.db")
    headers = {"Idempotency-Key": "k1"}
    with serve(create_app(options)) as url, authorized(url) as client:
        before = client.post("/books", json=book, headers=headers)
    with serve(create_app(options)) as url, authorized(url) as client:
        again = client.post("/books", json=book, headers=headers)
        counted = client.get("/stats").json()
        found = client.get(before.headers["Location"])
    assert (again.content, again.headers["Idempotency-Replayed"]) == (before.content, "true")
    assert found.content == before.content
    assert (counted["stored"], counted["idempotency_keys"], counted["posts"]) == (1, 1, 1)


def test_a_restart_forgets_the_tokens(tmp_path: Path) -> None:
    options = replace(BOOKS, state=tmp_path / "sandbox.db")
    with serve(create_app(options)) as url, authorized(url) as client:
        credentials = client.headers["Authorization"]
    with serve(create_app(options)) as url:
        answer = httpx.get(f"{url}/books/1", headers={"Authorization": credentials})
    assert answer.status_code == 401


def test_the_end_of_serving_closes_the_database(tmp_path: Path) -> None:
    with serve(create_app(replace(BOOKS, state=tmp_path / "sandbox.db"))):
        assert (tmp_path / "sandbox.db-wal").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["sandbox.db"]


def test_events_are_kept_each_once_and_found_by_their_subject(client: httpx.Client) -> None:
    events = [{"id": "1", "subject": "a"}, {"id": "2", "subject": "b"}]
    for event in (*events, events[0]):
        assert client.post("/events", json=event).status_code == 204
    assert client.get("/events").json() == events
    assert client.get("/events?subject=b").json() == events[1:]
