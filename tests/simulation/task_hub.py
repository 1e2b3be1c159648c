"""A task hub in memory that does to orchestrations whatever Microsoft's engine may do, as chance will have it.

What it does is what the Durable Task extension 3.19.0 with its Azure Storage backend was seen to do, or promises no
better. A turn of an orchestrator takes messages, replays all of the history through the SDK, sends the messages that
come of it, then writes the history, then forgets the messages that it took: a worker may die between any two of these
steps, and another begins the turn anew. Numbers, names and history are those of the Durable Task Framework.
"""

import asyncio
import json
import uuid
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from devhost.clock import format_time, parse_time
from devhost.orchestration import (
    COMPLETIONS,
    CUSTOM_STATUS_LIMIT,
    SCHEDULING,
    Command,
    Event,
    EventType,
    OrchestrationError,
    Walk,
    utf_16_size,
    without_cancellation,
)
from tests.virtual_time import BEGINNING

from .api import RUN
from .chance import Chance

START = datetime(2026, 1, 1, tzinfo=UTC)
HIDDEN = 300.0
"""Seconds for which the messages of a worker that died are hidden from the others, at most."""

_ENDED = frozenset({"Completed", "Failed", "Terminated"})
_COMPLETIONS = frozenset(COMPLETIONS)
_OUT_OF_PROC = "\n\n$OutOfProcData$:"
_CONTEXT = {
    "parentInstanceId": None,
    "upperSchemaVersion": 1,
    "upperSchemaVersionNew": 2,
    "defaultHttpAsyncRequestSleepTimeMillseconds": 30000,
}


class InstanceExistsError(Exception):
    """An instance with this id runs."""


class NoInstanceError(Exception):
    """There is no instance with this id."""


class InstanceEndedError(Exception):
    """The instance has ended."""


class InstanceRunsError(Exception):
    """The instance has not ended."""


class WorkerDiedError(Exception):
    """Nobody knows how far the work got."""


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """An event on its way to an orchestration; with an execution id, of no interest to any other execution."""

    event: Event
    execution_id: str | None = None


@dataclass(slots=True, eq=False)
class Instance:
    """An instance: its row in the table of instances, its history, and the messages that it has not taken yet.

    Attributes:
        input: JSON text, as the start brought it.
        actions: What the orchestrator had asked for when the history was last written.
        late: Seconds by which chance has held the instance up since its start.
        started: When it was started last; a round that continues as new is no start.
    """

    instance_id: str
    execution_id: str
    name: str
    input: str
    created: datetime
    updated: datetime
    status: str = "Pending"
    custom_status: Any = None
    output: Any = None
    history: list[dict[str, Any]] = field(default_factory=list)
    inbox: list[Message] = field(default_factory=list)
    actions: list[Mapping[str, Any]] = field(default_factory=list)
    suspended: bool = False
    busy: bool = False
    late: float = 0.0
    started: datetime = START

    @property
    def ended(self) -> bool:
        """Whether it may be purged, and its id be started again."""
        return self.status in _ENDED

    @property
    def phase(self) -> str:
        """How it stands, for the coverage of faults."""
        if self.status != "Running":
            return self.status
        waits = {event["EventType"] for event in self.history[-3:]}
        return "Sleeping" if EventType.TIMER_CREATED in waits else "Running"


@dataclass(slots=True)
class _Turn:
    """A turn under way: the messages that it took, the events that they bring, and what came of them."""

    taken: list[Message]
    events: list[dict[str, Any]]
    suspended: bool
    state: dict[str, Any] = field(default_factory=dict)
    scheduled: list[Command] = field(default_factory=list)


