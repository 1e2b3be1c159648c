"""Follows an orchestrator beside the SDK: history events and the actions it returned in, new work out; no I/O.

The SDK replays the orchestrator against its history and returns every action it has asked for so far. It numbers its
tasks itself, by the order in which user code reaches them, and only the events of the history carry those numbers. So
the host walks through the same events and the same actions and numbers them alike; what the history does not know yet
is new work. A walk can be continued: feeding it the next turn's events costs nothing for the earlier ones.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from devhost.clock import format_time, parse_time

Event = Mapping[str, Any]
"""A history event: `EventType`, `EventId`, `Timestamp` and what belongs to its type."""


class EventType(IntEnum):
    """The types of history events, numbered as the Durable Task Framework does."""

    EXECUTION_STARTED = 0
    EXECUTION_COMPLETED = 1
    EXECUTION_TERMINATED = 3
    TASK_SCHEDULED = 4
    TASK_COMPLETED = 5
    TASK_FAILED = 6
    SUB_ORCHESTRATION_CREATED = 7
    SUB_ORCHESTRATION_COMPLETED = 8
    SUB_ORCHESTRATION_FAILED = 9
    TIMER_CREATED = 10
    TIMER_FIRED = 11
    ORCHESTRATOR_STARTED = 12
    ORCHESTRATOR_COMPLETED = 13
    EVENT_SENT = 14
    EVENT_RAISED = 15
    GENERIC = 17
    EXECUTION_SUSPENDED = 19
    EXECUTION_RESUMED = 20


class ActionType(IntEnum):
    """The types of actions that the SDK returns."""

    CALL_ACTIVITY = 0
    CALL_ACTIVITY_WITH_RETRY = 1
    CALL_SUB_ORCHESTRATOR = 2
    CALL_SUB_ORCHESTRATOR_WITH_RETRY = 3
    CONTINUE_AS_NEW = 4
    CREATE_TIMER = 5
    WAIT_FOR_EXTERNAL_EVENT = 6
    CALL_ENTITY = 7
    CALL_HTTP = 8
    SIGNAL_ENTITY = 9
    SCHEDULED_SIGNAL_ENTITY = 10
    WHEN_ANY = 11
    WHEN_ALL = 12


# The field by which the event that ends a task names it.
COMPLETIONS = {
    EventType.TASK_COMPLETED: "TaskScheduledId",
    EventType.TASK_FAILED: "TaskScheduledId",
    EventType.SUB_ORCHESTRATION_COMPLETED: "TaskScheduledId",
    EventType.SUB_ORCHESTRATION_FAILED: "TaskScheduledId",
    EventType.TIMER_FIRED: "TimerId",
}
FAILURES = frozenset({EventType.TASK_FAILED, EventType.SUB_ORCHESTRATION_FAILED})

# The kinds of tasks, by the event that schedules them.
SCHEDULING = {
    EventType.TASK_SCHEDULED: "activity",
    EventType.SUB_ORCHESTRATION_CREATED: "sub-orchestration",
    EventType.TIMER_CREATED: "timer",
}
_EVENT_OF_KIND = {kind: event_type for event_type, kind in SCHEDULING.items()}

_NOT_EMULATED = {
    ActionType.CALL_ENTITY: "durable entities",
    ActionType.SIGNAL_ENTITY: "durable entities",
    ActionType.SCHEDULED_SIGNAL_ENTITY: "durable entities",
    ActionType.CALL_HTTP: "call_http",
}


CUSTOM_STATUS_LIMIT = 16 * 1024
"""The bytes of UTF-16 that the JSON of a custom status may have."""


class OrchestrationError(Exception):
    """The orchestration can't go on; the message is its output."""


class NonDeterminismError(OrchestrationError):
    """The orchestrator asked for other work than its history says it did."""

    def __init__(self, expected: str, got: str) -> None:
        super().__init__(
            f"Non-Deterministic workflow detected: the history says that this orchestration scheduled {expected}, but "
            f"its replay {got}. Was the orchestrator's code changed while this instance was running, or does it "
            "depend on anything but its input, its history and the context?"
        )


