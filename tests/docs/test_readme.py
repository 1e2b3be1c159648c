"""README.md: its commands and links lead somewhere, and the test that it shows is one of ours."""

import importlib.util
import re
import subprocess

import pytest

from dev import adopt
from tests.docs.markdown import ROOT, read_blocks

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_test_that_it_shows_stands_in_the_file_that_it_names() -> None:
    (block,) = [block for block in read_blocks(README) if block.language == "python"]
    assert block.text in (ROOT / block.file).read_text(encoding="utf-8")


@pytest.mark.skipif(not adopt.AS_IT_CAME, reason="shared/business/ describes an API of its own already")
def test_the_change_that_it_shows_can_be_applied() -> None:
    command = ["git", "apply", "--check", "-"]
    subprocess.run(command, cwd=ROOT, input=adopt.shown_diff(), text=True, check=True)


def test_in_a_tree_that_has_been_adapted_there_is_nothing_to_try(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(adopt, "AS_IT_CAME", False)
    assert adopt.main() == 0
    assert capsys.readouterr().out == "nothing to try: shared/business/ describes an API of your own already\n"


def test_every_module_that_it_runs_exists() -> None:
    modules = set(re.findall(r"python3? -m ([\w.]+)", README))
    assert {"dev.demo", "dev.run", "dev.sandbox"} <= modules
    assert {module for module in modules if importlib.util.find_spec(module) is None} == set()


def test_every_target_that_it_names_exists() -> None:
    targets = set(re.findall(r"\bmake ([a-z]+)\b", README)) - {"and"}
    assert {"demo", "run", "test", "bench"} <= targets
    for target in targets:
        subprocess.run(["make", "--dry-run", "--quiet", target], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_core_tools_are_started_with_the_python_of_the_environment() -> None:
    section = README.partition("\n## Under Azure Functions Core Tools\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^\$ (.*?)(?:  +#.*)?$", section, re.MULTILINE)
    assert commands.index("make sandbox") < commands.index(". .venv/bin/activate") < commands.index("func start")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_links_to_exists(page: object) -> None:
    path = ROOT / str(page)
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = re.findall(r"\]\((?!https?://)([^)#]*)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (path.parent / link).exists()] == []
