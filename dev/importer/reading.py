"""Reads the records of a file one by one, in bounded memory, and hands their bytes on as they are.

The whole file is read before anything is sent, so that a file that cannot be read is refused with the place. What a
record may hold is for the app to judge.
"""

import codecs
import csv
import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

from shared.business import NATURAL_KEY, NewBusiness
from shared.operations.bodies import CSV, NDJSON
from shared.operations.csv_rows import columns_of, read_rows
from shared.operations.requests import MAX_BODY_BYTES

_BLOCK = 1_000_000
_BLANK = re.compile(r"[ \t\r\n]*")

type Format = Literal["csv", "ndjson", "json"]

FORMATS: dict[str, Format] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".json": "json"}
"""The format of a file by its extension."""


class FileError(Exception):
    """The file cannot be imported. The message says where and what was expected."""

    def __init__(self, line: int, expected: str) -> None:
        super().__init__(f"line {line}: {expected}")


class FileChangedError(Exception):
    """The file is no longer what it was when this run has read it."""


class Record(NamedTuple):
    """One record of the file.

    Attributes:
        line: The physical line on which it begins, from 1.
        offset: The byte at which it begins, from 0.
        text: Its bytes, without the end of the line.
        natural_key: The member by which people tell one record from another, as text; None if it has none.
    """

    line: int
    offset: int
    text: bytes
    natural_key: str | None


class Source:
    """A file of records.

    Attributes:
        media_type: In which the records are sent.
        header: The line with the names of the columns, as it stands in the file; empty unless the file is CSV. It is
            known once the first record has been read.
    """

    def __init__(self, path: Path, kind: Format) -> None:
        self._path, self._kind = path, kind
        self.media_type = CSV if kind == "csv" else NDJSON
        self.header = b""

    def records(self) -> Iterator[Record]:
        """Read the file from its beginning.

        Raises:
            FileError: It is no UTF-8, not well-formed, or holds no record.
            OSError: It cannot be read.
        """
        empty = True
        with self._path.open("rb") as file:
            records = _READERS[self._kind](file)
            if self._kind == "csv" and (header := next(records, None)):
                self.header = header.text
            for record in records:
                empty = False
                yield record
        if empty:
            header_too = "a header and " if self._kind == "csv" else ""
            raise FileError(1, f"expected {header_too}at least one record, got none")

    def digest(self, text: bytes) -> bytes:
        """What tells a record from others: its bytes, or the cells of a row, however quoted, with the header's."""
        if self._kind == "csv":
            text = repr((_cells(self.header), _cells(text))).encode()
        return hashlib.blake2b(text, digest_size=16).digest()

    def texts(self, places: Sequence[tuple[bytes, int, int]]) -> list[bytes]:
        """The bytes of records, each given by digest, offset and length.

        Raises:
            FileChangedError: Others stand in their places now.
        """
        with self._path.open("rb") as file:
            texts = [_read(file, offset, length) for _, offset, length in places]
        if [self.digest(text) for text in texts] != [digest for digest, _, _ in places]:
            raise FileChangedError
        return texts

    def body(self, texts: Sequence[bytes]) -> bytes:
        """Records as the body of a batch: rows under the header, or values one a line."""
        if self._kind == "csv":
            return b"".join(line + b"\n" for line in (self.header, *texts))
        return b"".join(text.replace(b"\r", b" ").replace(b"\n", b" ") + b"\n" for text in texts)

    def as_json(self, texts: Sequence[bytes]) -> list[bytes]:
        """Valid records as JSON: rows become objects in the same way as in the app."""
        if self._kind == "csv":
            return [value.text.encode() for _, value in read_rows(self.body(texts), columns_of(NewBusiness))]
        return list(texts)


def _cells(row: bytes) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(row.decode(errors="replace"), newline=""), strict=True), [])
    except csv.Error:  # the file was changed meanwhile
        return []


def _read(file: BinaryIO, offset: int, length: int) -> bytes:
    file.seek(offset)
    return file.read(length)


def _lines(file: BinaryIO) -> Iterator[tuple[int, int, bytes]]:
    """The lines of a text in UTF-8, each with its number, its offset and its end; CR alone ends one, too."""
    number = offset = 0
    while chunk := file.readline(2 * MAX_BODY_BYTES):
        if len(chunk) == 2 * MAX_BODY_BYTES:
            raise FileError(number + 1, f"expected a record of at most {MAX_BODY_BYTES} bytes")
        if offset == 0 and chunk.startswith(codecs.BOM_UTF8):
            chunk, offset = chunk.removeprefix(codecs.BOM_UTF8), len(codecs.BOM_UTF8)
        for line in chunk.splitlines(keepends=True):
            number += 1
            yield number, offset, line
            offset += len(line)


def _decoded(text: bytes, line: int) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        line += text.count(b"\n", 0, error.start)
        raise FileError(line, f"expected UTF-8, got the byte 0x{text[error.start]:02x}") from None


def _bounded(text: bytes, line: int) -> bytes:
    if len(text) > MAX_BODY_BYTES:
        raise FileError(line, f"expected a record of at most {MAX_BODY_BYTES} bytes, got {len(text)}")
    return text


