"""Writes docs/benchmarks.md: how it was measured, whether the targets are met, and a section for each question."""

import os
import platform
import re
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from dev.benchmarks.measuring import Figures, Target

_PROJECT = Path(__file__).parents[2]
PAGE = _PROJECT / "docs" / "benchmarks.md"
_REQUIREMENTS = (_PROJECT / "requirements.txt", Path(__file__).with_name("requirements.txt"))


@dataclass(frozen=True, slots=True)
class Section:
    """What the page says about a question, as markdown, and the targets of the question."""

    title: str
    text: str
    targets: Sequence[Target] = ()


def write_page(sections: Sequence[Section], run: str) -> None:
    """Write the page; `run` tells when the run was, how long it took, and what else the machine did."""
    targets = [target for section in sections for target in section.targets]
    parts = [_head(run), f"## Targets\n\n{targets_table(targets)}"]
    parts += [f"## {section.title}\n\n{section.text.strip()}" for section in sections]
    PAGE.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


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


def _head(run: str) -> str:
    names = {name for file in _REQUIREMENTS for name in re.findall(r"^[a-z][\w-]*", file.read_text(), re.MULTILINE)}
    return f"""# Benchmarks

`make bench` measures all of this again, in less than ten minutes on two cores, and writes this page. Everything stays
on the loopback interface. What is measured and its counterpart are separate processes, on a core each where the system
can pin them. Subjects take turns in several rounds, every other round backwards; a cell shows the median of the rounds
and in brackets the least and the greatest of them. Ratios are formed within a round. Absolute figures are those of one
machine; ratios carry over better.

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
