"""Remembers what was sent of a file, in a database beside it: which record is where in which operation, and what became
of it.

Each transaction is on the disk before the next step is taken, and one process at a time has the file.

A *part* is what is sent as one operation. Its states:

    planned ──start──▶ started ──the operation has ended──▶ ended
                          ▲                                   │
                          └────────────── retrying ◀──────────┘

`planned` and `retrying` say what is about to be asked; until an answer is noted, nobody knows if the app heard it.
"""

import hashlib
import itertools
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from shared.operations.requests import read_operation_id

from .reading import Record, Source

PART_RECORDS = 1_000
PART_BYTES = 400_000
"""Of a part. It is read into memory, sent again after a lost answer, and fits what the Durable Task Scheduler takes."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS import (url TEXT NOT NULL, run INTEGER NOT NULL, most INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS parts (
    number INTEGER PRIMARY KEY,
    key TEXT NOT NULL,
    state TEXT NOT NULL,
    began TEXT NOT NULL DEFAULT ''          -- `created_at` of the operation before the retry that is asked for
);
CREATE TABLE IF NOT EXISTS records (
    digest BLOB PRIMARY KEY,
    natural_key TEXT,
    run INTEGER NOT NULL,                   -- that saw the record first
    line INTEGER, place INTEGER, length INTEGER NOT NULL, -- in the file as it is now; line is NULL if it is gone
    part INTEGER, position INTEGER,         -- NULL until it is sent
    outcome TEXT, id TEXT, reason TEXT, may_be_stored INTEGER NOT NULL DEFAULT 0,
    held TEXT                               -- why it is not sent
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_by_part ON records (part, line);
CREATE INDEX IF NOT EXISTS records_by_natural_key ON records (natural_key);
CREATE TABLE IF NOT EXISTS copies (line INTEGER PRIMARY KEY, digest BLOB NOT NULL);
"""

_HOLD_SAME_KEY = """
UPDATE records AS new SET held = 'undecided' WHERE part IS NULL AND EXISTS (
    SELECT 1 FROM records WHERE part IS NOT NULL AND run < new.run AND natural_key = new.natural_key)
"""
_HOLD_WHERE_SOME_ARE_GONE = """
UPDATE records SET held = 'undecided'
WHERE part IS NULL AND run > (SELECT min(run) FROM records WHERE part IS NOT NULL AND line IS NULL)
"""
_SENT = "digest, line, place, length, position, outcome, natural_key, run, may_be_stored"
_LEFT = "line IS NOT NULL AND NOT (outcome = 'posted' OR outcome IN ('rejected', 'invalid') AND NOT may_be_stored)"
_FATE = """
CASE WHEN outcome = 'posted' THEN 'posted'
     WHEN outcome IN ('rejected', 'invalid', 'gave_up', 'cancelled') AND NOT may_be_stored THEN 'not stored'
     ELSE 'may be stored' END
"""

type State = Literal["planned", "started", "retrying", "ended"]


class JournalError(Exception):
    """The journal cannot be used; the message says why, and what to do."""


class Part(NamedTuple):
    """What is sent as one operation, under an `Idempotency-Key`; `began` as in the schema."""

    number: int
    key: str
    state: State
    began: str


class Sent(NamedTuple):
    """A record of a part.

    Attributes:
        line: In the file as it is now; None if the record is no longer in it.
        place: The byte at which it begins.
        position: Its index in the operation.
        outcome: None before it is known.
        run: The number of the run that saw the record first.
    """

    digest: bytes
    line: int | None
    place: int
    length: int
    position: int
    outcome: str | None
    natural_key: str | None
    run: int
    may_be_stored: bool


class Result(NamedTuple):
    """What became of a record of a part."""

    position: int
    outcome: str
    id: str | None = None
    reason: str = ""
    may_be_stored: bool = False


