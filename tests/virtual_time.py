"""An event loop whose time jumps to the next timer when nothing else is left to do: hours pass in milliseconds."""

import asyncio
from collections.abc import Coroutine
from typing import Any

BEGINNING = 1000.0
"""The time of a loop when it begins, in seconds."""


class _NothingToWaitFor:
    """Stands where a loop asks the system for events: lets virtual time pass instead."""

    def __init__(self) -> None:
        self.now = BEGINNING

    def select(self, timeout: float | None) -> list[object]:
        if timeout is None:
            raise RuntimeError("deadlock: every task waits for another one")
        self.now += timeout
        return []


class VirtualTimeLoop(asyncio.BaseEventLoop):
    """Runs callbacks, tasks and timers on one thread; there are no sockets, no threads and no waiting.

    The same program, with the same random numbers, does the same each time.
    """

    def __init__(self) -> None:
        super().__init__()
        self._selector = _NothingToWaitFor()

    def time(self) -> float:
        """Seconds since some beginning, as of the last jump."""
        return self._selector.now

    def _process_events(self, event_list: list[object]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # nothing sleeps that would have to be woken


def run_virtually[T](main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, as `asyncio.run` does, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)
