"""APIs of several kinds, callers in front of them, and what came of it, all in virtual time."""

import asyncio
import math
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from shared.pacing import Pacer
from shared.rest import ApiTimeoutError, ApiTransportError, GateClosedError

READ_TIMEOUT = 30.0


class Bucket:
    """A quota of `rate` calls a second, of which those of one second can be saved up."""

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self.level = rate
        self._at = now

    def take(self, now: float) -> bool:
        self._flow(now)
        taken = self.level >= 1
        self.level -= taken
        return taken

    def change(self, rate: float, now: float) -> None:
        self._flow(now)
        self.rate = rate

    def _flow(self, now: float) -> None:
        self.level = min(self.level + (now - self._at) * self.rate, self.rate)
        self._at = now


@dataclass
class Api:
    """An API that answers 201, unless something is wrong with it.

    Attributes:
        latency: Seconds of an answer, with that many calls under way; jitter comes on top.
        quota: Calls per second; None for no limit.
        fields: Whether the quota is told in RateLimit fields.
        outage: How calls fail while it is down: refused, 503 or hanging.
        down: From when to when, in seconds from the start.
        refusals: Answers to single records, by their number.
    """

    latency: Callable[[int], float] = lambda _: 0.05
    jitter: float = 0.3
    quota: float | None = None
    fields: bool = False
    outage: str = "refused"
    down: tuple[float, float] = (math.inf, math.inf)
    refusals: dict[int, tuple[int, dict[str, str]]] = field(default_factory=dict)
    seed: int = 1

    def start(self) -> None:
        self.random = random.Random(self.seed)
        self.began = asyncio.get_running_loop().time()
        self.under_way = 0
        self.calls: list[tuple[float, int, int]] = []  # seconds from the start, record, status, or 0 for none
        self.bucket = None if self.quota is None else Bucket(self.quota, self.began)

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    def change_quota(self, quota: float) -> None:
        assert self.bucket is not None
        self.bucket.change(quota, self.began + self.now)

    async def call(self, record: int) -> httpx.Response:
        """Answer one call.

        Raises:
            ApiTransportError: It is down.
        """
        arrived = self.now
        self.under_way += 1
        try:
            response = await self._response(record)
        except ApiTransportError:
            self.calls.append((arrived, record, 0))
            raise
        finally:
            self.under_way -= 1
        self.calls.append((arrived, record, response.status_code))
        return response

    async def _response(self, record: int) -> httpx.Response:
        if self.down[0] <= self.now < self.down[1]:
            if self.outage == "refused":
                await asyncio.sleep(0.001)
                raise ApiTransportError("refused", method="POST", url="/", retryable=True, sent=False)
            if self.outage == "hanging":
                await asyncio.sleep(READ_TIMEOUT)
                raise ApiTimeoutError("no answer", method="POST", url="/", retryable=True)
            await self._wait()
            return httpx.Response(503)
        await self._wait(0.5)
        status, headers = self._judge(record)
        await self._wait(0.5)
        return httpx.Response(status, headers=headers)

    async def _wait(self, part: float = 1.0) -> None:
        latency = self.latency(self.under_way)
        await asyncio.sleep(part * latency * (1 + self.jitter * (self.random.expovariate() - 1)))

    def _judge(self, record: int) -> tuple[int, dict[str, str]]:
        if record in self.refusals:
            return self.refusals[record]
        if self.bucket is None:
            return 201, {}
        taken = self.bucket.take(self.began + self.now)
        fields = {}
        if self.fields:
            reset = math.ceil((self.bucket.rate - self.bucket.level) / self.bucket.rate)
            fields = {
                "RateLimit-Policy": f'"calls";q={self.bucket.rate:.0f};w=1',
                "RateLimit": f'"calls";r={int(self.bucket.level)};t={reset}',
            }
        return (201, fields) if taken else (429, {"Retry-After": "1", **fields})


class Process:
    """A process of the app: some callers, who post records until none are left, and a pacer between them and the API.

    What is refused is posted again. `give_up` makes callers drop what the API has refused for good.
    """

    def __init__(self, api: Api, *, callers: int = 40, max_concurrency: int = 20, **pacing: Any) -> None:
        loop = asyncio.get_running_loop()
        self.api = api
        self.callers = callers
        self.pacer = Pacer(max_concurrency=max_concurrency, clock=loop.time, **pacing)
        self.statuses: Counter[int] = Counter()
        self.paused = 0
        self.posted: list[float] = []

    async def post(self, records: int) -> float:
        """Post that many records; returns the seconds it took."""
        new, again = iter(range(1, records + 1)), deque[int]()
        began = self.api.now

        async def caller() -> None:
            while record := next(new, 0) or (again.popleft() if again else 0):
                if not await self.attempt(record):
                    again.append(record)

        async with asyncio.TaskGroup() as callers:
            for _ in range(self.callers):
                callers.create_task(caller())
        return self.api.now - began

    async def attempt(self, record: int, method: str = "POST", **extensions: float) -> bool:
        """Post one record; returns whether that is over, whatever the answer was."""
        request = httpx.Request(method, "https://api.example.com/records", extensions=extensions)
        try:
            async with self.pacer.admitted(request) as told:
                response = await self.api.call(record)
                told(response)
        except GateClosedError as error:
            self.paused += 1
            await asyncio.sleep(error.retry_after)
            return False
        except ApiTransportError:
            self.statuses[0] += 1
            return False
        self.statuses[response.status_code] += 1
        if response.is_success:
            self.posted.append(self.api.now)
        return response.is_success or record in self.api.refusals
