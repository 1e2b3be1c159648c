"""The command as users see it: what it says, what it sends, and how it exits."""

import csv
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from dev.importer.__main__ import main
from dev.importer.journal import Journal
from shared.business import NATURAL_KEY

from .batches import Batches, Served

ROOT = Path(__file__).parents[2]

type Write = Callable[..., Path]
type Command = Callable[..., tuple[int, str]]


@pytest.fixture
def command(there: Served, batches: Batches, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command on a file; returns its exit status and what it has printed."""

    def run(file: Path, *options: str) -> tuple[int, str]:
        status = main([str(file), "--url", there.url, *options])
        return status, capsys.readouterr().out

    return run


def line(key: object, fate: str = "posted", text: str = "a") -> str:
    return json.dumps({NATURAL_KEY: key, "fate": fate, "text": text})


def results(file: Path) -> list[list[str]]:
    with file.with_name(f"{file.name}.results.csv").open(newline="") as rows:
        return list(csv.reader(rows))


def sent_alone(batches: Batches) -> list[str]:
    """The records of the operations but the first."""
    return [json.dumps(one) for operation in list(batches.operations.values())[1:] for one in operation.records]


def test_all_is_posted_and_told_line_by_line(command: Command, batches: Batches, write: Write) -> None:
    file = write(line(1), "", line(2), line(1))
    status, said = command(file)
    assert status == 0
    assert "2 of 2 records are posted" in said
    ids = sorted(batches.stored)
    assert results(file) == [
        ["line", "outcome", "id", "reason"],
        ["1", "posted", ids[0], ""],
        ["3", "posted", ids[1], ""],
        ["4", "posted", ids[0], "the same as line 1"],
    ]
    assert command(file)[0] == 0
    assert sum(batches.posts.values()) == 2


def test_what_is_rejected_is_told_and_only_its_correction_is_sent(
    command: Command, batches: Batches, write: Write
) -> None:
    status, said = command(write(line(1), line(2, "rejected"), line(3, "rejected")))
    assert status == 1
    assert "line 2: 422 Refused for good" in said
    before = batches.posts.total()
    status, _ = command(file := write(line(1), line(2, "posted", "b"), line(3, "rejected")))
    assert (status, sent_alone(batches)) == (1, [line(2, "posted", "b")])
    assert batches.posts.total() == before + 1
    assert [row[1] for row in results(file)[1:]] == ["posted", "posted", "rejected"]


def test_a_file_of_only_the_corrected_lines_may_take_the_place_of_the_first(
    command: Command, batches: Batches, write: Write
) -> None:
    command(write(line(1), line(2, "rejected")))
    status, _ = command(write(line(2, "posted", "b")))
    assert (status, sent_alone(batches)) == (0, [line(2, "posted", "b")])


def test_what_gave_up_is_retried_under_its_operation_with_what_was_corrected_meanwhile(
    command: Command, batches: Batches, write: Write
) -> None:
    command(write(line(1), line(2, "rejected"), line(3, "gives up")))
    status, _ = command(write(line(1), line(2, "posted", "b"), line(3, "gives up")))
    assert (status, len(batches.operations)) == (0, 1)
    assert sorted(json.dumps(one) for one in batches.stored.values()) == [
        line(1),
        line(2, "posted", "b"),
        line(3, "gives up"),
    ]


def test_a_corrected_record_has_taken_the_place_of_the_first_in_every_retry(
    command: Command, batches: Batches, write: Write
) -> None:
    command(write(line(1, "gives up twice"), line(2, "rejected")))
    file = write(line(1, "gives up twice"), line(2, "posted", "b"))
    assert (command(file)[0], command(file)[0], len(batches.operations)) == (1, 0, 1)


@pytest.mark.parametrize("heard", [True, False])
def test_a_retry_that_was_cut_off_is_one_retry(command: Command, batches: Batches, write: Write, heard: bool) -> None:
    command(write(line(1, "gives up"), line(2, "rejected")))
    file = write(line(1, "gives up"), line(2, "posted", "b"))
    if heard:
        batches.mute = "/retry"
        assert command(file, "--patience", "0.1")[0] == 1
    else:
        batches.answers += [None, None, None, web.Response(status=401)]  # a look, results, a dry run
        assert command(file)[0] == 2
    assert batches.asked[-1].endswith("/retry")
    batches.mute = ""
    assert (command(file)[0], batches.posts.total()) == (0, 4)


def test_of_two_forms_that_gave_up_only_one_is_ever_posted(command: Command, batches: Batches, write: Write) -> None:
    first, second = line(1, "gives up twice"), line(1, "gives up", "b")
    command(write(first))
    command(write(second))  # as a new operation: there was nothing to be retried for it to take part in
    command(write(first))
    assert command(write(first))[0] == 0
    status, said = command(write(second))
    assert (status, [json.dumps(one) for one in batches.stored.values()]) == (1, [first])
    assert "line 1: not retried: a record of its operation has left the file, or may have been sent" in said


def test_nothing_is_retried_with_a_record_that_has_left_the_file(
    command: Command, batches: Batches, write: Write
) -> None:
    command(write(line(1, "gives up"), line(2, "gives up")))
    status, said = command(write(line(1, "gives up")))
    assert (status, batches.posts.total()) == (1, 2)
    assert "line 1: not retried: a record of its operation has left the file" in said
    assert command(write(line(1, "gives up"), line(2, "gives up")))[0] == 0


def test_nothing_is_retried_that_was_sent_in_another_form_since(
    command: Command, batches: Batches, write: Write
) -> None:
    other = line(1, "posted", "b")
    command(write(line(1, "gives up")))
    assert command(write(other))[0] == 0
    status, said = command(write(line(1, "gives up")))
    assert (status, [json.dumps(one) for one in batches.stored.values()]) == (1, [other])
    assert "line 1: not retried: a record of its operation has left the file, or may have been sent in" in said


@pytest.mark.parametrize("new", [(), ("--new",)])
def test_what_may_be_stored_is_not_sent_in_another_form(
    command: Command, batches: Batches, write: Write, new: tuple[str, ...]
) -> None:
    command(write(line(1), line(2, "refused unseen")))
    for other in (line(2, "posted", "b"), line(7, "posted", "b")):  # with another natural key it is no other record
        status, said = command(write(line(1), other), *new)
        assert (status, sent_alone(batches), len(batches.stored)) == (1, [], 1)
        assert "line 2: not sent: " in said
    status, said = command(write(line(1), line(2, "refused unseen"), line(2, "posted", "b")), *new)
    assert (status, sent_alone(batches)) == (1, [])


def test_a_changed_form_of_what_is_posted_is_sent_only_as_a_new_record(
    command: Command, batches: Batches, write: Write
) -> None:
    command(write(line(1), line(2)))
    changed = write(line(1, "posted", "b"), line(2), line(3))
    status, said = command(changed)
    assert (status, sent_alone(batches)) == (1, [line(3)])
    assert "line 1: not sent: the API has an earlier form of this record; say --new" in said
    assert results(changed)[1][1] == "not sent"
    assert command(changed, "--new")[0] == 0
    assert sent_alone(batches) == [line(3), line(1, "posted", "b")]


def test_with_another_natural_key_it_may_be_a_changed_form_as_long_as_a_posted_record_is_missing(
    command: Command, batches: Batches, write: Write
) -> None:
    command(write(line(1), line(2)))
    assert command(write(line(1), line(9)))[0] == 1
    assert sent_alone(batches) == []
    assert command(write(line(1), line(9), line(2)))[0] == 0
    assert sent_alone(batches) == [line(9)]


def test_parts_get_smaller_where_the_app_takes_less(command: Command, batches: Batches, write: Write) -> None:
    batches.room = 3
    assert command(write(*map(line, range(10))))[0] == 0
    assert [len(operation.records) for operation in batches.operations.values()] == [3, 3, 3, 1]
    assert len(batches.stored) == 10


def test_an_operation_that_the_app_has_forgotten_is_not_sent_again(
    command: Command, batches: Batches, write: Write
) -> None:
    file = write(line(1))
    batches.answers += [None, web.Response(status=404)]
    status, said = command(file)
    assert (status, batches.posts.total()) == (1, 1)
    assert "knows operation" in said
    batches.operations.clear()
    assert (command(file)[0], batches.posts.total()) == (1, 1)


def test_another_app_is_another_import(command: Command, write: Write, there: Served) -> None:
    file = write(line(1))
    command(file)
    status, said = command(file, "--url", there.url.replace("127.0.0.1", "localhost"))
    assert status == 2
    assert f"this file was imported through {there.url}: move the journal away" in said


def test_two_imports_of_one_file_do_not_run_at_once(command: Command, write: Write, there: Served) -> None:
    file = write(line(1))
    Journal(file.with_name(f"{file.name}.journal"), there.url).close()
    journal = Journal(file.with_name(f"{file.name}.journal"), there.url)
    status, said = command(file)
    journal.close()
    assert (status, "does another import run?" in said) == (2, True)


def test_what_is_no_journal_is_not_written_over(command: Command, write: Write) -> None:
    file = write(line(1))
    other = write("a text of somebody " * 100, name=f"{file.name}.journal")
    status, said = command(file)
    assert (status, "expected the journal of an import" in said) == (2, True)
    assert other.read_text().startswith("a text")


def test_a_file_that_cannot_be_read_changes_nothing(command: Command, batches: Batches, write: Write) -> None:
    command(write(line(1), line(2, "rejected")))
    before = results(write(line(1), line(2), "{"))
    status, said = command(write(line(1), line(2), "{"))
    assert status == 2
    assert "line 3: expected a JSON value" in said
    assert len(batches.operations) == 1
    assert results(write(line(1), line(2, "rejected"))) == before
    assert command(write(line(1), line(2, "rejected")))[0] == 1


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (web.Response(status=401), "got 401 the app asks for a key, and was given none or another one"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), "redirects are not followed"),
        (web.Response(status=404), "expected 200 or 202 or 400 or 413 or 422, got 404 Not Found"),
        (web.Response(status=200, text="[]"), "expected an operation, got an answer of another shape"),
        (web.Response(status=409, text='{"detail": "the-secret-key?"}'), "got 409 ***?"),
    ],
    ids=lambda value: str(getattr(value, "status", "")),
)
def test_an_answer_that_is_not_expected_is_told_without_the_key(
    command: Command, batches: Batches, write: Write, answer: Any, expected: str
) -> None:
    batches.answers.append(answer)
    status, said = command(write(line(1)), "--key", "the-secret-key")
    assert status == 2
    assert expected in said
    assert "the-secret-key" not in said
    assert (batches.keys, len(batches.asked)) == ({"the-secret-key"}, 1)
    assert "the-secret-key" not in batches.asked[0]


def test_the_key_may_come_from_the_environment_and_is_in_no_file(
    command: Command, batches: Batches, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APP_KEY", "the-secret-key")
    file = write(line(1))
    command(file)
    assert batches.keys == {"the-secret-key"}
    assert not [path for path in file.parent.iterdir() if b"the-secret-key" in path.read_bytes()]


def test_results_are_replaced_and_not_written_over(command: Command, write: Write) -> None:
    file = write(line(1), line(2))
    command(file)
    path = file.with_name(f"{file.name}.results.csv")
    with path.open() as opened_before:
        command(write(line(1)))
        assert len(opened_before.readlines()) == 3
    assert len(results(file)) == 2
    assert sorted(path.name for path in file.parent.iterdir()) == [
        file.name,
        f"{file.name}.journal",
        f"{file.name}.results.csv",
    ]


def test_what_the_journal_holds_is_on_the_disk(command: Command, write: Write) -> None:
    file = write(line(1), line(2))
    command(file)
    journal = sqlite3.connect(file.with_name(f"{file.name}.journal"))
    assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert journal.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: what is committed is on the disk
    journal.close()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_the_same_command_goes_on_after_it_was_ended(
    command: Command, batches: Batches, write: Write, there: Served, number: signal.Signals, status: int
) -> None:
    file, batches.running = write(line(1), line(2, "rejected")), True
    words = [sys.executable, "-m", "dev.importer", str(file), "--url", there.url]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert batches.looked.wait(20)
        process.send_signal(number)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == status
    assert "Traceback" not in said
    if number == signal.SIGINT:
        assert "Interrupted. What the app has taken in goes on there" in said
        assert [row[1] for row in results(file)[1:]] == ["pending", "pending"]
    batches.running = False
    assert command(file)[0] == 1
    assert [row[1] for row in results(file)[1:]] == ["posted", "rejected"]
    assert list(batches.posts.values()) == [1, 1]


def test_a_part_that_the_app_has_not_heard_of_is_made_anew_of_what_the_file_holds_now(
    command: Command, batches: Batches, write: Write
) -> None:
    batches.answers.append(web.Response(status=401))  # planned, but not taken in
    assert command(write(line(1), line(2)))[0] == 2
    assert command(write(line(1), line(2, "posted", "b")))[0] == 0
    assert [json.dumps(one) for one in batches.stored.values()] == [line(1), line(2, "posted", "b")]


def test_a_part_that_the_app_has_heard_of_is_followed_whatever_the_file_holds_now(
    command: Command, batches: Batches, write: Write
) -> None:
    batches.mute = "/batch"
    assert command(write(line(1), line(2)), "--patience", "0.1")[0] == 1
    batches.mute = ""
    status, said = command(write(line(1), line(2, "posted", "b")))
    assert (status, len(batches.stored), "line 2: not sent: the API has" in said) == (1, 2, True)


def test_a_correction_that_is_not_valid_is_told_and_holds_its_operation_up(
    command: Command, batches: Batches, write: Write
) -> None:
    command(write(line(1, "gives up"), line(2, "rejected")))
    batches.invalid.add(line(2, "posted", "b"))
    status, said = command(write(line(1, "gives up"), line(2, "posted", "b")))
    assert (status, batches.posts.total()) == (1, 2)
    assert "line 1: not retried: a corrected record of its operation is not valid" in said
    assert "line 2: not sent: name: Field required" in said
    assert command(write(line(1, "gives up"), line(2, "posted", "c")))[0] == 0
    assert len(batches.operations) == 1


@pytest.mark.parametrize("count", [1, 250])
def test_where_no_record_is_valid_each_is_told(command: Command, batches: Batches, write: Write, count: int) -> None:
    lines = [line(number) for number in range(count)]
    batches.invalid.update(lines)
    status, _ = command(file := write(*lines))
    assert (status, batches.operations) == (1, {})
    assert [row[1:] for row in results(file)[1:]] == [["invalid", "", "name: Field required"]] * count
    batches.invalid.clear()
    assert command(file)[0] == 1  # it is not sent again before it is corrected
    assert batches.operations == {}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--url", "http://example.com"], "expected https"),
        (["--url", "https://example.com/api"], "expected a URL without a path"),
        (["--url", "https://user@example.com"], "expected a URL without a path"),
        (["--url", "https://example.com", "--key", "schl\u00fcssel"], "expected visible ASCII"),
        (["--url", "https://example.com"], "--format: expected one of csv, json, ndjson"),
        ([], "--url"),
    ],
)
def test_a_wrong_call_is_told(capsys: pytest.CaptureFixture[str], words: list[str], expected: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["companies.txt", *words])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert expected in said
    assert "schl" not in said


def test_a_file_that_is_not_there_is_told(command: Command, tmp_path: Path) -> None:
    status, said = command(tmp_path / "missing.csv")
    assert (status, said) == (2, f"{tmp_path / 'missing.csv'}: No such file or directory\n")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_journal_is_told(command: Command, write: Write) -> None:
    file = write(line(1))
    file.with_name(f"{file.name}.journal").mkdir()
    status, said = command(file)
    assert (status, said) == (2, f"{file}: unable to open database file\n")
