"""Rows of CSV are read as the same records as JSON would be, or refused with their lines; whatever the model is."""

import codecs
import csv
import io
import json
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from shared.delivery.batches import MAX_RECORDS
from shared.delivery.results import ItemInvalid
from shared.operations.problems import RequestError
from shared.operations.requests import MAX_BATCH_BYTES, MAX_BODY_BYTES, MAX_ERRORS, read_batch
from tests.app.test_requests import ALL_TYPES, Sample

CSV = {"Content-Type": "text/csv; charset=utf-8; header=present", "Content-Length": "1"}
JSON = {"Content-Type": "application/json", "Content-Length": "1"}


def read(body: str | bytes, model: type[BaseModel] = Sample, *, skip_invalid: bool = False) -> list[Any]:
    content = body.encode() if isinstance(body, str) else body
    return list(read_batch(CSV, content, skip_invalid=skip_invalid, model=model))


def refusal_of(body: str | bytes, model: type[BaseModel] = Sample, *, skip_invalid: bool = False) -> RequestError:
    with pytest.raises(RequestError) as raised:
        read(body, model, skip_invalid=skip_invalid)
    return raised.value


def errors_of(refusal: RequestError) -> list[dict[str, Any]]:
    errors: list[dict[str, Any]] = refusal.problem.model_dump()["errors"]
    return errors


def places(records: list[Any]) -> list[tuple[int, int | None]]:
    return [(index, record.line) for index, record in enumerate(records) if isinstance(record, ItemInvalid)]


