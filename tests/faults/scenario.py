"""A batch and single records on their way through an app that is killed, to an API that fails."""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shared.business import Record, example
from tests.faults.caller import Caller
from tests.faults.faulty_api import FaultyApi, faulty_api
from tests.faults.killable_host import KillableHost
from tests.sandboxed import REFUSED, key_of

_RATES = {"503": 0.15, "drop_after": 0.05}
_RATES_WITH_QUOTA = {"drop_after": 0.05}
_LATENCY_SECONDS = 0.1
_DELIVERY = {"DELIVERY_FIRST_DELAY": "0.1", "DELIVERY_MAX_DELAY": "0.5", "DELIVERY_PARALLELISM": "6"}
_LONGEST_HESITATION_SECONDS = 0.1
# Left alone at the end of a batch: more than can be posted while a kill hesitates, so that none comes too late.
_LAST_RECORDS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How much is delivered, and how often what happens meanwhile.

    Attributes:
        records: In the batch; the API refuses one in fifty. Of one in twenty it loses the answer, and refuses it when
            it comes again; to one in twenty it says yes without a word. With every kill comes a single record: in turn
            one of no further account, one that is refused for good and has to be corrected, and one whose answer is
            lost before it is refused.
        kills: Of the host's process.
        revocations: Of all access tokens.
        seed: Draws the faults of the API, and the moments of kills and revocations.
        time_limit: Seconds for all of it.
        quota: Posts per second that the API takes, of which a second's may be saved up; None for any number. With a
            quota, it refuses none at random.
    """

    records: int
    kills: int
    revocations: int
    seed: int
    time_limit: float
    quota: float | None = None

    def __str__(self) -> str:
        quota = f", {self.quota:g} posts/s" if self.quota else ""
        return f"{self.records} records, {self.kills} kills{quota}, FAULT_SEED={self.seed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What is found when all operations have ended.

    Attributes:
        scenario: What was to happen.
        records: The batch, as it was sent.
        refused: The natural keys of those that the API refuses for good, in the batch and alone.
        lost: The natural keys of those in the batch that are refused after an answer was lost.
        singles: The single records.
        corrected: What their caller would have instead, in the same order.
        batch: The operation of the batch, as its caller was told in the end.
        deliveries: The operations of the single records, likewise, in the same order.
        operations: Those that the app lists.
        results: What has become of each record of the batch.
        businesses: What the API has of each record, by natural key.
        corrections_refused: How many corrections the app refused, since the first record may be stored.
        stored_at_kills: How many records the API had after each kill.
        lost_answers: How many answers of the app its callers lost.
        stats: Of the API.
        tokens: Every access token that it has issued.
        log: Of all the host's processes.
        state: Of the host, as text.
        seconds: How long it took.
    """

    scenario: Scenario
    records: list[Record]
    refused: set[str]
    lost: set[str]
    singles: list[Record]
    corrected: list[Record]
    batch: dict[str, Any]
    deliveries: list[dict[str, Any]]
    operations: list[dict[str, Any]]
    results: list[dict[str, Any]]
    businesses: dict[str, list[Record]]
    corrections_refused: int
    stored_at_kills: list[int]
    lost_answers: int
    stats: dict[str, Any]
    tokens: set[str] = field(repr=False)
    log: str = field(repr=False)
    state: str = field(repr=False)
    seconds: float

    @property
    def acceptable(self) -> list[Record]:
        """The records of the batch that the API does not refuse for good."""
        return [record for record in self.records if key_of(record) not in self.refused]

    @property
    def posted_alone(self) -> list[Record]:
        """What the API should have of the single records: themselves, or what they were corrected to."""
        pairs = zip(self.singles, self.corrected, strict=True)
        return [corrected if key_of(single) in self.refused else single for single, corrected in pairs]

    def __str__(self) -> str:
        return (
            f"{self.scenario}: {self.stats['revocations']} revocations, {self.lost_answers} answers lost, "
            f"{self.stats['posts']} posts, {self.stats['dropped']} dropped, {self.stats['replays']} replays, "
            f"{self.batch['batch']['warnings']} warnings, {self.corrections_refused} corrections refused, "
            f"{self.stats['stored']} stored, {self.stats['duplicates']} duplicates, {self.seconds:.0f} s"
        )


@dataclass(frozen=True, slots=True)
class Participants:
    """The app in its host, the API that it posts to, and the caller who wants records posted."""

    host: KillableHost
    api: FaultyApi
    caller: Caller


@asynccontextmanager
async def participants(folder: Path, time_limit: float) -> AsyncIterator[Participants]:
    """Make the participants ready for the `with` block, which starts the host; none is left behind.

    Args:
        folder: Where the host keeps its state and its log.
        time_limit: Seconds after which `TimeoutError` ends the block.
    """
    async with AsyncExitStack() as at_the_end, asyncio.timeout(time_limit):
        api = at_the_end.enter_context(faulty_api())
        host = KillableHost(folder, api.settings | _DELIVERY)
        caller = Caller(host.url)
        for close in (api.close, caller.close, host.discard):
            at_the_end.push_async_callback(close)
        try:
            yield Participants(host, api, caller)
        except BaseException as error:
            error.add_note(f"The host's log ends with:\n{host.log_tail()}")
            raise