class Journal:
    """The journal of a file; see the module.

    Args:
        path: Of the database, made if there is none.
        url: Of the app.
        most: How many records a new journal puts into a part.

    Raises:
        JournalError: Another process uses it, it is none, or belongs to another app.
    """

    def __init__(self, path: Path, url: str, most: int = PART_RECORDS) -> None:
        self._db = sqlite3.connect(path, timeout=0, isolation_level=None)
        try:
            self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
            with self._transaction():
                for statement in _SCHEMA.split(";\n"):
                    self._db.execute(statement)
                if not self._db.execute("SELECT 1 FROM import").fetchone():
                    self._db.execute("INSERT INTO import VALUES (?, 0, ?)", (url, most))
            (known,) = self._db.execute("SELECT url FROM import").fetchone()
        except sqlite3.OperationalError as error:
            self.close()
            raise JournalError(f"{path}: expected to have it alone: {error}; does another import run?") from None
        except sqlite3.DatabaseError as error:
            self.close()
            raise JournalError(f"{path}: expected the journal of an import: {error}") from None
        if known != url:
            self.close()
            raise JournalError(f"{path}: this file was imported through {known}: move the journal away for another app")

    def close(self) -> None:
        """Let another process have it."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is changed in the `with` block is kept, or nothing of it."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def _value(self, query: str, *values: object) -> int:
        found: int = self._db.execute(query, values).fetchone()[0]
        return found

    def read(self, source: Source) -> None:
        """Note where each record stands in the file now. What is new waits, if it may be another form of what was sent.

        Raises:
            FileError: The file cannot be read; nothing is noted then.
        """
        with self._transaction():
            self._db.execute("UPDATE import SET run = run + 1")
            self._db.execute("UPDATE records SET line = NULL, held = NULL")
            self._db.execute("DELETE FROM copies")
            run = self._value("SELECT run FROM import")
            for record in source.records():
                self._note(record, source.digest(record.text), run)
            self._db.execute("DELETE FROM records WHERE line IS NULL AND part IS NULL")
            self._db.execute(_HOLD_SAME_KEY)
            self._db.execute(_HOLD_WHERE_SOME_ARE_GONE)

    def _note(self, record: Record, digest: bytes, run: int) -> None:
        values = (digest, record.natural_key, run, record.line, record.offset, len(record.text))
        noted = self._db.execute(
            "INSERT INTO records (digest, natural_key, run, line, place, length) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT"
            " (digest) DO UPDATE SET line = excluded.line, place = excluded.place, length = excluded.length"
            " WHERE line IS NULL",
            values,
        )
        if not noted.rowcount:
            self._db.execute("INSERT INTO copies VALUES (?, ?)", (record.line, digest))

    def parts(self, *states: State) -> list[Part]:
        """The parts in these states, in the order in which they were planned."""
        rows = self._db.execute("SELECT number, key, state, began FROM parts ORDER BY number")
        return [part for part in map(Part._make, rows) if part.state in states]

    def open_parts(self) -> list[Part]:
        """The parts that have ended, but not with every record posted."""
        return [
            part
            for part in self.parts("ended")
            if self._value("SELECT EXISTS (SELECT 1 FROM records WHERE part = ? AND outcome != 'posted')", part.number)
        ]

    def sent(self, part: Part) -> list[Sent]:
        """The records of a part by their positions; while it is retried, a corrected one behind the one before."""
        rows = self._db.execute(f"SELECT {_SENT} FROM records WHERE part = ? ORDER BY position, run", (part.number,))  # noqa: S608
        return [Sent._make(row) for row in rows]

    def plan(self, source: Source) -> Part | None:
        """Make the next part of what nobody has sent yet, in the order of the file; None if there is nothing.

        Its key is that of its content: the same file makes the same parts, also without a journal.
        """
        most = self._value("SELECT most FROM import")
        query = "SELECT digest, place, length FROM records WHERE part IS NULL AND line IS NOT NULL AND held IS NULL"
        places, size = list[tuple[bytes, int, int]](), 0
        for row in self._db.execute(f"{query} ORDER BY line LIMIT ?", (most,)):
            size += row[2]
            if places and size > PART_BYTES:
                break
            places.append(row)
        if not places:
            return None
        key = f"import-{hashlib.sha256(source.body(source.texts(places))).hexdigest()}"
        with self._transaction():
            number = self._value("SELECT coalesce(max(number), 0) + 1 FROM parts")
            self._db.execute("INSERT INTO parts (number, key, state) VALUES (?, ?, 'planned')", (number, key))
            self._db.executemany(
                "UPDATE records SET part = ?, position = ? WHERE digest = ?",
                [(number, position, digest) for position, (digest, _, _) in enumerate(places)],
            )
        return Part(number, key, "planned", "")

    def drop(self, part: Part, *, most: int | None = None) -> None:
        """Forget a part that the app has not taken in: others take its records, `most` of them at most from now on."""
        with self._transaction():
            self._db.execute("DELETE FROM parts WHERE number = ?", (part.number,))
            self._db.execute("UPDATE records SET part = NULL, position = NULL WHERE part = ?", (part.number,))
            self._db.execute("DELETE FROM records WHERE part IS NULL AND line IS NULL")
            if most is not None:
                self._db.execute("UPDATE import SET most = ?", (most,))

    def started(self, part: Part) -> None:
        """Note that the app has taken a part in, or a retry of it: corrected records have replaced those before."""
        with self._transaction():
            self._db.execute("UPDATE parts SET state = 'started' WHERE number = ?", (part.number,))
            replaced = [(old.digest,) for old, _ in self.corrections(part)]
            self._db.executemany("DELETE FROM records WHERE digest = ?", replaced)

    def retrying(self, part: Part, corrections: Iterable[tuple[Sent, bytes]]) -> None:
        """Note that a part is to be retried, with other records, given by digest, in the places of some."""
        with self._transaction():
            self._db.execute("UPDATE parts SET state = 'retrying' WHERE number = ?", (part.number,))
            self._db.executemany(
                "UPDATE records SET part = ?, position = ?, held = NULL WHERE digest = ?",
                [(part.number, sent.position, digest) for sent, digest in corrections],
            )

    def not_retried(self, part: Part, reason: str) -> None:
        """Note that a part is as it was before the retry, and why."""
        with self._transaction():
            self._db.execute("UPDATE parts SET state = 'ended' WHERE number = ?", (part.number,))
            self._db.executemany(
                "UPDATE records SET part = NULL, position = NULL, held = 'undecided' WHERE digest = ?",
                [(new.digest,) for _, new in self.corrections(part)],
            )
            self._db.execute(f"UPDATE records SET held = ? WHERE part = ? AND {_LEFT}", (reason, part.number))  # noqa: S608

    def corrections(self, part: Part) -> list[tuple[Sent, Sent]]:
        """The records in whose places a retry of a part puts others, each with the other one."""
        return [pair for pair in itertools.pairwise(self.sent(part)) if pair[0].position == pair[1].position]

    def ended(self, part: Part, results: Iterable[Result], began: str) -> None:
        """Note what became of the records of a part whose operation has ended."""
        digests = {sent.position: sent.digest for sent in self.sent(part)}
        with self._transaction():
            self._db.execute("UPDATE parts SET state = 'ended', began = ? WHERE number = ?", (began, part.number))
            self._db.executemany(
                "UPDATE records SET outcome = ?, id = ?, reason = ?, may_be_stored = ? WHERE digest = ?",
                [
                    (one.outcome, one.id, one.reason, one.may_be_stored, digests[one.position])
                    for one in results
                    if one.position in digests
                ],
            )

    def forgotten(self, part: Part) -> None:
        """Note that the app knows the operation of a part no longer: what is not known by now, nobody can tell."""
        with self._transaction():
            self._db.execute("UPDATE parts SET state = 'ended' WHERE number = ?", (part.number,))
            self._db.execute(
                "UPDATE records SET outcome = 'unknown', may_be_stored = 1, reason = ?"
                " WHERE part = ? AND outcome IS NULL",
                (f"the app knows operation {operation_id(part)} no longer: look into the API", part.number),
            )

    def left_to_retry(self, number: int) -> bool:
        """Whether a part has records in the file that a retry may yet bring to the API."""
        return bool(self._value(f"SELECT EXISTS (SELECT 1 FROM records WHERE part = ? AND {_LEFT})", number))  # noqa: S608

    def other_form(self, sent: Sent) -> tuple[bytes, bool] | None:
        """A record with the same natural key that came into the file in another run, and whether it was sent.

        One that was sent and is certainly not stored does not count once it has left the file, nor one that was not
        sent and was there before.
        """
        query = (
            "SELECT digest, part IS NOT NULL FROM records WHERE natural_key = ? AND (part IS NULL AND line IS NOT NULL"  # noqa: S608
            f" AND run > ? OR part IS NOT NULL AND run != ? AND (line IS NOT NULL OR {_FATE} != 'not stored'))"
            " ORDER BY part IS NULL, line"
        )
        row = self._db.execute(query, (sent.natural_key, sent.run, sent.run)).fetchone()
        return None if row is None else (row[0], bool(row[1]))

    def undecided(self) -> list[Sent]:
        """The new records that may be other forms of what was sent."""
        rows = self._db.execute(f"SELECT {_SENT} FROM records WHERE part IS NULL AND held = 'undecided' ORDER BY line")  # noqa: S608
        return [Sent._make(row) for row in rows]

    def earlier_forms(self, new: Sent) -> list[tuple[str, int]]:
        """What became of the records with the same natural key that were sent, each with its part."""
        return self._db.execute(
            f"SELECT {_FATE}, part FROM records WHERE natural_key = ? AND part IS NOT NULL",  # noqa: S608
            (new.natural_key,),
        ).fetchall()

    def missing(self, run: int) -> set[str]:
        """What became of records from before a run that are no longer in the file in any form."""
        rows = self._db.execute(
            f"SELECT DISTINCT {_FATE} FROM records AS old WHERE part IS NOT NULL AND line IS NULL AND run < ? AND NOT"  # noqa: S608
            " EXISTS (SELECT 1 FROM records WHERE line IS NOT NULL AND natural_key = old.natural_key)",
            (run,),
        )
        return {fate for (fate,) in rows}

    def hold(self, digest: bytes, reason: str | None) -> None:
        """Note why a record is not sent; None if it is."""
        self._db.execute("UPDATE records SET held = ? WHERE digest = ?", (reason, digest))

    def tally(self) -> Counter[str]:
        """How many records of the file came to what, as far as their operations have ended; all of them are `total`."""
        rows = self._db.execute(
            "SELECT coalesce(CASE WHEN state = 'ended' THEN outcome END, ''), count(*) FROM records LEFT JOIN parts ON"
            " part = number WHERE line IS NOT NULL GROUP BY 1"
        )
        tally = Counter(dict(rows.fetchall()))
        tally["total"] = tally.total()
        return tally

    def rows(self) -> Iterator[tuple[int, str, str, str]]:
        """Line, outcome, id and reason of each record of the file, and of the lines that are the same as another."""
        rows = self._db.execute(
            "SELECT line, 0, outcome, part IS NULL, id, coalesce(held, reason) FROM records WHERE line IS NOT NULL"
            " UNION ALL SELECT copies.line, records.line, outcome, part IS NULL, id, ''"
            " FROM copies JOIN records USING (digest) ORDER BY 1"
        )
        for line, first, outcome, unsent, record_id, reason in rows:
            same = f"the same as line {first}" if first else ""
            yield line, outcome or ("not sent" if unsent else "pending"), record_id or "", same or reason or ""


def operation_id(part: Part) -> str:
    """The id of the operation that a part is: the key alone decides on it (docs/http-api.md)."""
    return read_operation_id(part.key)
