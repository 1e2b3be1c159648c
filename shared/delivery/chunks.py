"""Many records of a batch, tried by one activity: side by side, within a time box."""

import asyncio
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

import shared.business
from shared.business import BusinessApi
from shared.rest import ApiPausedError

from .attempts import Attempt, try_to_post
from .bounds import cut
from .judgement import FAILED
from .outcomes import AttemptOutcome, Deferred, Posted, doubted, may_be_stored
from .results import REASON_LIMIT, brief, write_lines

TIME_BOX = 20.0
"""Seconds after which an activity begins no other record."""

CALL_DEADLINE = 40.0
"""Seconds that each call may take, so that an activity is over within a minute."""

_WORTH_A_TIMER = 5.0  # seconds of a pause; a shorter one is waited for by the next activity
_MOMENT = 0.1
_SHORTEST_WAIT = 1.0  # seconds after the API has said that it is asked too much
_MOST_REASONS = 20
OTHER_REASONS = "deferred for several reasons, see the app's log"

_log = logging.getLogger("post_business")

type Indexes = tuple[int, ...]
"""Places of records in what the caller sent, from 0."""

type Revisions = tuple[tuple[int, int], ...]
"""How often the idempotency keys of some records were changed, with their indexes."""


class Chunk(BaseModel):
    """Input of the activity: some records of a batch.

    Attributes:
        key: What the idempotency key of every record of the batch begins with.
        indexes: Of these records.
        records: As they were accepted, a line of JSON each, in the order of `indexes`.
        revisions: Of the keys of records that the API has refused before.
        doubts: Which of the records an earlier attempt may have brought to the API.
        width: How many records are under way at once.
        kept: How much is kept of what the API tells about a record, on average (`results.write_lines`).
        number: In its round, from 0; None if it was asked for by an earlier version.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    key: str
    indexes: Indexes
    records: str
    revisions: Revisions = ()
    doubts: Indexes = ()
    width: int = 1
    kept: int
    number: int | None = None

    def attempts(self) -> Iterator[tuple[int, Attempt]]:
        """One for each record, with its index: the same in every round, on every replay and after every restart."""
        revisions = dict(self.revisions)
        for index, line in zip(self.indexes, self.records.split("\n"), strict=True):
            key, revision = f"{self.key}-{index}", revisions.get(index, 0)
            yield index, Attempt(record=json.loads(line), idempotency_key=f"{key}.{revision}" if revision else key)


class Deferral(BaseModel):
    """Records that were deferred for the same reason.

    Attributes:
        retry_after: The API's wish in seconds, if it had one.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    indexes: Indexes
    reason: str
    may_be_stored: bool = False
    retry_after: float | None = None


class Counts(BaseModel):
    """How many records have come to which end; `warnings` and `replayed` are of the posted, `may_be_stored` not."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    posted: int = 0
    rejected: int = 0
    gave_up: int = 0
    cancelled: int = 0
    invalid: int = 0
    warnings: int = 0
    replayed: int = 0
    may_be_stored: int = 0

    @property
    def settled(self) -> int:
        """Records that were sent, or would have been, and will not be sent again."""
        return self.posted + self.rejected + self.gave_up + self.cancelled

    def __add__(self, other: "Counts") -> "Counts":
        return Counts.model_construct(**{name: count + getattr(other, name) for name, count in self})


class Report(BaseModel):
    """What the activity returns. The records that it does not tell of come back untouched.

    Attributes:
        settled: The records whose fate is known.
        results: Of these, a line each (`results.read_line`), in the same order.
        counts: Of these.
        deferred: The records that have to be tried again.
        paused: Seconds for which the API wants nothing, if that is long.
        number: Of the chunk.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    settled: Indexes = ()
    results: str = ""
    counts: Counts = Counts()
    deferred: tuple[Deferral, ...] = ()
    paused: float | None = None
    number: int | None = None


@dataclass(slots=True)
class _Work:
    """A chunk under way."""

    chunk: Chunk
    begin_by: float
    doubts: frozenset[int]
    outcomes: dict[int, AttemptOutcome] = field(default_factory=dict)
    stopped: bool = False
    paused: float | None = None