async def run(scenario: Scenario, folder: Path) -> Findings:
    """Go through a scenario; the host keeps its state and its log in a folder.

    Raises:
        AssertionError: The host ended by itself, or the batch before all that was to happen had happened.
        TimeoutError: Not all operations ended within the time limit.
    """
    async with participants(folder, scenario.time_limit) as ready:
        return await _Run(scenario, ready).to_the_end()


class _Run:
    """A scenario under way."""

    def __init__(self, scenario: Scenario, participants: Participants) -> None:
        self._scenario = scenario
        self._host, self._api, self._caller = participants.host, participants.api, participants.caller
        self._rng = random.Random(scenario.seed)
        numbers = iter(range(1, scenario.records + 2 * scenario.kills + 1))
        self._records = [example(number) for number in itertools.islice(numbers, scenario.records)]
        self._singles = [example(number) for number in itertools.islice(numbers, scenario.kills)]
        self._corrected = [example(number) for number in numbers]
        drawn = [key_of(record) for record in self._rng.sample(self._records, scenario.records)]
        refused, twentieth = max(1, scenario.records // 50), max(1, scenario.records // 20)
        self._acceptable = scenario.records - refused
        self._refused = {*drawn[:refused], *map(key_of, self._singles[1::3])}
        self._lost = set(drawn[refused : refused + twentieth])
        self._faults: dict[str, list[dict[str, Any]]] = {
            **{key: [REFUSED | {"always": True}] for key in self._refused},
            **{key: [{"drop": "after"}, REFUSED] for key in [*self._lost, *map(key_of, self._singles[2::3])]},
            **{key: [{"status": 204, "store": True}] for key in drawn[-twentieth:]},
        }
        self._stored_at_kills: list[int] = []
        self._posts_at_kill = 0

    async def to_the_end(self) -> Findings:
        """Deliver and disturb until all operations have ended, then look at what there is."""
        started = time.monotonic()
        quota = self._scenario.quota
        limits = {"rates": _RATES} if quota is None else {"quota": {"rate": quota}, "rates": _RATES_WITH_QUOTA}
        await self._api.misbehave(records=self._faults, seed=self._scenario.seed, latency=_LATENCY_SECONDS, **limits)
        await self._host.start()
        async with asyncio.TaskGroup() as callers:
            delivering_batch = callers.create_task(self._deliver_batch())
            delivering_singles = await self._disturb(callers)
        seconds = time.monotonic() - started
        batch = delivering_batch.result()
        deliveries = [delivery.result() for delivery in delivering_singles]
        await self._api.rest()
        operations = await self._caller.operations()
        results = await self._caller.results(batch["id"])
        stats = await self._api.stats()
        await self._host.stop()
        return Findings(
            scenario=self._scenario,
            records=self._records,
            refused=self._refused,
            lost=self._lost,
            singles=self._singles,
            corrected=self._corrected,
            batch=batch,
            deliveries=deliveries,
            operations=operations,
            results=results,
            businesses=await self._api.businesses([*self._records, *self._singles, *self._corrected]),
            corrections_refused=self._caller.corrections_refused,
            stored_at_kills=self._stored_at_kills,
            lost_answers=self._caller.lost_answers,
            stats=stats,
            tokens=self._api.tokens,
            log=self._host.log_text(),
            state=self._host.state_text(),
            seconds=seconds,
        )

    async def _deliver_batch(self) -> dict[str, Any]:
        operation = await self._caller.deliver("/api/businesses/batch", self._records, "the batch")
        assert len(self._stored_at_kills) == self._scenario.kills, f"the batch ended too early: {operation}"
        return operation

    async def _disturb(self, callers: asyncio.TaskGroup) -> list[asyncio.Task[dict[str, Any]]]:
        """Kill and revoke, each when so many records are stored; returns the deliveries of the single records."""
        kinds = ["kill"] * self._scenario.kills + ["revocation"] * self._scenario.revocations
        self._rng.shuffle(kinds)
        moments = self._rng.choices(range(1, self._acceptable - _LAST_RECORDS), k=len(kinds))
        deliveries: list[asyncio.Task[dict[str, Any]]] = []
        for stored, kind in zip(sorted(moments), kinds, strict=True):
            await self._api.reach("stored", stored)
            if kind == "revocation":
                await self._revoke()
            else:
                single, corrected = self._singles[len(deliveries)], self._corrected[len(deliveries)]
                delivery = self._caller.have_posted(
                    single, corrected, key_of(single), refused=key_of(single) in self._refused
                )
                deliveries.append(callers.create_task(delivery))
                await self._kill()
        return deliveries

    async def _kill(self) -> None:
        await asyncio.sleep(self._rng.uniform(0, _LONGEST_HESITATION_SECONDS))
        await self._host.kill()
        stats = await self._api.stats()
        self._stored_at_kills.append(stats["stored"])
        self._posts_at_kill = stats["posts"]
        await self._host.start()

    async def _revoke(self) -> None:
        """Revoke the tokens while the present process has one, and see it refused."""
        await self._api.reach("posts", self._posts_at_kill + 1)
        unauthorized = (await self._api.stats())["unauthorized"]
        await self._api.revoke_tokens()
        await self._api.reach("unauthorized", unauthorized + 1)
