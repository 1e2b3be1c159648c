"""Keeps instances, histories, messages, work, timers and the runs of timer triggers in one SQLite file."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Any

# Marks the file as this host's ("devh"), and counts the changes of what is in it; any other file is refused.
_APPLICATION_ID = 0x64657668
_VERSION = 4

_SCHEMA = f"""
BEGIN;
CREATE TABLE instances (
    instance_id TEXT PRIMARY KEY,
    execution_id TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT,
    status TEXT NOT NULL,
    input TEXT NOT NULL,            -- JSON
    output TEXT,                    -- JSON
    custom_status TEXT,             -- JSON
    created TEXT NOT NULL,
    updated TEXT NOT NULL,
    parent TEXT,                    -- JSON: instance_id, execution_id, task_id
    waits TEXT NOT NULL,            -- JSON: names of the external events waited for
    trace TEXT NOT NULL             -- JSON: headers of W3C Trace Context
) WITHOUT ROWID;
CREATE INDEX instances_by_status ON instances (status);
CREATE TABLE history (
    instance_id TEXT NOT NULL,
    position INTEGER NOT NULL,
    event TEXT NOT NULL,            -- JSON
    PRIMARY KEY (instance_id, position)
) WITHOUT ROWID;
CREATE TABLE messages (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_id TEXT NOT NULL,
    execution_id TEXT,              -- NULL: for whichever execution is current
    event TEXT NOT NULL             -- JSON: the history event to be
);
CREATE INDEX messages_by_instance ON messages (instance_id);
CREATE TABLE activities (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    instance_id TEXT NOT NULL,
    execution_id TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    input TEXT                      -- JSON
);
CREATE INDEX activities_by_instance ON activities (instance_id);
CREATE TABLE timers (
    instance_id TEXT NOT NULL,
    task_id INTEGER NOT NULL,
    execution_id TEXT NOT NULL,
    due TEXT NOT NULL,              -- when it fires, which is up to a second earlier than was asked for
    fire_at TEXT NOT NULL,          -- when it was asked to fire
    PRIMARY KEY (instance_id, task_id)
) WITHOUT ROWID;
CREATE INDEX timers_by_due ON timers (due);
CREATE TABLE schedules (            -- of timer triggers
    function TEXT PRIMARY KEY,
    last TEXT NOT NULL,             -- when it ran
    next TEXT NOT NULL,             -- when it is due
    updated TEXT NOT NULL           -- the moment after which that is the first occurrence
) WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""

FINISHED = ("Completed", "Failed", "Terminated", "Canceled")
STATUSES = ("Pending", "Running", "Suspended", "ContinuedAsNew", *FINISHED)


class StateError(Exception):
    """The state file can't be used; the message says why, in one line."""


@dataclass(slots=True)
class Instance:
    """An orchestration instance; `input`, `output` and `custom_status` are JSON texts, times ISO 8601 texts in UTC."""

    instance_id: str
    execution_id: str
    name: str
    version: str | None
    status: str
    input: str
    output: str | None
    custom_status: str | None
    created: str
    updated: str
    parent: str | None = None
    waits: str = "[]"
    trace: str = "{}"

    @property
    def finished(self) -> bool:
        """Whether it came to an end, good or bad."""
        return self.status in FINISHED


_columns_of = attrgetter(*(column.name for column in fields(Instance)))


@dataclass(frozen=True, slots=True)
class Activity:
    """An activity that was asked for and whose result is not recorded yet."""

    sequence: int
    instance_id: str
    execution_id: str
    task_id: int
    name: str
    input: str | None


@dataclass(frozen=True, slots=True)
class Message:
    """An event on its way into an instance's history."""

    sequence: int
    execution_id: str | None
    event: dict[str, Any]


