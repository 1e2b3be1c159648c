"""What the orchestrator of a batch decides, as pure functions: which records go out next, and what follows a round.

In a round each record is tried that is due: chunk by chunk, several at a time, each by one activity (`chunks`). What
was deferred waits for a later round, by the delays of single records. Between two rounds the orchestration starts anew,
and its input tells what is settled and what is not.
"""

from collections import Counter, deque
from collections.abc import Container, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import NamedTuple

from .batches import MOST_GROUPS, Batch, BatchStatus, Tally, Waiting
from .chunks import OTHER_REASONS, Chunk, Counts, Report
from .judgement import FAILED
from .outcomes import Cancelled, Deferred, GaveUp
from .results import LEAST, counted, is_posted, read_line, write_lines
from .retries import EARLIEST, retry_delay

_CHUNK_RECORDS, _CHUNK_SIZE = 500, 800_000
"""What an activity is given at most, in records, and in about what they take of the task hub (`bounds.size`)."""
_FEWEST = 10
"""Records of a chunk, if there are so many, however little the one before got done."""

_LANE_WIDTH = 10
"""Records that one activity has under way: where more are wanted, more activities run, on several instances."""

_MOST_REPORTS, _LARGEST_HISTORY, _INDEX_SIZE = 100, 500_000, 6
"""Activities and characters of their reports, after which the orchestration starts anew."""

_PATIENCE, _LEAST_PATIENCE = 0.1, timedelta(seconds=2)
"""How much later than its first records a round may begin: a share of their delay."""


class _Deferred(NamedTuple):
    """How a record was deferred.

    Attributes:
        until: UTC; before that the API does not want to see it, or its backoff is not over. None if it has not said so.
        fresh: Whether that was in this round, so that the backoff is still to come.
    """

    reason: str
    may_be_stored: bool
    until: datetime | None
    fresh: bool = True

    def due(self, backoff: datetime) -> datetime:
        """When the record is tried again, if what is fresh waits until `backoff` at least."""
        return max(self.until or backoff, backoff) if self.fresh or self.until is None else self.until


