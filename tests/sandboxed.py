"""The sandbox API as tests use it, and records for it."""

import itertools
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from shared.business import NATURAL_KEY, NewBusiness, Record, example

type NewRecord = Callable[[], Record]

PROBLEM = {"type": "about:blank", "title": "Refused", "status": 422, "errors": [{"field": NATURAL_KEY, "detail": "no"}]}
REFUSED = {"status": 422, "body": PROBLEM}
"""A step of faults: the API refuses the record for good."""

LATER = {"status": 423, "retry_after": 600}
"""A step of faults: the record is deferred for long, and no other one. A 503 or 429 would pause all calls."""

of_rows = pytest.mark.skipif(
    any(isinstance(value, dict | list) for value in example().values()),
    reason="needs a record that fits into a row of CSV: without objects and lists",
)


@dataclass
class Sandbox:
    """The sandbox API at an address."""

    url: str

    def stats(self) -> dict[str, Any]:
        counters: dict[str, Any] = httpx.get(f"{self.url}/stats").raise_for_status().json()
        return counters

    def disturb(self, **plan: Any) -> None:
        httpx.post(f"{self.url}/faults", json=plan).raise_for_status()

    def behave(self) -> None:
        httpx.delete(f"{self.url}/faults").raise_for_status()

    def revoke_tokens(self) -> None:
        httpx.post(f"{self.url}/auth/revoke").raise_for_status()


def record_maker() -> NewRecord:
    """A function that makes records, none of which there has been before, here or elsewhere."""
    numbers = itertools.count(1 + secrets.randbelow(10**9) * 10**6)
    return lambda: example(next(numbers))


def business[M: NewBusiness = NewBusiness](
    number: int = 1001,
    model: type[M] = NewBusiness,  # type: ignore[assignment]
    **added: Any,
) -> M:
    """The example as the app reads it: from JSON, where a strict model takes dates and amounts as text."""
    return model.model_validate_json(json.dumps(example(number) | added))


def key_of(record: Record) -> str:
    """The natural key of a record, as text: faults are planted under it."""
    return str(record[NATURAL_KEY])


def invalid(**added: Any) -> Record:
    """A record of which a required member is missing, with others added."""
    return {name: value for name, value in example().items() if name != NATURAL_KEY} | added
