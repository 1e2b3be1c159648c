"""A task hub in memory, as strict as Microsoft's engine is to the durable client of the app.

It runs no orchestrations: a test says how each instance stands, but for what an orchestrator of this app shows by
itself, one look-up later: that it runs, by which start, and that it is cancelled. What the hub refuses, cuts off, drops
and sends unasked is what the Durable Task extension 3.19.0 was seen to do through azure-functions-durable 1.7.0.
Instances come by their ids, times of creation in whole seconds.
"""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

CUSTOM_STATUS_LIMIT = 16 * 1024
"""Bytes of UTF-16 that the JSON of a custom status may have."""

LARGEST_PAGE = 1_000
"""Instances, of whatever orchestrator, that the engine sends at once, whatever it is asked for."""

_LONG_AGO, _NEVER = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


class RuntimeStatus(Enum):
    """Names and meaning as in the durable SDK."""

    Running = "Running"
    Completed = "Completed"
    Failed = "Failed"
    Terminated = "Terminated"
    Pending = "Pending"
    Suspended = "Suspended"

    @property
    def ended(self) -> bool:
        return self in {RuntimeStatus.Completed, RuntimeStatus.Failed, RuntimeStatus.Terminated}


def checked_custom_status(custom_status: Any) -> Any:
    """The custom status, if the engine would take it; a larger one makes it fail the orchestration."""
    size = len(json.dumps(custom_status, ensure_ascii=False, separators=(",", ":")).encode("utf-16-le"))
    assert size <= CUSTOM_STATUS_LIMIT, f"the custom status has {size} bytes of UTF-16"
    return custom_status


@dataclass
class Status:
    """What the SDK tells of an instance; false if there is none."""

    instance_id: str | None
    input_: Any = None
    runtime_status: RuntimeStatus = RuntimeStatus.Running
    custom_status: Any = None
    output: Any = None
    name: str | None = "PostBusinessOrchestrator"
    created_time: datetime | None = datetime(2026, 1, 1, tzinfo=UTC)
    last_updated_time: datetime | None = datetime(2026, 1, 1, tzinfo=UTC)

    def __post_init__(self) -> None:
        checked_custom_status(self.custom_status)

    def __bool__(self) -> bool:
        return self.created_time is not None


NONE = Status(None, created_time=None)


