"""Runs a function app inside the test process, with durable time under the test's control; also a pytest plugin.

As a plugin (`pytest_plugins = ["devhost.testing"]`) it offers the fixture `devhost`, a `RunningHost` whose state is
empty at the start of every test. The app's folder is the ini option `devhost_app`, by default pytest's root, or
whatever an overridden fixture `devhost_app` returns. The worker library loads one app per process, so there is one host
for the whole session; what the app keeps in module-level variables lives on from test to test. The environment is the
test's business: local.settings.json is not read.

The host has a thread and an event loop of its own. The methods of `RunningHost` block; a test that serves something on
its own event loop calls them through `asyncio.to_thread`.
"""

import asyncio
import concurrent.futures
import json
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from devhost.clock import ManualClock, parse_time
from devhost.engine import ResultLostError
from devhost.host import Host
from devhost.store import Activity, Instance
from devhost.worker import Outcome

# How long a test waits, in seconds, before it is told what the orchestration is waiting for.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Status:
    """An orchestration at one moment; `input`, `output` and `custom_status` are JSON values."""

    instance_id: str
    name: str
    runtime_status: str
    input: Any
    output: Any
    custom_status: Any


class Held:
    """Invocations of a function that wait before they begin. Until then they count as settled."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = asyncio.Event()

    def wait(self, patience: float = PATIENCE) -> None:
        """Wait until an invocation is held. Raises `TimeoutError` after `patience` seconds."""
        if not self._reached.wait(patience):
            raise TimeoutError("the function was not called")

    async def pass_through(self) -> None:
        """Hold an invocation until the release."""
        self._reached.set()
        await self._released.wait()

    def release(self) -> None:
        """Let go of the invocations, on the host's event loop."""
        self._released.set()


