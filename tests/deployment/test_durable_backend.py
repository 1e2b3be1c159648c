"""host.json names the durable backend that the infrastructure provides."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dev.durable_backend import BACKENDS, CONNECTION, with_backend

HOST: dict[str, Any] = {"version": "2.0", "extensions": {"http": {}, "durableTask": {"hubName": "PostBusinessHub"}}}


def test_the_scheduler_is_named_beside_what_else_host_json_says() -> None:
    changed = with_backend(HOST, "durable-task-scheduler")
    assert changed["extensions"] == {
        "http": {},
        "durableTask": {
            "hubName": "PostBusinessHub",
            "storageProvider": {"type": "azureManaged", "connectionStringName": CONNECTION},
        },
    }


@pytest.mark.parametrize("backend", BACKENDS)
def test_there_is_a_way_back_to_storage(backend: str) -> None:
    assert with_backend(with_backend(HOST, backend), "storage") == HOST


def test_a_host_json_that_names_the_backend_already_is_left_as_it_is_written(tmp_path: Path, root: Path) -> None:
    host = tmp_path / "host.json"
    host.write_text(json.dumps(HOST))
    written = host.read_text()
    command = [sys.executable, "dev/durable_backend.py"]
    subprocess.run([*command, "storage", host], cwd=root, check=True)
    assert host.read_text() == written
    subprocess.run([*command, "durable-task-scheduler", host], cwd=root, check=True)
    assert json.loads(host.read_text()) == with_backend(HOST, "durable-task-scheduler")


def test_backends_are_those_of_the_infrastructure(bicep: dict[str, Any], bicep_text: str) -> None:
    decorators = bicep["main.bicep"]["parameters"]["durableBackend"]["decorators"]
    assert [each["argument"] for each in decorators if each["type"] == "allowed"] == [list(BACKENDS)]
    assert f"{CONNECTION}: schedulerConnectionString" in bicep_text


def test_the_task_hub_of_the_scheduler_is_that_of_host_json(bicep: dict[str, Any], root: Path) -> None:
    host = json.loads((root / "host.json").read_text())
    hub = bicep["modules/scheduler.bicep"]["parameters"]["hubName"]["default"]
    assert hub == host["extensions"]["durableTask"]["hubName"]
