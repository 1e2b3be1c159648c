"""Writes pages: how it was measured, whether the targets are met, and a section for each question."""

import os
import platform
import re
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from dev.benchmarks.measuring import Figures, Plan, Target

_PROJECT = Path(__file__).parents[2]
PAGE, LONG_PAGE = (_PROJECT / "docs" / name for name in ("benchmarks.md", "benchmarks-batches.md"))
_REQUIREMENTS = (_PROJECT / "requirements.txt", Path(__file__).with_name("requirements.txt"))


@dataclass(frozen=True, slots=True)
class Section:
    """What the page says about a question, as markdown, and the targets of the question."""

    title: str
    text: str
    targets: Sequence[Target] = ()


class Run:
    """A run from now on: as text, when it began, how long it took, and what else the machine did."""

    def __init__(self, plan: Plan) -> None:
        self._pinned = plan.client_core is not None
        self._started, self._began, self._load = datetime.now(UTC), time.monotonic(), os.getloadavg()[0]

    def __str__(self) -> str:
        pinned = "pinned" if self._pinned else "not pinned"
        run = f"{self._started.isoformat(timespec='seconds')}, {time.monotonic() - self._began:.0f} s, {pinned}"
        run += (
            f"; load average {self._load:.2f} before, {os.getloadavg()[0]:.2f} after, of which 1 to 2 are the run's own"
        )
        if self._load > 0.5 * (os.cpu_count() or 1):
            run += "; **other work was under way on the machine: spreads are wide, rates too low**"
        return run


def write_page(page: Path, opening: str, sections: Sequence[Section], run: Run) -> None:
    """Write a page that begins with its title and how things were measured."""
    targets = [target for section in sections for target in section.targets]
    parts = [opening, _circumstances(run), f"## Targets\n\n{targets_table(targets)}"]
    parts += [f"## {section.title}\n\n{section.text.strip()}" for section in sections]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def table(figures: Figures, *quantities: str) -> str:
    """Write figures: subjects by the cases of a quantity, or by quantities where there are no cases."""
    shown = {key: samples for key, samples in figures.samples.items() if key[1] in quantities}
    columns = sorted(dict.fromkeys(key[1:] for key in shown), key=lambda column: quantities.index(column[0]))
    rows = []
    for subject in dict.fromkeys(subject for subject, _, _ in shown):
        cells = (shown.get((subject, *column)) for column in columns)
        rows.append([subject, *(_with_spread(samples) if samples else "-" for samples in cells)])
    rounds = f"rounds: {max(map(len, shown.values()))}"
    corner = f"{quantities[0]}; {rounds}" if any(case for _, case in columns) else rounds
    return _rows([corner, *(case or quantity for quantity, case in columns)], rows)


def targets_table(targets: Sequence[Target]) -> str:
    """Write targets with their verdicts, and what stands in the way of those that are missed."""
    rows = []
    for target in targets:
        wanted = f"{target.comparison} {_readable(target.limit)} {target.unit}".rstrip()
        rows.append([target.text, wanted, _with_spread(target.samples, target.unit), "yes" if target.met else "**no**"])
    limitations = dict.fromkeys(target.limitation for target in targets if target.limitation and not target.met)
    return "\n\n".join([_rows(["Target", "Wanted", "Measured", "Met"], rows), *limitations])


def _readable(value: float) -> str:
    """Three digits, or all those before the point."""
    if value == int(value) or value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _with_spread(samples: Sequence[float], unit: str = "") -> str:
    """The median, and if the samples differ, in brackets the least and the greatest."""
    middle, low, high = (_readable(value) for value in (statistics.median(samples), min(samples), max(samples)))
    return f"{middle} {unit}".rstrip() + ("" if low == high else f" ({low} to {high})")


def _rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _circumstances(run: Run) -> str:
    names = {name for file in _REQUIREMENTS for name in re.findall(r"^[a-z][\w-]*", file.read_text(), re.MULTILINE)}
    return f"""\
| | |
|---|---|
| Machine | {_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()} |
| Python | {platform.python_implementation()} {platform.python_version()} |
| Packages | {", ".join(f"{name} {version(name)}" for name in sorted(names))} |
| Run | {run} |"""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    told = re.search(r"model name\s*: (.*)", cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else None
    return told[1] if told else platform.processor() or platform.machine()
