"""The infrastructure as parsed, and the package as built, for the tests of the deployment."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pycep import BicepParser

from dev.package import copy_code, deployed_names

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
SETTINGS = "modules/settings.bicep"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def bicep() -> dict[str, Any]:
    """The Bicep files, parsed, by their path inside `infra`.

    The parser, which is also checkov's, knows types, but not the one of an object with properties of any name. Whoever
    writes that into another file than that of the app settings keeps checkov from reading the file, without a word.
    """
    parser = BicepParser()
    texts = {file.relative_to(INFRA).as_posix(): file.read_text() for file in sorted(INFRA.rglob("*.bicep"))}
    texts[SETTINGS] = texts[SETTINGS].replace("  *: string\n", "  any: string\n")
    return {file: parser.parse(text=text) for file, text in texts.items()}


@pytest.fixture(scope="session")
def bicep_text() -> str:
    """All Bicep files, as they are written."""
    return "\n".join(file.read_text() for file in sorted(INFRA.rglob("*.bicep")))


@pytest.fixture(scope="session")
def template() -> dict[str, Any]:
    """What Azure Resource Manager is given: infra/main.bicep, compiled with all its modules."""
    compiler = os.environ.get("BICEP") or shutil.which("bicep")
    if compiler is None:
        pytest.skip("needs the Bicep compiler: as `bicep` on the PATH, or named by the variable BICEP")
    command = [compiler, "build", str(INFRA / "main.bicep"), "--no-restore", "--stdout"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    compiled: dict[str, Any] = json.loads(built.stdout)
    return compiled


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is deployed for a remote build: without its dependencies and without bytecode."""
    folder = tmp_path_factory.mktemp("deployment") / "package"
    copy_code(ROOT, folder, "storage")
    return folder


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what the package is built from, for tests that build it in a process of its own."""
    copy = tmp_path / "project"
    shutil.copytree(ROOT / "dev", copy / "dev", ignore=shutil.ignore_patterns("__pycache__", "benchmarks", "sandbox"))
    for name in (".funcignore", *deployed_names(ROOT)):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name)
        else:
            shutil.copyfile(ROOT / name, copy / name)
    return copy