class Store:
    """The state file. Every method that writes belongs into a `transaction`; all calls come from one thread."""

    def __init__(self, path: Path) -> None:
        try:
            self._database = _open(path)
        except (OSError, sqlite3.DatabaseError) as error:
            hint = ": is another host running?" if "locked" in str(error) else ""
            raise StateError(f"the state file {path} can't be used ({error}){hint}") from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is written inside."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        self._database.execute("COMMIT")

    # Instances

    def instance(self, instance_id: str) -> Instance | None:
        """The instance with this id."""
        row = self._database.execute("SELECT * FROM instances WHERE instance_id = ?", (instance_id,)).fetchone()
        return Instance(*row) if row else None

    def save(self, instance: Instance) -> None:
        """Write an instance, new or changed."""
        self._database.execute(
            "INSERT OR REPLACE INTO instances VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", _columns_of(instance)
        )

    def find(
        self,
        *,
        statuses: Sequence[str] = (),
        created_from: str = "",
        created_to: str = "9999",
        prefix: str = "",
        start: str = "",
        limit: int = -1,
    ) -> list[Instance]:
        """Instances by status, time of creation (both ends included) and id; sorted by id, from `start` on."""
        wanted = json.dumps(statuses)
        rows = self._database.execute(
            "SELECT * FROM instances WHERE instance_id >= ? AND created BETWEEN ? AND ? "
            "AND substr(instance_id, 1, ?) = ? AND (? = '[]' OR status IN (SELECT value FROM json_each(?))) "
            "ORDER BY instance_id LIMIT ?",
            (start, created_from, created_to, len(prefix), prefix, wanted, wanted, limit),
        )
        return [Instance(*row) for row in rows]

    def recent(self, statuses: Sequence[str], *, limit: int, offset: int) -> list[Instance]:
        """Instances with one of the statuses, or with any if none is given; the newest first."""
        wanted = json.dumps(statuses)
        rows = self._database.execute(
            "SELECT * FROM instances WHERE ? = '[]' OR status IN (SELECT value FROM json_each(?)) "
            "ORDER BY created DESC, instance_id LIMIT ? OFFSET ?",
            (wanted, wanted, limit, offset),
        )
        return [Instance(*row) for row in rows]

    def count(self) -> dict[str, int]:
        """How many instances there are, by status."""
        return dict(self._database.execute("SELECT status, count(*) FROM instances GROUP BY status").fetchall())

    def with_work(self) -> list[str]:
        """The ids of instances that have messages, or have yet to begin."""
        rows = self._database.execute(
            "SELECT DISTINCT instance_id FROM messages UNION "
            "SELECT instance_id FROM instances WHERE status IN ('Pending', 'ContinuedAsNew')"
        )
        return [row[0] for row in rows]

    def purge(self, instance_id: str) -> None:
        """Forget an instance and all that belongs to it."""
        for table in ("timers", "activities", "messages", "history", "instances"):
            self._database.execute(f"DELETE FROM {table} WHERE instance_id = ?", (instance_id,))  # noqa: S608

    # History

    def history(self, instance_id: str) -> list[str]:
        """The events of an instance's current execution, as JSON texts."""
        rows = self._database.execute(
            "SELECT event FROM history WHERE instance_id = ? ORDER BY position", (instance_id,)
        )
        return [row[0] for row in rows]

    def append(self, instance_id: str, position: int, events: Sequence[str]) -> None:
        """Add events to a history that has `position` events so far."""
        self._database.executemany(
            "INSERT INTO history VALUES (?, ?, ?)",
            [(instance_id, position + offset, event) for offset, event in enumerate(events)],
        )

    def clear_history(self, instance_id: str) -> None:
        """Delete an instance's history."""
        self._database.execute("DELETE FROM history WHERE instance_id = ?", (instance_id,))

    # Messages

    def send(self, instance_id: str, execution_id: str | None, event: dict[str, Any]) -> None:
        """Leave an event for an instance."""
        self._database.execute(
            "INSERT INTO messages (instance_id, execution_id, event) VALUES (?, ?, ?)",
            (instance_id, execution_id, json.dumps(event)),
        )

    def messages(self, instance_id: str) -> list[Message]:
        """What is there for an instance, oldest first."""
        rows = self._database.execute(
            "SELECT sequence, execution_id, event FROM messages WHERE instance_id = ? ORDER BY sequence", (instance_id,)
        )
        return [Message(sequence, execution_id, json.loads(event)) for sequence, execution_id, event in rows]

    def has_messages(self, instance_id: str) -> bool:
        """Whether `messages` would find any."""
        found = self._database.execute("SELECT EXISTS (SELECT 1 FROM messages WHERE instance_id = ?)", (instance_id,))
        return bool(found.fetchone()[0])

    def discard(self, sequences: Sequence[int]) -> None:
        """Delete messages that were dealt with."""
        self._database.executemany("DELETE FROM messages WHERE sequence = ?", [(sequence,) for sequence in sequences])

    def discard_all(self, instance_id: str) -> None:
        """Delete what waits for an instance."""
        self._database.execute("DELETE FROM messages WHERE instance_id = ?", (instance_id,))

    # Activities

    def add_activity(self, instance: Instance, task_id: int, name: str, input_json: str | None) -> Activity:
        """Record an activity to be run."""
        sequence = self._database.execute(
            "INSERT INTO activities (instance_id, execution_id, task_id, name, input) VALUES (?, ?, ?, ?, ?)",
            (instance.instance_id, instance.execution_id, task_id, name, input_json),
        ).lastrowid
        return Activity(sequence or 0, instance.instance_id, instance.execution_id, task_id, name, input_json)

    def activities(self) -> list[Activity]:
        """All activities to be run, oldest first."""
        return [Activity(*row) for row in self._database.execute("SELECT * FROM activities ORDER BY sequence")]

    def has_activity(self, instance: Instance, task_id: int) -> bool:
        """Whether a task's activity is to be run."""
        key = instance.instance_id, instance.execution_id, task_id
        found = self._database.execute(
            "SELECT 1 FROM activities WHERE (instance_id, execution_id, task_id) = (?, ?, ?)", key
        )
        return found.fetchone() is not None

    def remove_activity(self, activity: Activity) -> bool:
        """Take an activity off the list; false if it isn't there any more."""
        done = self._database.execute("DELETE FROM activities WHERE sequence = ?", (activity.sequence,))
        return done.rowcount == 1

    # Timers

    def add_timer(self, instance: Instance, task_id: int, due: str, fire_at: str) -> None:
        """Set a timer that fires at `due`, for one who asked for `fire_at`."""
        row = (instance.instance_id, task_id, instance.execution_id, due, fire_at)
        self._database.execute("INSERT INTO timers VALUES (?, ?, ?, ?, ?)", row)

    def cancel_timer(self, instance_id: str, task_id: int) -> None:
        """Take back a timer."""
        self._database.execute("DELETE FROM timers WHERE instance_id = ? AND task_id = ?", (instance_id, task_id))

    def cancel_timers(self, instance_id: str) -> None:
        """Take back all timers of an execution that has ended."""
        self._database.execute("DELETE FROM timers WHERE instance_id = ?", (instance_id,))

    def next_due(self) -> str | None:
        """When the next timer is due."""
        due: str | None = self._database.execute("SELECT min(due) FROM timers").fetchone()[0]
        return due

    def take_due(self, now: str, limit: int) -> list[tuple[str, int, str, str]]:
        """Take away up to `limit` timers due by `now`: instance id, task id, execution id and the time asked for."""
        rows = self._database.execute(
            "SELECT instance_id, task_id, execution_id, fire_at FROM timers WHERE due <= ? ORDER BY due LIMIT ?",
            (now, limit),
        ).fetchall()
        self._database.executemany(
            "DELETE FROM timers WHERE instance_id = ? AND task_id = ?", [(row[0], row[1]) for row in rows]
        )
        return rows

    # Timer triggers

    def schedule(self, function: str) -> tuple[str, str, str] | None:
        """When a function ran last, is due next, and the moment from which that was computed."""
        row: tuple[str, str, str] | None = self._database.execute(
            "SELECT last, next, updated FROM schedules WHERE function = ?", (function,)
        ).fetchone()
        return row

    def save_schedule(self, function: str, last: str, due: str, updated: str) -> None:
        """Write down when a function ran last and is due next."""
        self._database.execute("INSERT OR REPLACE INTO schedules VALUES (?, ?, ?, ?)", (function, last, due, updated))

    # Everything

    def dump(self) -> str:
        """The whole state as text, for a search through it."""
        return "\n".join(self._database.iterdump())


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as on_failure:
        database = sqlite3.connect(path, isolation_level=None, timeout=0.5)
        on_failure.callback(database.close)
        # One process owns the file: faster, and a second host is noticed.
        database.execute("PRAGMA locking_mode=EXCLUSIVE")
        tables, mark, version = database.execute(
            "SELECT (SELECT count(*) FROM sqlite_schema), * FROM pragma_application_id, pragma_user_version"
        ).fetchone()
        if tables and mark != _APPLICATION_ID:
            raise StateError(f"the state file {path} is not one of this host's: choose another")
        if tables and version != _VERSION:
            raise StateError(f"the state file {path} is of another version of this host: delete it")
        # A commit survives the end of the process without waiting for the disk; a power cut may undo the last ones.
        database.executescript("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL")
        if not tables:
            database.executescript(_SCHEMA)
        on_failure.pop_all()
    return database
