"""The invoice: as callers send it, as it travels, and as the API has it."""

from datetime import date
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

type Record = dict[str, Any]
"""An invoice as plain JSON, as it was accepted."""

Number = Annotated[Decimal, PlainSerializer(float, when_used="json", return_type=float)]
"""An amount that travels as a number."""


class NewLine(BaseModel):
    """A line of an invoice, as callers send it."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    text: Annotated[str, Field(min_length=1)]
    unit_price: Annotated[Number, Field(max_digits=15, decimal_places=2)]
    quantity: Annotated[int, Field(ge=1)] = 1


class NewBusiness(BaseModel):
    """An invoice as callers send it."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    invoice_number: Annotated[str, Field(pattern="^[A-Z0-9-]{1,40}$")]
    amount: Annotated[Decimal, Field(max_digits=15, decimal_places=2)]
    issued_on: date
    lines: Annotated[list[NewLine], Field(min_length=1, max_length=100)]
    note: str | None = None


class Line(BaseModel):
    """A line of an invoice, as the API has it."""

    model_config = ConfigDict(alias_generator=to_camel)

    text: str
    unit_price: Number
    quantity: int = 1


class Business(BaseModel):
    """An invoice as the API has it."""

    model_config = ConfigDict(alias_generator=to_camel)

    id: Annotated[int | None, Field(alias="invoiceId")] = None
    invoice_number: str
    amount: Decimal
    issued_on: date
    lines: list[Line] = []
    note: str | None = None
