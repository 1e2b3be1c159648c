"""The invoice that tests, demo, benchmarks, OpenAPI and the printed curl lines send."""

from .models import Record

NATURAL_KEY = "invoiceNumber"
"""The member, by its name in JSON, by which people tell one invoice from another."""


def example(number: int = 1001) -> Record:
    """A valid invoice as callers send it, another one for each number from 1."""
    line = {"text": "Consulting", "unitPrice": 39.7, "quantity": 3}
    return {NATURAL_KEY: f"R-{number}", "amount": "119.10", "issuedOn": "2026-01-31", "lines": [line]}


def assigned(number: int = 1) -> Record:
    """What the API adds to an invoice: its id, another one for each number from 1."""
    return {"invoiceId": number}
