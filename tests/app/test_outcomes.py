"""What an answer of the API, or none, means for the record: posted, rejected or deferred."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dev.sandbox.serving import serve
from shared.access_tokens import TokenError
from shared.business import Answers, Business, BusinessApi, assigned, example
from shared.delivery.attempts import Attempt, parse_outcome, post_record
from shared.delivery.bounds import SINGLE_LIMIT, size, stored
from shared.delivery.judgement import TABLE, rule_for
from shared.delivery.outcomes import AttemptOutcome, Deferred, Posted, Rejected
from shared.rest import ApiResponseError, ClientOptions, ProblemDetails
from shared.settings import SettingsError

RECORD = example(1)
STORED = assigned(7) | RECORD
(ID, NUMBER), *_ = assigned(7).items()
STORED_ID = str(NUMBER)
ATTEMPT = Attempt(record=RECORD, idempotency_key="key-1")
PROBLEM = {"Content-Type": "application/problem+json"}


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

    @property
    def asked(self) -> list[str]:
        """Methods, and for look-ups the last segment of the path."""
        return ["POST" if one.method == "POST" else f"GET {one.path.rpartition('/')[2]}" for one in self.requests]


@pytest.fixture
def scripted() -> Iterator[tuple[ScriptedApi, str]]:
    api = ScriptedApi()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.answer)
    with serve(app) as url:
        yield api, url


@pytest.fixture
def api(scripted: tuple[ScriptedApi, str]) -> ScriptedApi:
    return scripted[0]


@pytest.fixture
def attempt(scripted: tuple[ScriptedApi, str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    api, url = scripted

    async def attempt(*, answers: Answers | None = None, **post: Any) -> AttemptOutcome:
        class Described(BusinessApi):
            pass

        Described.answers = answers or Answers()
        api.post = post
        async with Described(url) as client:
            monkeypatch.setattr("shared.business.business_api", client)
            return await post_record(ATTEMPT)

    return attempt


# A 2xx: the API said yes


@pytest.mark.parametrize("status", [200, 201, 202])
async def test_an_accepted_record_is_posted(attempt: Callable[..., Any], status: int) -> None:
    assert await attempt(status=status, body=STORED) == Posted(id=STORED_ID, business=STORED)


async def test_a_record_that_an_earlier_attempt_brought_is_posted_and_counts_as_replayed(
    attempt: Callable[..., Any],
) -> None:
    outcome = await attempt(status=201, body=STORED, headers={"Idempotency-Replayed": "true"})
    assert outcome.replayed


@pytest.mark.parametrize(
    ("answer", "business_id"),
    [
        ({"body": b""}, None),
        ({"body": b"", "headers": {"Location": "/somewhere/b%2D1/"}}, "b-1"),
        ({"body": b"", "headers": {"Location": "http://["}}, None),
        ({"status": 204, "body": b""}, None),
        ({"status": 202, "body": {}}, None),
        ({"status": 299, "body": b""}, None),
        ({"body": {ID: 7}}, "7"),
        ({"body": {ID: "7"}}, "7"),
        ({"body": {ID: True}}, None),
        ({"body": {ID: None}}, None),
        ({"body": {ID: "a" * 129}}, None),
        ({"body": {ID: ".."}}, None),
        ({"body": {ID: "\U0001f600" * 20}}, None),  # takes too much of the results of a batch
        ({"body": b"", "headers": {"Location": "/" + "%F0%9F%98%80" * 20}}, None),
        ({"body": {ID: {"is": 7}}, "headers": {"Location": "/b-2"}}, "b-2"),
        ({"body": {"data": STORED}}, None),
        ({"body": [STORED]}, None),
        ({"body": "7"}, None),
        ({"body": b"Created.", "headers": {"Content-Type": "text/plain"}}, None),
        ({"body": b"<html>", "headers": {"Content-Type": "text/html"}}, None),
        ({"body": b'{"%s": "7", "na' % ID.encode()}, "7"),
        ({"body": b"{{"}, None),
        ({"body": b"\xff\xfe{"}, None),
        ({"body": b"[" * 100_000}, None),
        ({"body": b'{"%s": "\\ud800"}' % ID.encode()}, None),
        ({"body": b"\x01", "headers": {"Content-Encoding": "gzip"}}, None),
        ({"body": b"\x01", "headers": {"Content-Encoding": "x-unknown"}}, None),
    ],
)
async def test_a_success_that_cannot_be_read_is_posted_with_what_could_be_read_and_a_warning(
    attempt: Callable[..., Any], api: ScriptedApi, answer: dict[str, Any], business_id: str | None
) -> None:
    outcome = await attempt(**{"status": 201, **answer})
    assert isinstance(outcome, Posted)
    assert (outcome.id, outcome.business) == (business_id, None)
    assert outcome.warning is not None
    assert outcome.warning.startswith(f"{answer.get('status', 201)}: ")
    assert api.asked == ["POST"]


async def test_what_the_api_has_is_not_the_apps_to_refuse(attempt: Callable[..., Any]) -> None:
    """A record outside the caller's own limits, and with members that nobody knows, is read all the same."""
    stored = {**STORED, "created_by": "somebody"}
    outcome = await attempt(status=201, body=stored)
    assert (outcome.id, outcome.warning) == (STORED_ID, None)


