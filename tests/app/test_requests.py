"""What callers send is accepted, or refused in one answer that says where and what; whatever the model is."""

import json
from datetime import date
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict

from shared.business import NATURAL_KEY, assigned, example
from shared.delivery.records import accepted
from shared.delivery.results import ItemInvalid
from shared.operations.problems import RequestError
from shared.operations.requests import (
    MAX_BODY_BYTES,
    MAX_ERRORS,
    MAX_UNKNOWN_MEMBERS,
    Corrections,
    is_known,
    read_batch,
    read_business,
    read_flag,
    read_number,
    read_operation_id,
    read_page,
    read_preferred_wait,
)
from tests.sandboxed import business

JSON = {"Content-Type": "application/json", "Content-Length": "1"}
NDJSON = {"Content-Type": "application/x-ndjson", "Content-Length": "1"}


class Kind(Enum):
    SMALL = "small"
    LARGE = "large"


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    count: int


class Sample(BaseModel):
    """A record with a field of each of the types that people use."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str
    count: int | None = None
    share: float | None = None
    price: Decimal | None = None
    founded: date | None = None
    kind: Kind | None = None
    uuid: UUID | None = None
    active: bool | None = None
    part: Part | None = None
    numbers: list[int] | None = None


def sample(**members: Any) -> bytes:
    return json.dumps({"name": "Acme", **members}).encode()


def refusal_of(body: bytes, model: type[BaseModel] = Sample) -> RequestError:
    with pytest.raises(RequestError) as raised:
        read_business(JSON, body, model)
    return raised.value


def batch_refusal_of(body: bytes, headers: dict[str, str] = JSON, *, skip_invalid: bool = False) -> RequestError:
    with pytest.raises(RequestError) as raised:
        list(read_batch(headers, body, skip_invalid=skip_invalid, model=Sample))
    return raised.value


def errors_of(refusal: RequestError) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = refusal.problem.model_dump(exclude_none=True)["errors"]
    return errors


def invalid_indexes(records: list[Any]) -> list[int]:
    return [index for index, record in enumerate(records) if isinstance(record, ItemInvalid)]


def test_a_valid_record_is_read() -> None:
    assert accepted(read_business(JSON, json.dumps(example(7)).encode())) == example(7)


def test_every_bad_field_is_named_in_one_answer() -> None:
    refusal = refusal_of(b'{"count": "seven", "kind": "huge", "phone": "1", "part": {"count": null}}')
    assert refusal.status == 400
    assert [error["field"] for error in errors_of(refusal)] == ["name", "count", "kind", "part.count", "phone"]
    assert refusal.problem.model_dump()["errors_total"] == 5
    assert str(refusal) == "not a valid record, see name, count, kind, part.count, phone"


def test_the_id_is_not_the_callers_to_choose() -> None:
    (name, number), *_ = assigned().items()
    (error,) = errors_of(refusal_of(sample(**{name: number})))
    assert error == {"field": name, "detail": "Assigned by the API: leave it out"}


def test_malformed_json_is_refused_with_its_position() -> None:
    refusal = refusal_of(b'{"name": "Acme",\n "country" "DE"}')
    assert refusal.status == 400
    assert "line 2 column 12" in str(refusal)


@pytest.mark.parametrize("body", [b"", b" ", b"[]", b"null", b'"text"', b"7", b'{"name": NaN}', b"{}{}", b"{} x"])
def test_a_body_that_is_no_record_is_a_400(body: bytes) -> None:
    assert refusal_of(body).status == 400


def test_a_body_over_the_limit_is_a_413() -> None:
    body = sample()
    assert refusal_of(body + b" " * (MAX_BODY_BYTES - len(body) + 1)).status == 413
    assert read_business(JSON, body + b" " * (MAX_BODY_BYTES - len(body)), Sample)


JSON_VALUES = st.recursive(st.none() | st.text() | st.integers() | st.floats(), st.lists)


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
def test_whatever_the_body_holds_a_refusal_is_the_worst(body: bytes) -> None:
    assert refusal_of(body).status in {400, 415}
    for headers in (JSON, NDJSON):
        assert batch_refusal_of(body, headers).status in {400, 415}


# Values arrive as they were sent, or are refused.


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("count", True),
        ("count", "42"),
        ("count", " 0042 "),
        ("count", "1_000"),
        ("count", "42.0"),
        ("count", 42.0),
        ("share", "0.5"),
        ("share", True),
        ("active", 1),
        ("active", "yes"),
        ("name", 7),
        ("name", None),
        ("founded", 0),
        ("founded", "2026-01-31T10:00:00"),
        ("kind", "SMALL"),
        ("numbers", [1, "2"]),
    ],
)
def test_a_value_of_another_type_is_refused_and_named(field: str, value: object) -> None:
    errors = errors_of(refusal_of(sample(**{field: value})))
    assert errors[0]["field"].split(".")[0] == field
    (of_batch,) = errors_of(batch_refusal_of(b"[" + sample() + b"," + sample(**{field: value}) + b"]"))
    assert of_batch == {"index": 1, **errors[0]}


ALL_TYPES = {
    "name": " Acme\n",
    "count": 2**70,
    "share": 0.5,
    "price": "12.30",
    "founded": "2026-01-31",
    "kind": "small",
    "uuid": "7f1f4c0e-6b1f-4f0c-8a52-0d9a4e1c9f11",
    "active": True,
    "part": {"count": 1},
    "numbers": [1, 2],
}


def test_strict_models_take_what_json_has_no_type_for_in_batches_too() -> None:
    alone = read_business(JSON, json.dumps(ALL_TYPES).encode(), Sample)
    assert alone.model_dump(mode="json") == ALL_TYPES
    assert (alone.founded, alone.price, alone.kind) == (date(2026, 1, 31), Decimal("12.30"), Kind.SMALL)
    assert list(read_batch(JSON, json.dumps([ALL_TYPES, ALL_TYPES]).encode(), model=Sample)) == [alone, alone]
    assert list(read_batch(NDJSON, json.dumps(ALL_TYPES).encode() + b"\r\n\n", model=Sample)) == [alone]


@given(st.text(), st.integers(), st.none() | st.floats(allow_nan=False, allow_infinity=False), st.booleans())
def test_what_is_accepted_is_what_was_sent(name: str, count: int, share: float | None, active: bool) -> None:
    sent = {"name": name, "count": count, "share": share, "active": active}
    record = read_business(JSON, json.dumps(sent).encode(), Sample)
    assert record.model_dump(mode="json", include=set(sent)) == sent


def test_null_for_what_is_optional_is_as_if_it_were_not_sent() -> None:
    record = read_business(JSON, sample(count=None), Sample)
    assert record.model_dump(exclude_none=True) == {"name": "Acme"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 400, "9" * 5000])
@pytest.mark.parametrize("field", ["share", "count", "unknown"])
def test_what_is_no_number_or_fits_no_double_spoils_its_own_record_only(field: str, number: str) -> None:
    bad = f'{{"name": "Acme", "{field}": {number}}}'.encode()
    assert refusal_of(bad).status == 400
    records = list(
        read_batch(JSON, b"[" + sample() + b"," + bad + b"," + sample() + b"]", skip_invalid=True, model=Sample)
    )
    assert invalid_indexes(records) == [1]
    assert records[1].field == field  # type: ignore[union-attr]
    assert "number" in records[1].detail  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "number",
    ["0.1234567890123456789", "12345678901234567890.12", "1e-400", "1e-99999999999999999999", "0.10000000000000001"],
)
@pytest.mark.parametrize("body", ['{"price": %s}', '{"unknown": {"price": %s}}', '{"price": [0.5, %s]}'])
def test_a_number_with_more_digits_than_a_double_carries_is_refused_and_named(body: str, number: str) -> None:
    (error,) = errors_of(refusal_of((body % number).encode()))
    assert error["field"] == "price"
    assert "a double carries" in error["detail"]


def test_of_two_bad_numbers_the_first_is_named() -> None:
    body = b'{"name": [[NaN]], "count": NaN, "share": 0.1234567890123456789}'
    assert [error["field"] for error in errors_of(refusal_of(body))] == ["(record)"]
    body = b'{"name": "a", "count": NaN, "share": 0.1234567890123456789}'
    assert [error["field"] for error in errors_of(refusal_of(body))] == ["count"]


@pytest.mark.parametrize("number", ["119.10", "1e2", "-0.0", "1.7976931348623157e308", "5e-324", "0.1", "1E+2"])
def test_a_number_that_a_double_carries_is_taken(number: str) -> None:
    record = read_business(JSON, b'{"name": "a", "share": %s}' % number.encode(), Sample)
    assert Decimal(repr(record.share)) == Decimal(number)


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63 - 1, 2**64 + 1, 10**300 + 1])
def test_integers_are_kept_exactly_however_large(number: int) -> None:
    record = read_business(JSON, sample(count=number), Sample)
    assert json.loads(json.dumps(record.model_dump(mode="json", exclude_none=True)))["count"] == number


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b'{"name": "a", "name": "a"}', "name"),
        (b'{"name": "a", "count": 1, "c\\u006funt": 2}', "count"),
        (b'{"name": "a", "part": {"count": 1, "count": 1}}', "count"),
        (b'{"name": "a", "numbers": [{"x": {"y": 1, "z": 1, "y": 1}}]}', "y"),
    ],
)
def test_a_member_that_comes_twice_is_refused_by_its_name_at_any_depth(body: bytes, name: str) -> None:
    refusal = refusal_of(body)
    assert refusal.status == 400
    assert [error["field"] for error in errors_of(refusal)] == [name]
    for headers, separator in ((JSON, b","), (NDJSON, b"\n")):
        records = separator.join([sample(), body, sample()])
        given_ = b"[" + records + b"]" if headers is JSON else records
        assert [(error["index"], error["field"]) for error in errors_of(batch_refusal_of(given_, headers))] == [
            (1, name)
        ]


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("null", "null"),
        ("true", "true"),
        ("false", "false"),
        ("-1.5", "a number"),
        ('"text"', "a string"),
        ("[{}]", "an array"),
    ],
)
def test_a_record_of_another_type_is_refused_with_what_was_expected_and_what_came(text: str, got: str) -> None:
    told = {"field": "(record)", "detail": f"expected an object, got {got}"}
    assert errors_of(refusal_of(text.encode())) == [told]
    assert errors_of(batch_refusal_of(b"[%s, %s]" % (sample(), text.encode()))) == [{"index": 1, **told}]
    assert errors_of(batch_refusal_of(b"%s\n%s" % (sample(), text.encode()), NDJSON)) == [
        {"index": 1, "line": 2, **told}
    ]


def test_errors_in_lines_name_the_physical_line_and_blank_ones_count() -> None:
    body = b"\xef\xbb\xbf\n" + sample() + b"\r\n \t\r\n\rnull\n\n{}\n" + b'{"name": }' + b'\n{"name": "\xff"}'
    told = [(error["index"], error["line"], error["field"]) for error in errors_of(batch_refusal_of(body, NDJSON))]
    assert told == [(1, 5, "(record)"), (2, 7, "name"), (3, 8, "(record)"), (4, 9, "(record)")]
    assert errors_of(batch_refusal_of(body, NDJSON))[2]["detail"].endswith("at line 8 column 10")
    records = list(read_batch(NDJSON, body, skip_invalid=True, model=Sample))
    assert [record.line for record in records if isinstance(record, ItemInvalid)] == [5, 7, 8, 9]


def test_a_lone_surrogate_spoils_its_own_record_only() -> None:
    body = b"[" + sample() + b', {"name": "\\ud800"}, {"name": "\\ud83d\\ude00"}]'
    records = list(read_batch(JSON, body, skip_invalid=True, model=Sample))
    assert invalid_indexes(records) == [1]
    assert records[2] == Sample(name="\N{GRINNING FACE}")


def test_a_line_that_is_no_json_or_no_utf8_is_an_error_of_its_own_index() -> None:
    lines = [sample(), b'{"name": ', b'{"name": "\xff"}', b"\xef\xbb\xbf{}", b"{}{}", sample()]
    refusal = batch_refusal_of(b"\n".join(lines), NDJSON)
    assert [error["index"] for error in errors_of(refusal)] == [1, 2, 3, 4]
    assert "0xff at byte 11" in errors_of(refusal)[1]["detail"]
    assert invalid_indexes(list(read_batch(NDJSON, b"\n".join(lines), skip_invalid=True, model=Sample))) == [1, 2, 3, 4]


@pytest.mark.parametrize("body", [b"[{}", b"[{},]", b"[{} {}]", b"[,]", b"[{}]x", b"[{}}", b"[", b"]"])
def test_an_array_that_is_no_json_is_refused_as_a_whole(body: bytes) -> None:
    assert batch_refusal_of(body, skip_invalid=True).problem.title == "Malformed JSON"


@pytest.mark.parametrize("body", [b"[]", b" [ ] ", b"{}", b"7", b'"[]"'])
def test_what_is_no_array_of_records_is_refused_as_a_whole(body: bytes) -> None:
    assert batch_refusal_of(body).problem.title == "Invalid batch"


# Refusals are bounded, whatever is sent.


def test_a_refusal_lists_a_hundred_errors_and_says_how_many_there_are() -> None:
    body = sample(numbers=["x"] * 5000)
    refusal = refusal_of(body)
    assert (len(errors_of(refusal)), refusal.problem.model_dump()["errors_total"]) == (MAX_ERRORS, 5000)
    assert len(str(refusal)) < 300
    of_batch = batch_refusal_of(b"[" + b",".join([body] * 50) + b"]")
    assert (len(errors_of(of_batch)), of_batch.problem.model_dump()["errors_total"]) == (MAX_ERRORS, 250_000)
    assert str(of_batch) == "50 of 50 records are invalid, nothing was started"


def test_a_record_with_many_members_that_its_model_has_not_is_one_error() -> None:
    most = len(Sample.model_fields) + MAX_UNKNOWN_MEMBERS
    few, many = ({str(n): n for n in range(members)} for members in (most - 1, most))
    assert len(errors_of(refusal_of(sample(**few)))) == MAX_ERRORS
    (error,) = errors_of(refusal_of(sample(**many)))
    assert error == {"field": "(record)", "detail": f"expected a record of at most {most} members, got {most + 1}"}


def test_a_record_of_a_batch_may_be_as_large_as_one_alone() -> None:
    largest = sample(name="x" * (MAX_BODY_BYTES - len(sample(name=""))))
    assert list(read_batch(JSON, b"[" + largest + b"]", model=Sample)) == [read_business(JSON, largest, Sample)]
    larger = largest.replace(b"x", b"xx", 1)
    assert refusal_of(larger).status == 413
    assert [error["field"] for error in errors_of(batch_refusal_of(b"[" + larger + b"]"))] == ["(record)"]


@pytest.mark.parametrize("name", ["x" * 100_000, "\x1b[2J", "a\u202eb", "\ud800", "a\nb", ""])
def test_names_in_errors_are_short_and_printable(name: str) -> None:
    for body in (
        json.dumps({"name": "Acme", name: 1}),
        f'{{"name": "Acme", {json.dumps(name)}: 1, {json.dumps(name)}: 1}}',
    ):
        (error,) = errors_of(refusal_of(body.encode()))
        assert len(error["field"]) <= 100
        assert error["field"].isprintable()
        assert len(refusal_of(body.encode()).problem.model_dump_json()) < 1000


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 5_000_000,
        b'[{"name":' + b"[" * 100_000 + b"]" * 100_000 + b"}]",
        b'{"a":' * 100_000,
        b'[{"name": "Acme", "part": ' + b'{"count":' * 900 + b"1" + b"}" * 900 + b"}]",
        b'[{"name": "Acme", "count": ' + b"9" * 9_000_000 + b"}]",
        b'[{"' + b"x" * 9_000_000 + b'": 1}]',
        b"[" + b"{}," * 3_000_000 + b"{}]",
        b"[" + b",".join(b"{%s}" % b",".join(b'"a%d":1' % n for n in range(25_000)) for _ in range(36)) + b"]",
    ],
    ids=["open", "nested-array", "nested-object", "nested-model", "digits", "name", "records", "members"],
)
def test_a_body_that_is_made_to_hurt_is_refused_in_a_short_answer(body: bytes) -> None:
    refusal = batch_refusal_of(body)
    assert refusal.status in {400, 413}
    assert len(refusal.problem.model_dump_json()) < 50_000


# Batches of which the invalid records are skipped.


def test_every_position_of_a_batch_has_its_record_or_its_first_error() -> None:
    body = b"[" + b",".join([sample(name="a"), b"{}", sample(count="x", share="x"), sample(name="b")]) + b"]"
    records = list(read_batch(JSON, body, skip_invalid=True, model=Sample))
    assert records == [
        Sample(name="a"),
        ItemInvalid(field="name", detail="Field required"),
        ItemInvalid(field="count", detail="Input should be a valid integer"),
        Sample(name="b"),
    ]


def test_more_errors_than_are_listed_are_kept_all_the_same_one_for_each_record() -> None:
    body = b"[" + b",".join([sample(), *[b"{}"] * 300]) + b"]"
    records = list(read_batch(JSON, body, skip_invalid=True, model=Sample))
    assert records[1:] == [ItemInvalid(field="name", detail="Field required")] * 300


def test_a_batch_without_a_valid_record_is_refused_even_if_invalid_ones_are_skipped() -> None:
    assert batch_refusal_of(b"[{}, {}]", skip_invalid=True).problem.model_dump()["errors_total"] == 2


# Corrections and keys.


def test_a_correction_is_read_as_a_record_is() -> None:
    assert Corrections(JSON, json.dumps(example(8)).encode()).record() == business(8)
    twice = json.dumps(example(8))[:-1] + f', "{NATURAL_KEY}": 1}}'
    with pytest.raises(RequestError, match=NATURAL_KEY):
        Corrections(JSON, twice.encode()).record()
    with pytest.raises(RequestError, match="1 of 1 records"):
        Corrections(JSON, f'[{{"index": 0, "record": {twice}}}]'.encode()).records(1)


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "0"}, {"Content-Length": "0", **JSON}])
def test_without_a_body_nothing_is_corrected(headers: dict[str, str]) -> None:
    assert Corrections(headers, b"").record() is None
    assert Corrections(headers, b"").records(1) == {}


@pytest.mark.parametrize("sign", [{"Content-Type": "application/json"}, {"Transfer-Encoding": "chunked"}])
def test_a_correction_that_was_lost_on_its_way_is_not_taken_for_none(sign: dict[str, str]) -> None:
    lost = Corrections(sign, b"")
    for read in (lost.record, lambda: lost.records(1)):
        with pytest.raises(RequestError) as raised:
            read()
        assert raised.value.status == 411


@pytest.mark.parametrize("query", [{}, {"x": ""}])
def test_an_empty_parameter_is_as_an_absent_one(query: dict[str, str]) -> None:
    assert (read_flag(query, "x"), read_number(query, "x", 7, 0, 10)) == (False, 7)
    assert read_page({name.replace("x", "page"): text for name, text in query.items()}) == 1


@pytest.mark.parametrize("text", ["1_0", " 1", "1 ", "+1", ".5", "5.", "nan", "inf", "1,1", "\u0661", "x", "-1", "11"])
def test_a_parameter_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="a number from 0 to 10 in the query parameter x"):
        read_number({"x": text}, "x", 0, 0, 10)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("2.5", 2.5), ("1e-3", 0.001), ("10", 10)])
def test_a_parameter_is_a_number_as_json_writes_it(text: str, number: float) -> None:
    assert read_number({"x": text}, "x", 0, 0, 10) == number


def test_a_flag_that_is_repeated_is_refused() -> None:
    with pytest.raises(RequestError, match="true or false in the query parameter x"):
        read_flag({"x": "true,true"}, "x")


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


@pytest.mark.parametrize(
    ("if_none_match", "known"),
    [
        (None, False),
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ("*", True),
        (' "b" , W/"a","c"', True),
        ('"b,a"', False),
        ('"A"', False),
        ("a", False),
    ],
)
def test_entity_tags_are_compared_as_the_rfc_says(if_none_match: str | None, known: bool) -> None:
    assert is_known('"a"', if_none_match) is known


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [(None, 0), ("wait=5", 5), ("respond-async, wait=5", 5), ("wait=600", 60), ("wait=\u00b2", 0), ("wait=-1", 0)],
)
def test_a_wait_that_cannot_be_read_is_ignored(prefer: str | None, seconds: float) -> None:
    assert read_preferred_wait(prefer) == seconds
