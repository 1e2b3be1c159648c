"""Timer triggers: when they fire, what they are given, and what is made up for."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from devhost.clock import Clock, ManualClock, SystemClock, format_time, parse_time
from devhost.protocol import TypedData
from devhost.schedules import ScheduleError
from devhost.store import Store
from devhost.timers import Timers
from devhost.worker import NO_TRACE, TIMER, Function, Outcome

DEFAULT = "0001-01-01T00:00:00+00:00"


class Watch:
    """An app of one function with a timer trigger, its host's timers, and the clock that they go by."""

    def __init__(self, state: Path) -> None:
        self.clock: Clock = ManualClock(parse_time("2026-01-01T00:00:00Z"))
        self.runs: list[tuple[str, dict[str, Any]]] = []
        """The time of each run, and what it was given."""
        self.ran = asyncio.Event()
        self.outcome = Outcome()
        self.open_gate = asyncio.Event()
        """Cleared, it makes runs last."""
        self.open_gate.set()
        self._trigger: dict[str, Any] = {}
        self._state = state
        self._running: tuple[Store, Timers] | None = None

    def of_kind(self, kind: str) -> Mapping[str, Function]:
        return {"tick": Function("Tick", "1", "", self._trigger, ())} if kind == TIMER else {}

    async def invoke(
        self, function: Function, data: TypedData, *, reason: str, trace: Mapping[str, str] = NO_TRACE
    ) -> Outcome:
        assert data.kind == "json"
        self.runs.append((format_time(self.clock.now())[11:19], json.loads(data.value)))
        self.ran.set()
        await self.open_gate.wait()
        return self.outcome

    @property
    def timers(self) -> Timers:
        assert self._running is not None
        return self._running[1]

    @property
    def times(self) -> list[str]:
        return [time for time, _ in self.runs]

    async def start(self, schedule: str, **trigger: Any) -> None:
        self._trigger = {"type": TIMER, "name": "timer", "schedule": schedule, **trigger}
        timers = Timers(self, self.clock)
        store = Store(self._state)
        self._running = store, timers
        timers.start(store)
        if self.open_gate.is_set():
            await timers.settle()

    async def stop(self) -> None:
        if self._running is not None:
            await self._running[1].stop()
            self._running[0].close()
            self._running = None

    async def advance(self, seconds: float) -> None:
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(seconds)
        if self._running is not None:
            self.timers.fire()
            await (self.timers.settle() if self.open_gate.is_set() else self.ran.wait())


@pytest.fixture
async def watch(tmp_path: Path) -> AsyncIterator[Watch]:
    watch = Watch(tmp_path / "state.db")
    yield watch
    await watch.stop()


async def test_a_timer_fires_when_it_is_due_and_not_before(watch: Watch) -> None:
    await watch.start("0 */10 * * * *")
    await watch.advance(599)
    assert watch.times == []

    for _ in range(3):
        await watch.advance(1)
        await watch.advance(599)
    assert watch.times == ["00:10:00", "00:20:00", "00:30:00"]


async def test_a_timer_fires_by_itself_as_time_passes(watch: Watch) -> None:
    watch.clock = SystemClock()
    await watch.start("00:00:00.01")

    await watch.ran.wait()
    watch.ran.clear()
    await watch.ran.wait()


async def test_a_run_is_given_its_schedules_status_as_the_real_host_writes_it(watch: Watch) -> None:
    await watch.start("0 0 * * * *")
    await watch.advance(3600)
    await watch.advance(3600)

    first, second = (given for _, given in watch.runs)
    assert first["Schedule"] == {"AdjustForDST": True}
    assert first["ScheduleStatus"]["Last"] == DEFAULT
    assert first["ScheduleStatus"]["Next"] == "2026-01-01T01:00:00+00:00"
    assert first["IsPastDue"] is False
    assert second["ScheduleStatus"] == {
        "Last": "2026-01-01T01:00:00+00:00",
        "Next": "2026-01-01T02:00:00+00:00",
        "LastUpdated": "2026-01-01T01:00:00+00:00",
    }


async def test_an_interval_counts_from_the_run_before_and_knows_no_dst(watch: Watch) -> None:
    await watch.start("00:07:00")
    await watch.advance(420)
    await watch.advance(420)

    assert watch.times == ["00:07:00", "00:14:00"]
    assert watch.runs[0][1]["Schedule"] == {"AdjustForDST": False}


async def test_a_run_that_lasts_does_not_overlap_with_the_next_which_follows_it_once(watch: Watch) -> None:
    await watch.start("0 * * * * *")
    watch.open_gate.clear()
    await watch.advance(60)
    await watch.advance(210)
    assert watch.times == ["00:01:00"]

    watch.open_gate.set()
    await watch.timers.settle()
    assert watch.times == ["00:01:00", "00:04:30"]
    await watch.advance(30)
    assert watch.times[2:] == ["00:05:00"]


