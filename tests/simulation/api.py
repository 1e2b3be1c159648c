"""The API that records are posted to, as good and as bad as APIs are, and what it has seen."""

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

import httpx

from shared.business import COLLECTION, NATURAL_KEY, Record, assigned
from tests.virtual_time import BEGINNING

from .chance import Chance

DAY = 86_400.0

type Task = tuple[str, int]
"""An execution and the number of a task in it."""

RUN: ContextVar[Task | None] = ContextVar("RUN", default=None)
"""The task whose activity is at work."""


@dataclass(slots=True, eq=False)
class Send:
    """A post that somebody has sent.

    Attributes:
        number: Of the record, which no other has.
        task: Of the activity that sent it.
        status: What the sender was answered; None if it was not, or is not yet.
        not_before: The time until which it was told to wait.
        reached: Whether the API has seen it.
        refused: Whether the API has looked at the record, and refused it.
        over: Whether the API has done with it.
    """

    at: float
    number: str
    key: str
    task: Task | None
    status: int | None = None
    not_before: float = 0.0
    reached: bool = False
    refused: bool = False
    over: bool = False


class LostError(httpx.ReadError):
    """The connection broke before the answer came."""


class Api:
    """Stores records.

    Args:
        chance: What goes wrong.
        log: Is told each answer.

    Attributes:
        keys: What it makes of idempotency keys.
        natural: Whether it refuses a record that it has with 409, and says where that one is.
        sends: All posts, by the number of the record.
        copies: When each record was stored, by its number.
        bad: The numbers of records that it always refuses.
    """

    def __init__(self, chance: Chance, log: Callable[[str], None]) -> None:
        self._log = log
        self.keys: Literal["honoured", "forgotten", "unknown"] = chance.one_of(
            ("honoured", "honoured", "forgotten", "unknown"), "the API's keys"
        )
        self.natural = chance.one_of((True, False, False), "the API's conflicts")
        self.remembers_refusals = chance.one_of((True, False), "the API's memory of refusals")
        self.sends: defaultdict[str, list[Send]] = defaultdict(list)
        self.copies: defaultdict[str, list[float]] = defaultdict(list)
        self.under_way = 0
        self._chance = chance
        self._quota = chance.one_of((0, 0, 0, 2, 20), "the API's quota")
        self._level, self._flowed_at = float(self._quota), 0.0
        self._load = chance.one_of((0.0, 0.0, 0.1, 1.0), "the API's latency")
        self._down_until = 0.0
        self._down = "503"
        self._records: dict[str, dict[str, Any]] = {}
        self._numbers: dict[str, str] = {}
        self._answers: dict[str, tuple[float, httpx.Response]] = {}
        self._in_progress: set[str] = set()
        self.bad: set[str] = set()
        self.violations: list[str] = []

    @property
    def now(self) -> float:
        """Seconds."""
        return asyncio.get_running_loop().time()

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, or not.

        Raises:
            httpx.TransportError: There is no answer.
        """
        if request.method == "GET":
            return await self._serve_get(request.url.path.rpartition("/")[2])
        body = b"".join([piece async for piece in request.stream])  # type: ignore[union-attr]
        record, key = json.loads(body), request.headers["Idempotency-Key"]
        number = number_of(record)
        send = Send(self.now, number, key, RUN.get())
        self.sends[number].append(send)
        if self._chance.happens("no connection", 0.02, to=number, state=self._state(number)):
            await asyncio.sleep(0.01)
            send.over = True
            raise httpx.ConnectError("refused")
        send.reached = True
        if (other := self._numbers.setdefault(key, number)) != number:
            self.violations.append(f"{key} was used for {other} and for {number}")
        # What was sent is worked on, also if who sent it does not wait for the answer any more.
        served = asyncio.create_task(self._serve(send, record))
        served.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout(request.extensions["timeout"]["read"]):
                response = await asyncio.shield(served)
        except TimeoutError:
            raise httpx.ReadTimeout("no data in time") from None
        send.status = response.status_code
        if "Retry-After" in response.headers:
            send.not_before = self.now + int(response.headers["Retry-After"])
        return response

    def _state(self, number: str) -> str:
        return "stored" if self.copies.get(number) else "sent before" if len(self.sends[number]) > 1 else "new"

    async def _serve(self, send: Send, record: dict[str, Any]) -> httpx.Response:
        self.under_way += 1
        try:
            response = await self._answer(send, record)
        except LostError:
            self._tell(send, "no answer")
            raise
        else:
            self._tell(send, response.status_code)
            return response
        finally:
            self.under_way -= 1
            send.over = True

    def _tell(self, send: Send, answer: int | str) -> None:
        self._log(f"API: {send.number} under {send.key}, sent at {send.at - BEGINNING:.3f}: {answer}")

    async def _answer(self, send: Send, record: dict[str, Any]) -> httpx.Response:
        chance, number, key, state = self._chance, send.number, send.key, self._state(send.number)
        seconds = chance.between(0.01, 0.1, "latency") * (1 + self._load * self.under_way)
        if chance.happens("a late answer", 0.02, to=number, state=state):
            seconds += chance.between(5.0, 120.0, "latency")
        await asyncio.sleep(seconds * 0.7)
        if (refused := await self._unwell(number, state)) is not None:
            return refused
        if key in self._in_progress:
            return httpx.Response(409)
        self._in_progress.add(key)
        try:
            response = self._judge(send, record, state)
            await asyncio.sleep(seconds * 0.3)
        finally:
            self._in_progress.discard(key)
        if chance.happens("the answer is lost", 0.04, to=number, state=self._state(number)):
            raise LostError("the connection broke")
        if response.is_success and chance.happens("an unreadable answer", 0.02, to=number, state=state):
            return httpx.Response(response.status_code, content=b'{"name": ')
        return response

    async def _unwell(self, number: str, state: str) -> httpx.Response | None:
        """What has nothing to do with the record: outages, limits, and whims."""
        chance = self._chance
        if self.now >= self._down_until and chance.happens("an outage", 0.005, state=state):
            self._down_until = self.now + chance.one_of((10.0, 60.0, 300.0, 3600.0, 2 * DAY), "an outage")
            self._down = chance.one_of(("503", "broken", "hangs"), "an outage")
        if self.now < self._down_until:
            if self._down == "hangs":
                await asyncio.sleep(200.0)
            if self._down != "503":
                raise LostError("the connection broke")
            return httpx.Response(503)
        if self._quota:
            self._level = min(self._level + (self.now - self._flowed_at) * self._quota, self._quota)
            self._flowed_at = self.now
            if self._level < 1:
                chance.met["the limit is reached", state] += 1
                return httpx.Response(429, headers={"Retry-After": chance.one_of(("1", "2"), "Retry-After")})
            self._level -= 1
        if chance.happens("come back later", 0.03, to=number, state=state):
            return httpx.Response(423, headers={"Retry-After": chance.one_of(("1", "30", "600"), "Retry-After")})
        if chance.happens("an odd status", 0.03, to=number, state=state):
            return httpx.Response(chance.one_of((400, 403, 404, 500, 502, 503), "a status"), html="<p>no</p>")
        return None

    def _judge(self, send: Send, record: dict[str, Any], state: str) -> httpx.Response:
        """Store or refuse a record."""
        chance, number, key = self._chance, send.number, send.key
        at, known = self._answers.get(key, (0.0, None))
        if known is not None and self.keys == "forgotten" and self.now - at > DAY:
            known = None
        if known is not None and (known.is_success or self.remembers_refusals):
            send.refused = not known.is_success
            return httpx.Response(known.status_code, headers=_REPLAYED, content=known.content)
        if self.natural and self.copies.get(number) and chance.happens("a conflict", 0.9, to=number, state=state):
            return httpx.Response(409, headers={"Location": f"{COLLECTION}/{id_of(number)}"})
        taken = self.natural and self._records and not self.copies.get(number)
        if taken and chance.happens("another record is there", 0.02, to=number, state=state):
            send.refused = True
            return httpx.Response(409, headers={"Location": f"{COLLECTION}/{next(iter(self._records))}"})
        if number in self.bad or chance.happens("a refusal", 0.04, to=number, state=state):
            send.refused = True
            detail = chance.one_of(("", "", "no", '"' * 40_000, "\N{GREEK SMALL LETTER PSI}" * 9_000), "a refusal")
            response = httpx.Response(422, json={"title": "Refused", "status": 422, "detail": detail})
        else:
            self.copies[number].append(self.now)
            self._records[id_of(number)] = stored = {**record, **_assigned(number)}
            response = httpx.Response(201, json=stored)
        if self.keys != "unknown":
            self._answers[key] = self.now, response
        if response.is_success and chance.happens("a failure after storing", 0.03, to=number, state=state):
            return httpx.Response(chance.one_of((500, 502, 504), "a status"))
        return response

    async def _serve_get(self, business_id: str) -> httpx.Response:
        await asyncio.sleep(self._chance.between(0.01, 0.1, "latency"))
        if self._chance.happens("a look-up fails", 0.2):
            return httpx.Response(self._chance.one_of((403, 404, 500), "a status"))
        record = self._records.get(business_id)
        return httpx.Response(404) if record is None else httpx.Response(200, json=record)


_REPLAYED = {"Idempotency-Replayed": "true", "Content-Type": "application/json"}


def number_of(record: Record) -> str:
    """The number of a record, which no other one has."""
    return str(record[NATURAL_KEY])


def _assigned(number: str) -> Record:
    return assigned(int(re.sub(r"\D", "", number)))


def id_of(number: str) -> str:
    """By which the API knows a record."""
    (assigned_id,) = _assigned(number).values()
    return str(assigned_id)
