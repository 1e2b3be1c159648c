"""Whatever tool deploys, all of the code goes up, and nothing else does."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from dev.package import DEPENDENCIES, deployed_names
from tests.deployment import uploads

type Tool = Callable[[Iterable[str], str], set[str]]

TOOLS = pytest.mark.parametrize("tool", [uploads.git, uploads.azd, uploads.functions_action, uploads.core_tools])

INSTALLED = {
    f"{DEPENDENCIES.as_posix()}/{name}"
    for name in ("some/tests/__init__.py", "some/docs/a.md", "some.dist-info/METADATA")
}
KEPT_BACK = {
    *(".env", ".git/config", ".venv/lib/shared/x.py", "azure.yaml", "dev/package.py", "local.settings.json"),
    *("infra/host.json", "new/key.pem", "package/function_app.py", "tests/host.json", "tests/shared/x.py"),
}

IMPORTED = """
import json, sys
import function_app
print(json.dumps([module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)]))
"""


@pytest.fixture(scope="module")
def funcignore(root: Path) -> str:
    return (root / ".funcignore").read_text()


@pytest.fixture(scope="module")
def code(root: Path) -> set[str]:
    """All that is to be deployed, found without .funcignore."""
    files = {file.relative_to(root).as_posix() for file in (root / "shared").rglob("*") if file.is_file()}
    top = {"constraints.txt", "function_app.py", "host.json", "requirements.txt"}
    return {file for file in files if "__pycache__" not in file} | top


@pytest.fixture(scope="module")
def imported(root: Path) -> set[str]:
    """The files of the project that `import function_app` needs."""
    command = [sys.executable, "-B", "-c", IMPORTED]
    importing = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    files = [Path(file) for file in json.loads(importing.stdout)]
    ours = {file.relative_to(root) for file in files if file.is_relative_to(root)}
    return {file.as_posix() for file in ours if "site-packages" not in file.parts}


@TOOLS
def test_every_module_that_function_app_imports_is_uploaded(
    tool: Tool, imported: set[str], code: set[str], funcignore: str
) -> None:
    assert {"function_app.py", "shared/delivery/records.py"} <= imported
    assert imported - tool(code | imported | KEPT_BACK, funcignore) == set()


@TOOLS
def test_the_code_and_what_is_installed_for_it_are_uploaded_and_nothing_else(
    tool: Tool, code: set[str], funcignore: str
) -> None:
    assert tool(code | INSTALLED | KEPT_BACK, funcignore) == code | INSTALLED


@pytest.mark.parametrize("tool", [uploads.azd, uploads.functions_action])
def test_the_models_know_that_an_exception_with_a_slash_at_its_end_admits_too_little(tool: Tool) -> None:
    files = {"host.json", "shared/delivery/records.py"}
    assert tool(files, "/*\n!/host.json\n!/shared/\n") == {"host.json"}
    assert tool(files, "/*\n!/host.json\n!/shared\n!/shared/**\n") == files


def test_the_package_has_what_the_tools_would_upload(package: Path, code: set[str]) -> None:
    assert {file.relative_to(package).as_posix() for file in package.rglob("*") if file.is_file()} == code


def test_what_somebody_installed_into_the_project_stays_out_of_the_package(root: Path) -> None:
    assert DEPENDENCIES.parts[0] not in deployed_names(root)
