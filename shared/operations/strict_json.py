"""JSON as RFC 7493 has it: where each value ends, and what pydantic would let pass in it.

The values themselves are read by pydantic from their own text, so that a model may say in which forms it takes them.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, NoReturn

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A number as JSON writes it (RFC 8259, section 6)."""

_OUT_OF_RANGE = "expected numbers within the range of a double (RFC 7493)"
_TOO_PRECISE = "expected a number that a double carries with all its digits (RFC 7493); send others as text"
_SHORT = 15  # characters: a double carries any number of that many digits
_BLANK = re.compile(r"[ \t\r\n]*")
_KINDS = {"{": "an object", "[": "an array", '"': "a string", "t": "true", "f": "false", "n": "null"}
_SEPARATOR = re.compile(r"[ \t\r\n]*([,\]])[ \t\r\n]*")


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

    @property
    def kind(self) -> str:
        """What it is, with its article: an object, an array, a string, a number, true, false or null."""
        return _KINDS.get(self.text[:1], "a number")


class JsonReader:
    """Reads JSON texts one after the other; not for several threads at once."""

    def __init__(self) -> None:
        self._fault: Fault | None = None
        self._decoder = json.JSONDecoder(
            object_pairs_hook=self._object,
            parse_int=self._integer,
            parse_float=self._fraction,
            parse_constant=self._constant,
        )

    def value(self, text: str, *, line: int = 1) -> Value:
        """Read a text that is one JSON value.

        Args:
            text: All of it.
            line: Where it stands in what was sent.

        Raises:
            MalformedError: It is not.
        """
        value, end = self._next(text, _skip_blank(text, 0), line)
        _demand_end(text, end, line)
        return value

    def array(self, text: str) -> Iterator[Value] | None:
        """Read the elements of a text that is a JSON array, one after the other; None if it is another value.

        Raises:
            MalformedError: It is no JSON; if an array has begun, while its elements are read.
        """
        start = _skip_blank(text, 0)
        if text.startswith("[", start):
            return self._elements(text, _skip_blank(text, start + 1))
        self.value(text)
        return None

    def _elements(self, text: str, position: int) -> Iterator[Value]:
        ended = text.startswith("]", position)
        position += ended
        while not ended:
            value, position = self._next(text, position)
            yield value
            if (separator := _SEPARATOR.match(text, position)) is None:
                _refuse("Expecting ',' delimiter", text, _skip_blank(text, position))
            position, ended = separator.end(), separator[1] == "]"
        _demand_end(text, position)

    def _next(self, text: str, start: int, line: int = 1) -> tuple[Value, int]:
        """The value that begins at `start`, and where it ends. Raises `MalformedError`."""
        self._fault = None
        try:
            content, end = self._decoder.raw_decode(text, start)
        except json.JSONDecodeError as error:
            _refuse(error.msg, text, error.pos, line)
        except RecursionError:
            _refuse("Nested too deeply", text, start, line)
        return Value(text[start:end], len(content) if isinstance(content, dict) else 0, self._fault), end

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        members = dict(pairs)
        if len(members) < len(pairs):
            counts = Counter(name for name, _ in pairs)
            repeated = next(name for name, count in counts.items() if count > 1)
            self._note(repeated, "expected once, but it comes more than once in its object")
        if (fault := self._fault) is not None and not fault.name:
            holds = (name for name, value in pairs if value is fault or (isinstance(value, list) and fault in value))
            self._fault = fault._replace(name=next(holds, ""))
        return members

    def _integer(self, digits: str) -> Fault | None:
        """Integers are kept exactly, all the way, so that only their range is bounded."""
        return self._note("", _OUT_OF_RANGE) if math.isinf(float(digits)) else None

    def _fraction(self, text: str) -> Fault | None:
        """Whatever reads it, here or later, makes a double of it."""
        if len(text) <= _SHORT and "e" not in text and "E" not in text:
            return None
        double = float(text)
        if math.isinf(double):
            return self._note("", _OUT_OF_RANGE)
        try:
            carried = Decimal(text) == Decimal(repr(double))
        except InvalidOperation:  # an exponent of more than 18 digits
            carried = False
        return None if carried else self._note("", _TOO_PRECISE)

    def _constant(self, name: str) -> Fault | None:
        return self._note("", f"{name} is no JSON number")

    def _note(self, name: str, detail: str) -> Fault | None:
        """Note what is wrong, if it is the first; then it stands for the value, until its object is named."""
        if self._fault is not None:
            return None
        self._fault = Fault(name, detail)
        return self._fault


def _skip_blank(text: str, position: int) -> int:
    return _BLANK.match(text, position).end()  # type: ignore[union-attr]  # it always matches


def _demand_end(text: str, position: int, line: int = 1) -> None:
    if (position := _skip_blank(text, position)) < len(text):
        _refuse("Extra data", text, position, line)


def _refuse(expected: str, text: str, position: int, first_line: int = 1) -> NoReturn:
    line, column = text.count("\n", 0, position) + first_line, position - text.rfind("\n", 0, position)
    raise MalformedError(f"{expected} at line {line} column {column}") from None
