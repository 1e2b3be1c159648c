"""The app in simulated worlds: whatever happens in them, the rules hold; and they would not if the app had a fault."""

import logging
import time
from collections.abc import Iterator

import pytest

from tests.simulation.faults import FAULTS, Fault, put_in
from tests.simulation.many import replay, run_many
from tests.simulation.simulation import run, shrunk

MOST_SEEDS = 2_000


@pytest.fixture(autouse=True)
def silent() -> Iterator[None]:
    """Nobody reads the app's log."""
    before = logging.root.manager.disable
    logging.disable()
    yield
    logging.disable(before)


@pytest.mark.timeout(300)
def test_whatever_happens_the_rules_hold() -> None:
    worlds = run_many(time.time_ns() // 1000, None, 20.0)
    for seed, violation in worlds.failed.items():
        pytest.fail(f"{violation}: make simulate SEED={seed}\n{replay(seed)}")
    assert worlds.seeds > 0
    assert worlds.met["the answer is lost", "stored"]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_in_the_app_is_found(fault: Fault) -> None:
    with put_in(fault):
        found = next((seed for seed in range(MOST_SEEDS) if run(seed).violations), None)
    assert found is not None
    assert not run(found).violations


def test_a_world_is_the_same_each_time() -> None:
    lines: list[str] = []
    again: list[str] = []
    run(4, log=lines.append)
    run(4, log=again.append)
    assert lines == again


def test_a_failure_is_told_without_what_it_does_not_need() -> None:
    with put_in(FAULTS["a chunk's result counted twice"]):
        failed = next(one for one in map(run, range(MOST_SEEDS)) if one.violations)
        without = shrunk(failed)
        told = run(failed.seed, without)
    assert told.violations
    assert len(told.chance.happened) < 3 < len(failed.chance.happened)
