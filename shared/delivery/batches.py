"""What the orchestrators of a batch decide, as pure functions: how it is divided, and what follows each round.

A batch is posted in rounds. The first takes every record, each later one those that the one before deferred, after a
delay as for a single record. A round is divided into sections, a large section into smaller ones, until one is small
enough to be posted in waves; so no orchestration has more than a few hundred events in its history.
"""

import hashlib
import operator
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import batched
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from shared.business import NewBusiness, Record
from shared.settings import DeliverySettings

from .attempts import Attempt
from .bounds import BATCH_LIMIT, bounded, cut, size, stored
from .judgement import FAILED
from .outcomes import AttemptOutcome, Cancelled, Deferred, GaveUp, Posted, Rejected, doubted, may_be_stored
from .reading import HIDDEN, UNTOLD
from .records import accepted, fingerprint_of
from .retries import retry_delay

MAX_RECORDS = 10_000
PAGE_SIZE = 100

_REASON_LIMIT = 200
_SECTION_SIZE = 100
_SECTIONS = 20


class Item(BaseModel):
    """One record of a batch, by its place in what the caller sent (from 0)."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    index: int
    record: Record


class ItemPosted(BaseModel):
    """The API has the record under this id; a `warning` tells what of its answer could not be read."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["posted"] = "posted"
    id: str | None = None
    warning: str | None = None


class ItemPending(BaseModel):
    """No attempt at the record has ended that is known of.

    Attributes:
        may_be_stored: Whether the API may have it all the same: the batch was cut short, or is one started again.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["pending"] = "pending"
    may_be_stored: Annotated[bool, Field(exclude_if=operator.not_)] = False


class ItemInvalid(BaseModel):
    """The record was skipped, since it is not valid; this is the first of its errors.

    Attributes:
        line: The physical line on which the record begins, from 1; None if it was sent in a JSON array.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["invalid"] = "invalid"
    line: int | None = None
    field: str = ""
    detail: str = ""


type ItemOutcome = Annotated[
    ItemPosted | ItemPending | ItemInvalid | Rejected | Deferred | GaveUp | Cancelled, Field(discriminator="outcome")
]


class ItemResult(BaseModel):
    """What has become of one record of a batch so far."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    index: int
    result: ItemOutcome


_RESULTS: TypeAdapter[list[ItemResult]] = TypeAdapter(Annotated[list[ItemResult], UNTOLD], config=HIDDEN)


def read_results(returned: object) -> list[ItemResult]:
    """Read what the orchestrator of a section returned."""
    return _RESULTS.validate_python(returned)


class Section(BaseModel):
    """Input of the orchestrator that posts a part of a round.

    Attributes:
        key: What the idempotency key of every record begins with: the batch's instance id.
        parallelism: How many records are under way at once.
        kept: How much is kept of what the API told about a record (`bounds.size`).
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    key: str
    items: tuple[Item, ...]
    parallelism: int
    kept: int = BATCH_LIMIT

    @classmethod
    def read(cls, given: object) -> "Section":
        """Read the input of an orchestration; a sub-orchestration may get it as a JSON text."""
        return cls.model_validate_json(given) if isinstance(given, str) else cls.model_validate(given)

    @property
    def small(self) -> bool:
        """Whether the section is posted by one orchestration, without being divided."""
        return len(self.items) <= _SECTION_SIZE

    def divide(self) -> Iterator["Section"]:
        """Cut a section that is not small into at most twenty parts, in order."""
        for items in divide(self.items):
            yield self.model_copy(update={"items": items})

    def waves(self) -> Iterator[tuple[Item, ...]]:
        """Cut a small section into what is under way at once, in order."""
        return batched(self.items, self.parallelism, strict=False)

    def attempt(self, item: Item) -> Attempt:
        """The same for a record in every round, on every replay and after every restart."""
        return Attempt(record=item.record, idempotency_key=f"{self.key}-{item.index}")

    def failed(self) -> list[ItemResult]:
        """What is known of the records if the orchestration that posts them has failed: nothing."""
        unknown = Deferred(reason="a part of the batch failed", may_be_stored=FAILED.may_be_stored)
        return [ItemResult(index=item.index, result=unknown) for item in self.items]

    def result(self, item: Item, outcome: AttemptOutcome) -> ItemResult:
        """What is kept of a record's outcome: of one that was posted its id, since the caller has the record."""
        match outcome:
            case Posted():
                warning = outcome.warning and cut(outcome.warning, _REASON_LIMIT - size(outcome.id))
                return ItemResult(index=item.index, result=ItemPosted(id=outcome.id, warning=warning))
            case Rejected():
                return ItemResult(index=item.index, result=bounded(outcome, self.kept))
            case Deferred():
                # What the API told matters once it has refused a record, or if there is only one.
                brief = {"problem": None, "excerpt": None, "reason": cut(outcome.reason, _REASON_LIMIT)}
                return ItemResult(index=item.index, result=outcome.model_copy(update=brief))


