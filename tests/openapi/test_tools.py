"""What others read out of the OpenAPI document: linters find nothing, generated clients are typed and work."""

import os
import shutil
import sys
from pathlib import Path

from .conftest import CLIENTS, ROOT, SETTINGS, TOOLS, run


def test_redocly_warns_of_nothing(node_tools: Path, document_file: Path, tmp_path: Path) -> None:
    command = (node_tools / "redocly", "lint", "--config", SETTINGS / "redocly.yaml", document_file)
    said = run(*command, folder=tmp_path, **os.environ, REDOCLY_SUPPRESS_UPDATE_NOTICE="true")
    assert "warning" not in said.replace("Deprecation warning: Node.js", "")


def test_spectral_warns_of_nothing(node_tools: Path, document_file: Path, tmp_path: Path) -> None:
    ruleset = SETTINGS / "spectral.yaml"
    run(node_tools / "spectral", "lint", "-r", ruleset, "--fail-severity", "hint", document_file, folder=tmp_path)


def test_a_generated_typescript_client_drives_the_app(
    node_tools: Path, document_file: Path, given: Path, tmp_path: Path
) -> None:
    said = run(node_tools / "openapi-typescript", document_file, "--output", "schema.ts", folder=tmp_path)
    assert "warn" not in said.lower()
    for name in ("drive.ts", "tsconfig.json"):
        shutil.copy(CLIENTS / name, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "node_modules").symlink_to(TOOLS / "node_modules")
    run(node_tools / "tsc", folder=tmp_path)
    run("node", "built/drive.js", given, folder=tmp_path)


def test_a_generated_python_client_drives_the_app(
    python_tools: Path, document_file: Path, given: Path, tmp_path: Path
) -> None:
    run(
        *(python_tools / "openapi-python-client", "generate", "--path", document_file, "--meta", "none"),
        *("--config", SETTINGS / "python_client.yaml", "--output-path", "business_client", "--fail-on-warning"),
        folder=tmp_path,
    )
    shutil.copy(CLIENTS / "drive.py", tmp_path)
    checked = (sys.executable, "-m", "mypy", "--strict", "--python-executable", python_tools / "python", "drive.py")
    run(*checked, "--cache-dir", ROOT / ".mypy_cache/clients", "--follow-imports", "silent", folder=tmp_path)
    run(python_tools / "python", "drive.py", given, folder=tmp_path, **os.environ, PYTHONPATH=str(tmp_path))
