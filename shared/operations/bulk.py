"""Many operations at once: which ones a caller wants retried or cancelled, and how far that is."""

import hashlib
import json
import operator
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field

from shared.settings import DeliverySettings

from .list_query import ListQuery, Place
from .model import BulkRefusal, BulkStatus, Operation, State
from .problems import RequestError, bad_parameter

STATES: dict[str, tuple[State, ...]] = {
    "retry": ("rejected", "gave_up", "completed", "cancelled", "failed"),
    "cancel": ("pending", "running", "deferred"),
}
"""The states of the operations that can be retried, and cancelled."""

PAGE = 100
"""How many operations are selected at a time, at most."""

_FILTERS = ("state", "since", "until", "warning", "may_be_stored", "reason")
_BESIDE_THEM = ("dry_run", "code", "clientId", "subscription-key")  # all but the first are for hosts and gateways
_MOST_FAILURES = 20
_MARGIN = timedelta(minutes=1)  # the clock of the task hub may be another one
_LATE = "has not shown in ten minutes that it has begun again, or that it is cancelled: look at its state"
_UNREADABLE = "could not be read in the task hub for ten minutes: look at its state"


class Selected(NamedTuple):
    """An operation that is to be retried or cancelled; one that may be large is retried by itself."""

    id: str
    is_large: bool


class Selection(BaseModel):
    """The next operations of the list to which something is to be done; `after` is None at its end."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    operations: tuple[Selected, ...]
    after: Place | None = None


class Changes(BaseModel):
    """What has become of some operations.

    Attributes:
        changed: How many were retried or cancelled.
        refusals: All that could not be.
        left: Those that have not shown in time that they are, and those that there was no time for.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    changed: int
    refusals: tuple[BulkRefusal, ...]
    left: tuple[Selected, ...]


