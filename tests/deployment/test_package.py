"""What is deployed is whole and no more: it imports where nothing else is installed."""

import ast
import importlib.metadata
import itertools
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dev.package import build, deployed_files

TOP = {".funcignore", "constraints.txt", "function_app.py", "host.json", "requirements.txt", "shared"}
DEPENDENCIES = Path(".python_packages/lib/site-packages")
MAX_CODE_BYTES = 500_000
MAX_DEPENDENCIES_BYTES = 150_000_000

IMPORT_EVERYTHING = """
import json, pkgutil, sys
sys.path[:0] = sys.argv[1:]
import function_app, shared
for module in pkgutil.walk_packages(shared.__path__, "shared."):
    __import__(module.name)
import azure.identity, jwt, cryptography
print(json.dumps([function.get_function_name() for function in function_app.app.get_functions()]))
"""


def requirement_lines(root: Path) -> list[str]:
    lines = (root / "requirements.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def deployed_distributions(root: Path) -> dict[str, importlib.metadata.Distribution]:
    """The distributions that requirements.txt asks for, and those that these ask for in turn, by canonical name."""
    waiting = [(Requirement(line), "") for line in requirement_lines(root)]
    found: dict[str, importlib.metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        distribution = found.setdefault(name, importlib.metadata.distribution(name))
        for wanted in {"", *requirement.extras}:
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(Requirement(line), wanted) for line in distribution.requires or ()]
    return found


@pytest.fixture(scope="module")
def whole_package(package: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package with its dependencies, as `make package` builds it: nothing that only developers need is in it."""
    whole = tmp_path_factory.mktemp("whole") / "package"
    shutil.copytree(package, whole)
    for distribution in deployed_distributions(root).values():
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = whole / DEPENDENCIES / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
    return whole


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_package_imports_with_the_deployed_requirements_only(whole_package: Path, root: Path) -> None:
    importing = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", IMPORT_EVERYTHING, whole_package, whole_package / DEPENDENCIES],
        cwd=whole_package,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert importing.stderr == ""
    files = [root / "function_app.py", *(root / "shared" / "functions").glob("*.py")]
    declared = [re.findall(r"^(?:async )?def ([A-Z]\w+)", file.read_text(), re.MULTILINE) for file in files]
    assert sorted(json.loads(importing.stdout)) == sorted(itertools.chain(*declared))


def test_without_a_deployed_requirement_the_package_does_not_import(package: Path) -> None:
    importing = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", IMPORT_EVERYTHING, package],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "ModuleNotFoundError" in importing.stderr


def test_only_what_runs_is_in_the_package(package: Path) -> None:
    assert {path.name for path in package.iterdir()} == TOP
    suffixes = {path.suffix for path in (package / "shared").rglob("*") if path.is_file()}
    assert suffixes <= {".py", ".typed"}


def test_the_package_has_all_of_the_code(package: Path, root: Path) -> None:
    code = {file.relative_to(root) for file in (root / "shared").rglob("*.py")}
    assert code <= {file.relative_to(package) for file in package.rglob("*")}


def test_the_package_is_small(whole_package: Path) -> None:
    dependencies = size(whole_package / DEPENDENCIES)
    assert size(whole_package) - dependencies < MAX_CODE_BYTES
    assert dependencies < MAX_DEPENDENCIES_BYTES


def test_what_the_code_imports_comes_with_a_named_requirement(package: Path, root: Path) -> None:
    trees = [ast.parse(file.read_text()) for file in package.rglob("*.py")]
    nodes = [node for tree in trees for node in ast.walk(tree)]
    modules = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    modules |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and node.level == 0}
    imported = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {"shared"}
    named = {canonicalize_name(Requirement(line).name) for line in requirement_lines(root)}
    needed = [line for name in named for line in importlib.metadata.requires(name) or ()]
    near = named | {canonicalize_name(Requirement(line).name) for line in needed}
    providers = importlib.metadata.packages_distributions()
    provided = {module: {canonicalize_name(name) for name in providers[module]} for module in imported}
    assert {module for module, names in provided.items() if not names & near} == set()


def test_the_versions_of_all_that_is_deployed_are_constrained(root: Path) -> None:
    lines = (root / "constraints.txt").read_text().splitlines()
    constrained = {canonicalize_name(line.partition("==")[0]) for line in lines if "==" in line}
    assert deployed_distributions(root).keys() == constrained


def test_the_telemetry_that_the_app_settings_turn_on_is_deployed(root: Path, bicep_text: str) -> None:
    turned_on = "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY: 'true'" in bicep_text
    assert turned_on == ("azure-monitor-opentelemetry" in deployed_distributions(root))


def test_dependencies_below_python_packages_are_deployed_whatever_their_folders_are_called(
    tmp_path: Path, root: Path
) -> None:
    shutil.copyfile(root / ".funcignore", tmp_path / ".funcignore")
    kept = {DEPENDENCIES / name for name in ("some/tests/__init__.py", "some/docs/data.md", "some.dist-info/METADATA")}
    left = {Path(name) for name in ("tests/test_it.py", "local.settings.json", ".env", ".git/config", "new/key.pem")}
    for file in kept | left:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    assert set(deployed_files(tmp_path)) == kept


def test_a_package_is_not_built_over_another_one(package: Path, root: Path) -> None:
    with pytest.raises(FileExistsError):
        build(root, package)
