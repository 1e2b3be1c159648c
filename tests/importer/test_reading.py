"""A file is read as a stream: its records as they stand there, with their places, or an error that names the line."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dev.importer.reading import FileChangedError, FileError, Format, Record, Source
from shared.business import NATURAL_KEY, NewBusiness, example
from shared.operations.csv_rows import columns_of, read_rows
from shared.operations.requests import MAX_BODY_BYTES
from tests.sandboxed import of_rows


def read(file: Path, content: bytes, kind: Format) -> tuple[Source, list[Record]]:
    file.write_bytes(content)
    source = Source(file, kind)
    return source, list(source.records())


TWO = [
    ("csv", '%s,name\r\nHRB 1,"a""b"\r\n\r\nHRB 2,"two\nlines"', [2, 4]),
    ("ndjson", '{"%s":"HRB 1"}\n\n \t{"%s":"HRB 2"} \r\n', [1, 3]),
    ("json", ' [ {"%s":\n"HRB 1"}\n,\n\n{"%s":"HRB 2"}]\n', [1, 5]),
]  # fmt: skip


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"], ids=["plain", "with a byte order mark"])
@pytest.mark.parametrize(("kind", "content", "lines"), TWO)
def test_records_have_their_lines_and_their_bytes_can_be_read_again(
    tmp_path: Path, kind: Format, content: str, lines: list[int], mark: bytes
) -> None:
    source, records = read(tmp_path / "file", mark + content.replace("%s", NATURAL_KEY).encode(), kind)
    assert [record.line for record in records] == lines
    assert [record.natural_key for record in records] == ["HRB 1", "HRB 2"]
    places = [(source.digest(one.text), one.offset, len(one.text)) for one in records]
    assert source.texts(places) == [one.text for one in records]


def test_what_stands_elsewhere_by_now_is_not_sent(tmp_path: Path) -> None:
    source, (record,) = read(tmp_path / "file", b'{"a":1}\n', "ndjson")
    (tmp_path / "file").write_bytes(b'{"a":2}\n')
    with pytest.raises(FileChangedError):
        source.texts([(source.digest(record.text), record.offset, len(record.text))])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(values=st.lists(VALUES, min_size=1), indent=st.none() | st.integers(0, 3), escaped=st.booleans())
def test_an_array_is_sent_as_lines_of_the_same_values(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None, escaped: bool
) -> None:
    content = json.dumps(values, indent=indent, ensure_ascii=escaped).encode()
    source, records = read(tmp_path_factory.getbasetemp() / "array.json", content, "json")
    body = source.body([record.text for record in records])
    assert [json.loads(line) for line in body.splitlines()] == values


def test_numbers_keep_their_text(tmp_path: Path) -> None:
    source, records = read(tmp_path / "file", b'[{"amount": 1.50, "big": 12345678901234567890, "e": 1E2}]', "json")
    assert source.body([record.text for record in records]) == (
        b'{"amount": 1.50, "big": 12345678901234567890, "e": 1E2}\n'
    )


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@of_rows
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1), end=st.sampled_from(["\n", "\r\n", "\r"]))
def test_rows_are_sent_so_that_the_app_reads_what_stands_in_the_file(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], end: str
) -> None:
    header = f"{NATURAL_KEY},{next(name for name in example() if name != NATURAL_KEY)}"
    quoted = [",".join('"{}"'.format(cell.replace('"', '""')) for cell in row) for row in rows]
    content = end.join([header, *quoted]).encode()
    source, records = read(tmp_path_factory.getbasetemp() / "rows.csv", content, "csv")
    assert [record.natural_key for record in records] == [cell or None for cell, _ in rows]

    def as_the_app_reads(body: bytes) -> list[str]:
        return [value.text for _, value in read_rows(body, columns_of(NewBusiness))]

    assert as_the_app_reads(source.body([record.text for record in records])) == as_the_app_reads(content)


@of_rows
def test_a_spreadsheet_that_quotes_and_ends_rows_anew_changes_no_record(tmp_path: Path) -> None:
    source, (first,) = read(tmp_path / "file", b'a,"b"\n"x","y ""z"""\n', "csv")
    again, (second,) = read(tmp_path / "file", b'\xef\xbb\xbf"a",b\r\nx,"y ""z"""\r\n', "csv")
    other, (third,) = read(tmp_path / "file", b'b,a\nx,"y ""z"""\n', "csv")
    assert source.digest(first.text) == again.digest(second.text)
    assert source.digest(first.text) != other.digest(third.text)


