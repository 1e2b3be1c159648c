"""What must hold of every simulated world, whatever has happened in it."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from devhost.orchestration import Command, Event, EventType

from .api import DAY, Send, Task
from .callers import Caller
from .task_hub import START, Instance
from .world import World

DOUBTFUL = frozenset({None, 303, 409, 500, 502, 504})
"""Answers after which a record may be stored."""

REFUSALS = frozenset({400, 422})

_LONGEST_ATTEMPT = 100.0


class Ledger:
    """Follows what the histories say, and judges in the end.

    Args:
        world: Of which it is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: dict[Task, float] = {}  # when a history took in what an activity had returned
        self._begun: dict[Task, float] = {}  # when the operation began for which an activity was asked for
        self._first_turns: dict[tuple[str, datetime], float] = {}
        self._timers: Counter[str] = Counter()  # in a row, without an activity between them
        world.hub.committed = self._committed

    def _committed(self, one: Instance, events: Sequence[Event], scheduled: Sequence[Command]) -> None:
        """See what becomes part of a history."""
        now = (self._world.hub.now - START).total_seconds() + 1000.0
        for event in events:
            if event["EventType"] == EventType.TASK_COMPLETED:
                self._told.setdefault((one.execution_id, event["TaskScheduledId"]), now)
        began = self._first_turns.setdefault((one.instance_id, one.started), now)
        for command in scheduled:
            self._begun[one.execution_id, command.task_id] = began
            self._timers[one.instance_id] = self._timers[one.instance_id] + 1 if command.kind == "timer" else 0
        if self._timers[one.instance_id] > 1:
            self._world.violated(f"{one.instance_id} sleeps again without having done anything")

    def judge(self, callers: Sequence[Caller]) -> None:
        """Find out whether all that must hold does."""
        for worker in self._world.workers:
            if worker.idle and (places := worker.pacer._limits.under_way):
                self._world.violated(f"{places} calls are under way for the pacer, and none for the API")
        for caller in callers:
            if caller.id in self._world.front.overrun:
                continue  # the engine has no start that leaves alone what has ended
            self._judge_operation(caller)
            for index, item in enumerate(caller.items):
                for number in item.numbers:
                    self._judge_record(caller, number)
                if item.numbers:
                    self._judge_item(caller, index)

    def _twice(self, task: Task | None) -> bool:
        """Whether the engine has run an activity more than once, or one that its history does not know."""
        hub = self._world.hub
        return task is None or hub.runs[task] > 1 or task in hub.unwritten

    def _judge_operation(self, caller: Caller) -> None:
        one = self._world.hub.instances.get(caller.id)
        if one is None:
            if not caller.erased:
                self._world.violated(f"{caller.name} has vanished")
            return
        if one.status == "Failed":
            self._world.violated(f"{caller.name} has failed: {one.output}")
        limit = float(self._world.settings["DELIVERY_DEADLINE"]) + _LONGEST_ATTEMPT + 5.0 + one.late
        if not caller.suspended and (took := (one.updated - one.started).total_seconds()) > limit:
            self._world.violated(f"{caller.name} has taken {took:.0f} s of {limit:.0f}")

    def _judge_record(self, caller: Caller, number: str) -> None:
        world, api = self._world, self._world.api
        sends = api.sends[number]
        doubled = any(self._twice(send.task) for send in sends)
        copies = api.copies[number]
        if len(copies) > 1:
            failed = world.hub.failed
            doubted = any((s.status in DOUBTFUL or s.task in failed) and s.at < copies[1] for s in sends)
            allowed = api.keys != "honoured" and (doubted or doubled or caller.terminated)
            if api.keys == "forgotten" and copies[1] - copies[0] < DAY:
                allowed = False
            # One run was told of a refusal, another one of the same activity stored the record.
            allowed = allowed or (doubled and any(send.status in REFUSALS for send in sends))
            if not allowed and not caller.restarted:  # then two operations send it, which know nothing of each other
                world.violated(f"{number} is stored {len(copies)} times")
        for send, others in ((send, sends[:position]) for position, send in enumerate(sends)):
            self._judge_send(caller, send, others)

    def _judge_send(self, caller: Caller, send: Send, before: Sequence[Send]) -> None:
        world, api = self._world, self._world.api
        if self._twice(send.task) or caller.restarted:
            return
        begun_at = world.hub.begun_at[send.task] if send.task else send.at
        started = self._begun.get(send.task or ("", 0), begun_at)
        over = begun_at > started + float(world.settings["DELIVERY_DEADLINE"]) + 1.0
        if over and not caller.suspended:  # what was asked for before begins with the resume
            world.violated(f"{send.number} is sent at {send.at - 1000:.1f}, after the deadline")
        for other in before:
            known = (other.status or 0) // 100 == 2 and not self._twice(other.task) and other.at > caller.knew_at
            if (
                known
                and not caller.terminated
                and other.task is not None
                and begun_at > self._told.get(other.task, begun_at)
            ):
                world.violated(f"{send.number} is sent at {send.at - 1000:.1f} after a yes")
        for begin, end in caller.quiet:
            if begin < send.at < end and not (caller.terminated and begun_at < begin):
                world.violated(f"{send.number} is sent at {send.at - 1000:.1f}, when nothing must be sent")
        doubtful = [one for one in before if one.status in DOUBTFUL and one.reached and one.at > caller.knew_at]
        if any(one.key != send.key and not self._twice(one.task) for one in doubtful):
            world.violated(f"{send.number} is sent under another key, though it may be stored")
        if caller.terminated:
            return  # what was under way then went on beside a retry
        told = [until for at, until in api.not_before.get(send.number, ()) if caller.retried_at < at < send.at]
        unknown = any(self._twice(other.task) or other.task in world.hub.failed for other in before)
        if told and send.at < told[-1] and not unknown:
            world.violated(f"{send.number} is sent at {send.at - 1000:.1f}, before {told[-1] - 1000:.1f}")

    def _judge_item(self, caller: Caller, index: int) -> None:
        world, item = self._world, caller.items[index]
        copies = {number: len(world.api.copies[number]) for number in item.numbers}
        sends = [send for number in item.numbers for send in world.api.sends[number]]
        if any(self._twice(send.task) for send in sends) or caller.restarted or caller.erased or not item.told:
            return
        if sum(count > 0 for count in copies.values()) > 1:
            world.violated(f"two versions of a record are stored: {copies}")
        outcome = item.told["outcome"]
        if outcome == "posted":
            if not copies[item.numbers[-1]]:
                world.violated(f"{item.numbers[-1]} is told posted, and is not there")
        elif any(copies.values()) and not (item.told.get("may_be_stored") or caller.operation.get("may_be_stored")):
            world.violated(f"{item.numbers} is told {outcome}, and is there: {copies}")
