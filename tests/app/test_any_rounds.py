"""Batches whose activities do anything, in any order: nothing is lost, doubled or forgotten, and nobody spins."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.delivery.batches import Batch
from shared.delivery.bounds import STATUS_LIMIT, size, stored
from shared.delivery.chunks import Chunk, Counts, Deferral, Report
from shared.delivery.outcomes import Cancelled, GaveUp, Rejected, may_be_stored
from shared.delivery.results import ItemInvalid, ItemPosted, write_line
from shared.delivery.rounds import Round
from shared.settings import DeliverySettings
from tests.sandboxed import business

START = datetime(2026, 1, 1, tzinfo=UTC)
INVALID = ItemInvalid(field="name", detail="Field required")
LANES = 4
REASONS = ("503", "429", "no access token")


class World:
    """An API and the activities that post to it, both as bad as they can be, and what is to hold of them.

    Attributes:
        now: Durable time.
        sent: What was sent under each key.
        keys: Of the records, as they were sent last.
        renewed: Records whose next key must be a new one.
        doubts: Records that may be stored, for all that was told.
        ended: What has become of records that are settled.
        not_before: When a record may be sent again.
        in_vain: How many activities were told no more than that the API wants nothing.
    """

    def __init__(self, random: Random) -> None:
        self.random = random
        self.now = START
        self.sent: dict[str, str] = {}
        self.keys: dict[int, str] = {}
        self.renewed: set[int] = set()
        self.doubts: set[int] = set()
        self.ended: set[int] = set()
        self.not_before: dict[int, datetime] = {}
        self.paused_until = START
        self.in_vain = self.in_vain_at_most = 0
        self.wildness = random.choice([0.0, 0.05, 0.5, 0.9])

    def passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def take(self, chunk: Chunk, deadline: datetime) -> None:
        """See what an activity is to do."""
        assert self.now <= deadline
        assert set(chunk.doubts) == self.doubts & set(chunk.indexes)
        assert chunk.indexes
        for index, attempt in chunk.attempts():
            assert index not in self.ended
            assert self.now >= self.not_before.get(index, self.now)
            record, key = json.dumps(attempt.record), attempt.idempotency_key
            assert (key not in self.sent) if index in self.renewed else self.keys.get(index, key) == key
            assert self.sent.setdefault(key, record) == record
            self.keys[index] = key
            self.renewed.discard(index)

    def work(self, chunk: Chunk) -> Report | None:
        """What an activity returns; None if it fails."""
        random = self.random
        if self.now < self.paused_until:
            self.in_vain += 1
            assert self.in_vain <= self.in_vain_at_most
            left = (self.paused_until - self.now).total_seconds()
            if left > 5:
                return Report(paused=left)
            self.passes(left)
        if random.random() < self.wildness / 10:
            self.doubts.update(chunk.indexes)
            return None
        reached = random.randint(0, len(chunk.indexes)) if random.random() < self.wildness else len(chunk.indexes)
        settled: dict[int, str] = {}
        counts: Counter[str] = Counter()
        deferred: list[Deferral] = []
        self.passes(random.uniform(0.1, 20))
        for index in random.sample(chunk.indexes, reached):
            fate = random.choice(("rejected", "deferred", "deferred")) if random.random() < self.wildness else "posted"
            if fate == "posted":
                settled[index] = write_line(ItemPosted(id=str(index)))
                counts["posted"] += 1
                self.doubts.discard(index)
            elif fate == "rejected":
                doubt = index in self.doubts
                settled[index] = write_line(Rejected(status=422, may_be_stored=doubt))
                counts.update(rejected=1, may_be_stored=doubt)
            else:
                if random.random() < 0.4:
                    self.doubts.add(index)
                wish = random.choice((None, 0.0, 0.5, 3.0, 90.0, 1e9))
                if wish:
                    self.not_before[index] = self.now + timedelta(seconds=min(wish, 3600))
                doubt = index in self.doubts
                reason = random.choice(REASONS)
                deferred.append(Deferral(indexes=(index,), reason=reason, may_be_stored=doubt, retry_after=wish))
        self.ended.update(settled)
        paused = None
        if random.random() < self.wildness / 3:
            pause = random.choice((3.0, 30.0, 600.0, 3600.0 * 50))
            self.paused_until = self.now + timedelta(seconds=pause)
            self.in_vain_at_most = self.in_vain + LANES * (2 + int(pause / 3600))
            paused = pause if pause > 5 else None
        return Report(
            settled=tuple(settled),
            results="\n".join(settled.values()),
            counts=Counts.model_validate(counts),
            deferred=tuple(deferred),
            paused=paused,
        )


def checked(round_: Round, world: World) -> None:
    """What a status says must add up at any time."""
    status = round_.status(world.now)
    tally = status.tally.model_dump()
    assert tally.pop("total") == sum(tally.values())
    assert min(tally.values()) >= 0
    assert size(stored(status)) <= STATUS_LIMIT


def run(world: World, batch: Batch, cancel_after: float | None) -> Batch:
    """Do what the orchestrator does, generation after generation."""
    instance_id = batch.instance
    random, idle = world.random, 0
    began = world.now
    while True:
        if random.random() < world.wildness / 10:  # an operator starts it again under another id
            instance_id += "+"
            began = world.now
            batch = Batch.model_validate(stored(batch)).begun(instance_id, world.now)
            world.doubts.update(index for index, line in enumerate(batch.result_lines) if not line)
        batch = Batch.model_validate(json.loads(json.dumps(stored(batch)))).begun(instance_id, world.now)
        round_, under_way, sent = Round(batch, world.now), list[Chunk](), 0
        deadline = (batch.started_at or world.now) + timedelta(seconds=batch.settings.deadline)
        checked(round_, world)
        cancelled = False
        while True:
            cancelled = cancelled or (cancel_after is not None and (world.now - began).total_seconds() > cancel_after)
            while not cancelled and (chunk := round_.next_chunk(world.now)):
                world.take(chunk, deadline)
                assert not {i for other in under_way for i in other.indexes} & set(chunk.indexes)
                under_way.append(chunk)
                sent += 1
            assert sum(chunk.width for chunk in under_way) <= batch.settings.parallelism
            if not under_way:
                break
            chunk = under_way.pop(random.randrange(len(under_way)))
            report = world.work(chunk)
            if report is None:
                round_.failed(chunk)
            else:
                round_.returned(chunk, report, world.now)
            checked(round_, world)
        if round_.finished:
            return round_.following(world.now)
        now = world.now
        due = None if cancelled else round_.next_at(now)
        slept = due is not None and due > now
        idle = 0 if sent or slept else idle + 1
        assert idle < 3
        if due is not None and due > now:
            assert due <= deadline
            world.now = max(world.now, due + timedelta(seconds=random.choice((-1.0, -0.5, 0.0, 2.0))))
            cancelled = cancel_after is not None and (world.now - began).total_seconds() > cancel_after
        if cancelled or due is None:
            batch = round_.closed(Cancelled if cancelled else GaveUp, now)
        else:
            batch = round_.following(now, due=due if slept else None)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_whatever_becomes_of_the_activities_of_a_batch_every_record_is_told_right(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    records = [INVALID if random.random() < 0.1 else business(n) for n in range(1, random.choice((2, 12, 60, 200)))]
    new = Batch.of(
        records,
        DeliverySettings(
            parallelism=random.choice((1, 7, 20, 10 * LANES)),
            first_delay=random.choice((0.5, 5)),
            deadline=random.choice((30, 3600, 86_400)),
        ),
    ).model_copy(update={"key": "b", "instance": "b"})
    for _ in range(4):
        batch = run(world, new, random.choice((None, random.uniform(0, 100))))
        outcomes = batch.outcomes
        assert len(outcomes) == len(records)
        for index, outcome in enumerate(outcomes):
            assert (outcome.outcome in {"posted", "rejected"}) == (index in world.ended)
            assert may_be_stored(outcome) == (index in world.doubts)
            assert outcome.outcome not in {"pending", "deferred"}
        tally = Round(batch, world.now).status(world.now)
        told = Counter(outcome.outcome for outcome in outcomes)
        assert {name: n for name, n in tally.tally if n and name != "total"} == dict(told)
        assert tally.may_be_stored == len(world.doubts)
        not_stored = random.random() < 0.2
        if not_stored:
            world.doubts.clear()
        corrections = {
            index: business(random.randint(1000, 10**6))
            for index, outcome in enumerate(outcomes)
            if outcome.outcome != "posted" and index not in world.doubts and random.random() < 0.3
        }
        refused = {index for index, one in enumerate(outcomes) if one.outcome == "rejected"} - world.doubts
        world.renewed |= {index for index in refused | corrections.keys() if index in world.keys}
        new = batch.again(corrections, not_stored=not_stored)
        world.ended = {index for index, outcome in enumerate(outcomes) if outcome.outcome == "posted"}
        world.not_before = {}
        world.paused_until = world.now
        if new.counts.posted + new.counts.invalid == new.total:
            break