def test_a_cell_is_read_by_the_type_of_its_field_and_an_empty_one_is_not_there() -> None:
    body = (
        "name,count,share,price,founded,kind,uuid,active\r\n"
        f"042,{2**70},0.5,12.30,2026-01-31,small,{ALL_TYPES['uuid']},true\r\n"
        'Acme,,"",,,,,\r\n'
    )
    fit = {name: value for name, value in ALL_TYPES.items() if name not in {"part", "numbers"}}
    sent = [{**fit, "name": "042"}, {"name": "Acme"}]
    assert read(body) == list(read_batch(JSON, json.dumps(sent).encode(), model=Sample))
    assert read(body)[1].model_dump(exclude_unset=True) == {"name": "Acme"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_lines_end_as_they_like_and_empty_ones_are_none(end: str, mark: bytes) -> None:
    body = mark + end.join(["", "name,count", "", "Zoë,1", "", '"a ""b"", c",2', "x,y"]).encode()
    assert read(body, skip_invalid=True)[:2] == [Sample(name="Zoë", count=1), Sample(name='a "b", c', count=2)]
    assert places(read(body, skip_invalid=True)) == [(2, 7)]


def test_a_cell_in_quotes_may_have_lines_and_later_rows_are_counted_from_there() -> None:
    body = 'name,count\r\n"two\r\nlines",1\n"  ",x\n'
    records = read(body, skip_invalid=True)
    assert records[0] == Sample(name="two\r\nlines", count=1)
    assert places(records) == [(1, 4)]


class Customer(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    customer_number: Annotated[int, Field(ge=1)]
    size: Literal[1, 2] | None = None
    either: int | str | None = None
    ratio: Annotated[float | None, Field(alias="Ratio, %")] = None


def test_columns_are_called_as_in_json() -> None:
    body = 'customerNumber,"Ratio, %",size,either\n7,0.5,2,7\n'
    assert read(body, Customer) == [
        Customer.model_validate({"customerNumber": 7, "size": 2, "either": "7", "Ratio, %": 0.5})
    ]
    assert errors_of(refusal_of("customer_number\n7\n", Customer))[0]["field"] == "customer_number"


@pytest.mark.parametrize(
    "cell", [" 42", "42 ", "042", "+42", "1_000", "42.0", "4e1", "0x2a", "\u0664", "true", '"1,5"', "NaN"]
)
def test_what_json_would_not_write_so_is_no_integer(cell: str) -> None:
    (error,) = errors_of(refusal_of(f"name,count\na,{cell}\n"))
    assert error == {"index": 0, "line": 2, "field": "count", "detail": "Input should be a valid integer"}


@pytest.mark.parametrize(
    "cell", [" 0.5", "00.5", ".5", "5.", "1_000", '"1,5"', '"1.000,50"', "NaN", "inf", "5 %", "true"]
)
def test_what_json_would_not_write_so_is_no_number(cell: str) -> None:
    (error,) = errors_of(refusal_of(f"name,share\na,{cell}\n"))
    assert error == {"index": 0, "line": 2, "field": "share", "detail": "Input should be a valid number"}


type Euros = Annotated[Decimal, Field(max_digits=15, decimal_places=2)]


class Invoice(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    net_amount: Euros
    tax: Annotated[Decimal, Field(ge=0)] | None = None
    code: Decimal | str | None = None


@pytest.mark.parametrize("cell", [" 42", "42 ", "042", "+42", "1_000", ".5", '"1,5"', "\u0664", "NaN", "x"])
@pytest.mark.parametrize("row", ["{},1", "1,{}"])
def test_what_json_would_not_write_so_is_no_decimal(row: str, cell: str) -> None:
    (error,) = errors_of(refusal_of(f"netAmount,tax\n{row.format(cell)}\n", Invoice))
    assert error["field"] == ("netAmount" if row.startswith("{") else "tax")
    assert error["detail"] == "expected a number as JSON writes it, such as -1.50"


def test_a_decimal_is_kept_with_all_its_digits() -> None:
    (invoice,) = read("netAmount,tax,code\n1234567890123.50,,A-042\n", Invoice)
    assert invoice.model_dump(mode="json", exclude_none=True) == {"net_amount": "1234567890123.50", "code": "A-042"}


@pytest.mark.parametrize("cell", ["TRUE", "True", " true", "1", "yes", "null"])
def test_what_json_would_not_write_so_is_no_boolean(cell: str) -> None:
    (error,) = errors_of(refusal_of(f"name,active\na,{cell}\n"))
    assert (error["field"], error["detail"]) == ("active", "Input should be a valid boolean")


@pytest.mark.parametrize("number", ["1e999", "9" * 400, "0.1234567890123456789"])
def test_a_number_that_fits_no_double_is_refused_as_in_json(number: str) -> None:
    (error,) = errors_of(refusal_of(f"name,share\na,{number}\n"))
    assert error["field"] == "share"
    assert "a double" in error["detail"]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@given(st.lists(st.tuples(TEXTS, st.none() | st.integers(), st.none() | st.booleans()), min_size=1))
def test_what_is_written_by_the_book_is_what_is_read(rows: list[tuple[str, int | None, bool | None]]) -> None:
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(["name", "count", "active"])
    writer.writerows((name, count, None if active is None else str(active).lower()) for name, count, active in rows)
    assert read(written.getvalue()) == [Sample(name=name, count=count, active=active) for name, count, active in rows]


@given(st.binary(max_size=200) | st.text(alphabet='name,count;"\r\n x1').map(str.encode))
def test_whatever_the_body_holds_a_refusal_is_the_worst(body: bytes) -> None:
    for content in (body, b"name,count\n" + body):
        statuses = []
        try:
            read(content, skip_invalid=True)
        except RequestError as refusal:
            statuses.append(refusal.status)
        assert set(statuses) <= {400, 415}


# A header that is not as expected is one answer, whatever follows.


@pytest.mark.parametrize(
    ("header", "field", "detail"),
    [
        ("name,phone,fax", "phone, fax", "expected columns of name, count, share"),
        ("name,,count,", "(empty), (empty)", "expected columns of name"),
        ("Name", "Name", "expected columns of name"),
        ("name, count", '" count"', "expected columns of name"),
        ("name,count,name", "name", "expected each column once"),
        (
            "name,part,numbers",
            "part, numbers",
            "expected a text, a number or a boolean; send records with others as JSON",
        ),
        ("name;count", "(header)", "expected commas between columns, got semicolons"),
        ('"name";"count"', "(header)", "expected commas between columns, got semicolons"),
        ("sep=;", "(header)", "expected commas between columns, got semicolons"),
        ("name\tcount", "(header)", "expected commas between columns, got tabs"),
        ('"name"x,count', "(header)", "expected the names of the columns; Invalid CSV"),
        ('name, "count"', "(header)", "expected the names of the columns; Invalid CSV"),
    ],
)
def test_a_bad_header_is_one_error_whatever_the_rows_are(header: str, field: str, detail: str) -> None:
    for skip_invalid in (False, True):
        refusal = refusal_of(f"\n{header}\na,b\nc\n", skip_invalid=skip_invalid)
        assert (refusal.status, refusal.problem.title) == (400, "Invalid header")
        (error,) = errors_of(refusal)
        assert (error["line"], error["field"]) == (2, field)
        assert error["detail"].startswith(detail)


def test_all_that_is_wrong_with_a_header_is_told_at_once() -> None:
    assert [error["field"] for error in errors_of(refusal_of("id,name,part,name\n"))] == ["id", "name", "part"]


def test_a_header_in_another_encoding_says_so() -> None:
    (error,) = errors_of(refusal_of("naïve\n".encode("latin-1")))
    assert error["detail"].endswith("expected UTF-8, got 0xef")


@pytest.mark.parametrize("body", ["", "\r\n\r\n", codecs.BOM_UTF8.decode()])
def test_without_a_header_there_is_no_batch(body: str) -> None:
    assert refusal_of(body).problem.title == "Invalid header"


def test_without_a_row_there_is_no_batch() -> None:
    assert refusal_of("name,count\r\n\r\n").problem.title == "Invalid batch"


# A bad row spoils itself only.


@pytest.mark.parametrize(
    ("row", "field", "detail"),
    [
        ("a", "(record)", "expected 2 cells, got 1"),
        ("a,1,", "(record)", "expected 2 cells, got 3"),
        ("a;1", "(record)", "expected 2 cells, got 1"),
        (" ", "(record)", "expected 2 cells, got 1"),
        (",", "name", "Field required"),
        ('"a"b,1', "(record)", "Invalid CSV: expected a comma or the end of the line behind a cell in quotes"),
        ('5" nail,1', "(record)", "Invalid CSV: expected a cell that has quotes to be in quotes"),
        ('a, "1"', "(record)", "Invalid CSV: expected a cell that has quotes to be in quotes"),
        ("a,x", "count", "Input should be a valid integer"),
        ("a,b\0", "count", "Input should be a valid integer"),
        ("\udce4,1", "name", "expected UTF-8, got 0xe4"),
    ],
)
def test_a_bad_row_spoils_no_other(row: str, field: str, detail: str) -> None:
    body = f'name,count\n"first",1\n{row}\nlast,3\n'.encode(errors="surrogateescape")
    records = read(body, skip_invalid=True)
    assert (records[0], records[2]) == (Sample(name="first", count=1), Sample(name="last", count=3))
    assert places(records) == [(1, 3)]
    assert (records[1].field, records[1].detail[: len(detail)]) == (field, detail)
    (error,) = errors_of(refusal_of(body))
    assert (error["index"], error["line"], error["field"]) == (1, 3, field)


@pytest.mark.parametrize("row", ['"a,1', 'a,"1', '"a "b" c,1', '"a\nb"c"d,1'])
@pytest.mark.parametrize("skip_invalid", [False, True])
def test_where_a_quote_does_not_end_nobody_knows_what_is_a_record_and_all_is_refused(
    row: str, skip_invalid: bool
) -> None:
    refusal = refusal_of(f"name,count\nfirst,1\n{row}\nlast,3\n", skip_invalid=skip_invalid)
    assert (refusal.status, refusal.problem.title) == (400, "Malformed CSV")
    assert "a quote that does not end in the row that begins at line 3" in str(refusal)


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_quote_that_does_not_end_in_the_last_line_spoils_that_only(end: str) -> None:
    records = read(f'name,count\nfirst,1\n"last,2{end}', skip_invalid=True)
    assert records[0] == Sample(name="first", count=1)
    assert places(records) == [(1, 3)]


# Every limit of the other batches holds.


def test_more_bytes_or_records_than_a_batch_may_have_are_a_413() -> None:
    assert refusal_of("name\n" + "a\n" * (MAX_RECORDS + 1)).status == 413
    assert len(read("name\n" + "a\n" * MAX_RECORDS)) == MAX_RECORDS
    assert refusal_of(b"name\n" + b"a" * MAX_BATCH_BYTES).status == 413


def test_a_row_may_be_as_large_as_a_record_alone() -> None:
    longest = "x" * (MAX_BODY_BYTES - len('{"name":""}'))
    assert read(f"name\n{longest}\n") == [Sample(name=longest)]
    records = read(f'name\nsmall\n{longest}x\n"{longest}\n"\nsmall\n', skip_invalid=True)
    assert places(records) == [(1, 3), (2, 4)]
    assert "at most" in records[1].detail


def test_a_refusal_lists_a_hundred_errors_and_says_how_many_there_are() -> None:
    refusal = refusal_of("name,count\n" + ",x\n" * 300)
    assert (len(errors_of(refusal)), refusal.problem.model_dump()["errors_total"]) == (MAX_ERRORS, 600)


@pytest.mark.parametrize(
    "body",
    [
        b"," * 9_000_000,
        b"name\n" + b"," * 9_000_000,
        b'"' * 9_000_001,
        b"name\n" + b'"' * 9_000_000,
        b'name\n"' + b"\n" * 9_000_000,
        b"name\n" + b'""x\n' * 2_000_000,
        b"x" * 9_000_000,
        b"name,count\na," + b"9" * 9_000_000,
    ],
    ids=["columns", "cells", "quote", "quotes", "lines", "stray", "name", "digits"],
)
def test_a_body_that_is_made_to_hurt_is_refused_in_a_short_answer(body: bytes) -> None:
    refusal = refusal_of(body)
    assert refusal.status in {400, 413}
    assert len(refusal.problem.model_dump_json()) < 50_000
