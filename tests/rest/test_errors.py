"""What errors say, and what they keep to themselves."""
# mypy: disable-error-code="empty-body"

import json
import pickle
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import httpx
import pytest

from shared.rest import (
    ApiClient,
    ApiDecodeError,
    ApiError,
    ApiResponse,
    ApiResponseError,
    ApiTimeoutError,
    ApiTransportError,
    ClientOptions,
    ProblemDetails,
    get,
)

type AnswerWith = Callable[[bytes], Awaitable[str]]

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Api(ApiClient):
    @get("/items/{item_id}?version=7")
    async def get_item(self, item_id: str, key: str | None = None) -> ApiResponse[dict[str, int]]: ...


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status} Any reason", f"Content-Length: {len(body)}", "Connection: close", *headers, "", ""]
    return "\r\n".join(head).encode() + body


async def error_of(url: str, item_id: str = "1", key: str | None = None) -> ApiError:
    async with Api(ClientOptions(base_url=url, clock=NOW.timestamp)) as api:
        response = await api.get_item(item_id, key)
    assert response.content is None
    assert response.error is not None
    with pytest.raises(type(response.error)) as caught:
        response.unwrap()
    assert caught.value is response.error
    return response.error


async def test_an_error_names_method_url_and_reason_but_no_value_of_the_query(answer_with: AnswerWith) -> None:
    url = await answer_with(answer(404))
    error = await error_of(url, "a/b", key="secret")
    assert str(error) == f"GET {url}/items/a%2Fb?version=***&key=***: 404 Not Found"
    assert (error.method, error.status, error.problem) == ("GET", 404, None)


async def test_a_problem_is_parsed_and_its_kind_is_told_but_not_its_detail(answer_with: AnswerWith) -> None:
    body = b'{"type": "https://e.example/full", "title": "Full", "status": 507, "detail": "No\\nroom", "left": 3}'
    url = await answer_with(answer(507, body, "Content-Type: application/problem+json; charset=utf-8"))
    error = await error_of(url)
    assert error.reason == "507 Insufficient Storage: Full (https://e.example/full)"
    assert error.problem == ProblemDetails(
        type="https://e.example/full", title="Full", status=507, detail="No\nroom", left=3
    )
    assert error.problem.model_extra == {"left": 3}
    assert error.body == body


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"{}", ProblemDetails()),
        (b'{"type": 5, "title": ["a"], "status": "x", "detail": {}}', ProblemDetails()),
        (b"[]", None),
        (b"{", None),
        (b"", None),
    ],
)
async def test_members_of_a_wrong_type_are_ignored_and_a_broken_problem_is_none(
    answer_with: AnswerWith, document: bytes, problem: ProblemDetails | None
) -> None:
    url = await answer_with(answer(400, document, "Content-Type: application/problem+json"))
    assert (await error_of(url)).problem == problem


async def test_a_byte_order_mark_before_a_problem_is_ignored(answer_with: AnswerWith) -> None:
    url = await answer_with(answer(400, b'\xef\xbb\xbf{"title": "Full"}', "Content-Type: application/problem+json"))
    assert (await error_of(url)).problem == ProblemDetails(title="Full")


@pytest.mark.parametrize(
    ("member", "extra"),
    [
        (b"1e999", None),
        (b"[-1e999]", [None]),
        (b"1, " + b'"x": 2', 2),
    ],
)
async def test_a_problem_with_odd_members_can_be_written_again(
    answer_with: AnswerWith, member: bytes, extra: object
) -> None:
    url = await answer_with(answer(400, b'{"x": ' + member + b"}", "Content-Type: application/problem+json"))
    problem = (await error_of(url)).problem
    assert problem is not None
    assert problem.model_extra == {"x": extra}
    json.dumps(problem.model_dump(mode="json"), allow_nan=False)


@pytest.mark.parametrize(
    "member", [b"NaN", b"Infinity", b"9" * 4301, b'{"a":' * 10_000, b"[" * 10_000, b'"\\ud800"', b'"\xff"']
)
async def test_a_problem_that_is_not_json_is_none(answer_with: AnswerWith, member: bytes) -> None:
    url = await answer_with(answer(400, b'{"status": ' + member + b"}", "Content-Type: application/problem+json"))
    error = await error_of(url)
    assert (type(error), error.status, error.problem) == (ApiResponseError, 400, None)


async def test_what_a_server_says_cannot_act_on_a_terminal(answer_with: AnswerWith) -> None:
    title = json.dumps({"title": "\x1b]0;a\x07\0\u202e\r\nINFO forged" + "x" * 2000}).encode()
    ids = ("X-Request-Id: r\x1b[2J" + "y" * 1000,)
    error = await error_of(await answer_with(answer(400, title, "Content-Type: application/problem+json", *ids)))
    assert "INFO forged" in error.reason
    assert (str(error).isprintable(), len(error.reason) < 1000) == (True, True)
    assert error.request_id is not None
    assert error.request_id.startswith("r\\x1b[2Jyyy")
    assert len(error.request_id) == 200


async def test_an_unexpected_media_type_cannot_act_on_a_terminal(answer_with: AnswerWith) -> None:
    error = await error_of(await answer_with(answer(200, b"x", "Content-Type: text/\x1b[2J\x7f")))
    assert error.reason == "expected JSON, got text/\\x1b[2j\\x7f"


async def test_json_that_is_no_problem_is_not_taken_for_one(answer_with: AnswerWith) -> None:
    url = await answer_with(answer(400, b'{"title": "Full"}', "Content-Type: application/json"))
    assert (await error_of(url)).problem is None


async def test_an_error_keeps_the_first_64_kib_of_the_body_and_does_not_show_them(answer_with: AnswerWith) -> None:
    error = await error_of(await answer_with(answer(500, b"secret" * 20_000)))
    assert len(error.body) == 65536
    assert "secret" not in str(error) + repr(error)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [(status, False) for status in (400, 401, 404, 409, 422)]
    + [(status, True) for status in (408, 425, 429, 500, 503)],
)
async def test_an_error_tells_whether_a_retry_can_help(answer_with: AnswerWith, status: int, retryable: bool) -> None:
    error = await error_of(await answer_with(answer(status)))
    assert (type(error), error.status, error.retryable, error.sent) == (ApiResponseError, status, retryable, True)


async def test_an_error_tells_when_to_retry_and_the_request_id(answer_with: AnswerWith) -> None:
    error = await error_of(await answer_with(answer(503, b"", "Retry-After: 120", "X-Request-Id: r-1")))
    assert (error.retry_after, error.request_id) == (120.0, "r-1")


@pytest.mark.parametrize("kind", [ApiError, ApiResponseError, ApiDecodeError, ApiTransportError, ApiTimeoutError])
def test_errors_cross_processes(kind: type[ApiError]) -> None:
    error = kind(
        "503 Service Unavailable",
        method="POST",
        url="https://api.example/items",
        status=503,
        headers=httpx.Headers({"X-Request-Id": "r-1"}),
        body=b"busy",
        problem=ProblemDetails(title="Busy", queue=3),
        retryable=True,
        retry_after=2.5,
        sent=False,
    )
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert type(copied) is kind
    assert str(copied) == str(error) == "POST https://api.example/items: 503 Service Unavailable"
    assert vars(copied) == vars(error)
    assert copied.request_id == "r-1"


def test_responses_cross_processes() -> None:
    response = ApiResponse(200, httpx.Headers({"A": "b"}), {"a": 1})
    assert pickle.loads(pickle.dumps(response)) == response  # noqa: S301
