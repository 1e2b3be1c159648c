"""The example model: what it accepts and how it is read. Whoever has another model has other tests here."""

from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from function_app import PostBusiness
from shared.business import Business, BusinessApi, NewBusiness, assigned, example
from shared.delivery.records import accepted
from shared.rest import ClientOptions


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"registration_number": ""}, "registration_number"),
        ({"registration_number": "x" * 65}, "registration_number"),
        ({"name": " "}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"country": "Germany"}, "country"),
        ({"country": "de"}, "country"),
        ({"email": "nobody"}, "email"),
        ({"website": "ftp://acme.example"}, "website"),
        ({"employees": -1}, "employees"),
        ({"employees": 1.5}, "employees"),
    ],
)
def test_a_bad_field_is_refused(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as raised:
        NewBusiness.model_validate(example() | change)
    assert [error["loc"] for error in raised.value.errors()] == [(field,)]


def test_a_record_is_accepted_without_blanks_around_its_texts_and_without_null() -> None:
    business = NewBusiness.model_validate(example() | {"name": " Bäckerei Morgenrot GmbH ", "email": None})
    assert accepted(business) == example() | {"name": "Bäckerei Morgenrot GmbH"}


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
