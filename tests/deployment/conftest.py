"""The infrastructure as parsed, and the package as built, for the tests of the deployment."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from pycep import BicepParser

from dev.package import copy_code, deployed_names

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def bicep() -> dict[str, Any]:
    """The Bicep files, parsed, by their path inside `infra`."""
    parser = BicepParser()
    files = sorted(INFRA.rglob("*.bicep"))
    return {file.relative_to(INFRA).as_posix(): parser.parse(text=file.read_text()) for file in files}


@pytest.fixture(scope="session")
def bicep_text() -> str:
    """All Bicep files, as they are written."""
    return "\n".join(file.read_text() for file in sorted(INFRA.rglob("*.bicep")))


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
