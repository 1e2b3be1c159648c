"""The example model: what it takes from callers and what it refuses."""

import json
from typing import Any

import pytest
from jsonschema_rs import is_valid

from shared.business import NewBusiness, example
from shared.operations.openapi import document
from shared.operations.problems import RequestError
from shared.operations.requests import read_business

HEADERS = {"Content-Type": "application/json"}
FULL = {**example(1), "email": "info@acme.example", "website": "https://acme.example/de", "employees": 0}
SCHEMA = document("/api") | {"$ref": "#/components/schemas/NewBusiness"}


def read(record: dict[str, Any]) -> NewBusiness:
    return read_business(HEADERS, json.dumps(record).encode())


def test_a_record_with_all_fields_is_taken_as_it_was_sent() -> None:
    assert read(FULL).model_dump() == FULL


@pytest.mark.parametrize(
    "changed",
    [
        {"registration_number": ""},
        {"registration_number": " HRB 1"},
        {"registration_number": "HRB 1\n"},
        {"registration_number": "\u00a0HRB 1"},
        {"registration_number": "x" * 65},
        {"registration_number": 1001},
        {"name": "   "},
        {"name": "Acme\tGmbH "},
        {"name": "Acme\nGmbH"},
        {"name": None},
        {"country": "de"},
        {"country": "DE "},
        {"country": "Germany"},
        {"email": "info"},
        {"email": " info@acme.example"},
        {"website": "ftp://acme.example"},
        {"website": "https://acme.example "},
        {"employees": -1},
        {"employees": True},
        {"employees": "42"},
        {"employees": " 0042 "},
        {"employees": "1_000"},
        {"employees": "42.0"},
        {"employees": 42.5},
    ],
)
def test_a_value_that_would_have_to_be_changed_is_refused_by_the_app_and_by_its_document(
    changed: dict[str, Any],
) -> None:
    with pytest.raises(RequestError) as raised:
        read({**FULL, **changed})
    assert [error["field"] for error in raised.value.problem.model_dump(exclude_none=True)["errors"]] == list(changed)
    assert not is_valid(SCHEMA, {**FULL, **changed})


def test_white_space_at_an_end_is_named() -> None:
    with pytest.raises(RequestError) as raised:
        read({**FULL, "name": "Acme "})
    (error,) = raised.value.problem.model_dump(exclude_none=True)["errors"]
    assert error["detail"].endswith("it has white space at an end")


@pytest.mark.parametrize("name", ["A", "Acme  GmbH", "Müller & Söhne", "株式会社", "x" * 200])
def test_names_are_taken_as_they_are(name: str) -> None:
    assert read({**FULL, "name": name}).name == name
    assert is_valid(SCHEMA, {**FULL, "name": name})
