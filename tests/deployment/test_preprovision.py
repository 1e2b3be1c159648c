"""azd's hook before provisioning refuses what would arrive changed, and registers what a network needs."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dev.preprovision import SECRETS, problems

PEM = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----"


def provision(root: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the hook as azd does, in the project, with azd's values as environment variables."""
    command = [sys.executable, "dev/preprovision.py"]
    return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def azure_cli(tmp_path: Path) -> Path:
    """A folder with an `az` that notes what it is asked, and fails if told to."""
    tool = tmp_path / "az"
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\nexit ${{AZ_FAILS:-0}}\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    return tmp_path


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", ["hunter2", "a\\b", PEM])
def test_a_secret_in_plain_text_is_refused_by_its_name_and_not_repeated(root: Path, name: str, value: str) -> None:
    refused = provision(root, **{name: value})
    assert refused.returncode == 1
    assert refused.stderr.strip() == (
        f"{name}: expected a reference to a vault, or nothing, got a plain value: run azd env set-secret {name}"
    )


@pytest.mark.parametrize("value", ["", "akvs://00000000-0000-0000-0000-000000000000/vault/secret"])
def test_a_reference_and_an_empty_value_are_let_through(root: Path, value: str) -> None:
    assert provision(root, **dict.fromkeys(SECRETS, value)).returncode == 0


def test_all_plain_secrets_are_named_at_once() -> None:
    assert [problem.partition(":")[0] for problem in problems(dict.fromkeys(SECRETS, "x"))] == list(SECRETS)


def test_the_secrets_are_the_secure_parameters_that_azd_fills(root: Path) -> None:
    parameters = (root / "infra/main.parameters.json").read_text()
    assert [name for name in SECRETS if f'"${{{name}}}"' not in parameters] == []


def test_a_network_of_its_own_has_the_provider_of_the_subnet_registered(root: Path, azure_cli: Path) -> None:
    environment = {"VNET_ENABLED": "true", "AZURE_SUBSCRIPTION_ID": "s-1", "PATH": f"{azure_cli}:{os.defpath}"}
    assert provision(root, **environment).returncode == 0
    asked = (azure_cli / "asked").read_text()
    assert asked == "provider register --namespace Microsoft.App --wait --subscription s-1\n"
    assert "serviceName: 'Microsoft.App/environments'" in (root / "infra/modules/network.bicep").read_text()


def test_without_a_network_the_azure_cli_is_not_asked_for(root: Path, azure_cli: Path) -> None:
    assert provision(root, VNET_ENABLED="false", PATH=str(azure_cli)).returncode == 0
    assert not (azure_cli / "asked").exists()


def test_a_provider_that_cannot_be_registered_stops_the_deployment(root: Path, azure_cli: Path) -> None:
    failed = provision(root, VNET_ENABLED="true", AZ_FAILS="3", PATH=f"{azure_cli}:{os.defpath}")
    assert failed.returncode == 1
    assert "failed: az provider register --namespace Microsoft.App" in failed.stderr
    missing = provision(root, VNET_ENABLED="true", PATH="/nowhere")
    assert missing.returncode == 1
    assert "VNET_ENABLED needs the Azure CLI" in missing.stderr


def test_azd_runs_the_hook_on_every_system(root: Path) -> None:
    hook = yaml.safe_load((root / "azure.yaml").read_text())["hooks"]["preprovision"]
    assert {system: run["run"].split(maxsplit=1)[1] for system, run in hook.items()} == {
        "posix": "dev/preprovision.py",
        "windows": "dev/preprovision.py",
    }