class TaskHub:
    """Runs orchestrations.

    Args:
        orchestrators: By name: the SDK's handlers, from context to state, both as JSON.
        activity: Runs an activity by name, with its input and its result as JSON; `WorkerDiedError` has it run again.
        chance: What happens; by default nothing does but what is asked for.
        log: Is told each thing that happens.

    Attributes:
        instances: By id.
        runs: For each task of an execution, how often its activity was begun.
        begun_at: For each, when it was sent out for the first time.
        unwritten: Those that were begun by turns that were never written down.
        failed: Those that count as failed, whatever they have done.
        events: How many are part of histories.
        largest: Characters of the largest input or result of a batch, as JSON in a JSON text.
        committed: Is called with an instance and the events that have just become part of its history.
    """

    def __init__(
        self,
        orchestrators: Mapping[str, Callable[[str], str]],
        activity: Callable[[str, str], Awaitable[str]],
        chance: Chance,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.instances: dict[str, Instance] = {}
        self.runs: dict[tuple[str, int], int] = {}
        self.begun_at: dict[tuple[str, int], float] = {}
        self.unwritten: set[tuple[str, int]] = set()
        self.failed: set[tuple[str, int]] = set()
        self.events = self.largest = 0
        self.committed: Callable[[Instance, Sequence[Event], Sequence[Command]], None] = lambda *_: None
        self._orchestrators = orchestrators
        self._activity = activity
        self._chance = chance
        self._log = log
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def now(self) -> datetime:
        """The time, in UTC."""
        return START + timedelta(seconds=asyncio.get_running_loop().time() - BEGINNING)

    # What clients ask for

    async def start(self, name: str, instance_id: str, input_json: str) -> Instance:
        """Start an instance, also in place of one that has ended; of two starts at once, the later one counts.

        Raises:
            InstanceExistsError: One with this id runs.
        """
        there = self.instances.get(instance_id)
        if there is not None and not there.ended:
            raise InstanceExistsError(f"An Orchestration instance with the status {there.status} already exists.")
        await self._moment("a start")
        current = self.instances.get(instance_id)
        if current is not there and current is not None and current.history:
            raise InstanceExistsError(f"An Orchestration instance with the status {current.status} already exists.")
        one = Instance(instance_id, uuid.uuid4().hex, name, input_json, self.now, self.now, started=self.now)
        self.instances[instance_id] = one
        self._log(f"{instance_id}: started as {name}")
        self._send_start(one)
        return one

    def raise_event(self, instance_id: str, name: str, data_json: str) -> None:
        """Send an event. Raises `NoInstanceError`, `InstanceEndedError`."""
        self._send(self._unended(instance_id), self._event(EventType.EVENT_RAISED, Name=name, Input=data_json))

    def control(self, instance_id: str, event_type: EventType, reason: str) -> None:
        """Suspend, resume or terminate. Raises `NoInstanceError`, `InstanceEndedError`."""
        told: dict[str, Any] = {"Input": reason} if event_type is EventType.EXECUTION_TERMINATED else {"Reason": reason}
        self._send(self._unended(instance_id), self._event(event_type, **told))

    async def restart(self, instance_id: str, *, new_id: bool) -> Instance:
        """Start an instance again with the input of its last round. Raises `NoInstanceError`, `InstanceExistsError`."""
        one = self.require(instance_id)
        return await self.start(one.name, uuid.uuid4().hex if new_id else instance_id, one.input)

    def purge(self, instance_id: str) -> None:
        """Forget an instance. Raises `NoInstanceError`, `InstanceRunsError`."""
        one = self.require(instance_id)
        if not one.ended:
            raise InstanceRunsError(one.status)
        self._log(f"{instance_id}: purged")
        del self.instances[instance_id]

    def require(self, instance_id: str) -> Instance:
        """The instance. Raises `NoInstanceError`."""
        if (one := self.instances.get(instance_id)) is None:
            raise NoInstanceError
        return one

    def _unended(self, instance_id: str) -> Instance:
        if (one := self.require(instance_id)).ended:
            raise InstanceEndedError
        return one

    # Messages

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done beside all else."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            asyncio.get_running_loop().call_exception_handler({"message": "in the task hub", "exception": error})

    async def _moment(self, what: str) -> None:
        """Let others go first: a few milliseconds, sometimes seconds."""
        seconds = self._chance.between(0.0, 0.02, what)
        if self._chance.happens(f"{what} takes long", 0.02):
            seconds = self._chance.between(0.1, 8.0, what)
        await asyncio.sleep(seconds)

    async def _held_up(self, one: Instance, what: str, most: float) -> None:
        seconds = self._chance.between(0.0, most, what)
        one.late += seconds
        await asyncio.sleep(seconds)

    def _send_start(self, one: Instance) -> None:
        told = {"Name": one.name, "Version": None, "Input": json.loads(one.input)}
        self._send(one, self._event(EventType.EXECUTION_STARTED, **told), one.execution_id)

    def _send(self, one: Instance, event: Event, execution_id: str | None = None) -> None:
        self.spawn(self._deliver(one, Message(event, execution_id)))
        if self._chance.happens("a message comes twice", 0.02, to=one.instance_id, state=_name(event)):
            self.spawn(self._deliver(one, Message(event, execution_id)))

    async def _deliver(self, one: Instance, message: Message) -> None:
        await self._moment("a message")
        if self._chance.happens("a message comes late", 0.01, to=one.instance_id, state=_name(message.event)):
            await self._held_up(one, "a message", 60.0)
        there = self.instances.get(one.instance_id)
        if there is not None:
            there.inbox.append(message)
            self._wake(there)

    def _wake(self, one: Instance) -> None:
        if not one.busy:
            one.busy = True
            self.spawn(self._turns(one))

    # Turns

    async def _turns(self, one: Instance) -> None:
        try:
            while True:
                await self._moment("a turn")
                if one.ended or self.instances.get(one.instance_id) is not one:
                    return
                if (turn := self._take(one)) is None:
                    return
                await self._turn(one, turn)
        finally:
            one.busy = False

    def _take(self, one: Instance) -> _Turn | None:
        """Take from the inbox what the orchestration can make use of now, in the order in which it came."""
        one.inbox = [message for message in one.inbox if message.execution_id in (None, one.execution_id)]
        if one.history:  # it has begun: that it is told so twice is of no interest
            one.inbox = [message for message in one.inbox if not _is_start(message.event)]
        known = {event["EventId"] for event in one.history if event["EventType"] in SCHEDULING}
        suspended, taken = one.suspended, list[Message]()
        for message in one.inbox:
            event_type = message.event["EventType"]
            if not one.history and event_type not in (EventType.EXECUTION_STARTED, EventType.EXECUTION_TERMINATED):
                continue
            if event_type in _COMPLETIONS and message.event[COMPLETIONS[event_type]] not in known:
                continue  # its history is not written yet
            if event_type in (EventType.EXECUTION_SUSPENDED, EventType.EXECUTION_RESUMED):
                suspended = event_type == EventType.EXECUTION_SUSPENDED
            taken.append(message)
            if not one.history or event_type == EventType.EXECUTION_TERMINATED:
                break
            if self._chance.happens("a message comes alone", 0.2, state=one.phase):
                break
        return _Turn(taken, [dict(message.event) for message in taken], suspended) if taken else None

    async def _turn(self, one: Instance, turn: _Turn) -> None:
        """Take an instance a turn further, unless the worker dies before that is written down."""
        finish = self._finish_of(one, turn)
        if self._chance.happens("a worker dies in a turn", 0.01, to=one.instance_id, state=one.phase):
            await self._held_up(one, "a dead worker", HIDDEN)
            return
        for command in turn.scheduled:
            self._begin(one, command)
        dies = self._chance.happens("a worker dies before a turn is written", 0.01, to=one.instance_id, state=one.phase)
        if dies or self.instances.get(one.instance_id) is not one:  # or another start has taken its place
            self.unwritten |= {(one.execution_id, command.task_id) for command in turn.scheduled}
            if dies:
                await self._held_up(one, "a dead worker", HIDDEN)
            return
        again = self._chance.happens(
            "a worker dies after a turn was written", 0.01, to=one.instance_id, state=one.phase
        )
        if not again:
            one.inbox = [message for message in one.inbox if message not in turn.taken]
        one.suspended, one.updated = turn.suspended, self.now
        finish()
        self.events += len(turn.events) + len(turn.scheduled)
        for event in turn.events:
            self._log(f"{one.instance_id}: {_name(event)} {event.get('TaskScheduledId', event.get('Name', ''))}")
        for command in turn.scheduled:
            self._log(f"{one.instance_id}: asks for {command}")
        if again:
            await self._held_up(one, "a dead worker", HIDDEN)

    def _finish_of(self, one: Instance, turn: _Turn) -> Callable[[], None]:
        """Run the orchestrator; returns how the turn is written down."""
        if turn.events[-1]["EventType"] == EventType.EXECUTION_TERMINATED:
            return lambda: self._end(one, turn, "Terminated", turn.events[-1]["Input"])
        if one.name not in self._orchestrators:
            return lambda: self._write(one, turn, [])
        turn.events.insert(0, self._event(EventType.ORCHESTRATOR_STARTED))
        try:
            walk = self._walk(one, turn)
        except OrchestrationError as failure:
            text = str(failure)
            return lambda: self._end(one, turn, "Failed", text)
        error = turn.state.get("error")
        if walk.open or not (turn.state["isDone"] or error) or (turn.suspended and not _is_through(walk)):
            return lambda: self._write(one, turn, _actions(turn))
        if error:
            return lambda: self._end(one, turn, "Failed", f"Orchestrator function '{one.name}' failed: {error}")
        if (action := walk.continue_as_new) is not None:
            return lambda: self._continue_as_new(one, turn, action)
        return lambda: self._end(one, turn, "Completed", turn.state.get("output"))

    def _walk(self, one: Instance, turn: _Turn) -> Walk:
        """Replay all of the history with the new events; find out what is new. Raises `OrchestrationError`."""
        played = [{**event, "IsPlayed": True} for event in one.history]
        context = {
            **_CONTEXT,
            "history": played + [{**event, "IsPlayed": False} for event in turn.events],
            "input": json.loads(one.input),
            "instanceId": one.instance_id,
            "isReplaying": bool(played),
        }
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the SDK warns of every event that nobody waited for
                text = self._orchestrators[one.name](json.dumps(context))
        except Exception as error:
            _, mark, text = str(error).rpartition(_OUT_OF_PROC)
            if not mark:
                raise
        turn.state = json.loads(text)
        if (size := utf_16_size(turn.state.get("customStatus"))) > CUSTOM_STATUS_LIMIT:
            turn.state["customStatus"] = None
            raise OrchestrationError(
                f"Orchestrator function '{one.name}' failed: The UTF-16 size of the JSON-serialized payload must not "
                f"exceed {CUSTOM_STATUS_LIMIT // 1024} KB. The current payload size is {size // 1024} KB."
            )
        actions = _actions(turn)
        before = actions[: len(one.actions)]
        if list(map(without_cancellation, before)) != list(map(without_cancellation, one.actions)):
            raise OrchestrationError("Non-Deterministic workflow detected: the replay has asked for something else")
        walk = Walk(actions)
        for event in _heard((*one.history, *turn.events)):
            walk.feed(event)
        if not turn.suspended:  # else what the code asks for waits until it is resumed
            turn.scheduled = walk.end_turn()
        return walk

    def _write(self, one: Instance, turn: _Turn, actions: list[Mapping[str, Any]]) -> None:
        """Write the history of a turn after which the orchestration goes on."""
        completed = [self._event(EventType.ORCHESTRATOR_COMPLETED)] if turn.state else []
        self.committed(one, turn.events, turn.scheduled)
        if turn.state and (turn.state.get("customStatus") is not None or one.history):
            one.custom_status = turn.state.get("customStatus")
        one.history += [*turn.events, *self._scheduled(turn), *completed]
        if actions:
            one.actions = actions
        one.status = "Suspended" if turn.suspended else "Running"
        if turn.suspended:
            one.output = next((e["Reason"] for e in reversed(turn.events) if "Reason" in e), one.output)

    def _continue_as_new(self, one: Instance, turn: _Turn, action: Mapping[str, Any]) -> None:
        """Begin anew with another input; events that came and were not waited for are lost with the history."""
        self.committed(one, turn.events, [])
        one.execution_id, one.status = uuid.uuid4().hex, "ContinuedAsNew"
        one.input, one.created = json.dumps(action.get("input")), self.now
        self.largest = max(self.largest, len(one.input))
        one.history, one.actions, one.suspended = [], [], False
        self._send_start(one)

    def _end(self, one: Instance, turn: _Turn, status: str, output: Any) -> None:
        completed = self._event(EventType.EXECUTION_COMPLETED, OrchestrationStatus=status, Result=json.dumps(output))
        self.committed(one, turn.events, turn.scheduled)
        if turn.state.get("customStatus") is not None:
            one.custom_status = turn.state["customStatus"]
        one.history += [*turn.events, *self._scheduled(turn), completed]
        one.status, one.output, one.inbox = status, output, []
        self._log(f"{one.instance_id}: {status}")

    def _scheduled(self, turn: _Turn) -> list[dict[str, Any]]:
        return [self._event(**command.event()) for command in turn.scheduled]

    # Activities and timers

    def _begin(self, one: Instance, command: Command) -> None:
        """Send the message that has a task done."""
        if command.kind == "activity":
            self.begun_at.setdefault((one.execution_id, command.task_id), asyncio.get_running_loop().time())
            self.spawn(self._run(one, one.execution_id, command))
            if self._chance.happens("an activity runs twice at once", 0.01, to=one.instance_id, state=command.name):
                self.spawn(self._run(one, one.execution_id, command))
        elif not command.cancelled:
            self.spawn(self._fire(one, one.execution_id, command))

    async def _run(self, one: Instance, execution_id: str, command: Command) -> None:
        await self._moment("an activity")
        task = execution_id, command.task_id
        RUN.set(task)
        while True:
            self.runs[task] = self.runs.get(task, 0) + 1
            began = self.now
            self._log(f"{one.instance_id}: {command} runs")
            try:
                result = await self._activity(command.name, command.input or "null")
                self.largest = max(self.largest, len(json.dumps(result)), len(json.dumps(command.input)))
                event = self._event(EventType.TASK_COMPLETED, TaskScheduledId=command.task_id, Result=result)
            except WorkerDiedError:
                one.late += (self.now - began).total_seconds()
                await self._held_up(one, "a dead worker", HIDDEN)
                continue
            except Exception as error:  # noqa: BLE001 (as the engine does)
                event = self._failed(command, f"{type(error).__name__}: {error}")
            if self._chance.happens("an activity is failed", 0.01, to=one.instance_id, state=command.name):
                event = self._failed(command, "FunctionTimeoutException")  # whatever it has done
                self.failed.add(task)
            if not self._chance.happens("a result is lost", 0.01, to=one.instance_id, state=command.name):
                break
            one.late += (self.now - began).total_seconds()
            await self._held_up(one, "a lost result", HIDDEN)
        self._send(one, event, execution_id)

    def _failed(self, command: Command, error: str) -> dict[str, Any]:
        reason = f"Activity function '{command.name}' failed: {error}"
        return self._event(EventType.TASK_FAILED, TaskScheduledId=command.task_id, Reason=reason, Details=None)

    async def _fire(self, one: Instance, execution_id: str, command: Command) -> None:
        """Fire a timer: early, since its message is hidden for whole seconds, cut off; or any time late."""
        left = (parse_time(command.fire_at) - self.now - timedelta.resolution) // timedelta(seconds=1)
        await asyncio.sleep(max(0, left))
        if self._chance.happens("a timer is late", 0.05, to=one.instance_id, state=one.phase):
            await self._held_up(one, "a timer", self._chance.one_of((2.0, 60.0, 3600.0), "a timer"))
        fired = self._event(EventType.TIMER_FIRED, TimerId=command.task_id, FireAt=command.fire_at)
        self._send(one, fired, execution_id)

    def _event(self, EventType: int, EventId: int = -1, **fields: Any) -> dict[str, Any]:  # noqa: N803  as on the wire
        return {"EventType": EventType, "EventId": EventId, "Timestamp": format_time(self.now), **fields}


def _is_start(event: Event) -> bool:
    return bool(event["EventType"] == EventType.EXECUTION_STARTED)


def _name(event: Event) -> str:
    return EventType(event["EventType"]).name


def _heard(events: Iterable[Event]) -> Iterator[Event]:
    """The events in the order in which the engine acts on them: when it is resumed, on what came in the meantime."""
    suspended, held = False, list[Event]()
    for event in events:
        event_type = event["EventType"]
        if event_type in (EventType.EXECUTION_SUSPENDED, EventType.EXECUTION_RESUMED):
            suspended = event_type == EventType.EXECUTION_SUSPENDED
            if not suspended:
                yield from held
                held.clear()
        elif suspended and event_type != EventType.ORCHESTRATOR_STARTED:
            held.append(event)
        else:
            yield event


def _is_through(walk: Walk) -> bool:
    """Whether the engine has seen the end of all that the orchestrator has waited for so far."""
    return walk._reached == len(walk._actions) and (walk._head is None or walk._head.done)


def _actions(turn: _Turn) -> list[Mapping[str, Any]]:
    """All that the orchestrator has asked for so far."""
    return turn.state["actions"][0] if turn.state["actions"] else []
