"""Makes the host.json of a package name the durable backend that the infrastructure provides.

An app setting could override host.json for the Functions host, but not for the scale controller: that is told what
host.json says, would look for work where none is, and never start an instance.
"""

from typing import Any

BACKENDS = ("storage", "durable-task-scheduler")
CONNECTION = "DURABLE_TASK_SCHEDULER_CONNECTION_STRING"
"""App setting with the connection string of the scheduler; it holds no secret, the app's identity opens it."""


def with_backend(host: dict[str, Any], backend: str) -> dict[str, Any]:
    """The content of host.json with this backend.

    Args:
        host: The content of the project's host.json, whose `storageProvider` has the options of the storage backend.
        backend: One of `BACKENDS`; the scheduler knows none of those options.
    """
    if backend == "storage":
        return host
    scheduler = {"type": "azureManaged", "connectionStringName": CONNECTION}
    durable = host["extensions"]["durableTask"] | {"storageProvider": scheduler}
    return host | {"extensions": host["extensions"] | {"durableTask": durable}}
