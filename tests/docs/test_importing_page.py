"""docs/importing.md: its commands are run beside an app and a sandbox, and what they print is compared."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dev import adopt
from dev.importer import __main__ as command
from dev.importer.journal import PART_BYTES, PART_RECORDS
from dev.processes import embedded_host, no_settings
from dev.sandbox.api import app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from tests.docs.markdown import ROOT, read_blocks, read_page

PAGE = read_page("importing.md")
BLOCKS = read_blocks(PAGE)
ENTERED = re.compile(r"^\$ (?P<command>.*)\n(?P<printed>(?:(?!\$ ).*\n?)*)", re.MULTILINE)


def entered(words: list[str], folder: Path, url: str) -> str:
    """What a command prints in a folder, where the app has another address."""
    if words[0] == ".venv/bin/python":
        words = [sys.executable, *(url if word == "http://127.0.0.1:7071" else word for word in words[1:])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "APP_KEY": ""}
    return subprocess.run(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    ).stdout


@pytest.mark.skipif(not adopt.AS_IT_CAME, reason="the page shows records of the API that it came with")
def test_the_commands_print_what_the_page_shows(tmp_path: Path) -> None:
    (shown,) = [block for block in BLOCKS if block.language == "csv"]
    (tmp_path / shown.file).write_text(shown.text)
    tried = 0
    with serve(create_app(STAND_IN)) as sandbox:
        settings = no_settings(ROOT) | app_environment(sandbox)
        with embedded_host(ROOT, tmp_path / "state.db", settings, tmp_path / "host.log") as url:
            for block in BLOCKS:
                for found in ENTERED.finditer(block.text if block.language == "console" else ""):
                    printed = entered(shlex.split(found["command"]), tmp_path, url)
                    pattern = re.escape(found["printed"].strip()).replace("<id>", r"\S+")
                    assert re.fullmatch(pattern, printed.strip()), f"{found['command']}\n{printed}"
                    tried += 1
    assert tried == 5


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"up to {PART_RECORDS:,} records and {PART_BYTES:,} bytes" in PAGE
    assert command._parse(["a.csv", "--url", "https://example.com"]).patience == 900


def test_every_option_that_the_page_names_exists(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["--help"])
    told = capsys.readouterr().out
    options = set(re.findall(r"`(?:OPTIONS=)?(--[a-z-]+)", PAGE))
    assert {"--dry-run", "--new", "--patience", "--key", "--format"} == options
    assert {option for option in options if option not in told} == set()
