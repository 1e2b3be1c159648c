"""What an answer of the API, or none, means for the record: posted, rejected or deferred."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp import web

from dev.sandbox.serving import serve
from shared.access_tokens import TokenError
from shared.business import COLLECTION, BusinessApi, assigned, example
from shared.delivery.attempts import Attempt, post_record
from shared.delivery.outcomes import AttemptOutcome, Deferred, Posted, Rejected
from shared.rest import ClientOptions
from shared.settings import SettingsError

RECORD = example(1)
STORED = assigned(1) | RECORD
ID = str(next(iter(assigned(1).values())))
ATTEMPT = Attempt(record=RECORD, idempotency_key="key-1")


class ScriptedApi:
    """An API that gives the answers that a test wants, and remembers what it was asked."""

    def __init__(self) -> None:
        self.post: dict[str, Any] = {}
        self.get: dict[str, Any] = {}
        self.requests: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        await request.read()
        script: dict[str, Any] = {"status": 200, "body": {}, "headers": {}} | (
            self.post if request.method == "POST" else self.get
        )
        if script["status"] == "drop":
            assert request.transport is not None
            request.transport.abort()
        body = script["body"]
        return web.Response(
            status=script["status"] if script["status"] != "drop" else 200,
            body=body if isinstance(body, bytes) else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", **script["headers"]},
        )


@pytest.fixture
def scripted() -> Iterator[tuple[ScriptedApi, str]]:
    api = ScriptedApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    with serve(app) as url:
        yield api, url


@pytest.fixture
def attempt(scripted: tuple[ScriptedApi, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    api, url = scripted

    async def attempt(**post: Any) -> AttemptOutcome:
        api.post = post
        async with BusinessApi(url) as client:
            monkeypatch.setattr("shared.business.business_api", client)
            return await post_record(ATTEMPT)

    return attempt


@pytest.mark.parametrize("status", [200, 201])
async def test_an_accepted_record_is_posted(attempt: Callable[..., Any], status: int) -> None:
    assert await attempt(status=status, body=STORED) == Posted(id=ID, business=STORED)


async def test_a_record_that_an_earlier_attempt_brought_is_posted_and_counts_as_replayed(
    attempt: Callable[..., Any],
) -> None:
    outcome = await attempt(status=201, body=STORED, headers={"Idempotency-Replayed": "true"})
    assert outcome.replayed


@pytest.mark.parametrize("status", [400, 402, 403, 404, 405, 410, 413, 415, 418, 422, 451])
async def test_an_answer_to_the_record_itself_rejects_it(attempt: Callable[..., Any], status: int) -> None:
    problem = {"title": "No", "status": status, "detail": "because"}
    outcome = await attempt(status=status, body=problem, headers={"Content-Type": "application/problem+json"})
    assert isinstance(outcome, Rejected)
    assert (outcome.status, outcome.problem.detail) == (status, "because")


async def test_a_refusal_without_problem_details_rejects_with_the_status(attempt: Callable[..., Any]) -> None:
    outcome = await attempt(status=422, body=b"<html>", headers={"Content-Type": "text/html"})
    assert isinstance(outcome, Rejected)
    assert outcome.problem.status == 422


@pytest.mark.parametrize("status", [301, 307, 401, 408, 425, 429, 500, 502, 503, 504, 599, "drop"])
async def test_what_stands_between_app_and_api_defers(attempt: Callable[..., Any], status: int | str) -> None:
    outcome = await attempt(status=status)
    assert isinstance(outcome, Deferred)
    assert outcome.reason


async def test_a_token_without_the_scope_is_the_apps_fault_and_defers(attempt: Callable[..., Any]) -> None:
    outcome = await attempt(status=403, headers={"WWW-Authenticate": 'Bearer error="insufficient_scope"'})
    assert isinstance(outcome, Deferred)


@pytest.mark.parametrize("body", [b"", b"{", b'{"id": 7}'])
async def test_a_success_that_cannot_be_read_defers_so_that_the_same_key_brings_the_answer_again(
    attempt: Callable[..., Any], body: bytes
) -> None:
    assert isinstance(await attempt(status=201, body=body), Deferred)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("x", None), ("-1", None)])
async def test_retry_after_is_passed_on(attempt: Callable[..., Any], header: str, seconds: float | None) -> None:
    outcome = await attempt(status=429, headers={"Retry-After": header})
    assert outcome.retry_after == seconds


async def test_no_connection_at_all_defers(unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with BusinessApi(f"http://127.0.0.1:{unused_tcp_port}") as client:
        monkeypatch.setattr("shared.business.business_api", client)
        assert isinstance(await post_record(ATTEMPT), Deferred)


@pytest.mark.parametrize(
    "error",
    [SettingsError({"BUSINESS_API_BASE_URL": "missing"}), TokenError(401, "invalid_client", "no", retry_after=9.0)],
)
async def test_a_mistake_in_settings_or_credentials_defers(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def options() -> ClientOptions:
        raise error

    monkeypatch.setattr("shared.business.business_api", BusinessApi(options))
    outcome = await post_record(ATTEMPT)
    assert isinstance(outcome, Deferred)
    assert outcome.retry_after == getattr(error, "retry_after", None)


async def test_a_409_for_a_record_that_is_there_is_posted(
    scripted: tuple[ScriptedApi, str], attempt: Callable[..., Any]
) -> None:
    api, _ = scripted
    api.get = {"body": STORED}
    outcome = await attempt(status=409, headers={"Location": f"{COLLECTION}/{ID}"})
    assert outcome == Posted(id=ID, business=STORED, replayed=True)
    assert [request.path for request in api.requests] == [COLLECTION, f"{COLLECTION}/{ID}"]


async def test_a_409_for_another_record_rejects(scripted: tuple[ScriptedApi, str], attempt: Callable[..., Any]) -> None:
    api, _ = scripted
    api.get = {"body": assigned(1) | example(2)}
    outcome = await attempt(status=409, headers={"Location": f"{COLLECTION}/{ID}"})
    assert isinstance(outcome, Rejected)
    assert outcome.status == 409


async def test_a_409_whose_record_cannot_be_looked_up_now_defers(
    scripted: tuple[ScriptedApi, str], attempt: Callable[..., Any]
) -> None:
    api, _ = scripted
    api.get = {"status": 503}
    assert isinstance(await attempt(status=409, headers={"Location": f"{COLLECTION}/{ID}"}), Deferred)


async def test_a_409_while_an_earlier_attempt_is_under_way_defers(attempt: Callable[..., Any]) -> None:
    assert isinstance(await attempt(status=409), Deferred)


async def test_the_api_gets_record_key_and_nothing_that_is_not_set(
    scripted: tuple[ScriptedApi, str], attempt: Callable[..., Any]
) -> None:
    api, _ = scripted
    await attempt(status=201, body=STORED)
    (request,) = api.requests
    assert request.headers["Idempotency-Key"] == "key-1"
    assert json.loads(await request.read()) == RECORD
