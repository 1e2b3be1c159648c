"""The app's OpenAPI document as a file, and the tools of others that read it."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.processes import embedded_host, no_settings
from dev.sandbox.api import app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from shared.business import NATURAL_KEY, example
from shared.operations.openapi import document
from tests.sandboxed import REFUSED, Sandbox, key_of, record_maker

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".venv-openapi"
SETTINGS = ROOT / "dev/openapi"
CLIENTS = Path(__file__).parent / "clients"


FAULTS: dict[str, dict[str, Any]] = {
    "refused": REFUSED,
    "doubtful": {"status": 500, "store": True, "retry_after": 600},
    "slow": {"delay": 600},  # longer than anybody waits
}
"""What becomes of the first try of a record."""


def run(*command: str | Path, folder: Path, **environment: str) -> str:
    """What a command says, which must succeed."""
    ended = subprocess.run(
        command, cwd=folder, env=environment or None, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout


@pytest.fixture(scope="session")
def node_tools() -> Path:
    """The folder with the commands of the npm packages."""
    if shutil.which("node") is None:
        pytest.skip("needs node 20 or later")
    commands = TOOLS / "node_modules/.bin"
    if not commands.is_dir():
        pytest.skip("needs the tools of dev/openapi: `rm -rf .venv-openapi; make .venv-openapi/installed`, beside npm")
    return commands


@pytest.fixture(scope="session")
def python_tools() -> Path:
    """The folder with the commands of openapi-python-client's environment."""
    commands = TOOLS / "bin"
    if not (commands / "openapi-python-client").is_file():
        pytest.skip("needs the tools of dev/openapi: `make .venv-openapi/installed`")
    return commands


@pytest.fixture(scope="session")
def document_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The document, as the app serves it."""
    file = tmp_path_factory.mktemp("document") / "openapi.json"
    file.write_text(json.dumps(document("/api"), indent=1))
    return file


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Sandbox]]:
    """The app beside a sandbox: its base URL, the host's key, and the sandbox."""
    folder = tmp_path_factory.mktemp("app")
    with serve(create_app(STAND_IN)) as sandbox:
        settings = no_settings(ROOT) | app_environment(sandbox)
        with embedded_host(ROOT, folder / "state.db", settings, folder / "host.log", ["--enable-auth"]) as url:
            keys = json.loads((folder / "keys.json").read_text())
            yield f"{url}/api", keys["host"], Sandbox(sandbox)


@pytest.fixture
def given(app: tuple[str, str, Sandbox], tmp_path: Path) -> Path:
    """A file with what a client needs: where the app is, and records by what becomes of them."""
    url, key, sandbox = app
    new_record = record_maker()
    records = {role: new_record() for role in ("posted", "corrected", "first", "second", *FAULTS)}
    sandbox.disturb(records={key_of(records[role]): [step] for role, step in FAULTS.items()})
    records["invalid"] = example() | {NATURAL_KEY: []}
    file = tmp_path / "given.json"
    file.write_text(json.dumps({"url": url, "key": key, "records": records, "field": NATURAL_KEY}))
    return file
