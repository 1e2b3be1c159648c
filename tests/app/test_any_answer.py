"""Whatever an API answers: no exception, no second post after a 2xx, nothing over its bound, no echo of the token."""

import json
import logging
from collections.abc import AsyncIterator, Generator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.business import Answers, BusinessApi, assigned, example
from shared.delivery.attempts import Attempt, post_record
from shared.delivery.bounds import SINGLE_LIMIT, STATUS_LIMIT, size, stored
from shared.delivery.outcomes import Deferred, Posted
from shared.delivery.records import Delivery, Progress, after_attempt
from shared.rest import ClientOptions
from shared.settings import DeliverySettings
from tests.sandboxed import business

START = datetime(2026, 1, 1, tzinfo=UTC)
TOKEN = "eyJ0+oken/with=every~kind_of.character-a-token-may-have=="
DELIVERY = Delivery.of(business(1), DeliverySettings())
STORED = assigned(7) | example(1)


class Signed(httpx.Auth):
    """Sends the token with each request."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        request.headers["Authorization"] = f"Bearer {TOKEN}"
        yield request


class Broken(httpx.AsyncByteStream):
    """A body that breaks off."""

    def __init__(self, beginning: bytes) -> None:
        self._beginning = beginning

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._beginning
        raise httpx.ReadError("reset")


class AnyApi(httpx.AsyncBaseTransport):
    """Gives the answers of a script, in turn, and remembers by which posts it said yes."""

    def __init__(self, answers: list[httpx.Response | httpx.TransportError]) -> None:
        self._answers = iter(answers)
        self.statuses: list[int] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        answer = next(self._answers, httpx.Response(200, json=STORED))
        if isinstance(answer, httpx.TransportError):
            raise answer
        if request.method == "POST":
            self.statuses.append(answer.status_code)
        return answer


texts = st.text(st.characters(categories=None), max_size=40) | st.just(TOKEN)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=10,
)
documents = st.fixed_dictionaries(
    {},
    optional={
        next(iter(assigned())): values,
        "type": values,
        "title": values,
        "detail": values | st.just("d" * 9000),
        "errors": st.lists(values, max_size=3).map(lambda some: some * 400),
        TOKEN: values,
    },
)
bodies = (
    st.binary(max_size=200)
    | documents.map(lambda document: json.dumps(document).encode())
    | st.just(json.dumps(STORED).encode())
    | st.just(f"<html>{TOKEN}</html>".encode() * 3000)
    | st.just(json.dumps({"title": TOKEN, "detail": TOKEN}).replace("/", "\\/").encode())
)
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40) | st.sampled_from(
    [TOKEN, "/businesses/7", f"/businesses/{TOKEN}", "/", "..", "http://[", "7", "9" * 400, "text/html", "gzip"]
)
headers = st.dictionaries(
    st.sampled_from(
        ["Location", "Retry-After", "Content-Type", "Content-Encoding", "X-Request-Id", "WWW-Authenticate"]
    ),
    header_values | st.sampled_from(["application/json", "application/problem+json"]),
)
statuses = st.sampled_from(
    [200, 201, 202, 204, 299, 303, 400, 404, 409, 409, 415, 422, 429, 500, 501, 503]
) | st.integers(200, 599)
failures = st.sampled_from(
    [httpx.ReadTimeout("slow"), httpx.ConnectError("refused"), httpx.RemoteProtocolError("what?")]
)


@st.composite
def responses(draw: st.DrawFn) -> httpx.Response:
    body: bytes = draw(bodies)
    stream: Any = httpx.ByteStream(body) if draw(st.booleans()) else Broken(body)
    return httpx.Response(draw(statuses), headers=draw(headers), stream=stream)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    answers=st.lists(responses() | failures, min_size=1, max_size=4),
    conflict=st.sampled_from(["in_progress", "duplicate"]),
)
async def test_whatever_the_api_answers(
    answers: list[httpx.Response | httpx.TransportError],
    conflict: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Described(BusinessApi):
        pass

    Described.answers = Answers(conflict=conflict)
    caplog.clear()
    caplog.set_level(logging.DEBUG, "post_business")
    api = AnyApi(answers)
    client = Described(ClientOptions(base_url="https://api.example.com", auth=Signed(), transport=lambda: api))
    monkeypatch.setattr("shared.business.business_api", client)
    progress = Progress()
    doubt = False
    for _ in range(len(answers)):
        outcome = await post_record(Attempt(record=DELIVERY.record, idempotency_key="k"))
        progress = after_attempt(outcome, DELIVERY, progress, started_at=START, now=START, instance_id="i")
        shown = json.dumps(stored(progress), allow_nan=False)
        assert size(stored(outcome)) <= SINGLE_LIMIT
        assert size(stored(progress)) <= STATUS_LIMIT
        assert TOKEN not in shown
        assert TOKEN.replace("/", "\\/") not in shown
        if isinstance(outcome, Posted):
            break
        doubt = doubt or outcome.may_be_stored
        assert progress.may_be_stored == doubt
        if not isinstance(outcome, Deferred):
            break
    yes = [status for status in api.statuses if 200 <= status < 300]
    assert len(yes) <= 1
    assert not yes or isinstance(outcome, Posted)
    assert TOKEN not in caplog.text
    assert all(line.isprintable() for record in caplog.records for line in [record.getMessage()])
