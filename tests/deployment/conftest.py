"""The infrastructure as parsed, and the package as built, for the tests of the deployment."""

from pathlib import Path
from typing import Any

import pytest
from pycep import BicepParser

from dev.package import build

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
    """The folder that is deployed, without its dependencies."""
    folder = tmp_path_factory.mktemp("deployment") / "package"
    build(ROOT, folder)
    return folder
