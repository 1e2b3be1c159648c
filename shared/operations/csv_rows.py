"""CSV as RFC 4180 has it, with a header row: each row is read as the JSON object that it stands for.

A cell becomes JSON by the type that its field has in the JSON schema of the model, and only if it is written as JSON
writes that type; any other cell becomes a string, which the model then refuses in the words that it has for JSON.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from functools import cache
from itertools import islice
from types import UnionType
from typing import Annotated, Any, TypeAliasType, Union, get_args, get_origin

from pydantic import BaseModel

from shared.http.printable import printable

from .problems import RequestError
from .strict_json import NUMBER, Fault, JsonReader, Value

csv.field_size_limit(2**31 - 1)  # of the process, which reads CSV here only: the body is bounded before, records after

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_WRITTEN = frozenset({"string", "integer", "number", "decimal", "boolean"})
_QUOTED = re.compile(r'(?:\A|(?<=,))"(?:[^"]|"")*+"(?=[,\r\n]|\Z)')
_NO_UTF8 = re.compile("[\udc80-\udcff]")  # as `surrogateescape` decodes bytes that are none
_TYPES_OF = {str: "string", bool: "boolean", int: "integer", float: "number"}
_FIELD_LENGTH = 100

type Columns = Mapping[str, frozenset[str]]
"""The JSON types that a cell of a column may have, by its name, and `decimal` for a number that is kept exactly."""


@cache
def columns_of(model: type[BaseModel]) -> Columns:
    """The columns that a model has: its fields by their names in JSON, with the types of their schemas."""
    schema = model.model_json_schema()
    definitions = schema.get("$defs", {})
    columns = {name: frozenset(_types(field, definitions)) for name, field in schema.get("properties", {}).items()}
    # To JSON Schema a decimal is a number or any text, and pydantic would take " 42" and 1_000 for one.
    decimals = {
        name: field.validation_alias for name, field in model.model_fields.items() if _is_decimal(field.annotation)
    }
    named = {alias if isinstance(alias, str) else name for name, alias in decimals.items()}
    return columns | dict.fromkeys(named & columns.keys(), frozenset({"decimal"}))


def read_rows(text: bytes, columns: Columns) -> Iterator[tuple[int, Value]]:
    """The records of a text, each with the physical line on which it begins, from 1.

    A malformed row spoils no other, and empty lines are none. An empty cell is a member that is not there.

    Raises:
        RequestError: 400, the header is not as expected, or a quote does not end, and may hide records.
    """
    lines = list(io.StringIO(text.decode(errors="surrogateescape"), newline=""))
    rows = _rows(lines)
    first, header, fault = next(rows, (1, [], Fault("", "got none")))
    if not fault and (wrong := _first_fault(header, header, {})):
        fault = wrong
    _check_header(first, header, fault, columns, "".join(lines[first - 1 : first]))
    reader = JsonReader()
    for line, cells, malformed in rows:
        if malformed is not None:
            yield line, Value("", fault=malformed)
        elif len(cells) != len(header):
            yield line, Value("", fault=Fault("", f"expected {len(header)} cells, got {len(cells)}"))
        elif (wrong := _first_fault(header, cells, columns)) is not None:
            yield line, Value("", fault=wrong)
        else:
            members = (
                f"{_text(name)}:{_json(cell, columns[name])}" for name, cell in zip(header, cells, strict=True) if cell
            )
            yield line, reader.value(f"{{{','.join(members)}}}")


def _rows(lines: Sequence[str]) -> Iterator[tuple[int, list[str], Fault | None]]:
    """Each row that is not empty, with its first line, and what is wrong with it if it is malformed."""
    reader = csv.reader(lines, strict=True)
    while True:
        first, fault = reader.line_num + 1, None
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error:
            cells, fault = [], _malformed(lines[first - 1 : reader.line_num], first, is_last=first == len(lines))
        else:
            if any('"' in cell for cell in cells):
                fault = _stray_quote("".join(lines[first - 1 : reader.line_num]))
        if cells or fault is not None:
            yield first, cells, fault


def _malformed(row: Sequence[str], first: int, *, is_last: bool) -> Fault:
    """Why a row could not be read.

    Raises:
        RequestError: Its quotes are not in pairs: what follows may belong to it, or be other records.
    """
    if sum(line.count('"') for line in row) % 2 == 0:
        return Fault("", "Invalid CSV: expected a comma or the end of the line behind a cell in quotes")
    if not is_last:
        raise RequestError(
            400,
            "Malformed CSV",
            f"expected quotes in pairs, got a quote that does not end in the row that begins at line {first}",
        )
    return Fault("", "Invalid CSV: expected quotes in pairs, got a quote that does not end")


def _stray_quote(row: str) -> Fault | None:
    if '"' not in _QUOTED.sub("", row):
        return None
    return Fault("", "Invalid CSV: expected a cell that has quotes to be in quotes, and each in it to be doubled")


def _check_header(line: int, header: Sequence[str], fault: Fault | None, columns: Columns, text: str) -> None:
    """Refuse a header that does not name columns of the model, each once; what is wrong with it, all in one answer.

    Raises:
        RequestError: 400.
    """
    wrong = {
        f"expected columns of {', '.join(columns)}": [name for name in header if name not in columns],
        "expected each column once": [name for name, count in Counter(header).items() if count > 1 and name in columns],
        "expected a text, a number or a boolean; send records with others as JSON": [
            name for name in header if name in columns and columns[name].isdisjoint(_WRITTEN)
        ],
    }
    errors = [{"field": _named(names), "detail": detail} for detail, names in wrong.items() if names]
    if fault is not None:
        errors = [{"field": "(header)", "detail": f"expected the names of the columns; {fault.detail}"}]
    if errors and (separator := _separator_of(text)):
        errors = [{"field": "(header)", "detail": f"expected commas between columns, got {separator}"}]
    if errors:
        detail = printable("; ".join(f"{error['detail']}, see {error['field']}" for error in errors))
        told = [{"line": line, "field": error["field"], "detail": printable(error["detail"])} for error in errors]
        raise RequestError(400, "Invalid header", detail, errors=told, errors_total=len(told))


def _separator_of(header: str) -> str | None:
    """What stands between the columns of a header instead of commas, if it can be told."""
    for separator, name in _SEPARATORS.items():
        if header.strip().lower() == f"sep={separator}" or (separator in header and "," not in header):
            return name
    return None


def _named(names: Sequence[str]) -> str:
    """Some names on one line, in quotes if they have white space at an end."""
    shown = (f'"{name[:_FIELD_LENGTH]}"' if name != name.strip() else name or "(empty)" for name in names)
    return printable(", ".join(islice(shown, _FIELD_LENGTH)), _FIELD_LENGTH)


def _first_fault(header: Sequence[str], cells: Sequence[str], columns: Columns) -> Fault | None:
    """What is wrong with the first cell that is no UTF-8, or no decimal where one is expected."""
    for name, cell in zip(header, cells, strict=True):
        if not cell.isascii() and (byte := _NO_UTF8.search(cell)):
            return Fault(name, f"expected UTF-8, got 0x{ord(byte[0]) - 0xDC00:02x}")
        if cell and "decimal" in columns.get(name, ()) and not NUMBER.fullmatch(cell):
            return Fault(name, "expected a number as JSON writes it, such as -1.50")
    return None


def _json(cell: str, types: frozenset[str]) -> str:
    if "string" not in types:
        if not types.isdisjoint({"integer", "number"}) and NUMBER.fullmatch(cell):
            return cell
        if "boolean" in types and cell in {"true", "false"}:
            return cell
    return _text(cell)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _is_decimal(annotation: Any) -> bool:
    """Whether a type is that of decimal numbers, or of something else that no text can be."""
    mentioned = {annotation, *_mentioned(annotation)}
    return Decimal in mentioned and str not in mentioned


def _mentioned(annotation: Any) -> Iterator[Any]:
    """The types that a type is made of: the members of a union, behind aliases and annotations."""
    if isinstance(annotation, TypeAliasType):
        yield from (annotation.__value__, *_mentioned(annotation.__value__))
    elif get_origin(annotation) is Annotated:
        yield from (get_args(annotation)[0], *_mentioned(get_args(annotation)[0]))
    elif get_origin(annotation) in {Union, UnionType}:
        for part in get_args(annotation):
            yield from (part, *_mentioned(part))


def _types(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[str]:
    """The types that a schema admits, but null; anything is a string."""
    if "$ref" in schema:
        yield from _types(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    elif alternatives := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        for alternative in alternatives:
            yield from _types(alternative, definitions)
    elif "type" in schema:
        yield from (set([schema["type"]] if isinstance(schema["type"], str) else schema["type"]) - {"null"})
    elif values := schema.get("enum", [schema["const"]] if "const" in schema else []):
        yield from (_TYPES_OF.get(type(value), "object") for value in values if value is not None)
    else:
        yield "string"