@dataclass(frozen=True, slots=True)
class Command:
    """Work that the orchestrator asked for: an activity, a sub-orchestration or a timer, under the SDK's task id."""

    task_id: int
    kind: str
    name: str = ""
    input: str | None = None
    instance_id: str | None = None
    version: str | None = None
    fire_at: str = ""
    cancelled: bool = False

    def event(self) -> dict[str, Any]:
        """The history event that records that the work was scheduled, without its time."""
        event: dict[str, Any] = {"EventType": _EVENT_OF_KIND[self.kind], "EventId": self.task_id}
        if self.kind == "timer":
            return event | {"FireAt": self.fire_at}
        event |= {"Name": self.name, "Version": self.version, "Input": self.input}
        return event | {"InstanceId": self.instance_id} if self.kind == "sub-orchestration" else event

    def __str__(self) -> str:
        name = f" named '{self.name}'" if self.name else ""
        return f"a {self.kind} task{name} with sequence id {self.task_id}".replace("a activity", "an activity")


@dataclass(slots=True, eq=False)
class _Node:
    """Something user code can wait for. `parent` is told when it ends."""

    parent: "_Node | None" = None
    done: bool = False

    def finish(self, *, failed: bool) -> None:
        if not self.done:
            self.done = True
            if self.parent is not None:
                self.parent.child_finished(failed=failed)

    def child_finished(self, *, failed: bool) -> None:
        """Take note of a child's end."""


@dataclass(slots=True, eq=False)
class _Group(_Node):
    """Ends when `remaining` of its children have ended or, if it can fail, one has failed."""

    remaining: int = 1
    can_fail: bool = True

    def child_finished(self, *, failed: bool) -> None:
        self.remaining -= 1
        failed = failed and self.can_fail
        if failed or self.remaining == 0:
            self.finish(failed=failed)


@dataclass(slots=True, eq=False, kw_only=True)
class _Retry(_Node):
    """A call with retries: attempts and the timers between them, each under a task id of its own.

    After the last failed attempt one more timer passes before the failure surfaces, in the SDK and in Azure alike; it
    is due at once.
    """

    walk: "Walk"
    action: Mapping[str, Any]
    attempts: int = 0
    pausing: bool = False

    def attempt(self) -> None:
        self.attempts += 1
        self.walk.schedule_call(self.action, self)

    def child_finished(self, *, failed: bool) -> None:
        options = self.action["retryOptions"]
        if not self.pausing:
            if failed:
                self.pausing = True
                last = self.attempts >= options["maxNumberOfAttempts"]
                delay = timedelta(milliseconds=0 if last else options["firstRetryIntervalInMilliseconds"])
                self.walk.schedule_timer(format_time(self.walk.now + delay), self)
            else:
                self.finish(failed=False)
        elif self.attempts >= options["maxNumberOfAttempts"]:
            self.finish(failed=True)
        else:
            self.pausing = False
            self.attempt()


