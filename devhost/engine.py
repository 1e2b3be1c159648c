"""Runs orchestrations: takes messages into histories, turn by turn, and runs the work that comes of it.

Whatever happens is first written to the store, then acted upon: a turn appends its events, consumes its messages and
adds its work in one transaction. After the end of the process, however sudden, the store says what is to be done;
activities whose result was not recorded run again (at least once).
"""

import asyncio
import json
import logging
import sqlite3
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

from devhost.clock import Clock, format_time, nap, parse_time
from devhost.orchestration import (
    COMPLETIONS,
    CUSTOM_STATUS_LIMIT,
    Command,
    EventType,
    OrchestrationError,
    Walk,
    unfinished_tasks,
    utf_16_size,
)
from devhost.protocol import TypedData
from devhost.settings import HostSettings
from devhost.store import Activity, Instance, Store
from devhost.worker import ACTIVITY, NO_TRACE, ORCHESTRATION, OUT_OF_PROC_MARK, Function, Outcome

logger = logging.getLogger(__name__)

# Executions kept in memory between their turns; others are read from the store again.
_CACHED_EXECUTIONS = 1000
# Timers that fire in one transaction.
_TIMERS_AT_ONCE = 1000


class App(Protocol):
    """What the engine needs of a function app."""

    def of_kind(self, kind: str) -> Mapping[str, Function]:
        """The functions with this type of trigger, by lower-case name."""
        ...

    async def invoke(
        self, function: Function, data: TypedData, *, reason: str, trace: Mapping[str, str] = ...
    ) -> Outcome:
        """Run a function once, as a part of a trace; its failure is an outcome, not an exception."""
        ...


AroundActivity = Callable[[Activity, Callable[[], Awaitable[Outcome]]], Awaitable[Outcome]]


class UnknownFunctionError(OrchestrationError):
    """There is no such orchestrator or activity function in the app."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = ", ".join(f"'{name}'" for name in sorted(known)) or "none"
        super().__init__(
            f"The function '{name}' doesn't exist, is disabled, or is not an {kind} function. "
            f"The known {kind} functions are: {names}."
        )


class InstanceExistsError(Exception):
    """An instance with this id is still running."""

    def __init__(self, instance: Instance) -> None:
        super().__init__(f"An Orchestration instance with the status {instance.status} already exists.")


class InstanceNotFoundError(Exception):
    """There is no instance with this id."""


class InstanceGoneError(Exception):
    """The instance has ended in a way that doesn't allow what was asked."""


class ResultLostError(Exception):
    """Raised around an activity to make the engine forget that it ran, as a crash at that moment would."""


@dataclass(slots=True)
class _Execution:
    """An instance with its history in memory, as JSON texts; `walk` is None until its first turn in this process."""

    instance: Instance
    events: list[str]
    walk: Walk | None = None


@dataclass(slots=True)
class _Turn:
    """A turn of an execution: its new events, the messages they came from, and what the SDK answered.

    `suspended` says how the instance is once the turn is over.
    """

    execution: _Execution
    suspended: bool
    events: list[dict[str, Any]] = field(default_factory=list)
    taken: list[int] = field(default_factory=list)
    terminated: dict[str, Any] | None = None
    state: Mapping[str, Any] = field(default_factory=dict)

    @property
    def runs_code(self) -> bool:
        """Whether there is something in it for the orchestrator itself, perhaps what it asked for while suspended."""
        return any(event["EventType"] != EventType.EXECUTION_SUSPENDED for event in self.events)


