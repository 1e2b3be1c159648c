"""The business record: as callers send it, as it travels, and as the API has it."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

type Record = dict[str, Any]
"""A business as plain JSON, as it was accepted: durable state holds it, and it goes to the API as it is."""

TRIMMED = r"^\S(.*\S)?$"
"""Pattern of a text in one line without white space at its ends, by which it would differ from one that looks alike."""


class NewBusiness(BaseModel):
    """A business as callers send it and as it goes to the API, which assigns the id.

    It is strict: a value arrives at the API as it was sent, or is refused.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    registration_number: Annotated[str, Field(min_length=1, max_length=64, pattern=TRIMMED)]
    name: Annotated[str, Field(min_length=1, max_length=200, pattern=TRIMMED)]
    country: Annotated[str, Field(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2")]
    email: Annotated[str | None, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)] = None
    website: Annotated[str | None, Field(pattern=r"^https?://\S+$", max_length=2000)] = None
    employees: Annotated[int | None, Field(ge=0)] = None


class Business(BaseModel):
    """A business as the API has it, read leniently: what the API has is not this app's to refuse."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: Annotated[str | None, Field(description="Assigned by the API")] = None
    registration_number: str
    name: str
    country: str
    email: str | None = None
    website: str | None = None
    employees: int | None = None
