"""JSON as RFC 7493 has it: where each value ends, and what pydantic would let pass in it.

The values themselves are read by pydantic from their own text, so that a model may say in which forms it takes them.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

_BLANK = re.compile(r"[ \t\r\n]*")


class MalformedError(ValueError):
    """A text is no JSON. The message says what was expected and where, and repeats nothing of the text."""


class Fault(NamedTuple):
    """What RFC 7493 forbids in a value, or why it is no JSON; `name` is that of the member, empty if there is none."""

    name: str
    detail: str


class Value(NamedTuple):
    """One JSON value.

    Attributes:
        text: As it was sent.
        members: How many an object has; 0 for any other value.
        fault: The first that was found, at any depth.
    """

    text: str
    members: int = 0
    fault: Fault | None = None


def read_value(text: str) -> Value:
    """Read a text that is one JSON value.

    Raises:
        MalformedError: It is not.
    """
    value, end = _Scanner(text).value(_skip_blank(text, 0))
    _demand_end(text, end)
    return value


def read_array(text: str) -> Iterator[Value] | None:
    """Read the elements of a text that is a JSON array, one after the other; None if it is another value.

    Raises:
        MalformedError: It is no JSON; while the elements are read, if an array has begun.
    """
    start = _skip_blank(text, 0)
    if text.startswith("[", start):
        return _elements(text, start + 1)
    read_value(text)
    return None


def _elements(text: str, position: int) -> Iterator[Value]:
    scanner = _Scanner(text)
    position = _skip_blank(text, position)
    if not text.startswith("]", position):
        while True:
            value, position = scanner.value(position)
            yield value
            position = _skip_blank(text, position)
            if not text.startswith(",", position):
                break
            position = _skip_blank(text, position + 1)
    if not text.startswith("]", position):
        _refuse("Expecting ',' delimiter", text, position)
    _demand_end(text, position + 1)


class _Scanner:
    """Finds the end of a value in a text, and notes the first fault on the way."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._fault: Fault | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._number,
            parse_float=self._number,
            parse_constant=self._constant,
        )

    def value(self, start: int) -> tuple[Value, int]:
        """The value that begins at `start`, and where it ends. Raises `MalformedError`."""
        self._fault = None
        try:
            content, end = self._decoder.raw_decode(self._text, start)
        except json.JSONDecodeError as error:
            _refuse(error.msg, self._text, error.pos)
        except RecursionError:
            _refuse("Nested too deeply", self._text, start)
        members = len(content) if isinstance(content, dict) else 0
        return Value(self._text[start:end], members, self._fault), end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            seen: set[str] = set()
            repeated = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
            self._note(repeated, "expected once, but it comes more than once in its object")
        return members

    def _number(self, digits: str) -> None:
        if math.isinf(float(digits)):
            self._note("", "expected numbers within the range of a double (RFC 7493)")

    def _constant(self, name: str) -> None:
        self._note("", f"{name} is no JSON number")

    def _note(self, name: str, detail: str) -> None:
        self._fault = self._fault or Fault(name, detail)


def _skip_blank(text: str, position: int) -> int:
    return _BLANK.match(text, position).end()  # type: ignore[union-attr]  # it always matches


def _demand_end(text: str, position: int) -> None:
    if (position := _skip_blank(text, position)) < len(text):
        _refuse("Extra data", text, position)


def _refuse(expected: str, text: str, position: int) -> NoReturn:
    line, column = text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)
    raise MalformedError(f"{expected} at line {line} column {column}") from None
