"""Runs many simulated worlds, on all cores, or one of them again."""

import logging
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import count
from multiprocessing import get_context

from .simulation import run, shrunk

_TO_RECORDS = ("new", "sent before", "stored")
_TO_INSTANCES = ("Pending", "Running", "Sleeping", "ContinuedAsNew", "Suspended")
_TO_ACTIVITIES = ("PostBusiness", "PostBusinesses", "AnnounceEnd", "SendEvent")
_TO_MESSAGES = (
    *("EXECUTION_STARTED", "EXECUTION_SUSPENDED", "EXECUTION_RESUMED", "EXECUTION_TERMINATED"),
    *("TASK_COMPLETED", "TASK_FAILED", "TIMER_FIRED", "EVENT_RAISED"),
)
_BY_CALLERS = ("pending", "running", "deferred", "suspended")
STATES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("no connection", "the answer is lost", "a late answer", "an unreadable answer"), _TO_RECORDS),
    **dict.fromkeys(("an outage", "the limit is reached", "come back later", "an odd status"), _TO_RECORDS),
    **dict.fromkeys(("a refusal", "a failure after storing"), ("new", "sent before")),
    "a conflict": ("stored",),
    "a look-up fails": ("",),
    "a worker dies in a turn": _TO_INSTANCES,
    "a worker dies before a turn is written": _TO_INSTANCES,
    "a worker dies after a turn was written": _TO_INSTANCES,
    **dict.fromkeys(("a message comes twice", "a message comes late"), _TO_MESSAGES),
    **dict.fromkeys(("a result is lost", "an activity is failed", "an activity runs twice at once"), _TO_ACTIVITIES),
    "a worker dies": (
        *("calls the API", "tells an end"),
        *("StartPostBusiness", "StartPostBatch", "CancelOperation", "RetryOperation"),
    ),
    **dict.fromkeys(("the receiver is down", "the receiver refuses for now", "the receiver's answer is lost"), ("",)),
    "a timer is late": ("Running", "Sleeping", "Suspended"),
    "the instance goes on during a look-up": ("Pending", "Running", "ContinuedAsNew", "Completed", "Terminated"),
    "a retry": ("posted", "rejected", "gave_up", "completed", "cancelled"),
    "two retries at once": ("posted", "rejected", "gave_up", "completed", "cancelled"),
    **dict.fromkeys(("a cancel", "an early retry", "the same start again", "a look at the results"), _BY_CALLERS),
    **dict.fromkeys(("an operator meddles", "another start under the same key"), _BY_CALLERS),
}
"""What must have happened to what was in which states, once there were enough worlds."""

_AT_ONCE = 20
"""Seeds that a process is given at a time."""


@dataclass(slots=True)
class Worlds:
    """What came of several worlds.

    Attributes:
        failed: Their seeds, with the first violation of each.
        met: How often each thing happened to what was in a state.
    """

    seeds: int = 0
    events: int = 0
    failed: dict[int, str] = field(default_factory=dict)
    met: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, other: "Worlds") -> None:
        """Count others, too."""
        self.seeds, self.events = self.seeds + other.seeds, self.events + other.events
        self.failed |= other.failed
        self.met += other.met

    def __str__(self) -> str:
        kinds = Counter[str]()
        for (what, _), number in self.met.items():
            kinds[what] += number
        most = ", ".join(f"{what} {number}" for what, number in kinds.most_common(4))
        happened = f"{kinds.total()} faults and acts ({most})"
        return f"{self.seeds} seeds, {self.events} events, {happened}, {len(self.failed)} failed"

    @property
    def never(self) -> list[str]:
        """What has not happened of `STATES`."""
        expected = [(what, state) for what, states in STATES.items() for state in states]
        return [f"{what}: {state}" for what, state in expected if not self.met[what, state]]

    @property
    def coverage(self) -> str:
        """What happened in which states, line by line."""
        lines = []
        for what in sorted({what for what, _ in self.met}):
            states = sorted((state, number) for (one, state), number in self.met.items() if one == what)
            told = "".join(f"; {state} {number}" for state, number in states if state)
            lines.append(f"{what}: {sum(number for _, number in states)}{told}")
        return "\n".join(lines)


def run_all(seeds: range) -> Worlds:
    """Run worlds one after the other."""
    logging.disable()
    worlds = Worlds()
    for seed in seeds:
        ended = run(seed)
        worlds.seeds += 1
        worlds.events += ended.events
        worlds.met += ended.chance.met
        if ended.violations:
            worlds.failed[seed] = ended.violations[0]
    return worlds


def run_many(first: int, seeds: int | None, seconds: float | None, *, told: bool = False) -> Worlds:
    """Run worlds on all cores.

    Args:
        first: The first seed.
        seeds: How many; None for as many as the time allows.
        seconds: After which no more are begun; None for no limit.
        told: Whether to print a line a second.
    """
    worlds, began, printed = Worlds(), time.monotonic(), 0.0
    starts = iter(range(first, first + seeds, _AT_ONCE)) if seeds is not None else count(first, _AT_ONCE)
    end = first + seeds if seeds is not None else sys.maxsize
    with ProcessPoolExecutor(os.process_cpu_count(), get_context("spawn")) as processes:
        pending: set[Future[Worlds]] = set()
        while True:
            timely = (seconds is None or time.monotonic() - began < seconds) and not worlds.failed
            while timely and len(pending) < 2 * (os.process_cpu_count() or 1):
                if (start := next(starts, None)) is None:
                    break
                pending.add(processes.submit(run_all, range(start, min(start + _AT_ONCE, end))))
            if not pending:
                return worlds
            done, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
            for one in done:
                worlds.add(one.result())
            if told and time.monotonic() - printed >= 1.0:
                printed = time.monotonic()
                print(f"{printed - began:.0f} s: {worlds}", flush=True)


def replay(seed: int, *, whole: bool = False) -> str:
    """Run a world again, and tell its history; unless all is wanted, without what a failure did not need."""
    logging.disable()
    lines: list[str] = []
    failed = run(seed)
    without = shrunk(failed) if failed.violations and not whole else frozenset[str]()
    again = run(seed, without, lines.append)
    return "\n".join(
        [*lines, "", "What had to happen:", *again.chance.happened, "", *(again.violations or ["no violation"])]
    )