async def post_records(chunk: Chunk) -> Report:
    """Try to post the records of a chunk; what becomes of each is a value, never an exception.

    A record that the API refuses only for its limits is sent again, if the wait fits into the time box. When the API
    wants nothing for longer than that, the work ends.

    The time is that of the event loop, which the pacer of `business_api` has to go by, too.
    """
    clock = asyncio.get_running_loop().time
    began = clock()
    work = _Work(chunk, began + TIME_BOX, frozenset(chunk.doubts))
    api = shared.business.business_api.with_options(deadline=CALL_DEADLINE, extensions={"begin_by": work.begin_by})
    attempts = chunk.attempts()

    async def lane() -> None:
        for index, attempt in attempts:  # one iterator for all lanes
            if work.stopped or clock() >= work.begin_by:
                return
            await _try(index, attempt, api, work, clock)

    async with asyncio.TaskGroup() as lanes:
        for _ in range(min(chunk.width, len(chunk.indexes))):
            lanes.create_task(lane())
    report = _report(work)
    _log.info(
        "Records of %s: %d settled, %d deferred, %d untouched, %.0f ms",
        chunk.key,
        len(report.settled),
        len(work.outcomes) - len(report.settled),
        len(chunk.indexes) - len(work.outcomes),
        (clock() - began) * 1000,
    )
    return report


async def _try(index: int, attempt: Attempt, api: BusinessApi, work: _Work, clock: Callable[[], float]) -> None:
    """Try to post one record, and write down what becomes of it, unless nothing was sent."""
    doubt = index in work.doubts
    while True:
        try:
            outcome = await try_to_post(attempt, api, clock=clock, posted_level=logging.DEBUG)
        except ApiPausedError as error:
            work.stopped = True
            turned_away = clock() < work.begin_by - _MOMENT  # else it was the time box that has ended
            if turned_away and error.retry_after is not None and error.retry_after > _WORTH_A_TIMER:
                work.paused = error.retry_after
            return
        except Exception as error:  # noqa: BLE001 (whatever it is, it is told of)
            # A bug that one record brings to light is none of the others. Its message may quote the record.
            place = traceback.extract_tb(error.__traceback__)[-1]
            _log.error(
                "Attempt %s failed: %s in %s, line %s",
                *(attempt.idempotency_key, type(error).__name__, place.filename, place.lineno),
            )
            outcome = Deferred(reason=f"a bug: {type(error).__name__}", may_be_stored=FAILED.may_be_stored)
        outcome = doubted(outcome, before=doubt)
        doubt = may_be_stored(outcome)
        work.outcomes[index] = outcome
        if not (isinstance(outcome, Deferred) and outcome.limited):
            return
        wait = max(outcome.retry_after or 0.0, _SHORTEST_WAIT)
        if clock() + wait >= work.begin_by:
            return
        await asyncio.sleep(wait)


def _report(work: _Work) -> Report:
    """Put together what has become of the records."""
    settled = {index: brief(one) for index, one in work.outcomes.items() if not isinstance(one, Deferred)}
    posted = [one for one in work.outcomes.values() if isinstance(one, Posted)]
    return Report(
        settled=tuple(settled),
        results="\n".join(write_lines(list(settled.values()), work.chunk.kept)),
        counts=Counts(
            posted=len(posted),
            rejected=len(settled) - len(posted),
            warnings=sum(one.warning is not None for one in posted),
            replayed=sum(one.replayed for one in posted),
            may_be_stored=sum(map(may_be_stored, settled.values())),
        ),
        deferred=_deferrals({index: one for index, one in work.outcomes.items() if isinstance(one, Deferred)}),
        paused=work.paused,
        number=work.chunk.number,
    )


def _deferrals(outcomes: dict[int, Deferred]) -> tuple[Deferral, ...]:
    """Those deferred for the same reason together; of very many reasons only the first are told."""
    groups: dict[tuple[str, bool, float | None], list[int]] = {}
    reasons: set[str] = set()
    for index, outcome in outcomes.items():
        reason = cut(outcome.reason, REASON_LIMIT)
        if len(reasons) < _MOST_REASONS:
            reasons.add(reason)
        if reason not in reasons:
            reason = OTHER_REASONS
        groups.setdefault((reason, outcome.may_be_stored, outcome.retry_after), []).append(index)
    return tuple(
        Deferral(reason=reason, may_be_stored=doubt, retry_after=retry_after, indexes=tuple(indexes))
        for (reason, doubt, retry_after), indexes in groups.items()
    )
