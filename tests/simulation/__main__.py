"""Runs many simulated worlds, or one of them again: `python -m tests.simulation --help`."""

import argparse
import sys
import time

from .many import replay, run_many

ENOUGH = 20_000
"""Seeds, with which all of `STATES` must have happened."""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description="Run the app in simulated worlds.")
    parser.add_argument("--seeds", type=int, default=10_000, help="how many (10,000)")
    parser.add_argument("--first", type=int, default=time.time_ns() // 1000, help="the first seed (by the time)")
    parser.add_argument("--replay", type=int, metavar="SEED", help="run one again, and tell what needs to happen in it")
    parser.add_argument("--whole", action="store_true", help="with --replay: tell all that happens")
    arguments = parser.parse_args()
    if arguments.replay is not None:
        print(replay(arguments.replay, whole=arguments.whole))
        return
    worlds = run_many(arguments.first, arguments.seeds, None, told=True)
    print(f"\nWhat happened, and in which states:\n{worlds.coverage}\n")
    if worlds.never:
        print("Never happened:", *worlds.never, sep="\n  ", end="\n\n")
    print(worlds)
    for seed, violation in worlds.failed.items():
        print(f"\n{violation}\n\n    make simulate SEED={seed}")
    sys.exit(bool(worlds.failed or (worlds.never and worlds.seeds >= ENOUGH)))


if __name__ == "__main__":
    main()
