"""The sandbox API as tests use it, and records for it."""

import itertools
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

type NewRecord = Callable[[], dict[str, Any]]


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
    """A function that makes records, each with a registration number that no other has, here or elsewhere."""
    series, numbers = uuid.uuid4().hex[:12], itertools.count(1)
    return lambda: {"registration_number": f"HRB {series} {next(numbers)}", "name": "Acme GmbH", "country": "DE"}
