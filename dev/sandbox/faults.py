"""Faults on demand: scripted for single records and for the token endpoint, or at random rates from a seed."""

import contextlib
import math
import random
from collections import deque
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Annotated, Literal, Self

from aiohttp import web
from multidict import CIMultiDict
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    NonNegativeInt,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError, to_json

from dev.sandbox.problems import PROBLEM_TYPE, problem_details
from dev.sandbox.records import as_text
from dev.sandbox.tokens import INVALID_TOKEN_CHALLENGE

type Seconds = Annotated[float, Field(ge=0, le=3600)]
type Status = Annotated[int, Field(ge=200, le=599)]
type HeaderName = Annotated[str, StringConstraints(pattern=r"^[\w-]+$")]
type HeaderValue = Annotated[str, StringConstraints(pattern=r"^[ -~]*$")]
type RateName = Annotated[str, StringConstraints(pattern=r"^([45]\d\d|drop_before|drop_after)$")]
type Rate = Annotated[float, Field(ge=0, le=1)]


class Step(BaseModel):
    """What happens to one try: `delay` seconds pass, then comes this answer, a dropped connection or the usual answer.

    Attributes:
        status: Of the answer; the usual one is given where there is neither a status nor a drop.
        headers: Of the answer, also in place of the usual `Content-Type`.
        body: Of the answer: text as it is, anything else as JSON. By default problem details for an error, else empty.
        retry_after: Seconds, as the header of the answer.
        store: Whether the record is stored, or the token issued, before this answer is given in place of the usual one.
        drop: "before" closes the connection before the record is stored or the token issued, "after" when it has been.
        delay: Seconds.
        always: Whether this step is met by all tries from now on; otherwise the next try goes on to the next step.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    status: Status | None = None
    headers: dict[HeaderName, HeaderValue] = {}
    body: JsonValue = None
    retry_after: NonNegativeInt | None = None
    store: bool = False
    drop: Literal["before", "after"] | None = None
    delay: Seconds = 0
    always: bool = False

    @model_validator(mode="after")
    def _members_fit_together(self) -> Self:
        if self.status is not None and self.drop is not None:
            raise PydanticCustomError("step", "Expected status or drop, not both")
        if self.status is None and self.model_fields_set & {"headers", "body", "retry_after", "store"}:
            raise PydanticCustomError("step", "Expected headers, body, retry_after and store only with status")
        return self

    def answer(self, *, stored: bool) -> web.Response | None:
        """The answer that this step gives before, or when the record is stored or the token issued, if any."""
        if self.status is None or self.store != stored:
            return None
        headers = CIMultiDict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers.setdefault("WWW-Authenticate", INVALID_TOKEN_CHALLENGE)
        error, body = self.status >= 400, self.body
        if body is None:
            body = problem_details(self.status, "A fault on demand.") if error else ""
        headers.setdefault("Content-Type", PROBLEM_TYPE if error else "application/json")
        content = body.encode() if isinstance(body, str) else to_json(body)
        return web.Response(status=self.status, body=content, headers=headers)


class Quota(BaseModel):
    """A token bucket in front of the posts: what finds it empty is answered with `429` and `Retry-After: 1`.

    Attributes:
        rate: Posts per second that flow into the bucket, and that it holds.
        fields: Whether the answers tell of it: `RateLimit-Policy` and `RateLimit` (draft 10).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    rate: Annotated[float, Field(ge=1, le=1_000_000)]
    fields: bool = False


class FaultPlan(BaseModel):
    """The body of `POST /faults`.

    `records` maps the natural key of a record, as text, to the steps of its first tries, `token` holds the steps of the
    next token requests. Tries without a step of their own meet `rates`: the probability of each error status ("503")
    and of "drop_before" and "drop_after", drawn in the order of arrival from a generator with `seed`; `retry_after`
    goes with these statuses. `latency` is added to every post, and `contention` as often as other posts are being
    served when it comes. Before all that, `quota` refuses the posts that are too many.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    records: dict[str, list[Step]] = {}
    token: list[Step] = []
    seed: int = 0
    rates: dict[RateName, Rate] = {}
    retry_after: NonNegativeInt | None = None
    latency: Seconds = 0
    contention: Seconds = 0
    quota: Quota | None = None

    @field_validator("rates")
    @classmethod
    def _rates_are_of_one_whole(cls, rates: dict[str, float]) -> dict[str, float]:
        if sum(rates.values()) > 1 + 1e-9:  # ten times 0.1 is a little more than 1 in binary
            raise PydanticCustomError("rates", "Expected rates that add up to at most 1")
        return rates


_NO_FAULT = Step()


class Bucket:
    """What is left of a quota.

    Args:
        quota: How much flows in, and how much there is at most: at first, too.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, quota: Quota, clock: Callable[[], float]) -> None:
        self._quota = quota
        self._clock = clock
        self._left = quota.rate
        self._at = clock()

    def take(self) -> bool:
        """Take one post out, if there is one."""
        now = self._clock()
        self._left = min(self._left + (now - self._at) * self._quota.rate, self._quota.rate)
        self._at = now
        taken = self._left >= 1
        self._left -= taken
        return taken

    def fields(self) -> dict[str, str]:
        """What the answers tell of it."""
        if not self._quota.fields:
            return {}
        seconds = math.ceil(1 - self._left / self._quota.rate)
        return {
            "RateLimit-Policy": f'"posts";q={self._quota.rate:.0f};w=1',
            "RateLimit": f'"posts";r={int(self._left)};t={seconds}',
        }


class Faults:
    """Carries a plan out: hands out the step for each try, and uses the scripts up; without a plan all goes well.

    Args:
        clock: Seconds on a clock that never goes back, for the quota.

    Attributes:
        bucket: What is left of the quota; None without one.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._being_served = 0
        self.follow(FaultPlan())

    def follow(self, plan: FaultPlan) -> None:
        """Carry out this plan instead of the present one."""
        self._latency, self._contention = plan.latency, plan.contention
        self.bucket = None if plan.quota is None else Bucket(plan.quota, self._clock)
        self._records = {key: deque(steps) for key, steps in plan.records.items()}
        self._token = deque(plan.token)
        self._limits = list(accumulate(plan.rates.values()))
        self._random_steps = [_random_step(name, plan.retry_after) for name in plan.rates]
        self._random = random.Random(plan.seed)  # noqa: S311 - faults must be reproducible, not secret

    @contextlib.contextmanager
    def being_served(self) -> Iterator[float]:
        """A post is being served in this context; yields the seconds that it takes longer because of the plan."""
        latency = self._latency + self._contention * self._being_served
        self._being_served += 1
        try:
            yield latency
        finally:
            self._being_served -= 1

    def next_for_token(self) -> Step:
        """The step for this token request."""
        return _next(self._token) if self._token else _NO_FAULT

    def next_for_record(self, natural_key: object) -> Step:
        """The step for this try of a record, by the value of its natural key."""
        if script := self._records.get(as_text(natural_key)):
            return _next(script)
        if self._limits:
            draw = self._random.random()
            for limit, step in zip(self._limits, self._random_steps, strict=True):
                if draw < limit:
                    return step
        return _NO_FAULT


def _next(script: deque[Step]) -> Step:
    return script[0] if script[0].always else script.popleft()


def _random_step(name: str, retry_after: int | None) -> Step:
    match name:
        case "drop_before":
            return Step(drop="before")
        case "drop_after":
            return Step(drop="after")
        case status:
            return Step(status=int(status), retry_after=retry_after)