def divide[T](items: Sequence[T]) -> Iterator[tuple[T, ...]]:
    """Cut into at most twenty parts of equal size, a multiple of the size of a small section."""
    sections = -(-len(items) // _SECTION_SIZE)
    return batched(items, _SECTION_SIZE * -(-sections // _SECTIONS), strict=False)


_LONGEST_WAIT = Deferred(reason="." * (_REASON_LIMIT - 6), retry_after=3600.0, may_be_stored=True)


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
    """How far a batch is; the custom status of its orchestration.

    Attributes:
        round: Number of the round under way or last finished, from 1.
        rate: Records settled per second since the start.
        next_round_at: UTC; None unless the batch waits for its next round.
        section: Instance id of the part that is being posted.
        warnings: How many of the posted records have a warning.
        may_be_stored: How many of the others the API may have all the same.
        cancelling: Whether the orchestration has seen that somebody cancels, and waits for what is under way.
        reason: Why records are deferred or were given up; of several reasons the most frequent.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    tally: Tally
    round: int
    rate: float
    next_round_at: datetime | None = None
    section: str | None = None
    warnings: int = 0
    may_be_stored: int = 0
    cancelling: Annotated[bool, Field(exclude_if=operator.not_)] = False
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


class Batch(BaseModel):
    """Input of a batch's orchestrator and, with every record settled, its output.

    Attributes:
        items: The records still to be posted.
        results: Of all records, in the order in which the caller sent them.
        round: Number of the round that comes next or is under way, from 1.
        started_at: UTC, in durable time; None before the first round.
        key: What the records' idempotency keys begin with: the id of the first instance with this input, which an
            operator may have started again under another id.
        kept: How much is kept of what the API told about a record (`bounds.size`).
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    items: tuple[Item, ...]
    results: Annotated[tuple[ItemOutcome, ...], UNTOLD]
    settings: DeliverySettings
    fingerprint: str
    round: int = 1
    started_at: datetime | None = None
    key: str = ""
    kept: int = BATCH_LIMIT

    @classmethod
    def of(cls, records: Sequence[NewBusiness | ItemInvalid], settings: DeliverySettings) -> "Batch":
        """A batch of which nothing has been posted yet; invalid records keep their places and are never posted."""
        valid = {index: record for index, record in enumerate(records) if not isinstance(record, ItemInvalid)}
        items = tuple(Item(index=index, record=accepted(business)) for index, business in valid.items())
        results = tuple(record if isinstance(record, ItemInvalid) else ItemPending() for record in records)
        fingerprint = fingerprint_of(valid.values())
        if len(valid) < len(records):  # the same records in other places are another batch
            fingerprint = hashlib.sha256(f"{fingerprint}:{list(valid)}:{len(records)}".encode()).hexdigest()
        return cls(items=items, results=results, settings=settings, fingerprint=fingerprint)

    @property
    def stored_size(self) -> int:
        """The bytes that the task hub has to take at once: of the batch as it is, had all of its records been deferred.

        Each record then has a result with a reason of the greatest length.
        """
        results = tuple(result if isinstance(result, ItemInvalid) else _LONGEST_WAIT for result in self.results)
        return size(stored(self.model_copy(update={"results": results})))

    def within(self, limit: int) -> "Batch":
        """The batch, keeping so little of what the API tells that it never takes more than `limit` bytes."""
        spare = (limit - self.stored_size) // len(self.results)
        return self.model_copy(update={"kept": min(size(stored(_LONGEST_WAIT)) + spare, BATCH_LIMIT)})

    def begun(self, instance_id: str, now: datetime) -> "Batch":
        """The batch at the beginning of a round.

        If an operator has started it again under another id, the first instance may have brought any record there.
        """
        again = self.round == 1 and self.key not in {"", instance_id}
        results = self.cut_short().results if again else self.results
        return self.model_copy(update={"started_at": self.started_at or now, "results": results})

    def cut_short(self) -> "Batch":
        """The batch as it is known to be when nobody knows what was under way."""
        results = tuple(
            doubted(result, before=True) if isinstance(result, ItemPending | Deferred) else result
            for result in self.results
        )
        return self.model_copy(update={"results": results})

    def sections(self, instance_id: str) -> Iterator[tuple[str, Section]]:
        """The parts of this round, with the instance id for each."""
        for number, items in enumerate(divide(self.items)):
            section = Section(
                key=self.key or instance_id, items=items, parallelism=self.settings.parallelism, kept=self.kept
            )
            yield f"{instance_id}-r{self.round}-s{number}", section

    def with_results(self, results: Sequence[ItemResult]) -> "Batch":
        """The batch after some of its records were tried."""
        known = list(self.results)
        for item in results:
            known[item.index] = doubted(item.result, before=may_be_stored(known[item.index]))
        return self.model_copy(update={"results": tuple(known)})

    def after_round(self, now: datetime, instance_id: str) -> tuple["Batch", datetime | None]:
        """Decide what follows a round: the batch with its next round and when that is due, or with its end and None."""
        deferred = {index: result for index, result in enumerate(self.results) if isinstance(result, Deferred)}
        if not deferred:
            return self.model_copy(update={"items": ()}), None
        retry_after = max((result.retry_after or 0.0 for result in deferred.values()), default=0.0)
        due = now + retry_delay(retry_after, attempt=self.round, instance_id=instance_id, settings=self.settings)
        if due > (self.started_at or now) + timedelta(seconds=self.settings.deadline):
            given_up = [ItemResult(index=i, result=GaveUp.after(result)) for i, result in deferred.items()]
            return self.with_results(given_up).model_copy(update={"items": ()}), None
        items = tuple(item for item in self.items if item.index in deferred)
        return self.model_copy(update={"items": items, "round": self.round + 1}), due

    def cancelled(self, *, before_round: bool = False) -> "Batch":
        """The end of a batch that somebody cancelled: what is not settled will not be sent again.

        Args:
            before_round: Whether that was while the batch waited for its next round.
        """
        results = tuple(
            Cancelled.after(result)
            if isinstance(result, Deferred)
            else Cancelled(reason="not sent", may_be_stored=result.may_be_stored)
            if isinstance(result, ItemPending)
            else result
            for result in self.results
        )
        return self.model_copy(update={"items": (), "results": results, "round": self.round - before_round})

    @property
    def ended_unsettled(self) -> Iterator[GaveUp | Cancelled]:
        """The ends of the records that the API has neither taken nor refused."""
        return (result for result in self.results if isinstance(result, GaveUp | Cancelled))

    def progress(
        self, now: datetime, *, next_round_at: datetime | None = None, section: str | None = None
    ) -> BatchProgress:
        """How far the batch is."""
        counts = Counter[str](result.outcome for result in self.results)
        settled = len(self.results) - counts["pending"] - counts["deferred"] - counts["invalid"]
        reasons = Counter(result.reason for result in self.results if isinstance(result, Deferred | GaveUp))
        seconds = (now - (self.started_at or now)).total_seconds()
        return BatchProgress(
            tally=Tally(total=len(self.results), **counts),
            round=self.round - (next_round_at is not None),
            rate=round(settled / seconds, 1) if seconds > 0 else 0.0,
            next_round_at=next_round_at,
            section=section,
            warnings=sum(isinstance(result, ItemPosted) and result.warning is not None for result in self.results),
            may_be_stored=sum(map(may_be_stored, self.results)),
            reason=reasons.most_common(1)[0][0] if reasons else None,
        )
