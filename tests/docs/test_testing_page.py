"""docs/testing.md: what a reader would copy from it runs, and what it quotes stands in the tests that it names."""

import importlib.metadata
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest

from devhost.testing import RunningHost, Status
from tests.docs.markdown import ROOT, Block, read_blocks, read_page

PAGE = read_page("testing.md")
BLOCKS = read_blocks(PAGE)
QUOTED = [block for block in BLOCKS if block.language == "python" and "/" in block.file]
FILES = {block.file: block.text for block in BLOCKS if block.language in {"python", "json"} and block not in QUOTED}
FOUR_FILES = ["function_app.py", "host.json", "conftest.py", "test_subscribe.py"]
PIP, *SHOWN = next(block.text for block in BLOCKS if block.language == "console").splitlines()
PACKAGES = [re.split("[=<>]", package)[0] for package in PIP.removeprefix("$ pip install ").split()]
SIGNATURES = dict(re.findall(r"^\| `(?:with )?(\w+)(\(.*?\))", PAGE, re.MULTILINE))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has who began from nothing: four files, and the folder devhost/ beside them."""
    shutil.copytree(ROOT / "devhost", tmp_path / "devhost", ignore=shutil.ignore_patterns("__pycache__"))
    for name in FOUR_FILES:
        (tmp_path / name).write_text(FILES[name])
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    """What a Python that finds modules as the command `pytest` does prints, without its environment and ours."""
    command = [sys.executable, "-E", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_four_files_and_devhost_are_all_that_a_test_needs(folder: Path) -> None:
    printed = run(folder, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider").splitlines()
    assert SHOWN[0] == "$ pytest -q"
    assert [line.partition(" in ")[0] for line in printed] == [line.partition(" in ")[0] for line in SHOWN[1:]]


@pytest.mark.parametrize(("file", "passed"), [("test_async.py", 1), ("test_report.py", 2)])
def test_the_other_tests_pass_beside_the_four_files(folder: Path, file: str, passed: int) -> None:
    (folder / file).write_text(FILES[file])
    assert f"{passed} passed" in run(folder, "-P", "-m", "pytest", "-q", "-p", "no:cacheprovider", file)


def test_the_script_prints_what_the_page_shows(folder: Path) -> None:
    (folder / "year.py").write_text(FILES["year.py"])
    shown = [block.text for block in BLOCKS if block.text.startswith("$ python year.py\n")]
    assert [f"$ python year.py\n{run(folder, 'year.py')}"] == shown


def test_no_other_code_on_the_page_is_neither_run_nor_quoted() -> None:
    assert FILES.keys() == {*FOUR_FILES, "test_async.py", "test_report.py", "year.py"}


@pytest.mark.parametrize("block", QUOTED, ids=lambda block: block.text.splitlines()[0])
def test_what_the_page_quotes_stands_in_the_file_that_it_names(block: Block) -> None:
    file = (ROOT / block.file).read_text(encoding="utf-8")
    depths = {len(line) - len(line.lstrip()) for line in file.splitlines() if line}
    assert any(f"\n{textwrap.indent(block.text, ' ' * depth)}" in file for depth in depths)


def test_the_packages_that_the_page_installs_are_enough_for_devhost() -> None:
    installed = {"uvicorn"}  # comes with an app that streams
    pending = list(PACKAGES)
    while pending:
        package = pending.pop()
        installed.add(package)
        requirements = [text for text in importlib.metadata.requires(package) or () if "extra ==" not in text]
        pending += {re.split(r"[^\w.-]", text)[0] for text in requirements if ";" not in text} - installed
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "devhost").rglob("*.py"))
    imported = re.findall(r"^\s*(?:import|from) ([\w.]+)|import_module\(\"([\w.]+)", sources, re.MULTILINE)
    modules = {plain or dynamic for plain, dynamic in imported}
    foreign = {name for name in modules if name.split(".")[0] not in sys.stdlib_module_names | {"devhost"}}
    names = {name.replace(".", "-").replace("_", "-") for name in foreign}
    assert "azure-functions-runtime" in names
    assert [name for name in names if not any(f"{name}-".startswith(f"{package}-") for package in installed)] == []


def test_the_benchmarks_have_the_packages_that_devhost_needs() -> None:
    files = [(ROOT / folder / "requirements.txt").read_text(encoding="utf-8") for folder in ("", "dev/benchmarks")]
    assert {*PACKAGES} - {"pytest"} <= {*re.findall(r"^\w[\w.-]*", "\n".join(files), re.MULTILINE)}


def test_the_page_installs_the_release_of_the_worker_library_that_the_project_uses() -> None:
    (pinned,) = re.findall(r"\S+==\S+", PIP)
    assert pinned in (ROOT / "requirements-dev.txt").read_text().splitlines()


@pytest.mark.parametrize("method", SIGNATURES)
def test_the_tables_show_methods_with_the_parameters_that_they_have(method: str) -> None:
    _, *parameters = inspect.signature(getattr(RunningHost, method)).parameters.values()
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    assert str(inspect.Signature(bare)) == SIGNATURES[method]


def test_the_page_leaves_no_method_and_no_attribute_out() -> None:
    public = {name for name in dir(RunningHost) if not name.startswith("_")}
    assert {name for name in public if not re.search(rf"`[^`\n]*\b{name}\b", PAGE)} == set()
    (status,) = re.findall(r"^\| `status\(.*", PAGE, re.MULTILINE)
    assert [field.name for field in fields(Status) if f"`{field.name}`" not in status] == []
