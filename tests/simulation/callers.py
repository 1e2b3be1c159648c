"""Those who start operations and see them through, and an operator who meddles with them."""

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from devhost.orchestration import EventType
from shared.business import Record, example
from shared.operations.status import BATCH, DELIVERY

from .api import number_of
from .task_hub import InstanceEndedError, InstanceExistsError, NoInstanceError, WorkerDiedError
from .world import World

FINISHED = frozenset({"posted", "rejected", "gave_up", "completed", "cancelled", "failed"})


@dataclass(slots=True)
class Item:
    """A record of an operation.

    Attributes:
        numbers: Of the record as it was sent first, and of those that were sent instead; empty if it is not valid.
        told: What the operation says of it in the end.
    """

    numbers: list[str]
    told: Mapping[str, Any] = field(default_factory=dict)


class Caller:
    """Starts an operation, looks at it now and then until it has ended, and perhaps retries it.

    Args:
        world: Where it does so.
        name: Of the caller; what the records and the key are called by.

    Attributes:
        items: The records.
        quiet: From when to when no activity may be begun, in seconds.
        retried_at: When it was last retried.
        knew_at: When it last told that the API has nothing of what was not posted.
        restarted: Whether an operator has started it a second time, so that two instances send the same.
        terminated: Whether an operator has ever ended it, so that nobody waited for what was under way.
        suspended: Whether an operator has ever held it up.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.chance = world.chance
        self.name = name
        self._first_number = 1_000_000 * (1 + int(name[1:]))
        self.batch = int(name[1:]) < 3 and self.chance.one_of((True, False), "the kind")
        size = self.chance.one_of((1, 3, 3, 11, 11, 25, 60, 130), "the size") if self.batch else 1
        self.items = [Item([]) for _ in range(size)]
        self._sent = [self._record(index) for index in range(size)]
        if not any(one.numbers for one in self.items):
            self._sent[0] = self._version(0)
        self.id, self._status = "", 0
        self.quiet: list[tuple[float, float]] = []
        self.retried_at = self.knew_at = 0.0
        self.restarted = self.terminated = self.suspended = self.erased = False
        self.operation: dict[str, Any] = {}

    @property
    def now(self) -> float:
        """Seconds."""
        return asyncio.get_running_loop().time()

    def _record(self, index: int) -> Record:
        if self.batch and self.chance.happens("an invalid record", 0.05, to=self.name):
            return {"no": "record"}
        return self._version(index)

    def _version(self, index: int) -> Record:
        """Another record for a place, which the API may find bad."""
        item = self.items[index]
        record = example(self._first_number + 100 * index + len(item.numbers))
        item.numbers.append(number_of(record))
        if self.chance.happens("a bad record", 0.05, to=item.numbers[-1]):
            self.world.api.bad.add(item.numbers[-1])
        return record

    async def run(self) -> None:
        """Do all of this."""
        await asyncio.sleep(self.chance.between(0.0, 30.0, "a beginning"))
        if not await self._start():
            return
        for retries in range(4):
            await self._until_end()
            again = retries < 3 and self.chance.happens("a retry", 0.6, to=self.name, state=self.operation["state"])
            if self.erased or not again or not await self._retry():
                return

    @property
    def _where(self) -> tuple[str, str]:
        """The function that starts such an operation, and its URL."""
        batch, single = ("StartPostBatch", "businesses/batch?skip_invalid=true"), ("StartPostBusiness", "businesses")
        return batch if self.batch else single

    async def _start(self) -> bool:
        """Start the operation, or find it; tells whether it was taken: a large batch may not be."""
        body, key = self._sent if self.batch else self._sent[0], {"Idempotency-Key": self.name}
        if self.chance.happens("the same start at once", 0.05, to=self.name):
            self.world.hub.spawn(self._again(*self._where, body))
        while (answer := await self.call(*self._where, body, headers=key, expected=self._taken)) is None:
            if self._status == 413:
                return False
        self.id = answer["id"]
        return True

    @property
    def _taken(self) -> tuple[int, ...]:
        """How a start may be answered."""
        return (200, 202, 413) if self.batch and self.world.settings["BATCH_MAX_BYTES"] else (200, 202)

    async def _again(self, name: str, url: str, body: Any, expected: tuple[int, ...] = ()) -> None:
        await self.call(name, url, body, headers={"Idempotency-Key": self.name}, expected=expected or self._taken)

    async def call(
        self,
        name: str,
        url: str,
        body: Any = None,
        *,
        expected: tuple[int, ...],
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Call the app; returns the body, or None if there was no answer, or not the one that was wanted."""
        try:
            self._status, told = await self.world.call(name, url, body, {"id": self.id}, headers)
        except WorkerDiedError:
            self._status = 0
            await asyncio.sleep(self.chance.between(0.1, 5.0, "another try"))
            return None
        if self._status not in expected:
            self.world.violated(f"{name} of {self.name}: {self._status} {told}")
        return told if self._status < 300 else None

    async def _until_end(self) -> None:
        began, pause = self.now, 0.5
        limit = float(self.world.settings["DELIVERY_DEADLINE"])
        while not self.erased:
            await asyncio.sleep(self.chance.between(0.0, 2 * pause, "a look"))
            pause = min(pause * 1.5, limit / 10)
            url = f"businesses/operations/{self.id}"
            if self.chance.happens("a caller waits", 0.03, to=self.name):
                url += "?wait=20"
            found = await self.call("GetOperation", url, expected=(200,))
            if found is None:
                continue
            self.operation = found
            if found["state"] in FINISHED:
                self.quiet.append((self.now, float("inf")))
                await self._see_end()
                return
            late = self.world.hub.require(self.id).late
            if self.now - max(began, self.retried_at) > limit + 2 * pause + 200.0 + late and not self.suspended:
                self.world.violated(f"{self.name} does not end: {found}")
                return
            await self._meddle(found["state"])

    async def _meddle(self, state: str) -> None:
        """Do something to an operation under way."""
        happens, name = self.chance.happens, self.name
        path = f"businesses/operations/{self.id}"
        if happens("a cancel", 0.1, to=name, state=state):
            seen = await self.call("CancelOperation", f"{path}/cancel", "", expected=(202, 409, 503)) is not None
            if seen and not self.suspended:  # else what was asked for before still begins with the resume
                self.quiet.append((self.now, float("inf")))
        if happens("a look at the results", 0.2, to=name, state=state) and self.batch:
            await self._results()
        if happens("an early retry", 0.02, to=name, state=state):
            await self._ask_for_retry(f"{path}/retry", "")
        if happens("the same start again", 0.03, to=name, state=state):
            await self._start()
        if happens("another start under the same key", 0.03, to=name, state=state):
            other = example(self._first_number - 1)
            await self._again(*self._where, [other] if self.batch else other, expected=(422,))
        if happens("an operator meddles", 0.03, to=name, state=state):
            await self._operate()

    async def _operate(self) -> None:
        hub = self.world.hub
        what = self.chance.one_of(("suspend", "terminate", "restart", "purge"), "what an operator does")
        self.world.log(f"{self.id}: an operator wants to {what}")
        try:
            if what == "suspend":
                self.suspended = True
                hub.control(self.id, EventType.EXECUTION_SUSPENDED, "a break")
                hub.spawn(self._resume())
            elif what == "terminate":
                self.terminated = True
                hub.control(self.id, EventType.EXECUTION_TERMINATED, "enough")
            elif what == "restart":
                self.restarted = True
                await hub.restart(self.id, new_id=True)
            elif what == "purge":
                url = f"businesses/operations/{self.id}"
                self.erased = await self.call("EraseOperation", url, "", expected=(204, 409)) is not None
        except (InstanceEndedError, InstanceExistsError, NoInstanceError):
            pass

    async def _resume(self) -> None:
        """Let it go on. That it is to halt may reach it late, when somebody has looked already."""
        for look in range(30):
            await asyncio.sleep(self.chance.between(1.0, 300.0, "a break"))
            with contextlib.suppress(InstanceEndedError, NoInstanceError):
                if self.world.hub.require(self.id).suspended:
                    self.world.hub.control(self.id, EventType.EXECUTION_RESUMED, "go on")
                elif look > 10:
                    return

    async def _results(self) -> list[dict[str, Any]] | None:
        """What the operation tells of each record; None if it could not be asked."""
        found: list[dict[str, Any]] = []
        page = pages = 1
        while page <= pages:
            url = f"businesses/operations/{self.id}/results?page={page}"
            told = await self.call("GetBatchResults", url, expected=(200,))
            if told is None:
                return None
            pages, page = told["pages"], page + 1
            found += told["results"]
        for one in found:
            item = self.items[one["index"]]
            if one["result"]["outcome"] == "posted" and not self.world.api.copies[item.numbers[-1]]:
                self.world.violated(f"{self.name}: told posted, but {item.numbers[-1]} is not there")
        if [one["index"] for one in found] != list(range(len(self.items))):
            self.world.violated(f"{self.name}: the results are not in order, or not complete")
        return [one["result"] for one in found]

    async def _see_end(self) -> None:
        """Look at all that is told of an operation that has ended."""
        told = [self.operation.get("outcome") or {"outcome": "none"}]
        if self.batch:
            while (results := await self._results()) is None:
                pass
            told = results
            if self.world.hub.require(self.id).status == "Completed":  # else what is under way is not told of
                batch = self.operation["batch"]
                tally = batch["tally"] | {"warning": batch["warnings"], "may_be_stored": batch["may_be_stored"]}
                for what, number in tally.items():
                    counted = sum(one["outcome"] == what or bool(one.get(what)) for one in told)
                    if what != "total" and number != counted:
                        self.world.violated(f"{self.name}: {counted} are {what}, but the tally is {tally}")
        for item, one in zip(self.items, told, strict=False):
            item.told = one
        listed = await self.call("FindOperations", "businesses/operations?since=2025-01-01&limit=100", expected=(200,))
        if listed is not None and self.operation not in listed["operations"]:
            self.world.violated(f"{self.name} is listed as something else than {self.operation}")

    async def _retry(self) -> bool:
        """Retry what was not posted, some of it corrected; returns whether that was begun."""
        records: dict[int, Record] = {}
        before_them = [len(item.numbers) for item in self.items]
        for index, item in enumerate(self.items):
            if item.told.get("outcome") != "posted" and self.chance.happens("a correction", 0.3, to=self.name):
                records[index] = self._version(index)
        several = [{"index": index, "record": record} for index, record in records.items()]
        body: Any = "" if not records else several if self.batch else records[0]
        url = f"businesses/operations/{self.id}/retry"
        if self._knows_that_nothing_is_stored() and self.chance.happens("a caller knows", 0.5, to=self.name):
            url += "?not_stored=true"
        if self.chance.happens("two retries at once", 0.1, to=self.name, state=self.operation["state"]):
            self.world.hub.spawn(self._retry_too(url, body))
        doubtful = [index for index in records if self.items[index].told.get("may_be_stored")]
        if not await self._ask_for_retry(url, body):
            for item, number in zip(self.items, before_them, strict=True):
                del item.numbers[number:]
            return False
        if "not_stored" in url:
            self.knew_at = self.retried_at
        elif doubtful:
            self.world.violated(f"{self.name}: a correction is taken for records that may be stored: {doubtful}")
        return True

    async def _ask_for_retry(self, url: str, body: Any) -> bool:
        """Ask for a retry; tells whether one has begun, whatever was answered."""
        at, before = self.now, self.world.hub.require(self.id)
        await self.call("RetryOperation", url, body, expected=(202, 409, 413, 503))
        if self.world.hub.instances.get(self.id) is before:
            return False
        self.quiet = [(begin, min(end, at)) for begin, end in self.quiet]
        self.retried_at = at
        return True

    async def _retry_too(self, url: str, body: Any) -> None:
        await self.call("RetryOperation", url, body, expected=(202, 409, 413, 503))

    def _knows_that_nothing_is_stored(self) -> bool:
        """Whether the API has none of what was not posted, or with a warning, and gets none of it any more."""
        api = self.world.api
        return not self.terminated and not any(
            api.copies[number] or not all(send.over for send in api.sends[number])
            for item in self.items
            if item.told.get("outcome") != "posted" or item.told.get("warning")
            for number in item.numbers
        )


