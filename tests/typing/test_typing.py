"""Both type checkers accept right use of the typed client and refuse wrong use, with no plugin for it."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
FILES = [str(HERE / "right_use.py"), str(HERE / "wrong_use.py")]


@pytest.mark.parametrize(
    "checker", [["mypy", "--strict"], ["pyright", "--pythonpath", sys.executable]], ids=lambda checker: checker[0]
)
def test_right_use_passes_and_each_wrong_use_is_an_error_where_one_is_expected(checker: list[str]) -> None:
    checked = subprocess.run(
        [sys.executable, "-m", *checker, *FILES], cwd=HERE.parents[1], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
