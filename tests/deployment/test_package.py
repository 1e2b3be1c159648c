"""What is deployed is whole and no more: it imports where nothing else is installed."""

import ast
import importlib.metadata
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from dev.package import DEPENDENCIES, compile_all, copy_code, pip_arguments

TOP = {"constraints.txt", "function_app.py", "host.json", "requirements.txt", "shared"}
MAX_CODE_BYTES = 1_200_000  # with its byte code, if the tests before have imported it
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

IMPORT_COUNTING_COMPILATIONS = """
import json, sys
from importlib.machinery import SourceFileLoader
sys.path[:0] = sys.argv[1:]
compiled, compile_source = [], SourceFileLoader.source_to_code
def source_to_code(self, data, path, **options):
    compiled.append(str(path))
    return compile_source(self, data, path, **options)
SourceFileLoader.source_to_code = source_to_code
import function_app
print(json.dumps([[*sys.modules], compiled]))
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


def run_in(package: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has nothing but a package, and its dependencies if it has any, on its path."""
    command = [sys.executable, "-I", "-S", "-B", "-c", code, str(package), str(package / DEPENDENCIES)]
    return subprocess.run(command, cwd=package, env={}, capture_output=True, text=True, check=False)


def run_builder(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "dev.package", *options]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def whole_package(package: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as `make package` builds it, but for pip: its dependencies are copied from where the tests run."""
    whole = tmp_path_factory.mktemp("whole") / "package"
    shutil.copytree(package, whole)
    for distribution in deployed_distributions(root).values():
        for file in distribution.files or ():
            if ".." not in file.parts and "__pycache__" not in file.parts:
                target = whole / DEPENDENCIES / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), target)
    compile_all(whole)
    return whole


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def test_the_package_imports_with_the_deployed_requirements_only(whole_package: Path, root: Path) -> None:
    importing = run_in(whole_package, IMPORT_EVERYTHING)
    assert importing.stderr == ""
    files = [root / "function_app.py", *(root / "shared" / "functions").glob("*.py")]
    declared = [re.findall(r"^(?:async )?def ([A-Z]\w+)", file.read_text(), re.MULTILINE) for file in files]
    assert sorted(json.loads(importing.stdout)) == sorted(itertools.chain(*declared))


def test_without_a_deployed_requirement_the_package_does_not_import(package: Path) -> None:
    assert "ModuleNotFoundError" in run_in(package, IMPORT_EVERYTHING).stderr


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


def test_a_package_is_not_built_over_another_one(package: Path, root: Path) -> None:
    with pytest.raises(FileExistsError):
        copy_code(root, package, "storage")


def test_a_package_is_built_in_place_of_an_earlier_one(project: Path) -> None:
    left = project / "package" / "left.py"
    left.parent.mkdir()
    left.touch()
    run_builder(project)
    assert {path.name for path in left.parent.iterdir()} == TOP


def test_every_module_loads_from_bytecode_though_archives_change_times(whole_package: Path) -> None:
    for file in whole_package.rglob("*.py"):
        os.utime(file, (1_500_000_000, 1_500_000_000))
    importing = run_in(whole_package, IMPORT_COUNTING_COMPILATIONS)
    assert importing.stderr == ""
    imported, compiled = json.loads(importing.stdout)
    assert {"function_app", "shared.delivery.records", "pydantic.main"} <= set(imported)
    assert compiled == []


def test_bytecode_tells_nothing_of_the_machine_that_compiled(whole_package: Path) -> None:
    code = [*(whole_package / "__pycache__").iterdir(), *(whole_package / "shared").rglob("*.pyc")]
    assert code
    assert [file.name for file in code if str(whole_package).encode() in file.read_bytes()] == []


def test_a_file_that_cannot_be_compiled_fails_the_package(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.py").write_text("def broken(:\n")
    with pytest.raises(ValueError, match="could be compiled"):
        compile_all(tmp_path)
    assert "bad.py" in capfd.readouterr().out


def test_wheels_are_those_for_the_python_and_the_linux_of_azure_whatever_runs_here() -> None:
    arguments = " ".join(pip_arguments(Path("package"), "3.14"))
    target = (
        "--only-binary :all: --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --implementation cp "
        "--python-version 3.14 --abi cp314 --abi abi3 --abi none --target package/.python_packages/lib/site-packages"
    )
    assert target in arguments


def test_another_python_than_that_of_azure_does_not_compile(project: Path) -> None:
    refused = run_builder(project, "--python-version", "3.99")
    assert refused.returncode == 2
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert f"--python-version: expected {running}" in refused.stderr
    assert "got 3.99" in refused.stderr
    assert not (project / "package").exists()


def test_make_builds_for_another_python_if_told(root: Path) -> None:
    def built_for(*variables: str) -> list[str]:
        command = ["make", "--dry-run", "package", *variables]
        environment = {**os.environ, "PYTHON_VERSION": "3.12.1"}  # images of Python set this
        making = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
        return re.findall(r"--python-version (\S+)", making.stdout)

    assert built_for() == ["3.13"]
    assert built_for("PYTHON_VERSION=3.14") == ["3.14"]