class RunningHost:
    """A host on a thread of its own, for the tests of one app. Durable time stands still until it is moved."""

    def __init__(self, host: Host, clock: ManualClock, loop: asyncio.AbstractEventLoop) -> None:
        self.invocations: Counter[str] = Counter()
        """How often each activity and timer function was called since the start of the test, lost results included."""
        self._host = host
        self._clock = clock
        self._loop = loop
        self._lost: Counter[str] = Counter()
        self._held: dict[str, Held] = {}

    @property
    def url(self) -> str:
        """Where the host listens, such as `http://127.0.0.1:40123`."""
        return self._host.url

    @property
    def now(self) -> datetime:
        """The durable time, which is also the time of timer triggers."""
        return self._clock.now()

    def start(self, orchestrator: str, value: Any = None, *, instance_id: str | None = None) -> str:
        """Start an orchestration with a JSON value as its input, as the SDK's client does; returns its id."""
        # The SDK's client sends JSON inside a JSON text.
        input_json = json.dumps(None if value is None else json.dumps(value))
        start = self._host.engine.start_instance
        return self._on_loop(lambda: start(orchestrator, input_json, instance_id=instance_id)).instance_id

    def raise_event(self, instance_id: str, name: str, value: Any = None) -> None:
        """Send an external event that carries a JSON value."""
        self._on_loop(lambda: self._host.engine.raise_event(instance_id, name, json.dumps(value)))

    def status(self, instance_id: str) -> Status:
        """The orchestration as it is now. Raises `InstanceNotFoundError`."""
        return self._on_loop(lambda: _status(self._host.engine.require(instance_id)))

    def wait(
        self,
        instance_id: str,
        until: Callable[[Status], bool] | None = None,
        *,
        skip_timers: bool = False,
        patience: float = PATIENCE,
    ) -> Status:
        """Wait until an orchestration has ended, or is as `until` wants it.

        With `skip_timers`, whenever there is nothing to do but to wait for time, durable time moves on to the next
        timer. Raises `TimeoutError` after `patience` seconds of real time, or when not even time would help.
        """
        return self._call(self._wait(instance_id, until, skip_timers=skip_timers), patience)

    def settle(self, patience: float = PATIENCE) -> None:
        """Wait until the host has nothing left to do but to wait for time, events or callers."""
        self._call(self._host.settle(), patience)

    def advance(self, seconds: float) -> None:
        """Move durable time forward, fire the timers that are due then, and settle.

        On the way, time halts at each moment for which a timer trigger is due, until what comes of it has settled.
        """
        goal = self.now + timedelta(seconds=seconds)
        self._call(self._move(goal))
        while self.now < goal:
            self._call(self._move(goal))

    def history(self, instance_id: str) -> list[dict[str, Any]]:
        """The events of an orchestration's current execution, in the durable protocol's form."""
        return [json.loads(event) for event in self._on_loop(lambda: self._host.store.history(instance_id))]

    def dump(self) -> str:
        """All that the host keeps on disk, as text: to search it for what must not be there."""
        return self._on_loop(lambda: self._host.store.dump())

    def lose_result(self, activity: str, times: int = 1) -> None:
        """Lose the next results of an activity after it succeeded, so that it runs again, as after a crash."""
        self._lost[activity.lower()] += times

    @contextmanager
    def held(self, function: str) -> Iterator[Held]:
        """Hold all calls of an activity or a timer function before they begin, until the end of the `with` block."""
        held = self._held[function.lower()] = Held()
        try:
            yield held
        finally:
            self._held.pop(function.lower(), None)
            self._loop.call_soon_threadsafe(held.release)

    def restart(self, *, seconds_down: float = 0.0) -> None:
        """Drop all that is in flight and go on from the state on disk, as after the sudden end of the process.

        Durable time moves forward by `seconds_down` meanwhile, so that the next start finds what was missed.
        """
        self._call(self._restart(while_down=lambda: self._clock.advance(seconds_down)))

    def reset(self) -> None:
        """Begin with an empty state, without faults."""
        self._call(self._restart(discard_state=True, while_down=self._forget))

    def _forget(self) -> None:
        self._lost.clear()
        self._held.clear()
        self.invocations.clear()

    async def _restart(self, *, discard_state: bool = False, while_down: Callable[[], None]) -> None:
        await self._host.restart(discard_state=discard_state, while_down=while_down)
        self._surround()

    def _surround(self) -> None:
        """Stand around all that the host runs from now on."""
        self._host.engine.around_activity = self._around_activity
        self._host.timers.around_run = self._around_run

    async def _around_activity(self, activity: Activity, invoke: Callable[[], Awaitable[Outcome]]) -> Outcome:
        outcome = await self._counted(activity.name, self._host.engine.idling, invoke)
        name = activity.name.lower()
        if outcome.error is None and self._lost[name] > 0:
            self._lost[name] -= 1
            raise ResultLostError
        return outcome

    async def _around_run(self, function: str, invoke: Callable[[], Awaitable[Outcome]]) -> Outcome:
        return await self._counted(function, self._host.timers.idling, invoke)

    async def _counted(
        self,
        function: str,
        idling: Callable[[], AbstractContextManager[None]],
        invoke: Callable[[], Awaitable[Outcome]],
    ) -> Outcome:
        if (held := self._held.get(function.lower())) is not None:
            with idling():
                await held.pass_through()
        self.invocations[function] += 1
        return await invoke()

    async def _move(self, goal: datetime) -> None:
        """Move durable time to the next moment for which a timer trigger is due, or to the goal, and fire what is due.

        The durable timers that are due fire first, so that a timer function finds what came of them.
        """
        due = self._host.timers.next_due()
        self._clock.advance_to(goal if due is None else min(due, goal))
        self._host.engine.fire_timers()
        await self._host.engine.settle()
        self._host.timers.fire()
        await self._host.settle()

    async def _wait(self, instance_id: str, until: Callable[[Status], bool] | None, *, skip_timers: bool) -> Status:
        def satisfied(instance: Instance) -> bool:
            return until(_status(instance)) if until is not None else instance.finished

        engine = self._host.engine
        try:
            while skip_timers:
                await self._host.settle()
                instance = engine.require(instance_id)
                if satisfied(instance):
                    return _status(instance)
                due = self._host.store.next_due()
                if due is None:
                    raise TimeoutError(f"no timer will help: {self._describe(instance_id)}")
                await self._move(parse_time(due))
            return _status(await engine.wait(instance_id, satisfied))
        except asyncio.CancelledError:
            raise TimeoutError(f"gave up waiting: {self._describe(instance_id)}") from None

    def _describe(self, instance_id: str) -> str:
        instance = self._host.store.instance(instance_id)
        if instance is None:
            return f"there is no orchestration '{instance_id}'"
        waits = ", ".join(json.loads(instance.waits)) or "none"
        due = self._host.store.next_due() or "none"
        return (
            f"'{instance_id}' is {instance.status}, its custom status {instance.custom_status}, "
            f"events it waits for: {waits}, next timer of all: {due}"
        )

    def _on_loop[T](self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._call(call())

    def _call[T](self, work: Coroutine[Any, Any, T], patience: float = PATIENCE) -> T:
        async def limited() -> T:
            task = asyncio.ensure_future(work)
            done, _ = await asyncio.wait([task], timeout=patience)
            if not done:
                task.cancel()
            try:
                return await task
            except asyncio.CancelledError:
                raise TimeoutError(f"orchestrations or timer functions were still busy after {patience:g} s") from None

        return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()


@contextmanager
def run_host(app: Path, state: Path, *, enable_auth: bool = False) -> Iterator[RunningHost]:
    """Run the app in the folder `app` on a thread of its own, keeping orchestrations in the file `state`."""
    started: concurrent.futures.Future[tuple[RunningHost, asyncio.Event]] = concurrent.futures.Future()

    async def serve() -> None:
        clock = ManualClock()
        stop = asyncio.Event()
        try:
            async with Host(app, state=state, clock=clock, enable_auth=enable_auth) as host:
                running = RunningHost(host, clock, asyncio.get_running_loop())
                running._surround()  # noqa: SLF001
                started.set_result((running, stop))
                await stop.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="devhost", daemon=True)
    thread.start()
    running, stop = started.result()
    try:
        yield running
    finally:
        running._loop.call_soon_threadsafe(stop.set)  # noqa: SLF001
        thread.join()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the plugin's ini option."""
    parser.addini("devhost_app", "the folder of the function app that the devhost fixture runs", default=".")


def pytest_configure(config: pytest.Config) -> None:
    """Let an event come before it is waited for where warnings are errors: the SDK warns of it, and goes on."""
    config.addinivalue_line("filterwarnings", "ignore:Potential duplicate Task completion")


@pytest.fixture(scope="session")
def devhost_app(pytestconfig: pytest.Config) -> Path:
    """The folder of the app to run; override it to choose another."""
    return pytestconfig.rootpath / str(pytestconfig.getini("devhost_app"))


@pytest.fixture(scope="session")
def devhost_session(devhost_app: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    """The one host of the session."""
    with run_host(devhost_app, tmp_path_factory.mktemp("devhost") / "state.db") as running:
        yield running


@pytest.fixture
def devhost(devhost_session: RunningHost) -> RunningHost:
    """The host, with an empty state and without faults."""
    devhost_session.reset()
    return devhost_session


def _status(instance: Instance) -> Status:
    return Status(
        instance_id=instance.instance_id,
        name=instance.name,
        runtime_status=instance.status,
        input=json.loads(instance.input),
        output=json.loads(instance.output or "null"),
        custom_status=json.loads(instance.custom_status or "null"),
    )
