"""What a measurement is: samples from interleaved rounds, on a core of their own, with a target or without."""

import gc
import os
import platform
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to measure.

    Attributes:
        quick: Only try the benchmarks out: the figures mean little.
        client_core: Where what is measured runs; None where processes cannot be pinned.
        server_core: Where its counterpart runs.
    """

    quick: bool
    client_core: int | None
    server_core: int | None

    def choose[T](self, full: T, quick: T) -> T:
        """One of two extents."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Figure:
    """One quantity of one subject in one case, a sample for each round."""

    subject: str
    quantity: str
    unit: str
    samples: tuple[float, ...]
    case: str = ""

    @property
    def median(self) -> float:
        """Of the rounds."""
        return statistics.median(self.samples)


@dataclass(frozen=True, slots=True)
class Target:
    """What is wanted of a figure. It is met if the median is on the right side of the limit."""

    text: str
    comparison: Literal["<=", ">="]
    limit: float
    unit: str
    samples: tuple[float, ...]

    @property
    def wanted(self) -> str:
        """The limit, for people."""
        return f"{'at most' if self.comparison == '<=' else 'at least'} {readable(self.limit)} {self.unit}".rstrip()

    @property
    def measured(self) -> str:
        """The median, and in brackets the least and the greatest sample, for people."""
        return with_spread(self.samples, self.unit)

    @property
    def met(self) -> bool:
        """Whether the median meets the limit."""
        median = statistics.median(self.samples)
        return median <= self.limit if self.comparison == "<=" else median >= self.limit


@dataclass(slots=True)
class Findings:
    """What a group of benchmarks has found."""

    figures: list[Figure] = field(default_factory=list)
    targets: list[Target] = field(default_factory=list)

    def figure(self, subject: str, quantity: str, case: str = "") -> Figure:
        """The figure of these names."""
        return next(f for f in self.figures if (f.subject, f.quantity, f.case) == (subject, quantity, case))

    def ratio(self, quantity: str, case: str, numerator: str, denominator: str) -> tuple[float, ...]:
        """How two subjects compare, round by round."""
        above, below = (self.figure(subject, quantity, case).samples for subject in (numerator, denominator))
        return tuple(a / b for a, b in zip(above, below, strict=True))


class Samples:
    """Collects the samples of many figures while rounds go by."""

    def __init__(self) -> None:
        self._samples: dict[tuple[str, str, str, str], list[float]] = {}

    def add(self, subject: str, quantity: str, unit: str, value: float, case: str = "") -> None:
        """Note the sample of a round."""
        self._samples.setdefault((subject, quantity, unit, case), []).append(value)

    def figures(self) -> list[Figure]:
        """All figures, in the order of their first samples."""
        return [
            Figure(subject, quantity, unit, tuple(values), case)
            for (subject, quantity, unit, case), values in self._samples.items()
        ]


def interleaved[T](rounds: int, subjects: Mapping[str, T]) -> Iterator[tuple[str, T]]:
    """Go through all subjects in each round, every other round backwards, so that a drift of the machine hits all."""
    for number in range(rounds):
        items = list(subjects.items())
        yield from items if number % 2 == 0 else reversed(items)


def readable(value: float) -> str:
    """Three digits, or all those before the point."""
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def with_spread(samples: Sequence[float], unit: str = "") -> str:
    """The median, and if the samples differ, in brackets the least and the greatest."""
    middle, low, high = (readable(value) for value in (statistics.median(samples), min(samples), max(samples)))
    spread = "" if low == high else f" ({low} to {high})"
    return f"{middle} {unit}".rstrip() + spread


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which a share of the values lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def settle() -> None:
    """Collect the garbage of whoever was measured before, and leave what survives out of further collections."""
    gc.collect()
    gc.freeze()


def cores() -> tuple[int | None, int | None]:
    """A core for what is measured and one for its counterpart; None where processes cannot be pinned."""
    if not hasattr(os, "sched_getaffinity") or len(available := sorted(os.sched_getaffinity(0))) < 2:
        return None, None
    return available[0], available[1]


def pin(core: int | None) -> None:
    """Keep this process, and those that it will start, on one core."""
    if core is not None:
        os.sched_setaffinity(0, {core})


def measure_pinned(measure: Callable[[Plan], Findings], plan: Plan) -> Findings:
    """Measure a group on the core that is for it; meant for a process of its own."""
    pin(plan.client_core)
    return measure(plan)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