@dataclass
class TaskHub:
    """The durable client, and the instances that it finds.

    Attributes:
        instances: By their ids.
        blind_look_ups: How many of the next look-ups find nothing, as if they had come a moment earlier.
        asked_for: The ids that were looked up.
        largest_page: How many instances a page of a listing has at most, though more were asked for.
        requests: How many requests listings took.
        sent: How many instances they brought.
        events: Instance and name of each event that was taken.
        deaf: How many of the next events no orchestrator will see, as those that come at `continue_as_new`.
        overtaken_by: The mark of another start, at the same instant as the next one, that counts in its place.
    """

    instances: dict[str, Status] = field(default_factory=dict)
    blind_look_ups: int = 0
    asked_for: list[str] = field(default_factory=list)
    largest_page: int = LARGEST_PAGE
    requests: int = 0
    sent: int = 0
    events: list[tuple[str, str]] = field(default_factory=list)
    deaf: int = 0
    overtaken_by: str | None = None

    def add(self, status: Status, started_with: Any = None) -> None:
        """Have an instance there; its input is kept as the SDK writes it: as the JSON of a JSON text."""
        assert status.instance_id is not None
        started = status if started_with is None else replace(status, input_=json.dumps(json.dumps(started_with)))
        self.instances[status.instance_id] = started

    async def start_new(self, orchestrator: str, instance_id: str, started_with: Any, /) -> str:
        """Start an instance, also in place of one that has ended, but never of one that runs."""
        there = self.instances.get(instance_id)
        if there is not None and not there.runtime_status.ended:
            raise Exception(f"An Orchestration instance with the status {there.runtime_status.name} already exists.")  # noqa: TRY002
        if self.overtaken_by is not None:
            started_with = {**started_with, "mark": self.overtaken_by}
            self.overtaken_by = None
        self.add(Status(instance_id, runtime_status=RuntimeStatus.Pending, name=orchestrator), started_with)
        return instance_id

    async def get_status(self, instance_id: str, *, show_input: bool = False) -> Status:
        """Look an instance up, with its input if it is asked for."""
        self.asked_for.append(instance_id)
        if self.blind_look_ups:
            self.blind_look_ups -= 1
            return NONE
        found = self.instances.get(instance_id, NONE)
        self._go_on(found)
        return found if show_input else replace(found, input_=None)

    def _go_on(self, status: Status) -> None:
        """Have the instance show from the next look-up on what its orchestrator shows at once."""
        shown = status.custom_status or {}
        if (
            status.input_
            and status.runtime_status is RuntimeStatus.Pending
            and status.name == "PostBusinessOrchestrator"
        ):
            shown = {"attempt": 0, "mark": json.loads(json.loads(status.input_)).get("mark", "")}
        elif status.runtime_status is RuntimeStatus.Running and (status.instance_id, "Cancel") in self.events:
            shown = {**shown, "cancelling": True}
        if shown and status.instance_id is not None:
            running = replace(status, runtime_status=RuntimeStatus.Running, custom_status=shown)
            if not status.runtime_status.ended and status.runtime_status is not RuntimeStatus.Suspended:
                self.instances[status.instance_id] = running

    async def get_status_by(
        self,
        created_time_from: datetime | None = None,
        created_time_to: datetime | None = None,
        runtime_status: Sequence[Enum] | None = None,
        instance_id_prefix: str | None = None,
    ) -> list[Status]:
        """All instances that match, parts of batches included, without their inputs but with their outputs."""
        found = self._matching(created_time_from, created_time_to, runtime_status, instance_id_prefix or "")
        self.requests += max(1, -(-len(found) // LARGEST_PAGE))
        self.sent += len(found)
        return found

    async def pages(
        self,
        first: int,
        created_time_from: datetime,
        created_time_to: datetime | None = None,
        runtime_status: Sequence[Enum] | None = None,
    ) -> AsyncGenerator[list[Status]]:
        """All of them by their ids, which say nothing about their times, page by page."""
        assert 1 <= first <= LARGEST_PAGE
        left = self._matching(created_time_from, created_time_to, runtime_status, "")
        page: list[Status] | None = None
        while page is None or left:
            top = min(first or LARGEST_PAGE, self.largest_page)
            page, left = left[:top], left[top:]
            first = max(0, first - len(page))
            self.requests += 1
            self.sent += len(page)
            yield page

    def _matching(
        self, begin: datetime | None, end: datetime | None, runtime_status: Sequence[Enum] | None, prefix: str
    ) -> list[Status]:
        names = {status.name for status in runtime_status or RuntimeStatus}
        begin, end = begin or _LONG_AGO, end or _NEVER
        return [
            replace(status, input_=None, created_time=created.replace(microsecond=0))
            for instance_id, status in sorted(self.instances.items())
            if instance_id.startswith(prefix)
            and (created := status.created_time) is not None
            and begin <= created <= end
            and status.runtime_status.name in names
        ]

    async def purge_instance_history(self, instance_id: str) -> None:
        """Delete an instance; the SDK raises for one that has not ended, and is content if there is none."""
        status = self.instances.get(instance_id)
        if status is not None and not status.runtime_status.ended:
            raise Exception("The operation failed with an unexpected status code 412")  # noqa: TRY002
        self.instances.pop(instance_id, None)

    async def raise_event(self, instance_id: str, event_name: str, event_data: Any = None) -> None:
        """Take an event; the SDK raises what the engine answers with 404 or 410."""
        status = self.instances.get(instance_id)
        if status is None:
            raise Exception(f"No instance with ID {instance_id} found.")  # noqa: TRY002
        if status.runtime_status.ended:
            raise Exception(f"Instance with ID {instance_id} is gone: either completed or failed")  # noqa: TRY002
        if self.deaf:
            self.deaf -= 1
        else:
            self.events.append((instance_id, event_name))
