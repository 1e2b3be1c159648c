"""azure.yaml: what azd deploys is built by its hook, in a folder of its own."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.durable_backend import BACKENDS
from dev.processes import embedded_host, no_settings


@pytest.fixture(scope="module")
def azure(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((root / "azure.yaml").read_text())
    return document


@pytest.fixture(scope="module")
def service(azure: dict[str, Any]) -> dict[str, Any]:
    api: dict[str, Any] = azure["services"]["api"]
    return api


def run_hook(service: dict[str, Any], project: Path, environment: dict[str, str]) -> Path:
    """Run the hook for Linux and macOS as azd does, in the service's folder; returns the folder that azd deploys."""
    hook = service["hooks"]["prepackage"]["posix"]
    path = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    folder = project / str(service["project"])
    subprocess.run([hook["shell"], "-c", hook["run"]], cwd=folder, env=path | environment, check=True)
    return folder / str(service["dist"])


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_hook_builds_what_azd_deploys_for_the_backend_of_the_environment(
    backend: str, service: dict[str, Any], project: Path, package: Path
) -> None:
    deployed = run_hook(service, project, {"DURABLE_BACKEND": backend})
    assert contents(deployed).keys() == contents(package).keys()
    host = json.loads((deployed / "host.json").read_text())
    assert ("type" in host["extensions"]["durableTask"]["storageProvider"]) == (backend != "storage")


def test_the_hook_changes_no_file_of_the_project(service: dict[str, Any], project: Path) -> None:
    before = contents(project)
    run_hook(service, project, {"DURABLE_BACKEND": "durable-task-scheduler"})
    after = contents(project)
    assert {name: after[name] for name in after if not name.startswith("package/")} == before


def test_the_hook_keeps_state_in_storage_unless_told(service: dict[str, Any], project: Path) -> None:
    deployed = run_hook(service, project, {})
    assert json.loads((deployed / "host.json").read_text()) == json.loads((project / "host.json").read_text())


def test_the_hook_runs_the_same_module_on_windows(service: dict[str, Any]) -> None:
    hooks = service["hooks"]["prepackage"]
    runs = [re.findall(r"python3? (-m \S+ --backend) ", hooks[system]["run"]) for system in ("posix", "windows")]
    assert runs == [["-m dev.package --backend"]] * 2


def test_azd_is_one_that_reads_the_exceptions_of_funcignore(azure: dict[str, Any]) -> None:
    assert azure["requiredVersions"] == {"azd": ">= 1.23.13"}


def test_azd_is_told_which_template_an_app_came_from(azure: dict[str, Any]) -> None:
    assert re.fullmatch(r"[a-z-]+@\d+\.\d+\.\d+", azure["metadata"]["template"])


ASKED = "functionapp keys list --resource-group rg-1 --name app-1 --query functionKeys.default --output tsv"
AZ = f"""#!/bin/sh
case "$*" in
  "{ASKED}") echo "$KEY_OF_APP" ;;
  *) echo "unexpected: az $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def deployed(tmp_path: Path, root: Path) -> Iterator[dict[str, str]]:
    """The environment of the hook after a deployment: the app on a host that asks for keys, and an Azure CLI."""
    (tmp_path / "az").write_text(AZ)
    (tmp_path / "az").chmod(0o755)
    with embedded_host(root, tmp_path / "state.db", no_settings(root), tmp_path / "host.log", ["--enable-auth"]) as url:
        yield {
            "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "AZURE_RESOURCE_GROUP": "rg-1",
            "SERVICE_API_NAME": "app-1",
            "SERVICE_API_URI": url,
            "KEY_OF_APP": json.loads((tmp_path / "keys.json").read_text())["host"],
        }


def run_smoke_hook(service: dict[str, Any], root: Path, environment: dict[str, str]) -> tuple[int, str]:
    hook = service["hooks"]["postdeploy"]["posix"]
    command = [hook["shell"], "-c", hook["run"]]
    ended = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stdout + ended.stderr


def test_after_a_deployment_the_hook_asks_the_app_with_its_key_and_does_not_show_it(
    service: dict[str, Any], root: Path, deployed: dict[str, str]
) -> None:
    status, said = run_smoke_hook(service, root, deployed)
    assert (status, said.count("ok   ")) == (0, 5), said
    assert deployed["KEY_OF_APP"] not in said


def test_a_deployment_whose_app_is_not_well_fails(
    service: dict[str, Any], root: Path, deployed: dict[str, str]
) -> None:
    status, said = run_smoke_hook(service, root, deployed | {"KEY_OF_APP": "of-another-app"})
    assert (status, "FAILED" in said) == (1, True)


def test_the_hook_runs_the_same_on_windows(service: dict[str, Any]) -> None:
    hooks = service["hooks"]["postdeploy"]
    for system in ("posix", "windows"):
        assert re.search(r"az functionapp keys list .* functionKeys.default", hooks[system]["run"], re.DOTALL)
        assert re.search(r"python3? dev/smoke.py \S*SERVICE_API_URI", hooks[system]["run"])
