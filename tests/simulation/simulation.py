"""One world, one seed: run it, judge it, and find out what of all that happened in it was needed for a failure."""

import asyncio
import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from .api import DAY
from .callers import Caller, watch_list
from .chance import Chance
from .rules import Ledger
from .task_hub import Instance
from .world import ShuffledLoop, World


@dataclass(frozen=True, slots=True)
class Run:
    """What came of a world.

    Attributes:
        violations: Of the rules; the first ones count.
        chance: What has happened.
        events: Of all histories.
    """

    seed: int
    violations: list[str]
    chance: Chance
    events: int


def run(seed: int, without: frozenset[str] = frozenset(), log: Callable[[str], None] = lambda _: None) -> Run:
    """Run a world to its end.

    Args:
        seed: All that is by chance comes from it.
        without: What does not happen though it would.
        log: Is told each thing that happens.
    """
    chance = Chance(seed, without)
    with asyncio.Runner(loop_factory=lambda: ShuffledLoop(seed)) as runner:
        world = runner.run(_lived(chance, log))
    return Run(seed, world.violations, chance, world.hub.events)


async def _lived(chance: Chance, log: Callable[[str], None]) -> World:
    world = World(chance, log)
    ledger = Ledger(world)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: world.violated(f"{context['message']}: {context.get('exception')!r}"))
    with world.installed():
        callers = [
            Caller(world, f"r{n}") for n in range(10) if n == 0 or chance.happens("another caller", 0.6, to=f"r{n}")
        ]
        watching = loop.create_task(watch_list(world))
        async with asyncio.TaskGroup() as group:
            for caller in callers:
                group.create_task(caller.run())
        await asyncio.sleep(600.0)  # what is late comes to its end
        while world.telling:  # noqa: ASYNC110 (time passes only so)
            await asyncio.sleep(600.0)
        watching.cancel()
        ledger.judge(callers)
        if chance.happens("two nights", 0.1):
            hub = world.hub
            hub.instances["held"] = Instance("held", "held", "", "{}", hub.now, hub.now, "Running")
            for days in (0, 10):
                await asyncio.sleep(days * DAY)
                yesterday = hub.now - timedelta(days=1)
                kept = {name for name, one in hub.instances.items() if not one.ended or one.created > yesterday}
                await world.forget()
                if gone := kept - hub.instances.keys():
                    world.violated(f"forgotten too early: {gone}")
            if left := [name for name, one in hub.instances.items() if one.ended]:
                world.violated(f"not forgotten: {left}")
    return world


def shrunk(failed: Run, most: int = 300) -> frozenset[str]:
    """Leave out of a world what is not needed for it to fail: first halves, then smaller parts.

    Args:
        failed: The world as it was.
        most: How often it is run again, but for the parts of the last size.
    """
    without: frozenset[str] = frozenset()
    rest = list(dict.fromkeys(failed.chance.happened))
    size, tries = max(1, len(rest) // 2), 0
    while tries < most and rest:
        parts = [rest[at : at + size] for at in range(0, len(rest), size)]
        random.Random(failed.seed).shuffle(parts)
        for part in parts:
            tries += 1
            tried = run(failed.seed, without | frozenset(part))
            if any(_kind(one) == _kind(failed.violations[0]) for one in tried.violations):
                without |= frozenset(part)
                rest = [name for name in dict.fromkeys(tried.chance.happened) if name not in without]
                break
        else:
            if size == 1:
                break
            size = max(1, size // 2)
    return without


def _kind(violation: str) -> str:
    """A violation without names and numbers."""
    return re.sub(r"[0-9a-f]{32}|\br?\d[\d.-]*", "", violation)[:40]
