"""The command `python -m dev.benchmarks`: measures all groups, and writes the results, the tables and the charts.

python -m dev.benchmarks                everything; writes results.json, docs/benchmarks.md and docs/benchmarks/*.svg
python -m dev.benchmarks --quick        tries everything out in about two minutes; only prints
python -m dev.benchmarks --only look_up measures one group; only prints
python -m dev.benchmarks --report       writes the tables and the charts again from results.json
"""

import argparse
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path

from dev.benchmarks import batches, cold_start, look_up, renewal, typed_client
from dev.benchmarks.measuring import Findings, Plan, cores, machine, measure_pinned, readable
from dev.benchmarks.page import Run, read_run, write_report

RESULTS = Path(__file__).with_name("results.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "benchmarks.md"
MEASURES = {
    "typed_client": typed_client.measure,
    "look_up": look_up.measure,
    "renewal": renewal.measure,
    "cold_start": cold_start.measure,
    "batches": batches.measure,
}
PACKAGES = (
    "aiohttp",
    "authlib",
    "azure-core",
    "azure-functions",
    "azure-functions-durable",
    "azure-identity",
    "google-auth",
    "httpx",
    "httpx-aiohttp",
    "httpx-auth",
    "msal",
    "pydantic",
    "pyreqwest",
)


def main() -> int:
    """Run the command; returns the exit status."""
    arguments = _parse_arguments()
    if not arguments.report:
        run = _measure(Plan(arguments.quick, *cores()), arguments.only or list(MEASURES))
        if arguments.quick or arguments.only:
            return 0
        RESULTS.write_text(json.dumps(asdict(run), indent=1) + "\n", encoding="utf-8")
    write_report(read_run(RESULTS), DOCUMENT)
    print(f"Written: {DOCUMENT}")
    return 0


def _measure(plan: Plan, names: list[str]) -> Run:
    """Measure groups, each in a process of its own."""
    started, begun = datetime.now(UTC), time.monotonic()
    load_before = os.getloadavg()[0]
    groups: dict[str, Findings] = {}
    for name in names:
        print(f"\n{name}", flush=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            groups[name] = process.submit(measure_pinned, MEASURES[name], plan).result()
        _print(groups[name])
    return Run(
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - begun),
        pinned=plan.client_core is not None,
        load_before=load_before,
        load_after=os.getloadavg()[0],
        machine=machine(),
        packages={name: version(name) for name in PACKAGES},
        groups=groups,
    )


def _print(findings: Findings) -> None:
    for figure in findings.figures:
        low, middle, high = (readable(value) for value in (min(figure.samples), figure.median, max(figure.samples)))
        what = f"{figure.quantity}, {figure.case}" if figure.case else figure.quantity
        print(f"  {figure.subject:<50} {what:<42} {middle:>9} {figure.unit:<4} {low} to {high}")
    for target in findings.targets:
        print(f"  {'met   ' if target.met else 'MISSED'} {target.text}: {target.measured}, wanted {target.wanted}")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m dev.benchmarks", description="Measure the app against its peers.")
    parser.add_argument("--quick", action="store_true", help="try the benchmarks out; the figures mean little")
    parser.add_argument("--only", action="append", choices=list(MEASURES), help="one group; may be given again")
    parser.add_argument("--report", action="store_true", help="only write the tables and charts, from results.json")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
