"""Has the app judge records without any of them being sent (`validate_only`)."""

from collections.abc import Iterator, Sequence

from .app import App, document
from .journal import PART_BYTES, PART_RECORDS
from .reading import FileError, Record, Source


def bad_lines(app: App, source: Source) -> Iterator[tuple[int, str]]:
    """The lines of a file that the app would not take, each with the reason; the file is read as a stream.

    Raises:
        FileError: The file cannot be read any further.
        AppError: The app does not do what it should.
    """
    part, size = list[Record](), 0
    for record in source.records():
        size += len(record.text)
        if part and (len(part) == PART_RECORDS or size > PART_BYTES):
            yield from _bad(app, source, part)
            part, size = [], len(record.text)
        part.append(record)
    yield from _bad(app, source, part)


def _bad(app: App, source: Source, part: Sequence[Record]) -> Iterator[tuple[int, str]]:
    for position, reason in faults(app, source, [record.text for record in part]):
        yield part[position].line, reason


def faults(app: App, source: Source, texts: Sequence[bytes], first: int = 0) -> Iterator[tuple[int, str]]:
    """The positions of the records that are not valid, each with the first of its errors.

    An answer lists a hundred errors: if there are more, each half is asked about.

    Raises:
        FileError: The header is not one of the app's records.
    """
    answer = app.ask(
        "POST",
        "/batch?validate_only=true&skip_invalid=true",
        *(200, 400),
        body=source.body(texts),
        Content_Type=source.media_type,
    )
    told = document(answer)
    errors, total = told.get("skipped") or [], told.get("skipped_total") or 0
    if answer.status_code == 400:  # for all records, or for the header
        errors, total = told.get("errors") or [], told.get("errors_total") or 0
        if any("index" not in error for error in errors):
            raise FileError(1, str(told.get("detail")))
    if len(errors) < total and len(texts) > 1:
        half = len(texts) // 2
        yield from faults(app, source, texts[:half], first)
        yield from faults(app, source, texts[half:], first + half)
        return
    seen = set[int]()
    for error in errors:
        if error["index"] not in seen:
            seen.add(error["index"])
            yield first + error["index"], f"{error['field']}: {error['detail']}"
