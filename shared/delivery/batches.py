"""A batch: many records under one operation, as its orchestration keeps them, and as callers see it."""

import hashlib
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shared.business import NewBusiness
from shared.settings import DeliverySettings

from .bounds import BATCH_LIMIT, size, stored
from .chunks import Counts, Indexes, Revisions
from .outcomes import Deferred, Rejected, may_be_stored
from .records import accepted, as_sent, fingerprint_of
from .results import (
    LEAST,
    ItemInvalid,
    ItemOutcome,
    ItemPending,
    ItemPosted,
    counted,
    read_line,
    write_json,
    write_line,
)

MAX_RECORDS = 10_000
PAGE_SIZE = 100

MOST_GROUPS = 50
"""How many groups of waiting records a batch has at most."""

_RESULTS_LIMIT = 2_000_000
"""What the results of a batch may take together of the task hub, in addition to `LEAST` for each."""

_GROUP_SIZE, _OVERHEAD = 400, 1_000
"""What a group of waiting records may take, and what all that a batch learns beside records, results and these."""


class Waiting(BaseModel):
    """Records that wait for another attempt, deferred for the same reason.

    Attributes:
        until: UTC; when they are due.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    indexes: Indexes
    reason: str
    may_be_stored: bool = False
    until: datetime


class Tally(BaseModel):
    """How many records of a batch are where."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    total: int
    posted: int = 0
    rejected: int = 0
    deferred: int = 0
    gave_up: int = 0
    cancelled: int = 0
    pending: int = 0
    invalid: int = 0