async def test_a_bug_in_the_model_of_an_answer_does_not_have_the_record_sent_again(
    attempt: Callable[..., Any], api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told as a warning, since an exception would make the activity fail, and a failed attempt is repeated."""

    def fail(*_: object, **__: object) -> None:
        raise KeyError("PRIVATE")

    monkeypatch.setattr(Business, "model_dump", fail)
    outcome = await attempt(status=201, body=STORED)
    assert outcome == Posted(warning="201: KeyError in the model of the answer")
    assert api.asked == ["POST"]


async def test_a_byte_order_mark_is_ignored(attempt: Callable[..., Any]) -> None:
    outcome = await attempt(status=201, body=b"\xef\xbb\xbf" + json.dumps(STORED).encode())
    assert (outcome.id, outcome.warning) == (STORED_ID, None)


async def test_a_record_that_is_too_large_to_be_kept_is_left_out(
    attempt: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Business, "model_dump", lambda *_, **__: {**STORED, "text": "a" * SINGLE_LIMIT})
    outcome = await attempt(status=201, body=STORED)
    assert outcome == Posted(id=STORED_ID, business=None, truncated=True)


# Any other answer: the table


def expected(status: int) -> str:
    """What docs/delivery.md says of a status without a `Location`, in words of its own."""
    if status in {400, 413, 415, 422}:
        return "rejected"
    doubt = status in {303, 409} or (status >= 500 and status not in {501, 503, 505})
    return "deferred, may be stored" if doubt else "deferred"


def told(outcome: AttemptOutcome) -> str:
    assert not isinstance(outcome, Posted)
    return outcome.outcome + (", may be stored" if outcome.may_be_stored else "")


@pytest.mark.parametrize(
    "status",
    [
        *(300, 301, 302, 303, 307, 308),
        *(*range(400, 419), *range(421, 427), 428, 429, 431, 451, 499),
        *(500, 501, 502, 503, 504, 505, 506, 507, 508, 511, 520, 599),
    ],
)
async def test_a_status_judges_the_record_or_defers_it(
    attempt: Callable[..., Any], api: ScriptedApi, status: int
) -> None:
    outcome = await attempt(status=status, body={"title": "No", "detail": "because"}, headers=PROBLEM)
    assert told(outcome) == expected(status)
    assert outcome.problem == ProblemDetails(title="No", detail="because")
    assert api.asked == ["POST"]
    if isinstance(outcome, Deferred):
        path = api.requests[0].path
        assert outcome.reason.startswith(f"POST {path}: {status}")


@pytest.mark.parametrize("status", [413, 415])
async def test_size_and_type_of_the_body_are_judged_by_whoever_answers(
    attempt: Callable[..., Any], status: int
) -> None:
    outcome = await attempt(status=status, body=b"<html>", headers={"Content-Type": "text/html"})
    assert told(outcome) == "rejected"
    assert outcome.problem.status == status


@pytest.mark.parametrize("status", [400, 422])
@pytest.mark.parametrize("content_type", ["text/html", "Text/HTML; charset=utf-8"])
async def test_a_page_in_html_is_no_judgement_of_the_record(
    attempt: Callable[..., Any], status: int, content_type: str
) -> None:
    assert told(await attempt(status=status, body=b"<html>", headers={"Content-Type": content_type})) == "deferred"


async def test_no_answer_leaves_it_open_whether_the_record_is_stored(attempt: Callable[..., Any]) -> None:
    assert told(await attempt(status="drop")) == "deferred, may be stored"


async def test_without_a_connection_the_record_is_certainly_not_stored(
    unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with BusinessApi(f"http://127.0.0.1:{unused_tcp_port}") as client:
        monkeypatch.setattr("shared.business.business_api", client)
        assert told(await post_record(ATTEMPT)) == "deferred"


@pytest.mark.parametrize(
    "error",
    [SettingsError({"BUSINESS_API_BASE_URL": "missing"}), TokenError(401, "invalid_client", "no", retry_after=9.0)],
)
async def test_a_mistake_in_settings_or_credentials_defers(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def options() -> ClientOptions:
        raise error

    monkeypatch.setattr("shared.business.business_api", BusinessApi(options))
    outcome = await post_record(ATTEMPT)
    assert told(outcome) == "deferred"
    assert isinstance(outcome, Deferred)
    assert outcome.retry_after == getattr(error, "retry_after", None)


@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("x", None), ("-1", None)])
async def test_retry_after_is_passed_on(attempt: Callable[..., Any], header: str, seconds: float | None) -> None:
    outcome = await attempt(status=429, headers={"Retry-After": header})
    assert outcome.retry_after == seconds


@pytest.mark.parametrize(
    "header", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2026 00:00:00 +99999999999999999999"]
)
async def test_no_date_to_retry_after_is_an_exception(attempt: Callable[..., Any], header: str) -> None:
    assert (await attempt(status=503, headers={"Retry-After": header})).retry_after is None


# What the description of the API says


@pytest.mark.parametrize(
    ("status", "meaning", "becomes"),
    [
        (402, "rejects", "rejected"),
        (500, "rejects", "rejected"),
        (409, "rejects", "rejected"),
        (422, "defers", "deferred"),
        (413, "defers", "deferred"),
        (500, "defers", "deferred, may be stored"),
        (409, "defers", "deferred, may be stored"),
    ],
)
async def test_a_status_that_the_description_names_comes_first(
    attempt: Callable[..., Any], api: ScriptedApi, status: int, meaning: Any, becomes: str
) -> None:
    answers = Answers(statuses={status: meaning})
    headers = {"Location": "/businesses/7", "Content-Type": "text/html"}
    assert told(await attempt(answers=answers, status=status, headers=headers)) == becomes
    assert api.asked == ["POST"]


async def test_an_error_format_of_the_apis_own_is_read_as_problem_details(attempt: Callable[..., Any]) -> None:
    def read(error: ApiResponseError) -> ProblemDetails:
        return ProblemDetails(title="Refused", detail=json.loads(error.body)["message"])

    outcome = await attempt(answers=Answers(problem=read), status=422, body={"message": "no such country"})
    assert outcome == Rejected(status=422, problem=ProblemDetails(title="Refused", detail="no such country"))


async def test_an_error_format_that_cannot_be_read_is_shown_as_it_is(
    attempt: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    def read(error: ApiResponseError) -> ProblemDetails:
        return ProblemDetails(title=json.loads(error.body)["message"])

    outcome = await attempt(answers=Answers(problem=read), status=422, body={"msg": "no such country"})
    assert (outcome.outcome, outcome.excerpt) == ("rejected", '{"msg": "no such country"}')
    assert "error format could not be read: KeyError" in caplog.text


@pytest.mark.parametrize(
    ("content_type", "body", "excerpt"),
    [
        ("application/json", b'{"error": "vat"}', '{"error": "vat"}'),
        ("text/plain", b" no vat \n", "no vat"),
        ("application/vnd.acme+json", b"[1]", "[1]"),
        ("application/xml", b"<vat/>", "<vat/>"),
        ("text/html", b"\xff", "\ufffd"),
        ("application/octet-stream", b"\x00\x01", None),
        ("text/plain", b"", None),
    ],
)
async def test_what_the_api_says_without_problem_details_is_shown_but_not_logged(
    attempt: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
    content_type: str,
    body: bytes,
    excerpt: str | None,
) -> None:
    caplog.set_level(logging.DEBUG)
    outcome = await attempt(status=415, body=body, headers={"Content-Type": content_type})
    assert outcome.excerpt == excerpt
    assert excerpt is None or excerpt not in caplog.text
    assert outcome.problem.title == "Unsupported Media Type"


@pytest.mark.parametrize("status", [422, 503])
async def test_of_a_problem_the_log_gets_type_and_title_and_how_much_is_kept(
    attempt: Callable[..., Any], caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(logging.DEBUG)
    body: dict[str, Any] = {
        "type": "/bad\u202e",
        "title": "Bad\x1b]0;",
        "detail": "PRIVATE NAME is bad",
        "errors": ["PRIVATE NAME"],
    }
    outcome = await attempt(status=status, body=body, headers=PROBLEM)
    assert outcome.problem.detail == "PRIVATE NAME is bad"
    assert "PRIVATE" not in caplog.text + getattr(outcome, "reason", "")
    assert "Attempt key-1: problem /bad\\u202e, Bad\\x1b]0;, " in caplog.text
    assert f"{size(outcome.problem.model_dump(mode='json', exclude_none=True))} bytes kept" in caplog.text
    assert "\x1b" not in caplog.text


# 409


@pytest.mark.parametrize("location", ["/businesses/7", "http://elsewhere.example/v1/businesses/7/?a=b", "7", "/%37"])
async def test_a_409_for_a_record_that_is_there_is_posted(
    api: ScriptedApi, attempt: Callable[..., Any], location: str
) -> None:
    api.get = {"body": STORED}
    outcome = await attempt(status=409, headers={"Location": location})
    assert outcome == Posted(id=STORED_ID, business=STORED, replayed=True)
    assert api.asked == ["POST", "GET 7"]


async def test_a_409_for_another_record_rejects(api: ScriptedApi, attempt: Callable[..., Any]) -> None:
    api.get = {"body": {**STORED, **example(2)}}
    outcome = await attempt(status=409, headers={"Location": "/businesses/7"})
    assert (told(outcome), outcome.status) == ("rejected", 409)


@pytest.mark.parametrize(
    "get",
    [
        *({"status": status} for status in (301, 400, 401, 403, 404, 410, 422, 429, 500, 503, "drop")),
        *({"body": body} for body in list[Any]((b"", b"{", []))),
    ],
)
async def test_a_look_up_that_fails_says_nothing_of_the_record(
    api: ScriptedApi, attempt: Callable[..., Any], get: dict[str, Any]
) -> None:
    api.get = get
    outcome = await attempt(status=409, headers={"Location": "/businesses/7"})
    assert told(outcome) == "deferred, may be stored"
    assert outcome.reason.startswith("409; GET /")


async def test_a_409_with_a_page_in_html_is_no_judgement_of_the_record(attempt: Callable[..., Any]) -> None:
    duplicate, html = Answers(conflict="duplicate"), {"Content-Type": "text/html"}
    assert told(await attempt(answers=duplicate, status=409, body=b"<html>", headers=html)) == "deferred"


@pytest.mark.parametrize("location", [None, "", "/", "..", "/businesses/..", "http://[", "https://api.example", "/%00"])
async def test_a_409_that_names_no_record_means_what_the_description_says(
    api: ScriptedApi, attempt: Callable[..., Any], location: str | None
) -> None:
    headers = {} if location is None else {"Location": location}
    outcome = await attempt(status=409, headers=headers)
    assert told(outcome) == "deferred, may be stored"
    outcome = await attempt(answers=Answers(conflict="duplicate"), status=409, headers=PROBLEM | headers)
    assert (told(outcome), outcome.status) == ("rejected", 409)
    assert api.asked == ["POST", "POST"]


# Bounds


@pytest.mark.parametrize("status", [422, 503])
@pytest.mark.parametrize(
    "problem",
    [
        {"title": "Bad", "detail": "\u00e9" * 9000},
        {"title": "Bad", "errors": [{"field": f"f{n}", "detail": "is bad"} for n in range(2000)]},
        {"title": "t" * 9000, "type": "u" * 9000, "instance": "i" * 9000, "detail": "d" * 9000},
        {"title": "Bad", **{f"member{n}": n for n in range(2000)}},
        {"title": "Bad", "a": {"b": {"c": ["d" * 9000]}}},
    ],
)
async def test_a_large_problem_is_cut_to_what_durable_state_can_carry(
    attempt: Callable[..., Any], status: int, problem: dict[str, Any]
) -> None:
    outcome = await attempt(status=status, body=problem, headers=PROBLEM)
    assert outcome.truncated
    assert size(stored(outcome)) <= SINGLE_LIMIT
    assert outcome.problem.title == problem["title"] or problem["title"].startswith(outcome.problem.title)
    assert size(stored(outcome)) > SINGLE_LIMIT // 2  # and not to less


async def test_a_large_text_is_cut(attempt: Callable[..., Any]) -> None:
    outcome = await attempt(status=422, body=b"\xc3\xa9" * 9000)
    assert outcome.truncated
    assert outcome.excerpt.startswith("\u00e9")
    assert size(stored(outcome)) <= SINGLE_LIMIT


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity", "9" * 400])
async def test_numbers_that_the_engine_cannot_read_are_not_kept_as_numbers(
    attempt: Callable[..., Any], number: str
) -> None:
    outcome = await attempt(status=422, body=b'{"title": "Bad", "value": %s}' % number.encode(), headers=PROBLEM)
    json.dumps(outcome.model_dump(mode="json"), allow_nan=False)
    value = (outcome.problem.model_extra or {}).get("value")
    assert value is None or isinstance(value, str)


# What is sent


async def test_the_api_gets_record_key_and_nothing_that_is_not_set(
    api: ScriptedApi, attempt: Callable[..., Any]
) -> None:
    await attempt(status=201, body=STORED)
    (request,) = api.requests
    assert request.headers["Idempotency-Key"] == "key-1"
    assert json.loads(await request.read()) == RECORD


def test_the_page_on_delivery_shows_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "delivery.md").read_text(encoding="utf-8")
    rows = [
        f"| {rule.answer} | `{rule.outcome}` | {'yes' if rule.may_be_stored else ''} |".replace("|  |", "| |")
        for rule in TABLE
    ]
    assert "\n".join(rows) in page


@pytest.mark.parametrize("status", [0, 99, 100, 101, 600, 999])
def test_there_is_a_rule_for_every_status(status: int) -> None:
    assert rule_for(status, html=False, answers=Answers()).outcome == "deferred"


def test_a_yes_that_another_version_of_the_activity_has_returned_stays_one() -> None:
    assert isinstance(parse_outcome({"outcome": "posted", "business": 7}), Posted)
    for unreadable in ({"outcome": "rejected"}, {"outcome": "later"}, None):
        with pytest.raises(ValueError, match=r"expected an outcome|valid"):
            parse_outcome(unreadable)