class Walk:
    """One execution's history and actions, walked side by side.

    `commands` maps the ids of all tasks so far to their commands, `open` those of unfinished ones, without timers that
    were cancelled; `continue_as_new` is the action by that name once it was reached.
    """

    def __init__(self, actions: Sequence[Mapping[str, Any]] = ()) -> None:
        self.commands: dict[int, Command] = {}
        self.open: dict[int, Command] = {}
        self.continue_as_new: Mapping[str, Any] | None = None
        self.now = datetime.min.replace(tzinfo=UTC)
        self._actions: list[Mapping[str, Any]] = list(actions)
        self._reached = 0
        self._head: _Node | None = None
        self._nodes: dict[int, _Node] = {}
        self._waiting: defaultdict[str, list[_Node]] = defaultdict(list)
        self._early: set[str] = set()
        self._retried = False
        self._unrecorded: dict[int, Command] = {}
        self._timers: defaultdict[int, list[int]] = defaultdict(list)

    @property
    def waits(self) -> list[str]:
        """The names of the external events waited for, one entry for each wait."""
        return [name for name, nodes in self._waiting.items() for _ in nodes]

    def extend(self, actions: Sequence[Mapping[str, Any]]) -> list[int] | None:
        """Take the longer list of actions that the SDK returned after the next turn.

        Returns the ids of timers that were cancelled since, or None when the list does not continue the one known so
        far, or perhaps not under the same ids: then only a walk from the beginning can tell what is different.
        """
        known = self._actions
        if actions[: len(known)] == known:
            known += actions[len(known) :]  # the others stay those of the commands: their inputs may be long
            return []
        if len(actions) < len(known):
            return None
        cancelled: list[int] = []
        for position, (old, new) in enumerate(zip(known, actions, strict=False)):
            if old != new:
                if without_cancellation(old) != without_cancellation(new):
                    return None
                cancelled += self._cancelled_at(position, new)
        if cancelled and self._retried:
            return None  # what is cancelled now has ended from the beginning: later ids may be other ones
        self._actions = list(actions)
        return cancelled

    def feed(self, event: Event) -> None:
        """Take the next event of the history. Raises `OrchestrationError`."""
        event_type = event["EventType"]
        if event_type in SCHEDULING:
            self._confirm(event)
        elif event_type == EventType.ORCHESTRATOR_STARTED:
            self.now = parse_time(event["Timestamp"])
        elif event_type == EventType.EXECUTION_STARTED:
            self._advance()
        elif event_type == EventType.EVENT_RAISED:
            self._raise(event["Name"])
        elif (key := COMPLETIONS.get(event_type)) and (node := self._nodes.pop(event[key], None)):
            self.open.pop(event[key], None)
            node.finish(failed=event_type in FAILURES)
            self._advance()

    def end_turn(self) -> list[Command]:
        """Reach what is left of the actions, as user code has; return the work that the history does not know yet."""
        while self._reached < len(self._actions):
            self._reach_next()
        commands = list(self._unrecorded.values())
        self._unrecorded.clear()
        return commands

    def _raise(self, name: str) -> None:
        """Take an event: the last who waits for it has it, or else, as the SDK keeps it, all who will wait for it."""
        if self._waiting[name]:
            self._waiting[name].pop().finish(failed=False)
            self._advance()
        else:
            self._early.add(name)

    def _advance(self) -> None:
        while (self._head is None or self._head.done) and self._reached < len(self._actions):
            self._reach_next()

    def _reach_next(self) -> None:
        action = self._actions[self._reached]
        self._reached += 1
        self._head = self._build(action, None)

    def _build(self, action: Mapping[str, Any], parent: _Node | None) -> _Node:
        action_type = action["actionType"]
        node: _Node
        if action_type in (ActionType.WHEN_ANY, ActionType.WHEN_ALL):
            children = action["compoundActions"]
            every = action_type == ActionType.WHEN_ALL
            node = _Group(parent, remaining=len(children) if every else 1, can_fail=every)
            for child in children:
                self._build(child, node)
            # Without children, all of them were scheduled before; their own ends move user code on.
            return node
        if action_type in (ActionType.CALL_ACTIVITY_WITH_RETRY, ActionType.CALL_SUB_ORCHESTRATOR_WITH_RETRY):
            node = _Retry(parent=parent, walk=self, action=action)
            node.attempt()
            return node
        if action_type in (ActionType.CALL_ACTIVITY, ActionType.CALL_SUB_ORCHESTRATOR):
            return self._nodes[self.schedule_call(action, parent)]
        if action_type == ActionType.CREATE_TIMER:
            task_id = self.schedule_timer(action["fireAt"], parent, cancelled=action["isCanceled"])
            self._timers[self._reached - 1].append(task_id)
            if action["isCanceled"]:  # as in Azure, where that ends whatever waits for any of several
                self._nodes[task_id].finish(failed=False)
            return self._nodes[task_id]
        if action_type == ActionType.WAIT_FOR_EXTERNAL_EVENT:
            node, name = _Node(parent), action["externalEventName"]
            if name in self._early:
                node.finish(failed=False)
            else:
                self._waiting[name].append(node)
            return node
        if action_type == ActionType.CONTINUE_AS_NEW:
            self.continue_as_new = action
            return _Node(parent, done=True)
        raise OrchestrationError(
            f"{_NOT_EMULATED.get(action_type, f'action type {action_type}')} can't be used here: this host does not "
            "emulate them; run the app with Azure Functions Core Tools instead"
        )

    def schedule_call(self, action: Mapping[str, Any], parent: _Node | None) -> int:
        """Give the next task id to a call of an activity or a sub-orchestrator."""
        sub = action["actionType"] in (ActionType.CALL_SUB_ORCHESTRATOR, ActionType.CALL_SUB_ORCHESTRATOR_WITH_RETRY)
        return self._schedule(
            parent,
            "sub-orchestration" if sub else "activity",
            name=action["functionName"],
            input=action.get("input"),
            instance_id=action.get("instanceId") or None,
            version=action.get("version") or None,
        )

    def schedule_timer(self, fire_at: str, parent: _Node | None, *, cancelled: bool = False) -> int:
        """Give the next task id to a timer."""
        return self._schedule(parent, "timer", fire_at=fire_at, cancelled=cancelled)

    def _schedule(self, parent: _Node | None, kind: str, **fields: Any) -> int:
        task_id = len(self.commands)
        self._retried |= isinstance(parent, _Retry) and kind == "timer"
        command = Command(task_id, kind, **fields)
        self.commands[task_id] = self._unrecorded[task_id] = command
        if not command.cancelled:
            self.open[task_id] = command
        self._nodes[task_id] = _Node(parent)
        return task_id

    def _confirm(self, event: Event) -> None:
        task_id = event["EventId"]
        recorded = Command(task_id, SCHEDULING[event["EventType"]], name=event.get("Name", ""))
        while task_id not in self.commands and self._reached < len(self._actions):
            self._reach_next()
        command = self.commands.get(task_id)
        if command is None:
            raise NonDeterminismError(str(recorded), "hasn't (yet?) scheduled it")
        if (command.kind, command.name.lower()) != (recorded.kind, recorded.name.lower()):
            raise NonDeterminismError(str(recorded), f"scheduled {command} instead")
        self._unrecorded.pop(task_id, None)

    def _cancelled_at(self, position: int, action: Mapping[str, Any]) -> Iterator[int]:
        for task_id, timer in zip(self._timers[position], _timers_in(action), strict=True):
            if timer["isCanceled"] and self.open.pop(task_id, None):
                yield task_id


def unfinished_tasks(events: Sequence[Event]) -> tuple[set[int], set[int]]:
    """The ids of the tasks that have failed, dealt with or not, and of those that have not ended."""
    scheduled = {event["EventId"] for event in events if event["EventType"] in SCHEDULING}
    ended = {event[COMPLETIONS[event["EventType"]]] for event in events if event["EventType"] in COMPLETIONS}
    failed = {event[COMPLETIONS[event["EventType"]]] for event in events if event["EventType"] in FAILURES}
    return failed, scheduled - ended


def _timers_in(action: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if action["actionType"] == ActionType.CREATE_TIMER:
        yield action
    for child in action.get("compoundActions", ()):
        yield from _timers_in(child)


def utf_16_size(value: Any) -> int:
    """The bytes of a value's JSON as the real engine counts them."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-16-le", "surrogatepass"))


def without_cancellation(action: Mapping[str, Any]) -> dict[str, Any]:
    """An action without what may change later: whether a timer was cancelled."""
    stripped = {key: value for key, value in action.items() if key != "isCanceled"}
    if "compoundActions" in stripped:
        stripped["compoundActions"] = [without_cancellation(child) for child in stripped["compoundActions"]]
    return stripped