async def watch_list(world: World) -> None:
    """Go through the list of operations, and see whether it is complete and tells nothing twice."""
    await asyncio.sleep(world.chance.between(0.0, 3600.0, "a list"))
    for _ in range(world.chance.integer(1, 3, "lists")):
        instances = world.hub.instances.values()
        there = {one.instance_id: one.started for one in instances if one.name in (DELIVERY, BATCH)}
        seen: list[str] = []
        url: str | None = f"businesses/operations?limit={world.chance.integer(1, 4, 'a page')}&since=2025-01-01"
        while url is not None:
            try:
                status, told = await world.call("FindOperations", url)
            except WorkerDiedError:
                continue
            if status != 200:
                world.violated(f"FindOperations: {status} {told}")
                return
            seen += [one["id"] for one in told["operations"]]
            following = told.get("next")
            url = following and following.partition("/api/")[2]
            await asyncio.sleep(world.chance.between(0.0, 30.0, "a page"))
        if len(set(seen)) != len(seen):
            world.violated(f"listed twice: {seen}")
        stayed = {name for name, one in world.hub.instances.items() if there.get(name) == one.started == one.created}
        if missing := stayed - set(seen):
            world.violated(f"not listed: {missing}")
        await asyncio.sleep(world.chance.between(0.0, 3600.0, "a list"))
