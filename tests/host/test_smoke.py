"""The smoke test finds the app on whatever host to be well."""

import json
import os
import subprocess
import sys
from pathlib import Path

from dev import smoke
from tests.sandboxed import NewRecord

from .conftest import APP, KEY, Caller


def run_smoke(app: Caller, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(APP / "dev" / "smoke.py"), str(app.http.base_url), *options]
    environment = {**os.environ, "APP_KEY": KEY}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def test_an_app_that_is_well_passes_without_anything_being_stored(app: Caller) -> None:
    ended = run_smoke(app, "--wait", "5")
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert "FAILED" not in ended.stdout


def test_a_record_is_really_posted_if_a_file_is_given(app: Caller, new_record: NewRecord, tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(new_record()))
    ended = run_smoke(app, "--wait", "60", "--post", str(file))
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert ended.stdout.splitlines()[-1] == "ok        it posts a record, once"


def test_the_routes_that_it_wants_are_those_of_the_app(app: Caller) -> None:
    described = app.http.get("/api/openapi.json").raise_for_status().json()["paths"]
    assert described.keys() >= smoke.PATHS
