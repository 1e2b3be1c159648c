"""The stored businesses and the remembered idempotency keys, in SQLite."""

import hashlib
import secrets
import sqlite3
from pathlib import Path
from typing import NamedTuple

from pydantic_core import to_json

from dev.sandbox.business import Business

_SCHEMA = """
CREATE TABLE IF NOT EXISTS businesses (
    id TEXT PRIMARY KEY,
    registration_number TEXT NOT NULL,
    document BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS businesses_by_registration_number ON businesses (registration_number);
CREATE TABLE IF NOT EXISTS idempotency_keys (
    key TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    business_id TEXT NOT NULL REFERENCES businesses (id)
) WITHOUT ROWID;
"""


class Stored(NamedTuple):
    """A record that is safe: its id, its JSON document, and whether the key had stored it before (`replayed`)."""

    id: str
    document: bytes
    replayed: bool


class Totals(NamedTuple):
    """Numbers of records, of distinct registration numbers among them, and of remembered keys."""

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
        path: The database file, made if there is none, with its folder; ":memory:" keeps nothing.

    Raises:
        OSError: The folder cannot be made.
        sqlite3.Error: The file cannot be opened, or is no database.
    """

    def __init__(self, path: str | Path) -> None:
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

    def store(self, business: Business, key: str | None) -> Stored:
        """Store a record and its idempotency key in one transaction, unless the key has already stored it.

        Raises:
            KeyReusedError: The key stands for another record.
        """
        members = business.model_dump(exclude_none=True)
        fingerprint = hashlib.sha256(to_json(members)).digest()
        if key is not None:
            first = self._connection.execute(
                "SELECT fingerprint, id, document FROM idempotency_keys JOIN businesses ON id = business_id"
                " WHERE key = ?",
                (key,),
            ).fetchone()
            if first is not None:
                if first[0] != fingerprint:
                    raise KeyReusedError
                return Stored(first[1], first[2], replayed=True)
        business_id = secrets.token_hex(8)
        document = to_json({"id": business_id, **members})
        with self._connection:
            self._connection.execute(
                "INSERT INTO businesses VALUES (?, ?, ?)", (business_id, business.registration_number, document)
            )
            if key is not None:
                self._connection.execute(
                    "INSERT INTO idempotency_keys VALUES (?, ?, ?)", (key, fingerprint, business_id)
                )
        return Stored(business_id, document, replayed=False)

    def find(self, business_id: str) -> bytes | None:
        """The JSON document of the record with this id."""
        row = self._connection.execute("SELECT document FROM businesses WHERE id = ?", (business_id,)).fetchone()
        return None if row is None else bytes(row[0])

    def with_registration_number(self, registration_number: str) -> list[bytes]:
        """The JSON documents of the records with this registration number, oldest first."""
        rows = self._connection.execute(
            "SELECT document FROM businesses WHERE registration_number = ? ORDER BY rowid", (registration_number,)
        )
        return [bytes(document) for (document,) in rows]

    def totals(self) -> Totals:
        """What is stored."""
        row = self._connection.execute(
            "SELECT (SELECT count(*) FROM businesses),"
            " (SELECT count(DISTINCT registration_number) FROM businesses),"
            " (SELECT count(*) FROM idempotency_keys)"
        ).fetchone()
        return Totals(*row)
