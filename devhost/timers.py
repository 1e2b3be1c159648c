"""Fires timer triggers, as the timer extension of the Functions host does.

A timer never overlaps with itself: what falls due during a run is made up for by one run right after it. A monitored
timer keeps its last run in the store, so that an occurrence that was missed while the host was down is made up for by
one run at the next start.
"""

import asyncio
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from devhost.clock import Clock, format_time, nap, parse_time
from devhost.engine import App
from devhost.protocol import TypedData
from devhost.schedules import NEVER, NOT_YET, CronSchedule, ScheduleError, read_schedule
from devhost.store import Store
from devhost.worker import TIMER, Function, Outcome

logger = logging.getLogger(__name__)

AroundRun = Callable[[str, Callable[[], Awaitable[Outcome]]], Awaitable[Outcome]]


@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """When a timer ran last, when it is due next, and the moment after which that is the first occurrence."""

    last: datetime
    next: datetime
    updated: datetime


class Timer:
    """A function with a timer trigger, its schedule and how far it has got. Raises `ScheduleError`."""

    def __init__(self, function: Function) -> None:
        trigger = function.trigger
        try:
            self.schedule = read_schedule(str(trigger.get("schedule")))
        except ScheduleError as error:
            text = f"the schedule '{trigger.get('schedule')}' of '{function.name}' can't be used: {error}"
            raise ScheduleError(text) from error
        self.function = function
        self.is_monitored = trigger.get("useMonitor") is not False and not self.schedule.is_frequent
        self.runs_on_startup = trigger.get("runOnStartup") is True
        self.is_running = False
        self.status = ScheduleStatus(NOT_YET, NEVER, NOT_YET)

    def __str__(self) -> str:
        due = "never" if self.status.next == NEVER else f"next at {self.status.next:%Y-%m-%d %H:%M:%S} UTC"
        return f"{self.schedule.text}, {due}"

    def recall(self, now: datetime, kept: ScheduleStatus | None) -> bool:
        """Take up what was kept of the last runs; returns whether an occurrence was missed.

        A status that was kept of another schedule than today's counts from now on if it is past due.
        """
        following = self.schedule.next_after
        if kept is None:
            self.status = ScheduleStatus(NOT_YET, following(now), now)
            return False
        since = kept.updated if kept.last == NOT_YET else kept.last
        if (due := following(since)) == kept.next:
            self.status = kept
            return now > due
        if now > due:
            since, due = now, following(now)
        self.status = ScheduleStatus(NOT_YET, due, since)
        return False

    def data(self, *, is_past_due: bool = False) -> TypedData:
        """What the function is given."""
        names = {"Last": self.status.last, "Next": self.status.next, "LastUpdated": self.status.updated}
        status = {name: moment.isoformat() for name, moment in names.items()} if self.is_monitored else None
        return _data({"AdjustForDST": isinstance(self.schedule, CronSchedule)}, status, is_past_due=is_past_due)


class Timers:
    """The timer triggers of an app, on one event loop. Raises `ScheduleError`."""

    def __init__(self, app: App, clock: Clock) -> None:
        self.around_run: AroundRun | None = None
        """Wraps every run of a function, which it is given by name; for tests."""
        self.by_name = {name: Timer(function) for name, function in sorted(app.of_kind(TIMER).items())}
        """The timers, by the function's name in lower case."""
        self._app = app
        self._clock = clock
        self._idling = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()

    def start(self, store: Store) -> None:
        """Take up the schedules where the store left them; begin what was missed, and what runs on startup."""
        self._store = store
        now = self._clock.now()
        for timer in self.by_name.values():
            name, kept = timer.function.name, None
            if timer.is_monitored and (row := store.schedule(name)) is not None:
                kept = ScheduleStatus(*map(parse_time, row))
            is_past_due = timer.recall(now, kept)
            self._keep(timer)
            if is_past_due:
                logger.info("'%s' is past due since %s: it runs now", name, timer.status.next.isoformat())
                self._begin(timer, is_past_due=True)
            elif timer.runs_on_startup:
                logger.info("'%s' runs on startup", name)
                self._begin(timer)
        self._spawn(self._watch())

    async def stop(self) -> None:
        """Stop at once; a monitored timer whose run is cut short runs again after the next start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until no timer is due or running."""
        await self._idle.wait()

    def next_due(self) -> datetime | None:
        """When the next timer fires, of those that are not running."""
        return min((timer.status.next for timer in self.by_name.values() if not timer.is_running), default=None)

    def fire(self) -> None:
        """Begin the runs that are due; called by itself as time passes, and by tests that move the clock."""
        now = self._clock.now()
        for timer in self.by_name.values():
            if not timer.is_running and timer.status.next <= now:
                self._begin(timer)
        self._note_idleness()
        self._wake.set()

    def data(self, function: Function) -> TypedData:
        """What a function with a timer trigger is given when it is run apart from its schedule; it may be disabled."""
        timer = self.by_name.get(function.name.lower())
        return timer.data() if timer is not None else _data({}, None, is_past_due=False)

    @contextmanager
    def idling(self) -> Iterator[None]:
        """Tell, around a run, that it waits for a test: it is not something that `settle` waits for."""
        self._idling += 1
        self._note_idleness()
        try:
            yield
        finally:
            self._idling -= 1
            self._note_idleness()

    async def _watch(self) -> None:
        while True:
            self.fire()
            self._wake.clear()
            await nap(self._clock, self.next_due(), self._wake)

    def _begin(self, timer: Timer, *, is_past_due: bool = False) -> None:
        timer.is_running = True
        self._spawn(self._run(timer, is_past_due=is_past_due))

    async def _run(self, timer: Timer, *, is_past_due: bool) -> None:
        function, began = timer.function, self._clock.now()

        def invoke() -> Awaitable[Outcome]:
            data = timer.data(is_past_due=is_past_due)
            return self._app.invoke(function, data, reason=f"Timer fired at {began.isoformat()}")

        try:
            await (self.around_run(function.name, invoke) if self.around_run else invoke())
            timer.status = ScheduleStatus(began, timer.schedule.next_after(began), began)
            self._keep(timer)
        except sqlite3.Error:
            logger.exception("The last run of '%s' can't be kept", function.name)
        timer.is_running = False
        self.fire()

    def _keep(self, timer: Timer) -> None:
        if timer.is_monitored:
            status = timer.status
            with self._store.transaction():
                self._store.save_schedule(
                    timer.function.name, format_time(status.last), format_time(status.next), format_time(status.updated)
                )

    def _note_idleness(self) -> None:
        if sum(timer.is_running for timer in self.by_name.values()) > self._idling:
            self._idle.clear()
        else:
            self._idle.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _data(schedule: dict[str, bool], status: dict[str, str] | None, *, is_past_due: bool) -> TypedData:
    """The JSON in which the real host hands its `TimerInfo` to a worker."""
    return TypedData(json=json.dumps({"Schedule": schedule, "ScheduleStatus": status, "IsPastDue": is_past_due}))
