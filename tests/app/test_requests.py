"""What callers send is accepted, or refused in one answer that says where and what."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.business import NATURAL_KEY, NewBusiness, assigned, example
from shared.operations.problems import RequestError
from shared.operations.requests import MAX_BODY_BYTES, read_business, read_operation_id

RECORD = example()


def refusal_of(body: bytes, content_type: str | None = "application/json") -> RequestError:
    with pytest.raises(RequestError) as raised:
        read_business(content_type, body)
    return raised.value


def fields_of(refusal: RequestError) -> list[str]:
    return [error["field"] for error in refusal.problem.model_dump()["errors"]]


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=utf-8", "application/vnd.acme.business+json"]
)
def test_a_valid_record_is_read(content_type: str) -> None:
    business = read_business(content_type, json.dumps(RECORD).encode())
    assert business == NewBusiness.model_validate(RECORD)


def test_every_bad_field_is_named_in_one_answer() -> None:
    refusal = refusal_of(json.dumps({**RECORD, NATURAL_KEY: [], "unknown": "1"}).encode())
    assert refusal.status == 400
    assert fields_of(refusal) == [NATURAL_KEY, "unknown"]


def test_the_id_is_not_the_callers_to_choose() -> None:
    assert fields_of(refusal_of(json.dumps({**RECORD, **assigned()}).encode())) == [*assigned()]


def test_malformed_json_is_refused_with_its_position() -> None:
    refusal = refusal_of(b'{"name": "Acme",\n "country" "DE"}')
    assert refusal.status == 400
    assert "line 2 column" in str(refusal)


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b'"text"', b"7", b"\xff\xfe{", b'{"name": NaN}'])
def test_a_body_that_is_no_record_is_a_400(body: bytes) -> None:
    assert refusal_of(body).status == 400


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "json"])
def test_another_content_type_is_a_415(content_type: str | None) -> None:
    assert refusal_of(json.dumps(RECORD).encode(), content_type).status == 415


def test_a_body_over_the_limit_is_a_413() -> None:
    body = json.dumps(RECORD).encode()
    assert refusal_of(body + b" " * (MAX_BODY_BYTES - len(body) + 1)).status == 413
    assert read_business("application/json", body + b" " * (MAX_BODY_BYTES - len(body)))


JSON_VALUES = st.recursive(st.none() | st.text() | st.integers(), st.lists)


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_body_holds_a_400_is_the_worst(body: bytes) -> None:
    assert refusal_of(body).status == 400


def test_without_a_key_every_operation_has_an_id_of_its_own() -> None:
    assert read_operation_id(None) != read_operation_id(None)


@pytest.mark.parametrize(("one", "other"), [("abc", "abc"), ('"abc"', "abc"), (" abc ", "abc")])
def test_the_same_key_finds_the_same_operation_quoted_or_not(one: str, other: str) -> None:
    assert read_operation_id(one) == read_operation_id(other)


def test_another_key_is_another_operation() -> None:
    assert read_operation_id("abc") != read_operation_id("ABC")


@pytest.mark.parametrize("key", ["", "  ", '""', "x" * 256, "ключ", "a\tb"])
def test_a_key_that_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(RequestError, match="Idempotency-Key"):
        read_operation_id(key)
