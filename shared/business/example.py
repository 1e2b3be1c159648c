"""The record that tests, demo, benchmarks, OpenAPI and the printed curl lines send: edit it with the model."""

from .models import Record

NATURAL_KEY = "registration_number"
"""The member, by its name in JSON, by which people tell one record from another."""


def example(number: int = 1001) -> Record:
    """A valid record as callers send it, another one for each number from 1."""
    return {NATURAL_KEY: f"HRB {number}", "name": "Acme GmbH", "country": "DE"}


def assigned(number: int = 1) -> Record:
    """What the API adds to a record: its id, another one for each number from 1."""
    return {"id": f"b-{number}"}
