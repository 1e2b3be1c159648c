"""An engine over the durable SDK itself, without a worker process: tests write orchestrators as plain generators."""

import inspect
import json
import traceback
import warnings
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

from azure.durable_functions import DurableOrchestrationContext, Orchestrator
from azure.functions import _durable_functions as codec

from devhost.clock import ManualClock, parse_time
from devhost.engine import Engine
from devhost.protocol import TypedData
from devhost.settings import HostSettings
from devhost.store import Instance, Store
from devhost.worker import ACTIVITY, NO_TRACE, ORCHESTRATION, Function, Outcome

type Context = DurableOrchestrationContext
type Orchestration = Callable[[Any], Generator[Any, Any, Any]]

with warnings.catch_warnings():
    # The SDK advises on strict typing once per process, as a warning.
    warnings.simplefilter("ignore")
    codec.df_loads("null")


class SdkApp:
    """Functions that run as the worker would run them."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        """Every activity call: name and input."""
        self.breakdown: str | None = None
        """The error with which the worker ends every invocation, if it can't run functions at all."""
        self._orchestrators: dict[str, Callable[[str], str]] = {}
        self._activities: dict[str, Callable[[Any], Any]] = {}

    def orchestrator(self, function: Orchestration) -> Orchestration:
        self._orchestrators[function.__name__] = Orchestrator.create(function)
        return function

    def activity(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        self._activities[function.__name__] = function
        return function

    def forget(self, activity: str) -> None:
        del self._activities[activity]

    def of_kind(self, kind: str) -> Mapping[str, Function]:
        names = {ORCHESTRATION: self._orchestrators, ACTIVITY: self._activities}[kind]
        return {name.lower(): Function(name, name, "", {"type": kind}, ()) for name in names}

    async def invoke(
        self, function: Function, data: TypedData, *, reason: str, trace: Mapping[str, str] = NO_TRACE
    ) -> Outcome:
        if self.breakdown is not None:
            return Outcome(error=self.breakdown)
        try:
            if function.kind == ORCHESTRATION:
                return Outcome(value=TypedData(json=self._orchestrators[function.name](data.value)))
            value = json.loads(data.value)
            self.calls.append((function.name, value))
            result = self._activities[function.name](value)
            if inspect.isawaitable(result):
                result = await result
            return Outcome(value=TypedData(json=codec.df_dumps(result)))
        except Exception as error:  # noqa: BLE001  a function may raise anything, and so the worker catches anything
            return Outcome(error=f"{type(error).__name__}: {error}", stack_trace=traceback.format_exc())


class Durable:
    """An app, an engine for it, and the clock that it goes by."""

    def __init__(self, state: Path) -> None:
        self.app = SdkApp()
        self.clock = ManualClock(parse_time("2026-01-01T00:00:00Z"))
        self.settings = HostSettings()
        self._state = state
        self._running: tuple[Store, Engine] | None = None

    @property
    def engine(self) -> Engine:
        """The engine, created at first use: after the functions were defined."""
        return self._open()[1]

    @property
    def store(self) -> Store:
        return self._open()[0]

    def _open(self) -> tuple[Store, Engine]:
        if self._running is None:
            store = Store(self._state)
            self._running = store, Engine(store, self.app, self.clock, self.settings)
            self._running[1].start()
        return self._running

    async def close(self) -> None:
        if self._running is not None:
            await self._running[1].stop()
            self._running[0].close()
            self._running = None

    def start(self, orchestrator: Orchestration | str, value: Any = None, **options: Any) -> str:
        name = orchestrator if isinstance(orchestrator, str) else orchestrator.__name__
        return self.engine.start_instance(name, json.dumps(json.dumps(value)), **options).instance_id

    async def settle(self) -> None:
        await self.engine.settle()

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.engine.fire_timers()
        await self.settle()

    async def run(self, orchestrator: Orchestration | str, value: Any = None) -> Instance:
        """Start an orchestration and see it to its end, moving time on whenever only time is awaited."""
        return await self.finish(self.start(orchestrator, value))

    async def finish(self, instance_id: str) -> Instance:
        await self.settle()
        while not (instance := self.engine.require(instance_id)).finished:
            due = self.store.next_due()
            assert due is not None, f"{instance} waits for something other than time"
            self.clock.advance_to(parse_time(due))
            self.engine.fire_timers()
            await self.settle()
        return instance

    def output(self, instance_id: str) -> Any:
        return json.loads(self.engine.require(instance_id).output or "null")

    def status(self, instance_id: str) -> str:
        return self.engine.require(instance_id).status

    def history(self, instance_id: str) -> list[dict[str, Any]]:
        return [json.loads(event) for event in self.store.history(instance_id)]
