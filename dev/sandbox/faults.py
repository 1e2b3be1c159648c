"""Faults on demand: scripted for single records and for the token endpoint, or at random rates from a seed."""

import random
from collections import deque
from itertools import accumulate
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dev.sandbox.problems import ProblemError
from dev.sandbox.tokens import INVALID_TOKEN_CHALLENGE

type Seconds = Annotated[float, Field(ge=0, le=3600)]
type ErrorStatus = Annotated[int, Field(ge=400, le=599)]
type RateName = Annotated[str, StringConstraints(pattern=r"^([45]\d\d|drop_before|drop_after)$")]
type Rate = Annotated[float, Field(ge=0, le=1)]


class Step(BaseModel):
    """What happens to one try: `delay` seconds pass, then an error status, a dropped connection or the usual answer.

    `drop` "before" closes the connection before the record is stored or the token issued, "after" closes it when
    that has happened, instead of answering. `retry_after` (seconds) goes with `status`.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    status: ErrorStatus | None = None
    retry_after: NonNegativeInt | None = None
    drop: Literal["before", "after"] | None = None
    delay: Seconds = 0

    @model_validator(mode="after")
    def _members_fit_together(self) -> Self:
        if self.status is not None and self.drop is not None:
            raise PydanticCustomError("step", "Expected status or drop, not both")
        if self.status is None and self.retry_after is not None:
            raise PydanticCustomError("step", "Expected retry_after only with status")
        return self

    def raise_for_status(self) -> None:
        """Refuse the request if this step says so.

        Raises:
            ProblemError: With the step's status.
        """
        if self.status is None:
            return
        headers = {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        if self.status == 401:
            headers["WWW-Authenticate"] = INVALID_TOKEN_CHALLENGE
        raise ProblemError(self.status, "A fault on demand.", headers=headers)


class FaultPlan(BaseModel):
    """The body of `POST /faults`.

    `records` maps a registration number to the steps of its first tries, `token` holds the steps of the next token
    requests. Tries without a step of their own meet `rates`: the probability of each error status ("503") and of
    "drop_before" and "drop_after", drawn in the order of arrival from a generator with `seed`; `retry_after` goes
    with these statuses. `latency` is added to every post.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    records: dict[str, list[Step]] = {}
    token: list[Step] = []
    seed: int = 0
    rates: dict[RateName, Rate] = {}
    retry_after: NonNegativeInt | None = None
    latency: Seconds = 0

    @field_validator("rates")
    @classmethod
    def _rates_are_of_one_whole(cls, rates: dict[str, float]) -> dict[str, float]:
        if sum(rates.values()) > 1 + 1e-9:  # ten times 0.1 is a little more than 1 in binary
            raise PydanticCustomError("rates", "Expected rates that add up to at most 1")
        return rates


_NO_FAULT = Step()


class Faults:
    """Carries a plan out: hands out the step for each try, and uses the scripts up; without a plan all goes well."""

    def __init__(self) -> None:
        self.follow(FaultPlan())

    def follow(self, plan: FaultPlan) -> None:
        """Carry out this plan instead of the present one."""
        self.latency = plan.latency
        self._records = {number: deque(steps) for number, steps in plan.records.items()}
        self._token = deque(plan.token)
        self._limits = list(accumulate(plan.rates.values()))
        self._random_steps = [_random_step(name, plan.retry_after) for name in plan.rates]
        self._random = random.Random(plan.seed)  # noqa: S311 - faults must be reproducible, not secret

    def next_for_token(self) -> Step:
        """The step for this token request."""
        return self._token.popleft() if self._token else _NO_FAULT

    def next_for_record(self, registration_number: object) -> Step:
        """The step for this try of a record; the number is as it was sent, before any validation."""
        if isinstance(registration_number, str) and (script := self._records.get(registration_number)):
            return script.popleft()
        if self._limits:
            draw = self._random.random()
            for limit, step in zip(self._limits, self._random_steps, strict=True):
                if draw < limit:
                    return step
        return _NO_FAULT


def _random_step(name: str, retry_after: int | None) -> Step:
    match name:
        case "drop_before":
            return Step(drop="before")
        case "drop_after":
            return Step(drop="after")
        case status:
            return Step(status=int(status), retry_after=retry_after)