class Engine:
    """Orchestrations of one app in one store, on one event loop."""

    def __init__(self, store: Store, app: App, clock: Clock, settings: HostSettings) -> None:
        self.around_activity: AroundActivity | None = None
        """Wraps every activity's invocation; for fault injection in tests."""
        self._store = store
        self._app = app
        self._clock = clock
        self._settings = settings
        self._functions = {"orchestrator": app.of_kind(ORCHESTRATION), "activity": app.of_kind(ACTIVITY)}
        self._executions: OrderedDict[str, _Execution] = OrderedDict()
        self._ready: OrderedDict[str, None] = OrderedDict()
        self._in_turn: set[str] = set()
        self._activities: deque[Activity] = deque()
        self._running_activities = 0
        self._idling_activities = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer_loop: asyncio.Task[None] | None = None
        self._stopped = False
        self._wake_timers = asyncio.Event()
        self._idle = asyncio.Event()
        self._watchers: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    # Life

    def start(self) -> None:
        """Take up the work that the store holds."""
        self._activities.extend(self._store.activities())
        self._make_ready(self._store.with_work())
        self._timer_loop = asyncio.create_task(self._watch_timers())

    async def stop(self) -> None:
        """Stop at once; what is in flight is forgotten here and run again by the next engine on the same store."""
        self._stopped = True
        tasks = [*self._tasks, *([self._timer_loop] if self._timer_loop else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def settle(self) -> None:
        """Wait until nothing is left to do but to wait for time, events or callers."""
        await self._idle.wait()

    # What clients ask for

    def start_instance(
        self,
        name: str,
        input_json: str = "null",
        *,
        instance_id: str | None = None,
        version: str | None = None,
        trace: Mapping[str, str] = NO_TRACE,
    ) -> Instance:
        """Start an orchestration, by default under a new id; an id whose orchestration has ended may be used again.

        Raises `UnknownFunctionError`, and `InstanceExistsError` when the id is running: of several callers that start
        one id at the same time, exactly one succeeds.
        """
        with self._store.transaction():
            instance = self._create(
                name, input_json, instance_id or uuid.uuid4().hex, version, trace_json=json.dumps(dict(trace))
            )
        self._make_ready([instance.instance_id])
        return instance

    def raise_event(self, instance_id: str, name: str, data_json: str) -> None:
        """Send an external event. Raises `InstanceNotFoundError` and `InstanceGoneError`."""
        self._send(instance_id, EventType.EVENT_RAISED, Name=name, Input=data_json)

    def terminate(self, instance_id: str, reason: str) -> None:
        """End an orchestration. Raises `InstanceNotFoundError` and `InstanceGoneError`."""
        self._send(instance_id, EventType.EXECUTION_TERMINATED, Input=reason)

    def suspend(self, instance_id: str, reason: str) -> None:
        """Halt an orchestration. Raises `InstanceNotFoundError` and `InstanceGoneError`."""
        self._send(instance_id, EventType.EXECUTION_SUSPENDED, Reason=reason)

    def resume(self, instance_id: str, reason: str) -> None:
        """Let a suspended orchestration go on. Raises `InstanceNotFoundError` and `InstanceGoneError`."""
        self._send(instance_id, EventType.EXECUTION_RESUMED, Reason=reason)

    def restart(self, instance_id: str, *, new_id: bool) -> Instance:
        """Start an orchestration again, with its input. Raises as `start_instance`, and `InstanceNotFoundError`."""
        instance = self.require(instance_id)
        return self.start_instance(
            instance.name,
            instance.input,
            instance_id=None if new_id else instance_id,
            version=instance.version,
            trace=json.loads(instance.trace),
        )

    def rewind(self, instance_id: str, reason: str) -> None:
        """Let a failed orchestration go on from before its failure: what failed runs again, what succeeded does not.

        Raises `InstanceNotFoundError`, and `InstanceGoneError` unless the instance has failed.
        """
        instance = self.require(instance_id)
        if instance.status != "Failed":
            raise InstanceGoneError
        with self._store.transaction():
            rewound = self._rewind(instance, reason)
        self._make_ready(rewound)

    def purge(self, instance_ids: Iterable[str]) -> int:
        """Forget those of the instances that have ended; returns how many."""
        purged = 0
        with self._store.transaction():
            for instance_id in instance_ids:
                if (instance := self._instance(instance_id)) is not None and instance.finished:
                    self._store.purge(instance_id)
                    purged += 1
        return purged

    def require(self, instance_id: str) -> Instance:
        """The instance as it is now. Raises `InstanceNotFoundError`."""
        instance = self._instance(instance_id)
        if instance is None:
            raise InstanceNotFoundError(instance_id)
        return instance

    async def wait(self, instance_id: str, until: Callable[[Instance], bool] = lambda one: one.finished) -> Instance:
        """Wait until an instance is as `until` wants it, by default until it has ended. An unknown one is awaited."""
        changed = asyncio.Event()
        self._watchers[instance_id].add(changed)
        try:
            while (instance := self._instance(instance_id)) is None or not until(instance):
                await changed.wait()
                changed.clear()
            return instance
        finally:
            self._watchers[instance_id].discard(changed)
            if not self._watchers[instance_id]:
                del self._watchers[instance_id]

    def fire_timers(self) -> None:
        """Fire the timers that are due; called by itself as time passes, and by tests that move the clock."""
        now = format_time(self._clock.now())
        while due := self._take_due(now):
            self._make_ready(due)
        self._wake_timers.set()

    @contextmanager
    def idling(self) -> Iterator[None]:
        """Tell, around an activity, that it waits for a test: it is not something that `settle` waits for."""
        self._idling_activities += 1
        self._pump()
        try:
            yield
        finally:
            self._idling_activities -= 1
            self._pump()

    # Scheduling

    def _make_ready(self, instance_ids: Iterable[str]) -> None:
        for instance_id in instance_ids:
            self._ready[instance_id] = None
        self._pump()

    def _pump(self) -> None:
        """Begin turns and activities, as many as host.json allows."""
        if self._stopped:
            return
        postponed = []
        while self._ready and len(self._in_turn) < self._settings.max_orchestrators:
            instance_id, _ = self._ready.popitem(last=False)
            if instance_id in self._in_turn:
                postponed.append(instance_id)
            else:
                self._in_turn.add(instance_id)
                self._spawn(self._run_turn(instance_id))
        self._ready.update(dict.fromkeys(postponed))
        while self._activities and self._running_activities < self._settings.max_activities:
            self._running_activities += 1
            self._spawn(self._run_activity(self._activities.popleft()))
        if self._ready or self._in_turn or self._running_activities > self._idling_activities:
            self._idle.clear()
        else:
            self._idle.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_turn(self, instance_id: str) -> None:
        try:
            await self._turn(instance_id)
            again = self._has_more_to_do(instance_id)
        except sqlite3.Error:
            # The store is as it was before the turn; the instance tries again with its next message.
            logger.exception("The state of the orchestration '%s' can't be kept", instance_id)
            self._executions.pop(instance_id, None)
            again = False
        except Exception as error:
            logger.exception("The orchestration '%s' asks for what this host can't do", instance_id)
            self._executions.pop(instance_id, None)
            turn = _Turn(self._load(self.require(instance_id)), suspended=False)
            self._end(turn, "Failed", json.dumps(f"{type(error).__name__} in the host: {error}"))
            again = False
        finally:
            self._in_turn.discard(instance_id)
        for changed in self._watchers.get(instance_id, ()):
            changed.set()
        self._make_ready([instance_id] if again else ())

    def _has_more_to_do(self, instance_id: str) -> bool:
        instance = self._instance(instance_id)
        if instance is not None and instance.status == "Running":
            return self._store.has_messages(instance_id)
        return instance is not None and instance.status == "ContinuedAsNew"

    async def _run_activity(self, activity: Activity) -> None:
        async def invoke() -> Outcome:
            try:
                function = self._function("activity", activity.name)
            except UnknownFunctionError as error:  # it was there when the activity was scheduled
                return Outcome(error=str(error))
            instance = self._instance(activity.instance_id)
            trace = json.loads(instance.trace) if instance is not None else NO_TRACE
            data = TypedData(string=activity.input)
            return await self._app.invoke(function, data, reason="Orchestration", trace=trace)

        try:
            outcome = await (self.around_activity(activity, invoke) if self.around_activity else invoke())
        except ResultLostError:
            self._activities.append(activity)
            return
        finally:
            self._running_activities -= 1
            asyncio.get_running_loop().call_soon(self._pump)
        if outcome.error is None:
            event = self._event(EventType.TASK_COMPLETED, Result=_result_json(outcome.value))
        else:
            reason = f"Activity function '{activity.name}' failed: {outcome.error}"
            event = self._event(EventType.TASK_FAILED, Reason=reason, Details=outcome.stack_trace)
        event["TaskScheduledId"] = activity.task_id
        with self._store.transaction():
            if self._store.remove_activity(activity):
                self._store.send(activity.instance_id, activity.execution_id, event)
        self._make_ready([activity.instance_id])

    async def _watch_timers(self) -> None:
        while True:
            self.fire_timers()
            self._wake_timers.clear()
            due = self._store.next_due()
            await nap(self._clock, parse_time(due) if due else None, self._wake_timers)

    def _add_timer(self, instance: Instance, task_id: int, fire_at: str) -> None:
        """Set a timer, which fires early: its message is hidden for whole seconds, cut off, as on Azure Storage."""
        # A moment has passed since the time was asked for, though a clock that stands still does not show it.
        left = parse_time(fire_at) - self._clock.now() - timedelta.resolution
        hidden = timedelta(seconds=max(0, left // timedelta(seconds=1)))
        self._store.add_timer(instance, task_id, format_time(self._clock.now() + hidden), fire_at)

    def _take_due(self, now: str) -> list[str]:
        with self._store.transaction():
            due = self._store.take_due(now, _TIMERS_AT_ONCE)
            for instance_id, task_id, execution_id, fire_at in due:
                fired = self._event(EventType.TIMER_FIRED, TimerId=task_id, FireAt=fire_at)
                self._store.send(instance_id, execution_id, fired)
        return [timer[0] for timer in due]

    # A turn

    async def _turn(self, instance_id: str) -> None:
        """Take an instance one turn further."""
        instance = self._instance(instance_id)
        if instance is None or instance.finished:
            with self._store.transaction():
                self._store.discard_all(instance_id)
            return
        turn = self._take_in(self._load(instance))
        if turn.terminated is not None:
            self._end(turn, "Terminated", json.dumps(turn.terminated["Input"]))
            return
        if not turn.runs_code:
            with self._store.transaction():
                self._record(turn, turn.events)
                if turn.events:
                    instance.status = "Suspended" if turn.suspended else "Running"
                    self._save(instance)
            return
        turn.events.insert(0, self._event(EventType.ORCHESTRATOR_STARTED))
        try:
            turn.state = await self._replay(turn)
            if self._is_replaced(instance):
                return
            walk, commands, cancelled = self._follow(turn)
        except OrchestrationError as error:
            if not self._is_replaced(instance):
                self._fail(turn, str(error))
            return
        error_text = turn.state.get("error")
        if turn.suspended and (commands or walk.continue_as_new is not None):
            # The code has run on, for an event, but what it asks for waits until it is resumed: another walk finds it.
            self._commit(turn, (), cancelled)
            turn.execution.walk = None
            return
        if walk.open or not (turn.state["isDone"] or error_text):
            # As in Azure, an orchestration whose code has ended goes on until all that it began has ended, too.
            self._commit(turn, commands, cancelled)
            return
        turn.events += [self._event(**command.event()) for command in commands]
        if error_text is not None:
            self._fail(turn, f"Orchestrator function '{instance.name}' failed: {error_text}")
        elif walk.continue_as_new is not None:
            self._continue_as_new(turn, walk.continue_as_new)
        else:
            self._end(turn, "Completed", json.dumps(turn.state.get("output")))

    def _instance(self, instance_id: str) -> Instance | None:
        """The instance as it is now, without asking the store for one whose execution is in memory."""
        execution = self._executions.get(instance_id)
        return execution.instance if execution is not None else self._store.instance(instance_id)

    def _is_replaced(self, instance: Instance) -> bool:
        """Whether a sub-orchestration with its id has taken its place."""
        current = self._instance(instance.instance_id)
        return current is None or current.execution_id != instance.execution_id

    def _load(self, instance: Instance) -> _Execution:
        instance_id = instance.instance_id
        execution = self._executions.get(instance_id)
        if execution is None:
            execution = self._executions[instance_id] = _Execution(instance, self._store.history(instance_id))
            if len(self._executions) > _CACHED_EXECUTIONS:
                self._executions.popitem(last=False)
        self._executions.move_to_end(instance_id)
        return execution

    def _take_in(self, execution: _Execution) -> _Turn:
        """Sort out which of the messages for an instance are events of its next turn."""
        instance = execution.instance
        turn = _Turn(execution, suspended=instance.status == "Suspended")
        first_turn = not execution.events
        if first_turn:
            started = {"Name": instance.name, "Version": instance.version, "Input": json.loads(instance.input)}
            turn.events.append(self._event(EventType.EXECUTION_STARTED, **started))
        messages = self._store.messages(instance.instance_id)
        # A suspended orchestration hears of nothing but events, until it is resumed: then of all that came before.
        resumed = max((m.sequence for m in messages if m.event["EventType"] == EventType.EXECUTION_RESUMED), default=-1)
        for message in messages:
            event = message.event
            event_type = event["EventType"]
            held = turn.suspended and message.sequence > resumed and event_type != EventType.EVENT_RAISED
            if message.execution_id in (None, instance.execution_id):
                if event_type == EventType.EXECUTION_TERMINATED:
                    turn.terminated = event
                elif first_turn or held:
                    continue
                elif event_type in (EventType.EXECUTION_SUSPENDED, EventType.EXECUTION_RESUMED):
                    turn.suspended = event_type == EventType.EXECUTION_SUSPENDED
                    instance.output = json.dumps(event["Reason"])  # as on Azure, until the orchestration ends
                turn.events.append(event)
            turn.taken.append(message.sequence)
            if turn.terminated is not None:
                break
        return turn

    async def _replay(self, turn: _Turn) -> dict[str, Any]:
        """Have the SDK run the orchestrator against its history; returns its state. Raises `OrchestrationError`."""
        instance, old = turn.execution.instance, turn.execution.events
        function = self._function("orchestrator", instance.name)
        new = [json.dumps({**event, "IsPlayed": False}) for event in turn.events]
        # Without the limits of Azure Storage's timers, which the SDK would have to split, a timer is one task however
        # long it is; so do the other backends of the durable extension.
        context = {
            "instanceId": instance.instance_id,
            "isReplaying": bool(old),
            "parentInstanceId": json.loads(instance.parent)["instance_id"] if instance.parent else None,
            "upperSchemaVersion": 1,
            "upperSchemaVersionNew": 2,
            "defaultHttpAsyncRequestSleepTimeMillseconds": 30000,
        }
        text = f'{{"history":[{",".join([*old, *new])}],"input":{instance.input},{json.dumps(context)[1:]}'
        outcome = await self._app.invoke(
            function, TypedData(string=text), reason="Orchestration", trace=json.loads(instance.trace)
        )
        return _parse_state(outcome)

    def _follow(self, turn: _Turn) -> tuple[Walk, list[Command], list[int]]:
        """Walk on over the new events; returns the new work and cancelled timers, too. Raises `OrchestrationError`."""
        execution, instance, state = turn.execution, turn.execution.instance, turn.state
        actions = state["actions"][0] if state["actions"] else []
        walk = execution.walk
        cancelled = walk.extend(actions) if walk is not None else None
        if walk is None or cancelled is None:
            walk = execution.walk = Walk(actions)
            for text in execution.events:
                walk.feed(json.loads(text))
            cancelled = [task_id for task_id, command in walk.commands.items() if command.cancelled]
        for event in turn.events:
            walk.feed(event)
        commands = walk.end_turn()
        for command in commands:
            if command.kind != "timer":
                self._function("activity" if command.kind == "activity" else "orchestrator", command.name)
        status = state.get("customStatus")
        if (size := utf_16_size(status)) > CUSTOM_STATUS_LIMIT:
            raise OrchestrationError(
                f"Orchestrator function '{instance.name}' failed: The UTF-16 size of the JSON-serialized payload must "
                f"not exceed {CUSTOM_STATUS_LIMIT // 1024} KB. The current payload size is {size // 1024} KB."
            )
        instance.waits = json.dumps(walk.waits)
        if status is not None or execution.events:  # what was set before `continue_as_new` stays for the first turn
            instance.custom_status = None if status is None else json.dumps(status)
        return walk, commands, cancelled

    def _commit(self, turn: _Turn, commands: Sequence[Command], cancelled: Sequence[int]) -> None:
        """Write down a turn after which the orchestration waits for something, then begin its new work."""
        instance = turn.execution.instance
        activities, ready = [], []
        with self._store.transaction():
            for command in commands:
                if command.kind == "activity":
                    activities.append(self._store.add_activity(instance, command.task_id, command.name, command.input))
                elif command.kind == "timer":
                    if not command.cancelled:
                        self._add_timer(instance, command.task_id, command.fire_at)
                else:
                    ready.append(self._start_child(instance, command))
            for task_id in cancelled:
                self._store.cancel_timer(instance.instance_id, task_id)
            scheduled = [self._event(**command.event()) for command in commands]
            self._record(turn, [*turn.events, *scheduled, self._event(EventType.ORCHESTRATOR_COMPLETED)])
            instance.status = "Suspended" if turn.suspended else "Running"
            self._save(instance)
        self._activities.extend(activities)
        self._make_ready(ready)
        if any(command.kind == "timer" for command in commands):
            self.fire_timers()

    def _continue_as_new(self, turn: _Turn, action: Mapping[str, Any]) -> None:
        """Begin anew with another input; the instance counts as created now.

        As on Azure, events that came and that nobody had waited for are lost with the history.
        """
        instance = turn.execution.instance
        with self._store.transaction():
            self._store.discard(turn.taken)
            self._store.clear_history(instance.instance_id)
            self._store.cancel_timers(instance.instance_id)
            instance.execution_id, instance.status, instance.waits = uuid.uuid4().hex, "ContinuedAsNew", "[]"
            instance.input, instance.created = json.dumps(action.get("input")), self._now()
            self._save(instance)
        self._executions.pop(instance.instance_id, None)

    def _fail(self, turn: _Turn, message: str) -> None:
        logger.error("Orchestration '%s' failed: %s", turn.execution.instance.instance_id, message)
        self._end(turn, "Failed", json.dumps(message))

    def _end(self, turn: _Turn, status: str, output_json: str) -> None:
        """Write down the end of an orchestration, and tell its parent."""
        instance = turn.execution.instance
        with self._store.transaction():
            completed = self._event(EventType.EXECUTION_COMPLETED, OrchestrationStatus=status, Result=output_json)
            self._record(turn, [*turn.events, completed])
            self._store.discard_all(instance.instance_id)
            self._store.cancel_timers(instance.instance_id)
            instance.status, instance.output, instance.waits = status, output_json, "[]"
            self._save(instance)
            parent_id = self._tell_parent(instance) if instance.parent else None
        self._executions.pop(instance.instance_id, None)
        logger.info("Orchestration '%s' (%s) ended: %s", instance.instance_id, instance.name, status)
        self._make_ready([parent_id] if parent_id else ())

    def _tell_parent(self, child: Instance) -> str:
        """Send a parent the outcome of its sub-orchestration; returns the parent's id."""
        parent = json.loads(child.parent or "{}")
        if child.status == "Completed":
            event = self._event(EventType.SUB_ORCHESTRATION_COMPLETED, Result=child.output)
        else:
            event = self._event(
                EventType.SUB_ORCHESTRATION_FAILED, Reason=json.loads(child.output or "null"), Details=None
            )
        event["TaskScheduledId"] = parent["task_id"]
        self._store.send(parent["instance_id"], parent["execution_id"], event)
        return str(parent["instance_id"])

    def _start_child(self, parent: Instance, command: Command) -> str:
        """Start a sub-orchestration, as on Azure even in place of one that runs under its id; returns the id."""
        new_id = command.instance_id or child_id(parent, command.task_id)
        if new_id == parent.instance_id:
            raise OrchestrationError(f"an orchestration can't be its own sub-orchestration: '{new_id}'")
        # The input is a JSON text already, and stays a text in JSON: so Azure hands it on.
        self._create(
            command.name,
            json.dumps(command.input),
            new_id,
            command.version,
            trace_json=parent.trace,
            parent_json=_link(parent, command.task_id),
        )
        return new_id

    def _create(
        self,
        name: str,
        input_json: str,
        instance_id: str,
        version: str | None,
        *,
        trace_json: str,
        parent_json: str | None = None,
    ) -> Instance:
        function = self._function("orchestrator", name)
        existing = self._instance(instance_id)
        if existing is not None:
            if not existing.finished and parent_json is None:
                raise InstanceExistsError(existing)
            self._store.purge(instance_id)
            self._executions.pop(instance_id, None)
        now = self._now()
        instance = Instance(
            instance_id=instance_id,
            execution_id=uuid.uuid4().hex,
            name=function.name,
            version=version or self._settings.default_version,
            status="Pending",
            input=input_json,
            output=None,
            custom_status=None,
            created=now,
            updated=now,
            parent=parent_json,
            trace=trace_json,
        )
        self._store.save(instance)
        return instance

    def _rewind(self, instance: Instance, reason: str) -> list[str]:
        """Take what has failed out of an instance's history, so that it runs again; what was under way then goes on.

        Sub-orchestrations that have failed are rewound themselves. Returns the ids of the instances that have work now.
        """
        instance_id = instance.instance_id
        events = [json.loads(text) for text in self._store.history(instance_id)]
        failed, open_tasks = unfinished_tasks(events)
        kept, ready = [], [instance_id]
        for event in events:
            event_type = event["EventType"]
            task_id = event[COMPLETIONS.get(event_type, "EventId")]
            forgotten = task_id in failed or event_type == EventType.EXECUTION_COMPLETED
            if event_type == EventType.SUB_ORCHESTRATION_CREATED and task_id in failed | open_tasks:
                child = self._instance(event["InstanceId"] or child_id(instance, task_id))
                if child is None or child.parent != _link(instance, task_id):
                    forgotten = True
                elif child.status == "Failed":
                    forgotten = False
                    ready += self._rewind(child, reason)
                elif child.finished and not forgotten:
                    self._tell_parent(child)
            elif event_type == EventType.TIMER_CREATED and task_id in open_tasks:
                self._add_timer(instance, task_id, event["FireAt"])
            elif (
                event_type == EventType.TASK_SCHEDULED
                and task_id in open_tasks
                and not self._store.has_activity(instance, task_id)
            ):
                self._activities.append(self._store.add_activity(instance, task_id, event["Name"], event["Input"]))
            if forgotten:
                event = {name: event[name] for name in ("EventId", "Timestamp", "IsPlayed")}
                event["EventType"] = EventType.GENERIC
            kept.append(json.dumps(event))
        self._store.clear_history(instance_id)
        self._store.append(instance_id, 0, kept)
        instance.status, instance.output = "Running", None
        self._save(instance)
        self._store.send(instance_id, None, self._event(EventType.GENERIC, Data=reason))
        return ready

    # Small things

    def _function(self, kind: str, name: str) -> Function:
        """The `orchestrator` or `activity` function with this name. Raises `UnknownFunctionError`."""
        functions = self._functions[kind]
        if (function := functions.get(name.lower())) is None:
            raise UnknownFunctionError(kind, name, functions)
        return function

    def _send(self, instance_id: str, event_type: EventType, **fields: Any) -> None:
        if self.require(instance_id).finished:
            raise InstanceGoneError
        with self._store.transaction():
            self._store.send(instance_id, None, self._event(event_type, **fields))
        self._make_ready([instance_id])

    def _save(self, instance: Instance) -> None:
        instance.updated = self._now()
        self._store.save(instance)

    def _record(self, turn: _Turn, events: Sequence[Mapping[str, Any]]) -> None:
        """Turn messages into history."""
        execution = turn.execution
        texts = [json.dumps({**event, "IsPlayed": True}) for event in events]
        self._store.discard(turn.taken)
        self._store.append(execution.instance.instance_id, len(execution.events), texts)
        execution.events += texts

    def _event(self, EventType: int, EventId: int = -1, **fields: Any) -> dict[str, Any]:  # noqa: N803  as on the wire
        return {"EventType": EventType, "EventId": EventId, "Timestamp": self._now(), **fields}

    def _now(self) -> str:
        return format_time(self._clock.now())


def child_id(parent: Instance, task_id: int) -> str:
    """The id of a sub-orchestration that was given none."""
    return f"{parent.execution_id}:{task_id:04x}"


def _link(parent: Instance, task_id: int) -> str:
    """How a sub-orchestration remembers the task that it is, as JSON."""
    link = {"instance_id": parent.instance_id, "execution_id": parent.execution_id, "task_id": task_id}
    return json.dumps(link)


def _parse_state(outcome: Outcome) -> dict[str, Any]:
    """What the SDK answered; a failed orchestrator's answer is in the text of its error."""
    if outcome.error is None:
        text = outcome.value.value if outcome.value is not None else ""
    else:
        _, mark, text = outcome.error.rpartition(OUT_OF_PROC_MARK)
        if not mark:
            raise OrchestrationError(outcome.error)
    return dict(json.loads(text, parse_constant=str))  # what is no JSON, such as NaN, is a text in Azure as well


def _result_json(value: TypedData | None) -> str:
    """An activity's result as JSON text, whatever kind of value it returned."""
    if value is None or value.kind is None:
        return "null"
    if value.kind == "json":
        return str(value.value)
    return json.dumps(value.value.decode() if value.kind == "bytes" else value.value)
