"""State files that can't be used: each is refused in a line that says why, and left as it was."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from devhost.store import StateError, Store


def refusal(path: Path) -> str:
    with pytest.raises(StateError) as refused:
        Store(path)
    return str(refused.value)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


def test_a_file_of_another_version_is_refused(state: Path) -> None:
    Store(state).close()
    with closing(sqlite3.connect(state)) as database:
        database.execute("PRAGMA user_version = 999")

    assert refusal(state) == f"the state file {state} is of another version of this host: delete it"


def test_somebody_elses_database_is_refused_and_left_as_it_was(state: Path) -> None:
    with closing(sqlite3.connect(state)) as database:
        database.execute("CREATE TABLE theirs (name TEXT)")
    content = state.read_bytes()

    assert refusal(state) == f"the state file {state} is not one of this host's: choose another"
    assert state.read_bytes() == content


def test_a_file_that_is_no_database_is_refused_and_left_as_it_was(state: Path) -> None:
    state.write_text("my shopping list\n" * 100)

    assert "can't be used (file is not a database)" in refusal(state)
    assert state.read_text() == "my shopping list\n" * 100


def test_a_file_that_another_host_uses_is_refused(state: Path) -> None:
    with closing(Store(state)):
        assert refusal(state).endswith("is another host running?")


def test_a_path_through_a_file_is_refused(state: Path) -> None:
    state.write_text("")

    assert "can't be used" in refusal(state / "state.db")
