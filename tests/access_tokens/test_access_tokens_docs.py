"""The tables in the documentation name tests that exist, and leave no behaviour without one."""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
DOCUMENT = (HERE.parents[1] / "docs" / "access-tokens.md").read_text(encoding="utf-8")


def existing_tests() -> set[str]:
    return {
        node.name
        for path in HERE.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_the_documentation_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", DOCUMENT))
    assert named
    assert named - existing_tests() == set()


def test_every_behaviour_and_every_case_has_a_test() -> None:
    behaviours = re.findall(r"^\| (\d+) \|.*`test_\w+` \|$", DOCUMENT, re.MULTILINE)
    assert [int(number) for number in behaviours] == list(range(1, 19))
    cases = DOCUMENT.split("| Case | Required | Test |\n|---|---|---|\n")[1].split("\n\n")[0].splitlines()
    assert len(cases) > 30
    assert [case for case in cases if not case.endswith("` |") or "`test_" not in case] == []
