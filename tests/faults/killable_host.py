"""The app in the embedded host, as a process that is killed and started again where it was."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from dev.processes import free_port, no_settings
from devhost.store import Store

APP = Path(__file__).parents[2]


class KillableHost:
    """One process after another, all on the same port and the same state file; their logs go to one file.

    Args:
        folder: Where the state and the log are kept.
        settings: Those of the app; none of the environment or of `local.settings.json` reach it.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._state = folder / "state.db"
        self._log = folder / "host.log"
        self._log.touch()
        self._environment = {**os.environ, **no_settings(APP), **settings}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start a process; returns when it listens."""
        options = ["--app", str(APP), "--port", str(self._port), "--state", str(self._state)]
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "devhost", *options),
                cwd=APP,
                env=self._environment,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            if line.startswith(b"Listening on "):
                return
        raise AssertionError(f"the host ended before it listened:\n{self.log_tail()}")

    async def kill(self) -> None:
        """Kill the process, which must not have ended by itself."""
        assert await self._end(signal.SIGKILL) == -signal.SIGKILL, f"the host had ended:\n{self.log_tail()}"

    async def stop(self) -> None:
        """Have the process end in good order, so that its state can be read."""
        assert await self._end(signal.SIGTERM) == 0, f"the host ended badly:\n{self.log_tail()}"

    async def discard(self) -> None:
        """Leave no process behind, whatever has happened before."""
        if self._process is not None:
            await self._end(signal.SIGKILL)

    def log_text(self) -> str:
        """The log of all processes."""
        return self._log.read_text(errors="replace")

    def log_tail(self) -> str:
        """The last lines of the log."""
        return "\n".join(self.log_text().splitlines()[-40:])

    def state_text(self) -> str:
        """The state that a stopped host has left: what it holds, and what was deleted but is still in the file."""
        store = Store(self._state)
        held = store.dump()
        store.close()
        return held + self._state.read_text("latin-1")

    async def _end(self, number: signal.Signals) -> int | None:
        assert self._process is not None
        process, self._process = self._process, None
        if process.returncode is None:
            process.send_signal(number)
        await process.communicate()
        return process.returncode
