"""The app on the embedded host, pinned to one core, and the sandbox API on the other, where the load comes from too."""

import contextlib
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.benchmarks.measuring import Plan, pin
from dev.processes import embedded_host
from dev.sandbox.api import app_environment, create_app
from dev.sandbox.serving import serve

APP = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class RunningApp:
    """Where the app and its API listen, and the host's process; None where the system does not tell it."""

    url: str
    api_url: str
    process: int | None

    def peak_memory(self) -> float | None:
        """The most memory that the host's process has had, in MiB; None where the system does not tell."""
        if self.process is None:
            return None
        lines = Path(f"/proc/{self.process}/status").read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


@contextlib.contextmanager
def running_app(plan: Plan, folder: Path) -> Iterator[RunningApp]:
    """Run both while the `with` block runs; `folder` keeps state and log."""
    pin(plan.server_core)  # of this thread, and of those that it starts from here
    with serve(create_app()) as api_url:
        pin(plan.client_core)
        with embedded_host(APP, folder / "state.db", app_environment(api_url), folder / "host.log") as url:
            pin(plan.server_core)
            yield RunningApp(url, api_url, _child())


def _child() -> int | None:
    """The process that this thread has started."""
    children = Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/children")
    return int(children.read_text(encoding="ascii").split()[-1]) if children.exists() else None
