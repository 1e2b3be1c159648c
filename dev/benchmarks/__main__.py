"""The command `python -m dev.benchmarks`: answers the questions, one after the other, and writes docs/benchmarks.md."""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from multiprocessing import get_context

from dev.benchmarks.measuring import Plan, cores, pin
from dev.benchmarks.page import PAGE, Run, Section, targets_table, write_page

QUESTIONS = ("typed_client", "look_up", "renewal", "cold_start", "batches", "listing", "embedded_host")
"""Modules of this package, each with a function `answer(Plan) -> Section`."""

_OPENING = """\
# Benchmarks

`make bench` measures all of this again, in less than ten minutes on two cores, and writes this page. Everything stays
on the loopback interface. What is measured and its counterpart are separate processes, on a core each where the system
can pin them. Subjects take turns in several rounds, every other round backwards; a cell shows the median of the rounds
and in brackets the least and the greatest of them. Ratios are formed within a round. Absolute figures are those of one
machine; ratios carry over better. What batches do at an API that has limits or fails is told by
[the benchmarks of long batches](benchmarks-batches.md)."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m dev.benchmarks", description="Measure the app against its peers.")
    parser.add_argument("--quick", action="store_true", help="try all out in three minutes; only prints")
    parser.add_argument("--only", action="append", choices=QUESTIONS, help="only print this answer; may be repeated")
    arguments = parser.parse_args()
    plan = Plan(arguments.quick, *cores())
    run = Run(plan)
    sections = [_ask(name, plan) for name in arguments.only or QUESTIONS]
    if not (arguments.quick or arguments.only):
        write_page(PAGE, _OPENING, sections, run)
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
