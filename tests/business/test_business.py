"""The example model: how what the API has is read."""

from typing import Any

import httpx
import pytest

from function_app import PostBusiness
from shared.business import Business, BusinessApi, assigned, example
from shared.rest import ClientOptions


@pytest.mark.parametrize("more", [{}, {"country": "de", "name": "x" * 300, "unknown": {"a": [1]}}])
def test_what_the_api_has_is_read_leniently(more: dict[str, Any]) -> None:
    stored = assigned() | example() | more
    assert Business.model_validate(stored).name == stored["name"]


async def test_a_record_that_the_api_has_without_a_field_that_was_sent_is_another_record(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(200, json=assigned() | example())
        return httpx.Response(409, headers={"Location": "/businesses/b-1"})

    options = ClientOptions(base_url="https://api.example.com", transport=lambda: httpx.MockTransport(answer))
    monkeypatch.setattr("shared.business.business_api", BusinessApi(options))
    with_more = example() | {"email": "office@acme.example"}
    assert (await PostBusiness({"record": with_more, "idempotency_key": "k"}))["outcome"] == "rejected"