def _ndjson(file: BinaryIO) -> Iterator[Record]:
    for number, offset, line in _lines(file):
        if text := line.strip(b" \t\r\n"):
            decoded = _decoded(_bounded(text, number), number)
            value, end = _json_value(decoded, 0, number)
            if end < len(decoded):
                raise FileError(number, f"expected one JSON value a line, got more at column {end + 1}")
            yield Record(number, offset + line.index(text), text, _natural_key(value))


def _json(file: BinaryIO) -> Iterator[Record]:
    """The elements of an array. Around the place there is always more of the text than an element may have."""
    window = _Window(file)
    window.expect("[", "a JSON array of records")
    ended = window.skips("]")
    while not ended:
        line, offset, start = window.line, window.offset, window.position
        value, end = _json_value(window.text, start, line)
        text = window.text[start:end].encode()
        yield Record(line, offset, _bounded(text, line), _natural_key(value))
        window.move_to(end)
        if not (ended := window.skips("]")):
            window.expect(",", "a comma or the end of the array")
    if not window.at_end:
        raise FileError(window.line, "expected nothing after the array")


class _Window:
    """The part of a text that is looked at, from which the place moves forward over blanks."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._decoder, self._more = file, codecs.getincrementaldecoder("utf-8")(), True
        self.text, self.position, self.line, self.offset = "", 0, 1, 0
        self._fill()
        if self.text.startswith("\ufeff"):
            self.position, self.offset = 1, len(codecs.BOM_UTF8)
        self.move_to(self.position)

    @property
    def at_end(self) -> bool:
        """Whether nothing is left."""
        return self.position == len(self.text)

    def move_to(self, end: int) -> None:
        """Move the place to `end`, and on over the blanks behind it."""
        while True:
            end = _BLANK.match(self.text, end).end()  # type: ignore[union-attr]  # it always matches
            passed = self.text[self.position : end]
            self.line += passed.count("\n")
            self.offset += len(passed.encode())
            self.position = end
            self._fill()
            end = self.position
            if self.at_end or not _BLANK.match(self.text, end)[0]:  # type: ignore[index]
                return

    def skips(self, character: str) -> bool:
        """Move over a character if it stands here; tells whether it does."""
        found = self.text.startswith(character, self.position)
        if found:
            self.move_to(self.position + 1)
        return found

    def expect(self, character: str, expected: str) -> None:
        """Move over a character that has to stand here."""
        if not self.skips(character):
            raise FileError(self.line, f"expected {expected}, got {self.text[self.position : self.position + 1]!r}")

    def _fill(self) -> None:
        while self._more and len(self.text) - self.position <= MAX_BODY_BYTES:
            block = self._file.read(_BLOCK)
            self._more = bool(block)
            try:
                added = self._decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                line = self.line + self.text.count("\n", self.position) + error.object.count(b"\n", 0, error.start)
                got = f"the byte 0x{error.object[error.start]:02x}"
                raise FileError(line, f"expected UTF-8, got {got}") from None
            self.text, self.position = self.text[self.position :] + added, 0


def _csv(file: BinaryIO) -> Iterator[Record]:
    """The rows, of which the first is the header; empty lines are none."""
    row = list[tuple[int, int, bytes]]()

    def fed() -> Iterator[str]:
        for number, offset, line in _lines(file):
            row.append((number, offset, line))
            if offset + len(line) - row[0][1] > 2 * MAX_BODY_BYTES:
                raise FileError(row[0][0], "expected quotes in pairs, got a quote that does not end")
            yield _decoded(line, number)

    header: list[str] = []
    reader = csv.reader(fed(), strict=True)
    while True:
        row.clear()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise FileError(row[0][0], f"expected a row of CSV (RFC 4180): {error}") from None
        if not cells:
            continue
        first, offset, _ = row[0]
        text = _bounded(b"".join(line for _, _, line in row).rstrip(b"\r\n"), first)
        named = dict(zip(header, cells, strict=False))
        header = header or cells
        yield Record(first, offset, text, named.get(NATURAL_KEY) or None)


_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)  # texts: only the natural key is used
_READERS: dict[Format, Callable[[BinaryIO], Iterator[Record]]] = {"csv": _csv, "ndjson": _ndjson, "json": _json}


def _json_value(text: str, start: int, line: int) -> tuple[object, int]:
    """The value that begins at `start`, and where it ends."""
    try:
        return _DECODER.raw_decode(text, start)
    except json.JSONDecodeError as error:
        line += text.count("\n", start, error.pos)
        column = "" if start else f" at column {error.colno}"
        raise FileError(line, f"expected a JSON value of at most {MAX_BODY_BYTES} bytes: {error.msg}{column}") from None
    except RecursionError:
        raise FileError(line, "expected JSON that is not nested so deeply") from None


def _natural_key(value: object) -> str | None:
    found = value.get(NATURAL_KEY) if isinstance(value, dict) else None
    return None if found is None else str(found)
