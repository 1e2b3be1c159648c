"""What a measurement is: samples from interleaved rounds, on a core of their own, with a target or without."""

import asyncio
import gc
import itertools
import os
import statistics
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Plan:
    """Whether only to try the benchmarks out, and the cores of what is measured and of its counterpart, if any."""

    quick: bool
    client_core: int | None
    server_core: int | None

    def choose[T](self, full: T, quick: T) -> T:
        """One of two extents."""
        return quick if self.quick else full


class Figures:
    """Samples, one for each round, by subject, quantity with its unit (`time, ms`), and case, empty if there is one."""

    def __init__(self) -> None:
        self.samples: dict[tuple[str, str, str], list[float]] = {}

    def add(self, subject: str, quantity: str, value: float, case: str = "") -> None:
        """Note the sample of a round."""
        self.samples.setdefault((subject, quantity, case), []).append(value)

    def ratio(self, quantity: str, subject: str, other: str, case: str = "") -> Sequence[float]:
        """How a subject compares with another one, round by round."""
        above, below = self.samples[subject, quantity, case], self.samples[other, quantity, case]
        return [a / b for a, b in zip(above, below, strict=True)]


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted of the median of samples; `limitation` says why it cannot be had, if that is known."""

    text: str
    comparison: Literal["at most", "at least"]
    limit: float
    unit: str
    samples: Sequence[float]
    limitation: str = ""

    @property
    def met(self) -> bool:
        """Whether the median meets the limit."""
        median = statistics.median(self.samples)
        return median <= self.limit if self.comparison == "at most" else median >= self.limit


def interleaved[T](rounds: int, subjects: Iterable[T]) -> Iterator[T]:
    """Go through all subjects in each round, every other round backwards, so that a drift of the machine hits all."""
    order = list(subjects)
    for number in range(rounds):
        yield from order if number % 2 == 0 else reversed(order)


async def keep_in_flight(callers: int, call: Callable[[], Awaitable[object]], turns: Iterable[int]) -> int:
    """Make a call for each turn, so many of them at once; returns how many were made."""
    left, made = iter(turns), 0

    async def caller() -> None:
        nonlocal made
        for _ in left:
            await call()
            made += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(caller())
    return made


def turns_for(seconds: float) -> Iterator[int]:
    """Count until the time is over."""
    end = time.perf_counter() + seconds
    return itertools.takewhile(lambda _: time.perf_counter() < end, itertools.count())


def settle() -> None:
    """Collect the garbage of whoever was measured before, and leave what survives out of further collections."""
    gc.collect()
    gc.freeze()


def cores() -> tuple[int | None, int | None]:
    """A core for what is measured and one for its counterpart; None where processes cannot be pinned."""
    if not hasattr(os, "sched_getaffinity") or len(available := sorted(os.sched_getaffinity(0))) < 2:
        return None, None
    return available[0], available[1]


def pin(core: int | None, process: int = 0) -> None:
    """Keep a process, unless given this one, and those that it will start on one core."""
    if core is not None:
        os.sched_setaffinity(process, {core})