class Bulk(BaseModel):
    """Input of the orchestrator that retries or cancels many operations, and of its activities.

    The list is gone through from the latest operation to the first. What is retried begins anew, and so is not found
    again. A batch whose next round begins gets ahead of where the search is, too: so whoever cancels goes through the
    list again, until nothing more is found, and at last through what has begun anew while that was read.

    Attributes:
        query: Which operations; what is left of the list.
        until: UTC; only those that began before, batches with their first round.
        settings: By which batches are sent again.
        fingerprint: Of what the caller asked for; tells a repeated request from a reused `Idempotency-Key`.
        instance: Id of the operation for which this was written.
        nonce: Tells it from others of that id, which may begin once this one is forgotten.
        selected: Those to go on with.
        listed: Whether the end of the list was reached.
        since: UTC; only those that began, or began anew, then or later.
        began: UTC; when this pass through the list began.
        is_last: Whether it is the one through what has begun during a pass in which nothing was found.
        refused: The ids of those that could not be cancelled, which are left alone in later passes.
        found: How many were changed in this pass.
        failures: How many activities in a row have failed, or come to nothing.
        status: How far all this is.
        announced: The path of the operations, which events about ends tell, also about those that are retried; empty if
            nobody is told of them.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    query: ListQuery
    until: datetime
    settings: DeliverySettings
    fingerprint: str
    instance: str = ""
    nonce: str = ""
    selected: tuple[Selected, ...] = ()
    listed: bool = False
    since: datetime
    began: datetime
    is_last: bool = False
    refused: tuple[str, ...] = ()
    found: int = 0
    failures: int = 0
    status: BulkStatus
    announced: Annotated[str, Field(exclude_if=operator.not_)] = ""

    @classmethod
    def read(cls, action: str, parameters: Mapping[str, str], settings: DeliverySettings, now: datetime) -> Self:
        """Read which operations a caller wants retried or cancelled: of those that are there now.

        Args:
            action: What is wanted, as `STATES` has it.
            parameters: Of the query.
            settings: By which batches are sent again.
            now: UTC.

        Raises:
            RequestError: 400, a parameter is not as expected. That there is no other one is checked, since a filter
                whose name is mistyped would be missed.
        """
        if unknown := sorted(parameters.keys() - {*_FILTERS, *_BESIDE_THEM}):
            known = ", ".join((*_FILTERS, "dry_run"))
            raise RequestError(400, "Invalid parameter", f"expected only {known} in the query, got {unknown[0]}")
        query = ListQuery.read(parameters, now)
        if not query.states or not query.states <= {*STATES[action]}:
            raise bad_parameter("state", f"some of {', '.join(STATES[action])}, separated by commas")
        others = (parameters.get(name) for name in _FILTERS if name != "state")
        asked = json.dumps([action, sorted(query.states), *others])
        coming = now.replace(microsecond=0) + timedelta(seconds=1)
        until = coming if query.until is None else min(query.until, coming)
        return cls(
            query=replace(query, limit=PAGE, until=until if action == "retry" else None),
            until=until,
            since=query.since,
            began=now,
            settings=settings,
            fingerprint=hashlib.sha256(asked.encode()).hexdigest(),
            nonce=uuid.uuid4().hex[:8],
            status=BulkStatus(action=action, filter=query.filter),
        )

    @property
    def mark(self) -> str:
        """The mark of what this has retried, and nothing else."""
        return f"{self.instance}.{self.nonce}"

    def concerns(self, operation: Operation) -> bool:
        """Whether something is to be done to an operation of the list."""
        batch = operation.batch
        began = operation.created_at if batch is None else batch.started_at or operation.created_at
        nothing_left = batch is not None and batch.tally.posted + batch.tally.invalid == batch.tally.total
        wanted = not operation.cancelling if self.status.action == "cancel" else not nothing_left
        return wanted and (began is None or began < self.until) and operation.id not in self.refused

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to be done."""
        return self.status.cancelled or (self.listed and not self.selected)

    def advanced(self, returned: Any, now: datetime) -> Self:
        """Take in what an activity has returned: a selection, or if there was one, what has become of it."""
        if not self.selected:
            selection = Selection.model_validate(returned)
            query, listed = replace(self.query, after=selection.after), selection.after is None
            update: dict[str, Any] = {"query": query, "listed": listed, "selected": selection.operations, "failures": 0}
        else:
            changes, status = Changes.model_validate(returned), self.status
            refusals, left = changes.refusals, changes.left
            failures = 0 if changes.changed or refusals else self.failures + 1
            if failures == _MOST_FAILURES:
                refusals, left, failures = _refused(left, _LATE), (), 0
            update = {"selected": left, "found": self.found + changes.changed, "failures": failures}
            update["status"] = status.counting(changes.changed, refusals)
            update["refused"] = self._left_alone(refusals)
        return self.model_copy(update=update).searched(now)

    def searched(self, now: datetime) -> Self:
        """Have a search that cancels begin again at its end, unless it was about what began during the last one."""
        if not self.finished or self.status.action == "retry" or (self.is_last and not self.found):
            return self
        since = self.since if self.found else max(self.since, self.began - _MARGIN)
        update = {"query": replace(self.query, after=None, since=since), "listed": False, "found": 0}
        return self.model_copy(update=update | {"began": now, "is_last": not self.found})

    def failed(self) -> Self:
        """Take in that an activity has failed. If too many have, one after the other, what is selected is left alone.

        Raises:
            RuntimeError: Nothing is selected, and so the task hub itself cannot be read.
        """
        if self.failures < _MOST_FAILURES:
            return self.model_copy(update={"failures": self.failures + 1})
        if not self.selected:
            raise RuntimeError("the durable state of operations cannot be read")
        refusals = _refused(self.selected, _UNREADABLE)
        update = {"selected": (), "failures": 0, "status": self.status.counting(0, refusals)}
        return self.model_copy(update=update | {"refused": self._left_alone(refusals)})

    def _left_alone(self, refusals: Iterable[BulkRefusal]) -> tuple[str, ...]:
        """The ids of those that are not asked for again; who retries goes through the list only once."""
        return () if self.status.action == "retry" else (*self.refused, *(one.id for one in refusals))

    def cancelled(self) -> Self:
        """Do nothing more."""
        return self.model_copy(update={"status": self.status.model_copy(update={"cancelled": True})})


def _refused(operations: Iterable[Selected], detail: str) -> tuple[BulkRefusal, ...]:
    return tuple(BulkRefusal.of(one.id, detail) for one in operations)
