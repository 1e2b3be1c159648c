"""The stored records and the remembered idempotency keys, in SQLite."""

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import to_json

_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    natural_key TEXT NOT NULL,
    document BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS records_by_natural_key ON records (natural_key);
CREATE TABLE IF NOT EXISTS posted_under (
    idempotency_key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    number INTEGER NOT NULL REFERENCES records
) WITHOUT ROWID;
"""

type Assign = Callable[[int], dict[str, Any]]
"""What the API adds to its record of this number, counted from 1: a member that is the id, and perhaps more."""


class Stored(NamedTuple):
    """A record that is safe: its id, its JSON document, and whether the key had stored it before (`replayed`)."""

    id: str
    document: bytes
    replayed: bool


class Totals(NamedTuple):
    """Numbers of records, of distinct natural keys among them, and of remembered keys."""

    stored: int
    distinct: int
    idempotency_keys: int


class KeyReusedError(Exception):
    """The idempotency key was used before, for another record."""


class Records:
    """The database; used by one thread, which opens and closes it.

    What `store` has returned outlives the process: it is in the write-ahead log. The log reaches the disk at
    checkpoints, so a power cut may lose the last records, which is good enough for a stand-in.

    Args:
        natural_key: The member that tells one record from another.
        assign: What is added to a record, its id first.
        path: The database file, made if there is none, with its folder; ":memory:" keeps nothing.

    Raises:
        OSError: The folder cannot be made.
        sqlite3.Error: The file cannot be opened, or is no database.
    """

    def __init__(self, natural_key: str, assign: Assign, path: str | Path) -> None:
        self._natural_key, self._assign = natural_key, assign
        if str(path) != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, isolation_level="IMMEDIATE")
        try:
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._connection.close()

    def store(self, record: dict[str, Any], key: str | None) -> Stored:
        """Store a record and its idempotency key in one transaction, unless the key has already stored it.

        Null is as good as left out, and what the API assigns is not the caller's to choose.

        Raises:
            KeyReusedError: The key stands for another record.
        """
        members = {name: value for name, value in record.items() if value is not None}
        fingerprint = hashlib.sha256(json.dumps(members, sort_keys=True).encode()).digest()
        if key is not None:
            first = self._connection.execute(
                "SELECT fingerprint, id, document FROM posted_under JOIN records USING (number)"
                " WHERE idempotency_key = ?",
                (key,),
            ).fetchone()
            if first is not None:
                if first[0] != fingerprint:
                    raise KeyReusedError
                return Stored(first[1], first[2], replayed=True)
        (number,) = self._connection.execute("SELECT coalesce(max(number), 0) + 1 FROM records").fetchone()
        assigned = self._assign(number)
        record_id, natural_key = as_text(next(iter(assigned.values()))), as_text(members.get(self._natural_key))
        document = to_json(assigned | members | assigned)  # its own members first, and with its own values
        with self._connection:
            self._connection.execute(
                "INSERT INTO records VALUES (?, ?, ?, ?)", (number, record_id, natural_key, document)
            )
            if key is not None:
                self._connection.execute("INSERT INTO posted_under VALUES (?, ?, ?)", (key, fingerprint, number))
        return Stored(record_id, document, replayed=False)

    def find(self, record_id: str) -> bytes | None:
        """The JSON document of the record with this id."""
        row = self._connection.execute("SELECT document FROM records WHERE id = ?", (record_id,)).fetchone()
        return None if row is None else bytes(row[0])

    def with_natural_key(self, natural_key: str) -> list[bytes]:
        """The JSON documents of the records with this natural key, oldest first."""
        rows = self._connection.execute(
            "SELECT document FROM records WHERE natural_key = ? ORDER BY number", (natural_key,)
        )
        return [bytes(document) for (document,) in rows]

    def totals(self) -> Totals:
        """What is stored."""
        row = self._connection.execute(
            "SELECT (SELECT count(*) FROM records),"
            " (SELECT count(DISTINCT natural_key) FROM records),"
            " (SELECT count(*) FROM posted_under)"
        ).fetchone()
        return Totals(*row)


def as_text(value: object) -> str:
    """A value of JSON as it stands in URLs and names a script of faults: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
