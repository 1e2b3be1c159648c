"""Media types and request ids are read from the fields of a message."""

import httpx
import pytest

from shared.http.media_types import is_json, media_type
from shared.http.request_ids import request_id


@pytest.mark.parametrize(
    ("content_type", "name", "json"),
    [
        ("application/json", "application/json", True),
        ("Application/JSON; charset=utf-8", "application/json", True),
        ("application/problem+json", "application/problem+json", True),
        ("text/json", "text/json", True),
        ("text/html;charset=x", "text/html", False),
        ("application/jsonl", "application/jsonl", False),
        ("", "", False),
        (None, "", False),
    ],
)
def test_a_content_type_is_compared_without_case_and_parameters(
    content_type: str | None, name: str, json: bool
) -> None:
    assert (media_type(content_type), is_json(content_type)) == (name, json)


def test_the_request_id_is_found_by_any_of_its_usual_names() -> None:
    assert request_id(httpx.Headers({"x-correlation-id": "c"})) == "c"
    assert request_id(httpx.Headers({"x-correlation-id": "c", "X-MS-Request-Id": "m"})) == "m"
    assert request_id(httpx.Headers()) is None