async def test_a_run_that_fails_does_not_end_the_schedule(watch: Watch) -> None:
    watch.outcome = Outcome(error="RuntimeError: it went off")
    await watch.start("0 0 * * * *")
    await watch.advance(3600)
    await watch.advance(3600)

    assert watch.times == ["01:00:00", "02:00:00"]


@pytest.mark.parametrize("ran_before", [False, True])
async def test_what_was_missed_while_the_host_was_down_is_made_up_for_once(watch: Watch, ran_before: bool) -> None:
    await watch.start("0 0 * * * *")
    if ran_before:
        await watch.advance(3600)
    await watch.stop()
    watch.runs.clear()
    await watch.advance(3 * 3600 + 60)
    missed = watch.clock.now().hour
    await watch.start("0 0 * * * *")

    (run,) = watch.runs
    assert run[0] == f"0{missed}:01:00"
    assert run[1]["IsPastDue"] is True
    await watch.advance(59 * 60)
    assert watch.runs[1][0] == f"0{missed + 1}:00:00"
    assert watch.runs[1][1]["IsPastDue"] is False


async def test_nothing_is_made_up_for_when_nothing_was_missed(watch: Watch) -> None:
    await watch.start("0 0 * * * *")
    await watch.advance(3600)
    await watch.stop()
    await watch.advance(1800)
    await watch.start("0 0 * * * *")

    assert watch.times == ["01:00:00"]
    await watch.advance(1800)
    assert watch.times == ["01:00:00", "02:00:00"]
    assert watch.runs[1][1]["ScheduleStatus"]["Last"] == "2026-01-01T01:00:00+00:00"


async def test_a_run_that_the_end_of_the_host_cut_short_runs_again(watch: Watch) -> None:
    await watch.start("0 0 * * * *")
    watch.open_gate.clear()
    await watch.advance(3600)
    await watch.stop()
    watch.open_gate.set()
    await watch.advance(60)
    await watch.start("0 0 * * * *")

    assert watch.times == ["01:00:00", "01:01:00"]


async def test_a_schedule_that_was_changed_while_the_host_was_down_counts_from_now_on(watch: Watch) -> None:
    await watch.start("0 0 * * * *")
    await watch.stop()
    await watch.advance(3 * 3600)
    await watch.start("0 30 * * * *")

    assert watch.times == []
    await watch.advance(1800)
    assert watch.times == ["03:30:00"]


@pytest.mark.parametrize(
    ("schedule", "monitor"), [("0 0 * * * *", False), ("00:00:30", True), ("*/30 * * * * *", None)]
)
async def test_a_timer_that_is_not_monitored_makes_up_for_nothing(
    watch: Watch, schedule: str, monitor: bool | None
) -> None:
    await watch.start(schedule, useMonitor=monitor)
    await watch.advance(3600)
    assert watch.runs[0][1]["ScheduleStatus"] is None
    await watch.stop()
    watch.runs.clear()
    await watch.advance(2 * 3600)
    await watch.start(schedule, useMonitor=monitor)

    assert watch.runs == []


async def test_a_timer_that_runs_on_startup_does_so_at_every_start_and_then_on_schedule(watch: Watch) -> None:
    await watch.start("0 0 * * * *", runOnStartup=True)
    await watch.advance(60)
    await watch.stop()
    await watch.start("0 0 * * * *", runOnStartup=True)
    await watch.advance(59 * 60)

    assert watch.times == ["00:00:00", "00:01:00", "01:00:00"]
    assert not any(given["IsPastDue"] for _, given in watch.runs)


async def test_a_timer_that_is_past_due_and_runs_on_startup_runs_once(watch: Watch) -> None:
    await watch.start("0 0 * * * *", runOnStartup=True)
    await watch.stop()
    watch.runs.clear()
    await watch.advance(2 * 3600 + 1)
    await watch.start("0 0 * * * *", runOnStartup=True)

    (run,) = watch.runs
    assert run[1]["IsPastDue"] is True


async def test_a_run_apart_from_the_schedule_is_given_the_status_and_changes_nothing(watch: Watch) -> None:
    await watch.start("0 0 * * * *")
    (function,) = watch.of_kind(TIMER).values()

    given = json.loads(watch.timers.data(function).value)

    assert given["ScheduleStatus"]["Next"] == "2026-01-01T01:00:00+00:00"
    assert given["IsPastDue"] is False


async def test_a_schedule_that_can_not_be_read_names_the_function_and_what_was_expected(watch: Watch) -> None:
    with pytest.raises(ScheduleError) as caught:
        await watch.start("0 0 25 * * *")

    assert str(caught.value) == "the schedule '0 0 25 * * *' of 'Tick' can't be used: its hour must be 0 to 23, not 25"
