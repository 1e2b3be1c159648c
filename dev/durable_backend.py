"""Makes host.json name the durable backend that the infrastructure provides: `storage` or `durable-task-scheduler`.

An app setting could override host.json for the Functions host, but not for the scale controller: that is told what
host.json says, would look for work where none is, and never start an instance.
"""

import argparse
import json
from pathlib import Path
from typing import Any

BACKENDS = ("storage", "durable-task-scheduler")
CONNECTION = "DURABLE_TASK_SCHEDULER_CONNECTION_STRING"
"""App setting with the connection string of the scheduler; it holds no secret, the app's identity opens it."""


def with_backend(host: dict[str, Any], backend: str) -> dict[str, Any]:
    """The content of host.json with this backend instead of whatever it names.

    Args:
        host: The content of host.json.
        backend: One of `BACKENDS`.
    """
    durable = {key: value for key, value in host["extensions"]["durableTask"].items() if key != "storageProvider"}
    if backend == "durable-task-scheduler":
        durable["storageProvider"] = {"type": "azureManaged", "connectionStringName": CONNECTION}
    return host | {"extensions": host["extensions"] | {"durableTask": durable}}


def main() -> None:
    """Rewrite a host.json, if it names another backend."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backend", choices=BACKENDS)
    parser.add_argument("host_json", nargs="?", type=Path, default=Path("host.json"))
    arguments = parser.parse_args()
    path: Path = arguments.host_json
    host = json.loads(path.read_text(encoding="utf-8"))
    if (changed := with_backend(host, arguments.backend)) != host:
        path.write_text(json.dumps(changed, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
