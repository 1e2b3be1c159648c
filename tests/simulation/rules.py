"""What must hold of every simulated world, whatever has happened in it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from devhost.orchestration import Command, Event, EventType
from shared.delivery.chunks import Chunk
from shared.delivery.results import is_posted

from .api import Send, Task
from .callers import Caller
from .task_hub import START, Instance
from .world import World

DOUBTFUL = frozenset({None, 303, 409, 500, 502, 504})
"""Answers after which a record may be stored."""

_LONGEST_ATTEMPT = 100.0


class Ledger:
    """Follows what the histories say, and judges in the end.

    Args:
        world: Of which it is.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._known: dict[str, float] = {}  # when a history was told that a record is posted, by key
        world.hub.committed = self._committed

    def _committed(self, one: Instance, events: Sequence[Event], _scheduled: Sequence[Command]) -> None:
        """See what a history has been told of."""
        scheduled = {e["EventId"]: e for e in one.history if e["EventType"] == EventType.TASK_SCHEDULED}
        ended = {e["TaskScheduledId"] for e in one.history if e["EventType"] in (EventType.TASK_COMPLETED, EventType.TASK_FAILED)}
        now = (self._world.hub.now - START).total_seconds() + 1000.0
        for event in events:
            if event["EventType"] != EventType.TASK_COMPLETED or event["TaskScheduledId"] in ended:
                continue
            ended.add(event["TaskScheduledId"])
            given = json.loads(scheduled[event["TaskScheduledId"]]["Input"])
            for key in _posted_keys(given, json.loads(event["Result"])):
                self._known.setdefault(key, now)

    def judge(self, callers: Sequence[Caller]) -> None:
        """Find out whether all that must hold does."""
        for caller in callers:
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
            doubted = any(send.status in DOUBTFUL and send.at < copies[1] for send in sends)
            allowed = api.keys != "honoured" and (doubted or doubled or caller.restarted)
            if api.keys == "forgotten" and copies[1] - copies[0] < 86_400:
                allowed = False
            if not allowed:
                world.violated(f"{number} is stored {len(copies)} times")
        for send, others in ((send, sends[:position]) for position, send in enumerate(sends)):
            self._judge_send(caller, send, others)

    def _judge_send(self, caller: Caller, send: Send, before: Sequence[Send]) -> None:
        world, api = self._world, self._world.api
        if self._twice(send.task) or caller.restarted:
            return
        begun_at = world.hub.begun_at[send.task] if send.task else send.at
        if begun_at > self._known.get(send.key, begun_at):
            world.violated(f"{send.number} is sent at {send.at - 1000:.1f} after a yes")
        for begin, end in caller.quiet:
            if begin < send.at < end and not (caller.terminated and begun_at < begin):
                world.violated(f"{send.number} is sent at {send.at - 1000:.1f}, when nothing must be sent")
        doubtful = [one for one in before if one.status in DOUBTFUL and one.reached and one.at > caller.knew_at]
        if any(one.key != send.key and not self._twice(one.task) for one in doubtful):
            world.violated(f"{send.number} is sent under another key, though it may be stored")
        told = [until for at, until in api.not_before.get(send.number, ()) if caller.retried_at < at < send.at]
        if told and send.at < told[-1] and not any(self._twice(other.task) for other in before):
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


def _posted_keys(given: Mapping[str, Any], returned: Mapping[str, Any]) -> list[str]:
    """The keys of the records that an activity has told to be posted."""
    if "idempotency_key" in given:
        return [given["idempotency_key"]] if returned.get("outcome") == "posted" else []
    keys = {index: attempt.idempotency_key for index, attempt in Chunk.model_validate(given).attempts()}
    lines = returned.get("results", "").split("\n")
    return [keys[index] for index, line in zip(returned.get("settled", ()), lines, strict=False) if is_posted(line)]