class Round:
    """A round of a batch: what goes out, what has come back, and what follows.

    Args:
        batch: As it stood before the round.
        now: Durable time (UTC).
    """

    def __init__(self, batch: Batch, now: datetime) -> None:
        self._batch = batch
        self._began = now
        self._deadline = (batch.started_at or now) + timedelta(seconds=batch.settings.deadline)
        self._lines = batch.lines
        self._revisions = dict(batch.revisions)
        self._doubts = set(batch.doubts)
        self._counts = batch.counts
        results = batch.result_lines
        self._settled = {index for index, line in enumerate(results) if line}
        self._reports: list[Report] = []
        self._size = 0
        self._ending = False
        self._paused_until: datetime | None = None
        self._deferred: dict[int, _Deferred] = {}
        for group in batch.waiting:
            deferred = _Deferred(group.reason, group.may_be_stored, group.until, fresh=False)
            self._deferred |= dict.fromkeys(group.indexes, deferred)
        reached = max(now, batch.due_at or now)  # a timer may have fired a little too early
        due = [index for group in batch.waiting if group.until <= reached for index in group.indexes]
        untried = [i for i, line in enumerate(results) if not line and i not in self._deferred]
        self._queue = deque([*untried, *due])
        self._lanes = _lanes(batch.settings.parallelism)
        self._numbers = count()
        self._length = min(_CHUNK_RECORDS, max(_FEWEST, -(-len(self._queue) // len(self._lanes))))

    def next_chunk(self, now: datetime) -> Chunk | None:
        """Take out what another activity is to post; None if there is nothing, or nothing may go out at the moment."""
        if not (self._queue and self._lanes) or self._ending or self._paused_until or now > self._deadline:
            return None
        indexes: list[int] = []
        length = 0
        while self._queue and len(indexes) < self._length:
            length += _size(self._lines[self._queue[0]])
            if indexes and length > _CHUNK_SIZE:
                break
            indexes.append(self._queue.popleft())
        return Chunk(
            key=self._batch.key,
            indexes=tuple(indexes),
            records="\n".join(self._lines[index] for index in indexes),
            revisions=tuple((index, self._revisions[index]) for index in indexes if index in self._revisions),
            doubts=tuple(index for index in indexes if self._in_doubt(index)),
            width=self._lanes.pop(),
            kept=self._batch.kept,
            number=next(self._numbers),
        )

    def _in_doubt(self, index: int) -> bool:
        return index in self._doubts or (index in self._deferred and self._deferred[index].may_be_stored)

    def returned(self, chunk: Chunk, report: Report, now: datetime) -> None:
        """Take in what has become of a chunk; what the report does not tell of goes out again.

        It may be about other records. An engine that dies after it has sent an activity out, and before it has written
        that down, begins the turn anew. The time may make another chunk of it, and the result of either comes back.
        """
        self._lanes.append(chunk.width)
        asked = set(chunk.indexes)
        self.take_in(report, now, asked)
        told = {*report.settled, *(index for group in report.deferred for index in group.indexes)}
        if not told <= asked:
            self._queue = deque(index for index in self._queue if index not in self._settled)
        untouched = [index for index in chunk.indexes if index not in told and index not in self._settled]
        self._length = min(_CHUNK_RECORDS, max(_FEWEST if untouched else self._length, 2 * len(told)))
        if untouched:
            self._queue.extendleft(reversed(untouched))
            if report.paused is not None:
                pause = min(report.paused, self._batch.settings.max_retry_after) + EARLIEST
                self._paused_until = now + timedelta(seconds=pause)
        self._size += len(report.results) + _INDEX_SIZE * len(told)
        if len(self._reports) >= _MOST_REPORTS or self._size > _LARGEST_HISTORY:
            self._ending = True

    def take_in(self, report: Report, now: datetime, asked: Container[int] | None = None) -> None:
        """Take in what an activity of this round has returned.

        Args:
            report: What it has returned.
            now: Durable time (UTC).
            asked: The records that it was to post, if that is known: no others are deferred.
        """
        report = self._news_of(report)
        self._reports.append(report)
        self._counts += report.counts
        self._settled.update(report.settled)
        self._doubts.difference_update(report.settled)
        for index in report.settled:
            self._deferred.pop(index, None)
        for group in report.deferred:
            until = None
            if group.retry_after:
                wish = min(group.retry_after, self._batch.settings.max_retry_after) + EARLIEST
                until = now + timedelta(seconds=wish)
            indexes = [index for index in group.indexes if asked is None or index in asked]
            self._defer(indexes, _Deferred(group.reason, group.may_be_stored, until))

    def _news_of(self, report: Report) -> Report:
        """A report without what is settled already, unless it is a yes that was not known."""
        if self._settled.isdisjoint(report.settled):
            return report
        known, news = self._result_lines(), dict[int, str]()
        counts: Counter[str] = Counter()
        for index, line in zip(report.settled, report.results.split("\n"), strict=True):
            if not known[index]:
                news[index] = line
            elif is_posted(line) and not is_posted(known[index]):
                counts.subtract(counted(read_line(known[index])))
                news[index] = line
        for line in news.values():
            counts.update(counted(read_line(line)))
        update = {"settled": tuple(news), "results": "\n".join(news.values()), "counts": Counts(**counts)}
        return report.model_copy(update=update)

    def failed(self, chunk: Chunk) -> None:
        """Take in that the activity has failed: nobody knows what it has done.

        The round ends with what is under way, so that this is written down.
        """
        self._lanes.append(chunk.width)
        self._defer(chunk.indexes, _Deferred("the activity PostBusinesses failed", FAILED.may_be_stored, None))
        self._ending = True

    def _defer(self, indexes: Iterable[int], deferred: _Deferred) -> None:
        indexes = [index for index in indexes if index not in self._settled]
        self._doubts.difference_update(indexes)
        self._deferred |= dict.fromkeys(indexes, deferred)

    @property
    def finished(self) -> bool:
        """Whether every record is settled."""
        return self._counts.settled + self._counts.invalid == len(self._lines)

    def next_at(self, now: datetime) -> datetime | None:
        """When the next round is due, if nothing is under way: perhaps at once; None if that would be too late.

        While the API wants nothing, nobody is due. Who is due first waits a little for those who are due soon after.
        """
        if self._ending and not self._paused_until:
            return now
        due = {group.until for group in self._waiting(now)}
        if self._queue:
            due.add(now)
        earliest = max(min(due), self._paused_until or now)
        shared = min(earliest + max((earliest - now) * _PATIENCE, _LEAST_PATIENCE), self._deadline)
        return max(earliest, *(time for time in due if time <= shared)) if earliest <= self._deadline else None

    def _waiting(self, now: datetime) -> tuple[Waiting, ...]:
        """What is deferred, in groups; what was due in this round, but was not got to, is so still."""
        backoff = self._backoff(now)
        due = {index: one.due(backoff) for index, one in self._deferred.items()}
        left = {index: now for index in self._queue if index in due and not self._deferred[index].fresh}
        return _grouped(self._deferred, due, left)

    def _backoff(self, now: datetime) -> datetime:
        """When what was deferred in this round without more ado is tried again.

        A round that has settled something counts as the first: an API that takes records one by one is no reason to
        wait longer and longer.
        """
        batch, attempt = self._batch, max(self._idle_rounds, 1)
        return now + retry_delay(None, attempt=attempt, instance_id=batch.key, settings=batch.settings)

    @property
    def _idle_rounds(self) -> int:
        """How many rounds in a row, with this one, have settled nothing."""
        return 0 if self._counts.settled > self._batch.counts.settled else self._batch.idle_rounds + 1

    def following(self, now: datetime, *, due: datetime | None = None) -> Batch:
        """The batch as it stands after the round.

        Args:
            now: Durable time (UTC).
            due: When the next round is due; None if it comes without a delay.
        """
        waited = due is not None
        records, results = self._lines.copy(), self._result_lines()
        for index, line in enumerate(results):
            if line and is_posted(line):
                records[index] = ""
        return self._batch.model_copy(
            update={
                "records": "\n".join(records),
                "results": "\n".join(results),
                "counts": self._counts,
                "waiting": self._waiting(now),
                "doubts": tuple(sorted(self._doubts)),
                "round": self._batch.round + waited,
                "due_at": due,
                "idle_rounds": self._idle_rounds if waited else min(self._idle_rounds, self._batch.idle_rounds),
            }
        )

    def _result_lines(self) -> list[str]:
        lines = self._batch.result_lines
        for report in self._reports:
            if report.settled:
                for index, line in zip(report.settled, report.results.split("\n"), strict=True):
                    lines[index] = line
        return lines

    def closed(self, end: type[GaveUp | Cancelled], now: datetime) -> Batch:
        """The batch at its end: what is not settled will not be sent again."""
        batch = self.following(now)
        results = batch.result_lines
        ends: dict[int, GaveUp | Cancelled] = {}
        for index, line in enumerate(results):
            if not line and (one := self._deferred.get(index)) is not None:
                ends[index] = end.after(Deferred(reason=one.reason, may_be_stored=one.may_be_stored))
            elif not line:
                ends[index] = end(reason="not sent", may_be_stored=index in self._doubts)
        for index, line in zip(ends, write_lines(list(ends.values()), LEAST), strict=True):
            results[index] = line
        counts = Counts(
            gave_up=len(ends) if end is GaveUp else 0,
            cancelled=len(ends) if end is Cancelled else 0,
            may_be_stored=sum(one.may_be_stored for one in ends.values()),
        )
        reasons = Counter(one.reason for one in ends.values() if isinstance(one, GaveUp))
        return batch.model_copy(
            update={
                "results": "\n".join(results),
                "counts": batch.counts + counts,
                "waiting": (),
                "doubts": (),
                "reason": _most_frequent(reasons),
                "ended_at": now if batch.announced else None,
            }
        )

    def status(self, now: datetime, *, next_round_at: datetime | None = None) -> BatchStatus:
        """How far the batch is."""
        counts, total, deferred = self._counts, len(self._lines), len(self._deferred)
        pending = total - counts.settled - counts.invalid - deferred
        seconds = (now - (self._batch.started_at or now)).total_seconds()
        ended = counts.model_dump(include={"posted", "rejected", "gave_up", "cancelled", "invalid"})
        doubts = len(self._doubts) + sum(one.may_be_stored for one in self._deferred.values())
        return BatchStatus(
            tally=Tally(total=total, deferred=deferred, pending=pending, **ended),
            round=self._batch.round,
            rate=round((counts.settled - self._batch.settled_before) / seconds, 1) if seconds > 0 else 0.0,
            started_at=self._batch.started_at,
            next_round_at=next_round_at,
            expected_end_at=self._expected_end(now, pending) if next_round_at is None else None,
            warnings=counts.warnings,
            may_be_stored=counts.may_be_stored + doubts,
            mark=self._batch.mark,
            reason=_most_frequent(Counter(one.reason for one in self._deferred.values())) or self._batch.reason,
        )

    def _expected_end(self, now: datetime, pending: int) -> datetime | None:
        settled, seconds = self._counts.settled - self._batch.counts.settled, (now - self._began).total_seconds()
        return now + timedelta(seconds=pending / settled * seconds) if pending and settled and seconds > 0 else None


def _size(line: str) -> int:
    """About what a line takes of the task hub (`bounds.size`), without encoding it at each replay."""
    return len(line) * (1 if line.isascii() else 7) + 3 * (line.count('"') + line.count("\\"))


def _most_frequent(reasons: Counter[str]) -> str | None:
    return reasons.most_common(1)[0][0] if reasons else None


def _lanes(parallelism: int) -> list[int]:
    """How many records each of the activities has under way that run at the same time."""
    number = -(-parallelism // _LANE_WIDTH)
    return [parallelism // number + (lane < parallelism % number) for lane in range(number)]


def _grouped(
    deferred: Mapping[int, _Deferred], due: Mapping[int, datetime], exactly: Mapping[int, datetime]
) -> tuple[Waiting, ...]:
    """Those deferred for the same reason, and due at the same time, together; in so few groups as can be stored.

    Args:
        deferred: By index.
        due: When they are due, or a little later.
        exactly: When some of them are due instead, and no later.
    """
    groups: dict[tuple[str, bool, datetime], list[int]] = {}
    for reasons_told, seconds in ((True, 0), (True, 1), (True, 60), (False, 60), (False, 3600)):
        groups = {}
        for index, one in deferred.items():
            reason = one.reason if reasons_told else OTHER_REASONS
            until = exactly.get(index) or (_rounded_up(due[index], seconds) if seconds else due[index])
            groups.setdefault((reason, one.may_be_stored, until), []).append(index)
        if len(groups) <= MOST_GROUPS:
            break
    return tuple(
        Waiting(indexes=tuple(indexes), reason=reason, may_be_stored=doubt, until=until)
        for (reason, doubt, until), indexes in groups.items()
    )


def _rounded_up(time: datetime, seconds: int) -> datetime:
    return datetime.fromtimestamp(-(-time.timestamp() // seconds) * seconds, UTC)