BAD: list[tuple[Format, bytes, str]] = [
    ("csv", b"", "line 1: expected a header and at least one record, got none"),
    ("csv", b"name\n", "line 1: expected a header and at least one record, got none"),
    ("ndjson", b"\n\n", "line 1: expected at least one record, got none"),
    ("json", b"[]", "line 1: expected at least one record, got none"),
    ("json", b"", "line 1: expected a JSON array of records, got ''"),
    ("json", b'\n{"a": 1}', "line 2: expected a JSON array of records, got '{'"),
    ("json", b"[1\n2]", "line 2: expected a comma or the end of the array, got '2'"),
    ("json", b"[1]\n]", "line 2: expected nothing after the array"),
    ("json", b"[1,\n", "line 2: expected a JSON value"),
    ("json", b'[1,\n"\xff"]', "line 2: expected UTF-8, got the byte 0xff"),
    ("json", b"[" * 200_000, "line 1: expected JSON that is not nested so deeply"),
    (
        "ndjson",
        b'{"a":1}\n{"a":}\n',
        "line 2: expected a JSON value of at most 262144 bytes: Expecting value at column 6",
    ),
    ("ndjson", b"{} {}", "line 1: expected one JSON value a line, got more at column 3"),
    ("ndjson", b'{}\n"\xe4"', "line 2: expected UTF-8, got the byte 0xe4"),
    ("csv", b"name\na\n\xe4", "line 3: expected UTF-8, got the byte 0xe4"),
    ("csv", b'name\n"a', "line 2: expected a row of CSV (RFC 4180)"),
    ("csv", b'name\n"a" b\n', "line 2: expected a row of CSV (RFC 4180)"),
    ("csv", b'name\n"' + b"a\n" * 300_000, "line 2: expected quotes in pairs, got a quote that does not end"),
    ("ndjson", b'"' + b"a" * MAX_BODY_BYTES + b'"', "line 1: expected a record of at most 262144 bytes, got 262146"),
    ("ndjson", b"a" * 3 * MAX_BODY_BYTES, "line 1: expected a record of at most 262144 bytes"),
    ("json", b'["' + b"a" * 9 * MAX_BODY_BYTES + b'"]', "line 1: expected a JSON value of at most 262144 bytes"),
]


@pytest.mark.parametrize(("kind", "content", "message"), BAD, ids=lambda value: str(value)[:60])
def test_what_is_wrong_with_a_file_is_told_with_the_line(
    tmp_path: Path, kind: Format, content: bytes, message: str
) -> None:
    with pytest.raises(FileError) as caught:
        read(tmp_path / "file", content, kind)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("kind", ["csv", "ndjson", "json"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, kind: Format) -> None:
    line = {"csv": "HRB 1,%s\n", "ndjson": '{"name":"%s"}\n', "json": '{"name":"%s"},\n'}[kind] % ("a" * 200)
    file = tmp_path / "file"
    file.write_text({"csv": "a,b\n", "json": "["}.get(kind, "") + 50_000 * line + {"json": "{}]"}.get(kind, ""))
    tracemalloc.start()
    try:
        assert sum(1 for _ in Source(file, kind).records()) >= 50_000
        assert tracemalloc.get_traced_memory()[1] < 6_000_000 < file.stat().st_size
    finally:
        tracemalloc.stop()


def test_the_limit_is_that_of_the_app() -> None:
    assert MAX_BODY_BYTES == MAX_BODY_BYTES
