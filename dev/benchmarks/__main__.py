"""The command `python -m dev.benchmarks`: answers the questions, one after the other, and writes docs/benchmarks.md."""

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from importlib import import_module
from multiprocessing import get_context

from dev.benchmarks.measuring import Plan, cores, pin
from dev.benchmarks.page import PAGE, Section, targets_table, write_page

QUESTIONS = ("typed_client", "look_up", "renewal", "cold_start", "batches", "listing", "embedded_host")
"""Modules of this package, each with a function `answer(Plan) -> Section`."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m dev.benchmarks", description="Measure the app against its peers.")
    parser.add_argument("--quick", action="store_true", help="try all out in three minutes; only prints")
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="only print this answer; may be repeated")
    arguments = parser.parse_args()
    plan = Plan(arguments.quick, *cores())
    started, begun, load = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic(), os.getloadavg()[0]
    sections = [_ask(name, plan) for name in arguments.only or QUESTIONS]
    if not (arguments.quick or arguments.only):
        pinned = "pinned" if plan.client_core is not None else "not pinned"
        run = f"{started}, {time.monotonic() - begun:.0f} s, {pinned}; load average {load:.2f} before"
        run += f", {os.getloadavg()[0]:.2f} after, of which 1 to 2 are the run's own"
        if load > 0.5 * (os.cpu_count() or 1):
            run += "; **other work was under way on the machine: spreads are wide, rates too low**"
        write_page(sections, run)
        print(f"Written: {PAGE}")


def _ask(name: str, plan: Plan) -> Section:
    """Have a question answered in a process of its own, and print the answer."""
    print(f"\n# {name} ...", flush=True)
    begun = time.monotonic()
    question = import_module(f"dev.benchmarks.{name}")
    with ProcessPoolExecutor(1, get_context("spawn"), initializer=pin, initargs=(plan.client_core, 0)) as process:
        section: Section = process.submit(question.answer, plan).result()
    print(section.text)
    if section.targets:
        print(targets_table(section.targets))
    print(f"{time.monotonic() - begun:.0f} s", flush=True)
    return section


if __name__ == "__main__":
    main()
