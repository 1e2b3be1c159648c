"""The host.json of the package names the durable backend that the infrastructure provides."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from dev.durable_backend import BACKENDS, CONNECTION


def built_host(project: Path, backend: str) -> dict[str, Any]:
    """The host.json of a package that is built for a backend."""
    subprocess.run([sys.executable, "-m", "dev.package", "--backend", backend], cwd=project, check=True)
    host: dict[str, Any] = json.loads((project / "package" / "host.json").read_text())
    return host


def test_storage_shows_again_after_a_minute_what_a_crashed_process_had_taken(project: Path) -> None:
    durable = built_host(project, "storage")["extensions"]["durableTask"]
    assert durable["storageProvider"] == {
        "controlQueueVisibilityTimeout": "00:01:00",
        "workItemQueueVisibilityTimeout": "00:01:00",
    }


def test_the_scheduler_gets_its_own_options_only_beside_what_else_host_json_says(project: Path) -> None:
    host = built_host(project, "durable-task-scheduler")
    scheduler = {"type": "azureManaged", "connectionStringName": CONNECTION}
    assert host["extensions"]["durableTask"].pop("storageProvider") == scheduler
    expected = json.loads((project / "host.json").read_text())
    del expected["extensions"]["durableTask"]["storageProvider"]
    assert host == expected


def test_backends_can_be_changed_to_and_fro(project: Path) -> None:
    assert built_host(project, "storage") != built_host(project, "durable-task-scheduler")
    assert built_host(project, "storage") == json.loads((project / "host.json").read_text())


def test_backends_are_those_of_the_infrastructure(bicep: dict[str, Any], bicep_text: str) -> None:
    decorators = bicep["main.bicep"]["parameters"]["durableBackend"]["decorators"]
    assert [each["argument"] for each in decorators if each["type"] == "allowed"] == [list(BACKENDS)]
    assert f"{CONNECTION}: schedulerConnectionString" in bicep_text


def test_the_task_hub_of_the_scheduler_is_that_of_host_json(bicep: dict[str, Any], root: Path) -> None:
    host = json.loads((root / "host.json").read_text())
    hub = bicep["modules/scheduler.bicep"]["parameters"]["hubName"]["default"]
    assert hub == host["extensions"]["durableTask"]["hubName"]
