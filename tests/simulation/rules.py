"""What must hold of every simulated world, whatever has happened in it."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from devhost.orchestration import Command, Event, EventType
from shared.delivery.chunks import TIME_BOX
from tests.virtual_time import BEGINNING

from .api import DAY, Send, Task, id_of
from .callers import Caller
from .task_hub import Instance
from .world import World

DOUBTFUL = frozenset({None, 303, 409, 500, 502, 504})
"""Answers after which a record may be stored."""

REFUSALS = frozenset({409, 422})

_LONGEST_ATTEMPT, _MOST_ACTIVITIES = 100.0, 3_000


class Ledger:
    """Follows what the histories say, and judges in the end.

    Args:
        world: Of which it is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._told: dict[Task | None, float] = {}  # when a history took in what an activity had returned
        self._begun: dict[Task, float] = {}  # when the operation began for which an activity was asked for
        self._first_turns: dict[tuple[str, datetime], float] = {}
        self._timers: Counter[str] = Counter()  # in a row, without an activity between them
        self._activities: Counter[str] = Counter()
        world.hub.committed = self._committed

    def _committed(self, one: Instance, events: Sequence[Event], scheduled: Sequence[Command]) -> None:
        """See what becomes part of a history."""
        now = self._world.api.now
        for event in events:
            if event["EventType"] == EventType.TASK_COMPLETED:
                self._told.setdefault((one.execution_id, event["TaskScheduledId"]), now)
        began = self._first_turns.setdefault((one.instance_id, one.started), now)
        for command in scheduled:
            self._begun[one.execution_id, command.task_id] = began
            self._timers[one.instance_id] = self._timers[one.instance_id] + 1 if command.kind == "timer" else 0
        if self._timers[one.instance_id] > 1:
            self._world.violated(f"{one.instance_id} sleeps again without having done anything")
        self._activities[one.instance_id] += sum(command.kind == "activity" for command in scheduled)
        if self._activities[one.instance_id] > _MOST_ACTIVITIES:
            raise RuntimeError(f"{one.instance_id} never comes to rest")  # and goes no further

    def judge(self, callers: Sequence[Caller]) -> None:
        """Find out whether all that must hold does."""
        for worker in self._world.workers:
            if worker.idle and (places := worker.pacer._limits.under_way):
                self._world.violated(f"{places} calls are under way for the pacer, and none for the API")
        boxes: dict[Task, list[float]] = {}
        for send in (send for sends in self._world.api.sends.values() for send in sends):
            if send.task in self._world.hub.failed:
                send.status = None  # for all that the history knows
            if send.task and not self._twice(send.task):
                boxes.setdefault(send.task, []).append(send.at)
        if any(max(times) - min(times) > TIME_BOX + 0.1 for times in boxes.values()):
            self._world.violated("an activity begins calls for longer than it may")
        room = self._world.settings["BATCH_MAX_BYTES"]
        if room and self._world.hub.largest > int(room):
            self._world.violated(f"{self._world.hub.largest} bytes in a message, of {room}")
        for caller in callers:
            if not caller.id:
                continue  # it was not taken
            if caller.id in self._world.front.overrun:
                continue  # the engine has no start that leaves alone what has ended
            self._judge_operation(caller)
            self._judge_events(caller)
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

    def _judge_events(self, caller: Caller) -> None:
        """What ended by itself was told under one id, as it ended, and never before."""
        one = self._world.hub.instances.get(caller.id)
        told = [(event, early) for event, early in self._world.told if event["subject"] == caller.id]
        if any(early for _, early in told):
            self._world.violated(f"the end of {caller.name} is told before it has ended")
        if one is None or one.status != "Completed" or not self._world.settings["OPERATIONS_EVENTS_URL"]:
            return
        ended = "cancelled" if one.output.get("tally", {}).get("cancelled") else "completed"
        state = one.output["outcome"]["outcome"] if "outcome" in one.output else ended
        last = {event["id"]: event for event, _ in told if datetime.fromisoformat(event["time"]) >= one.started}
        if [event["data"]["state"] for event in last.values()] != [state]:
            self._world.violated(f"{caller.name} is {state}, and is told as {list(last.values())}")

    def _judge_record(self, caller: Caller, number: str) -> None:
        world, api = self._world, self._world.api
        sends = api.sends[number]
        doubled = caller.restarted or any(self._twice(send.task) for send in sends)  # who knows nothing of each other
        copies = api.copies[number]
        if len(copies) > 1:
            doubted = any(send.status in DOUBTFUL and send.at < copies[1] for send in sends)
            allowed = api.keys != "honoured" and (doubted or doubled or caller.terminated)
            if api.keys == "forgotten" and copies[1] - copies[0] < DAY:
                allowed = False
            # One run was told of a refusal, another one of the same activity stored the record.
            allowed = allowed or (doubled and any(send.status in REFUSALS for send in sends))
            if not allowed:
                world.violated(f"{number} is stored {len(copies)} times")
        for send, others in ((send, sends[:position]) for position, send in enumerate(sends)):
            self._judge_send(caller, send, others)

    def _judge_send(self, caller: Caller, send: Send, before: Sequence[Send]) -> None:
        world = self._world
        if self._twice(send.task) or caller.restarted:
            return
        begun_at = world.hub.begun_at[send.task] if send.task else send.at
        started = self._begun.get(send.task or ("", 0), begun_at)
        over = begun_at > started + float(world.settings["DELIVERY_DEADLINE"]) + 1.0
        renewed = bool(before) and before[-1].key != send.key  # the other half of an attempt
        if over and not renewed and not caller.suspended:  # what was asked for before begins with the resume
            self._sent_wrongly(send, "after the deadline")
        for other in before:
            known = (other.status or 0) // 100 == 2 and not self._twice(other.task) and other.at > caller.knew_at
            if known and not caller.terminated and begun_at > self._told.get(other.task, begun_at):
                self._sent_wrongly(send, "after a yes")
        if any(begin < begun_at < end for begin, end in caller.quiet):
            self._sent_wrongly(send, "when nothing more is to be begun")
        doubtful = [one for one in before if one.status in DOUBTFUL and one.reached and one.at > caller.knew_at]
        doubtful = [one for one in doubtful if one.status is None or not one.refused]
        if any(one.key != send.key and not self._twice(one.task) for one in doubtful):
            self._sent_wrongly(send, "under another key, though it may be stored")
        if caller.terminated:
            return  # what was under way then went on beside a retry
        before = [other for other in before if other.at > caller.retried_at and other.status not in REFUSALS]
        if not before or any(self._twice(other.task) for other in before):
            return
        not_before = max((other.not_before for other in before if other.status is not None), default=0.0)
        if (last := before[-1]).task != send.task:
            first, most = (float(world.settings[f"DELIVERY_{name}_DELAY"]) for name in ("FIRST", "MAX"))
            tried = {other.task for other in before} - world.hub.failed  # a round that an activity fails is none
            idle = 1 if caller.batch and len(caller.items) > 1 else max(1, len(tried))
            not_before = max(not_before, last.at + 0.8 * min(first * 2.0 ** (idle - 1), most) - 1.0)
        if send.at < not_before:
            self._sent_wrongly(send, f"before {not_before - BEGINNING:.1f}")

    def _sent_wrongly(self, send: Send, why: str) -> None:
        self._world.violated(f"{send.number} is sent at {send.at - BEGINNING:.1f}, {why}")

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
            known_as = id_of(item.numbers[-1])
            if item.told.get("id", known_as if "warning" in item.told else None) != known_as:
                world.violated(f"{item.numbers[-1]} is told as {item.told.get('id')}")
        elif any(copies.values()) and not (item.told.get("may_be_stored") or caller.operation.get("may_be_stored")):
            world.violated(f"{item.numbers} is told {outcome}, and is there: {copies}")
        refused = any(send.refused and (send.at > caller.retried_at or send.status is None) for send in sends)
        if outcome == "rejected" and not refused and not item.told.get("may_be_stored"):
            world.violated(f"{item.numbers} is told rejected, and was not")
        doubtful = any(send.status in DOUBTFUL and send.reached and send.at > caller.knew_at for send in sends)
        if item.told.get("may_be_stored") and not doubtful and not caller.terminated and not world.hub.failed:
            world.violated(f"{item.numbers} is told {outcome} in doubt, for no reason")