class BatchProgress(BaseModel):
    """How far a batch is.

    Attributes:
        round: Number of the round under way or last finished, from 1.
        rate: Records settled per second since the start.
        started_at: UTC; when the first round began, or after a retry, the first one since. None before that.
        next_round_at: UTC; None unless the batch waits for its next round.
        expected_end_at: UTC, when each record will have been tried if all goes on as in this round; None if nothing is
            under way, or nobody can tell yet.
        warnings: How many of the posted records have a warning.
        may_be_stored: How many of the others the API may have all the same.
        reason: Why records are deferred or were given up; of several reasons the most frequent.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    tally: Tally
    round: int
    rate: float
    started_at: datetime | None = None
    next_round_at: datetime | None = None
    expected_end_at: datetime | None = None
    warnings: int = 0
    may_be_stored: int = 0
    reason: str | None = None

    def __str__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.tally if count)
        counts += "".join(
            f", {count} {what}"
            for count, what in ((self.warnings, "warnings"), (self.may_be_stored, "may be stored"))
            if count
        )
        due = f", next round at {self.next_round_at:%Y-%m-%d %H:%M:%S} UTC" if self.next_round_at else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"round {self.round}, {counts}, {self.rate:g} records/s{due}{reason}"


class BatchStatus(BatchProgress):
    """Custom status of a batch's orchestration, and in the end its output.

    Attributes:
        mark: Of the start, as in `Batch`.
        cancelling: Whether the orchestration has seen that somebody cancels, and waits for what is under way.
    """

    mark: Annotated[str, Field(exclude_if=operator.not_)] = ""
    cancelling: Annotated[bool, Field(exclude_if=operator.not_)] = False


class Batch(BaseModel):
    """Input of a batch's orchestrator.

    Attributes:
        records: As they were accepted, a line of JSON each, in the order in which the caller sent them; an empty one in
            the place of a record that is invalid, or that the API has.
        results: A line for each record, in the same order (`results.read_line`); an empty one if it is not settled.
        counts: Of the results.
        waiting: The records that were deferred.
        doubts: Those of the others without a result that an earlier attempt may have brought to the API.
        revisions: Of the keys of records that the API has refused before.
        fingerprint: Of what the caller sent first; tells a repeated request from a reused `Idempotency-Key`.
        key: What the records' idempotency keys begin with: the id of the first instance with this input, which an
            operator may have started again under another id.
        instance: Id of the instance for which this was written: an operator may have started another one with it.
        mark: Tells this start of the operation from others of the same id.
        kept: How much is kept of what the API tells about a record, on average (`bounds.size`).
        round: Number of the round that comes next or is under way, from 1.
        idle_rounds: How many rounds before this one, in a row, have settled nothing.
        due_at: UTC; what the timer before the round was set to, which may have fired a second early. None without one.
        started_at: UTC, in durable time; None before the first round.
        settled_before: How many records were settled before that.
        reason: Why records were given up.
        announced: The path of the operations, which the event about the end tells; empty if nobody is told of the end.
        ended_at: UTC, in durable time; when it was decided that nothing more is sent, if the end is announced. A round
            that only tells the end begins anew if a worker dies, so that its own beginning would name no end for good.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    records: str
    results: str
    counts: Counts = Counts()
    waiting: tuple[Waiting, ...] = ()
    doubts: Indexes = ()
    revisions: Revisions = ()
    settings: DeliverySettings
    fingerprint: str
    key: str = ""
    instance: str = ""
    mark: str = ""
    kept: int = BATCH_LIMIT
    round: int = 1
    idle_rounds: int = 0
    due_at: datetime | None = None
    started_at: datetime | None = None
    settled_before: int = 0
    reason: str | None = None
    announced: Annotated[str, Field(exclude_if=operator.not_)] = ""
    ended_at: datetime | None = None

    @classmethod
    def of(cls, records: Iterable[NewBusiness | ItemInvalid], settings: DeliverySettings) -> "Batch":
        """A batch of which nothing has been posted yet; invalid records keep their places and are never posted."""
        lines, results, sent = list[str](), list[str](), list[str]()
        for record in records:  # which are read one by one: models take several times as much memory as lines
            if isinstance(record, ItemInvalid):
                lines.append("")
                results.append(write_line(record))
            else:
                lines.append(write_json(accepted(record)))
                results.append("")
                sent.append(as_sent(record))
        fingerprint, total = fingerprint_of(sent), len(lines)
        if len(sent) < total:  # the same records in other places are another batch
            valid = [index for index, line in enumerate(lines) if line]
            fingerprint = hashlib.sha256(f"{fingerprint}:{valid}:{total}".encode()).hexdigest()
        return cls(
            records="\n".join(lines),
            results="\n".join(results),
            counts=Counts(invalid=total - len(sent)),
            settings=settings,
            fingerprint=fingerprint,
            kept=min(BATCH_LIMIT, LEAST + _RESULTS_LIMIT // total),
        )

    @property
    def total(self) -> int:
        """How many records there are, with those that are invalid."""
        return self.results.count("\n") + 1

    @property
    def lines(self) -> list[str]:
        """The records, by index."""
        return self.records.split("\n")

    @property
    def result_lines(self) -> list[str]:
        """The results, by index."""
        return self.results.split("\n")

    @property
    def outcomes(self) -> list[ItemOutcome]:
        """What has become of each record, by index."""
        deferred = {
            index: Deferred(reason=one.reason, may_be_stored=one.may_be_stored)
            for one in self.waiting
            for index in one.indexes
        }
        doubts = set(self.doubts)
        return [
            read_line(line) if line else deferred.get(index) or ItemPending(may_be_stored=index in doubts)
            for index, line in enumerate(self.result_lines)
        ]

    @property
    def skipped(self) -> Iterator[tuple[int, ItemInvalid]]:
        """The invalid records."""
        if self.counts.invalid:
            for index, line in enumerate(self.result_lines):
                if line and isinstance(result := read_line(line), ItemInvalid):
                    yield index, result

    @property
    def least_size(self) -> int:
        """The bytes that the task hub has to take at once, however little is kept of what the API tells."""
        unsettled = self._unsettled
        return size(stored(self)) + LEAST * unsettled + _GROUP_SIZE * min(unsettled, MOST_GROUPS) + _OVERHEAD

    def within(self, limit: int) -> "Batch":
        """The batch, keeping so little of what the API tells that it never takes more than `limit` bytes."""
        kept = LEAST + (limit - self.least_size) // max(self._unsettled, 1)
        return self.model_copy(update={"kept": min(kept, self.kept)})

    @property
    def _unsettled(self) -> int:
        return self.result_lines.count("")

    def begun(self, instance_id: str, now: datetime) -> "Batch":
        """The batch at the beginning of a round.

        If an operator has started it again under another id, in whatever round, the first instance may have brought
        any record there that was not settled by then.
        """
        written_for = self.instance or self.key or instance_id
        if written_for == instance_id and self.started_at is not None:
            return self
        update = {"started_at": now, "settled_before": self.counts.settled, "instance": instance_id}
        begun = self.model_copy(update=update | {"key": self.key or instance_id})
        return begun if written_for == instance_id else begun.doubted()

    def doubted(self) -> "Batch":
        """The batch if nobody knows what became of the records that are not settled."""
        waiting = tuple(one.model_copy(update={"may_be_stored": True}) for one in self.waiting)
        known = {index for one in waiting for index in one.indexes}
        doubts = tuple(i for i, line in enumerate(self.result_lines) if not line and i not in known)
        return self.model_copy(update={"waiting": waiting, "doubts": doubts})

    def again(self, corrections: Mapping[int, NewBusiness], *, not_stored: bool = False) -> "Batch":
        """The batch anew: everything that was not posted, under the same keys but for what the API does not know.

        A record that it has certainly refused, and one that is corrected, gets another key.

        Args:
            corrections: Records to send instead of others, by index, which the API does not have.
            not_stored: Whether the caller knows that the API has nothing of what it may have for all that is known, nor
                what is corrected of those records that have a warning.
        """
        records, results, revisions = self.lines, self.result_lines, dict(self.revisions)
        counts: Counter[str] = Counter()
        doubts: list[int] = []
        for index, outcome in enumerate(self.outcomes):
            mistaken_for_posted = getattr(outcome, "warning", None) and not_stored and index in corrections
            still_posted = isinstance(outcome, ItemPosted) and not mistaken_for_posted
            if still_posted or (isinstance(outcome, ItemInvalid) and index not in corrections):
                counts.update(counted(outcome))
                continue
            if may_be_stored(outcome) and not not_stored:
                doubts.append(index)
            elif isinstance(outcome, Rejected) or (index in corrections and not isinstance(outcome, ItemInvalid)):
                revisions[index] = revisions.get(index, 0) + 1
            if index in corrections:
                records[index] = write_json(accepted(corrections[index]))
            results[index] = ""
        return self.model_copy(
            update={
                "records": "\n".join(records),
                "results": "\n".join(results),
                "counts": Counts.model_validate(counts),
                "waiting": (),
                "doubts": tuple(doubts),
                "revisions": tuple(revisions.items()),
                "round": 1,
                "idle_rounds": 0,
                "due_at": None,
                "started_at": None,
                "reason": None,
                "ended_at": None,
            }
        )
