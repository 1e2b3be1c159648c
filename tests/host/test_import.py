"""A file is imported by the command, through whatever host. `SOAK=1` makes the one that is killed 25,000 lines long."""

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from dev.processes import CommandHost
from shared.business import Record
from tests.sandboxed import LATER, REFUSED, NewRecord, Sandbox, key_of, of_rows

from .conftest import APP, KEY, PATIENCE, Caller
from .test_kills import middle

RECORDS = 40
LINES, LATENCY = (25_000, 0.02) if os.environ.get("SOAK") == "1" else (1_500, 0.1)
"""Of the file whose import is killed, and the seconds that a post takes, lest it is over before."""
ENVIRONMENT = {**os.environ, "APP_KEY": KEY}


def command_for(app: Caller, file: Path, *options: str) -> list[str]:
    url = str(app.http.base_url).rstrip("/")
    return [sys.executable, "-m", "dev.importer", str(file), "--url", url, *options]


def run_import(app: Caller, file: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = command_for(app, file, *options)
    return subprocess.run(
        command, cwd=APP, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=PATIENCE
    )


def deferred(app: Caller) -> str:
    """Wait for the latest batch of so many records to be deferred; returns the operation's id."""
    end = time.monotonic() + PATIENCE
    while True:
        for operation in app.listed(state="deferred", limit=1):
            if (operation.get("batch") or {}).get("tally", {}).get("deferred") == 1 and operation["batch"]["tally"][
                "total"
            ] == RECORDS:
                return str(operation["id"])
        assert time.monotonic() < end
        time.sleep(0.1)


def write_lines(file: Path, records: Iterable[Record]) -> None:
    file.write_text("".join(f"{json.dumps(record)}\n" for record in records))


def outcomes(file: Path) -> list[str]:
    with file.with_name(f"{file.name}.results.csv").open(newline="") as rows:
        return [row["outcome"] for row in csv.DictReader(rows)]


def test_a_file_is_imported_once_and_then_what_was_corrected_in_it(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, tmp_path: Path
) -> None:
    records = [new_record() for _ in range(RECORDS)]
    sandbox.disturb(records={key_of(records[7]): [REFUSED | {"always": True}]})
    before, file = sandbox.stats(), tmp_path / "companies.ndjson"
    write_lines(file, [*records, records[0]])
    ended = run_import(app, file)
    assert (ended.returncode, ended.stderr) == (1, ""), ended.stdout
    assert outcomes(file) == ["rejected" if at == 7 else "posted" for at in range(RECORDS + 1)]
    records[7] = new_record()
    write_lines(file, records)
    ended = run_import(app, file)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert outcomes(file) == ["posted"] * RECORDS
    after = sandbox.stats()
    assert after["stored"] - before["stored"] == after["distinct"] - before["distinct"] == RECORDS
    assert after["posts"] - before["posts"] == RECORDS + 1


def test_what_was_cancelled_is_sent_by_the_same_command_and_what_was_corrected_with_it(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, tmp_path: Path
) -> None:
    records = [new_record() for _ in range(RECORDS)]
    sandbox.disturb(records={key_of(records[3]): [LATER], key_of(records[5]): [REFUSED]})
    before, file = sandbox.stats(), tmp_path / "companies.ndjson"
    write_lines(file, records)
    with subprocess.Popen(command_for(app, file), cwd=APP, env=ENVIRONMENT, stdout=subprocess.PIPE) as importing:
        operation_id = deferred(app)
        app.http.post(f"/api/businesses/operations/{operation_id}/cancel").raise_for_status()
        assert importing.wait(PATIENCE) == 1
    assert sorted(outcomes(file)) == ["cancelled", *["posted"] * (RECORDS - 2), "rejected"]
    records[5] = dict(reversed(records[5].items()))  # the same natural key, in another line
    write_lines(file, records)
    ended = run_import(app, file)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert app.operation(operation_id)["batch"]["tally"]["posted"] == RECORDS
    after = sandbox.stats()
    assert after["stored"] - before["stored"] == after["distinct"] - before["distinct"] == RECORDS


@of_rows
def test_a_dry_run_tells_the_bad_rows_and_sends_nothing(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, tmp_path: Path
) -> None:
    file, good, before = tmp_path / "companies.csv", new_record(), sandbox.stats()
    rows = [list(good), list(good.values()), [], [*good.values(), "one cell too many"]]
    with file.open("w", newline="") as written:
        csv.writer(written).writerows(rows)
    ended = run_import(app, file, "--dry-run")
    assert (ended.returncode, ended.stderr) == (1, "")
    assert ended.stdout.splitlines()[0].startswith("line 4: (record): expected ")
    assert (sandbox.stats(), [path.name for path in tmp_path.iterdir()]) == (before, ["companies.csv"])


@of_rows
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_file_of_any_format_is_imported(
    app: Caller, sandbox: Sandbox, new_record: NewRecord, tmp_path: Path, kind: str
) -> None:
    records, before, file = [new_record() for _ in range(3)], sandbox.stats(), tmp_path / f"companies.{kind}"
    with file.open("w", encoding="utf-8-sig", newline="") as written:
        if kind == "json":
            json.dump(records, written, indent=2)
        else:
            csv.writer(written).writerows([list(records[0]), *(record.values() for record in records)])
    ended = run_import(app, file)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert sandbox.stats()["stored"] == before["stored"] + 3


@pytest.mark.timeout(6 * PATIENCE)
def test_a_file_comes_in_once_though_command_and_host_are_killed(
    app: Caller, sandbox: Sandbox, host: CommandHost, new_record: NewRecord, tmp_path: Path
) -> None:
    before, file = sandbox.stats(), tmp_path / "companies.ndjson"
    write_lines(file, (new_record() for _ in range(LINES)))
    sandbox.disturb(latency=LATENCY)
    quarters = [before["stored"] + quarter * LINES // 4 for quarter in (1, 2, 3)]
    with subprocess.Popen(command_for(app, file), cwd=APP, env=ENVIRONMENT) as importing:
        middle(sandbox, quarters[0])
        importing.kill()
    with subprocess.Popen(command_for(app, file), cwd=APP, env=ENVIRONMENT) as importing:
        middle(sandbox, quarters[1])
        host.kill()
        host.start()
        middle(sandbox, quarters[2])
        importing.kill()
    with subprocess.Popen(command_for(app, file), cwd=APP, env=ENVIRONMENT) as importing:
        assert importing.wait(5 * PATIENCE) == 0
    assert outcomes(file) == ["posted"] * LINES
    after = sandbox.stats()
    assert after["stored"] - before["stored"] == after["distinct"] - before["distinct"] == LINES
    assert after["duplicates"] == before["duplicates"]
