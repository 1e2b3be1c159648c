"""What must hold before azd provisions: secrets are references to a vault, and the network's provider is registered.

azd puts each value into main.parameters.json as it is, unescaped: a PEM breaks the file, and of a secret with a
backslash another one would arrive. What `azd env set-secret` keeps is a reference, which azd resolves after that.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

SECRETS = ("BUSINESS_API_CLIENT_SECRET", "BUSINESS_API_PRIVATE_KEY", "OPERATIONS_EVENTS_SECRET")
PROVIDER = "Microsoft.App"
"""Flex Consumption's subnet is delegated to it; no resource of the template makes Azure register it by itself."""

_REFERENCE = "akvs://"


def problems(environment: Mapping[str, str]) -> list[str]:
    """What is wrong with azd's values, each with the command that mends it. No value is repeated.

    Args:
        environment: As azd gives it to hooks: a secret that `azd env set-secret` keeps is a reference here.
    """
    return [
        f"{name}: expected a reference to a vault, or nothing, got a plain value: run azd env set-secret {name}"
        for name in SECRETS
        if (value := environment.get(name, "")) and not value.startswith(_REFERENCE)
    ]


def register(environment: Mapping[str, str]) -> str | None:
    """Register the network's provider, if there is to be a network; what went wrong, or None."""
    if environment.get("VNET_ENABLED", "").lower() != "true":
        return None
    command = ["az", "provider", "register", "--namespace", PROVIDER, "--wait"]
    if subscription := environment.get("AZURE_SUBSCRIPTION_ID"):
        command += ["--subscription", subscription]
    tool = shutil.which("az", path=environment.get("PATH"))
    if tool is None:
        return f"VNET_ENABLED needs the Azure CLI, to run: {' '.join(command)}"
    done = subprocess.run([tool, *command[1:]], env=dict(environment), check=False)  # noqa: S603 (what az registers is fixed)
    return f"failed: {' '.join(command)}" if done.returncode else None


def main() -> None:
    """Exit with what is wrong, if anything is."""
    found = problems(os.environ) or [problem for problem in [register(os.environ)] if problem]
    sys.exit("\n".join(found) or None)


if __name__ == "__main__":
    main()
