"""The API that business records are posted to, described as a class, and the client that all functions share."""

from typing import Annotated, ClassVar

from pydantic import Field

from shared.rest import ApiClient, ApiResponse, Body, Header, get, post
from shared.wiring import client_options

from .answers import Answers
from .models import Business, NewBusiness, Record

COLLECTION = "/businesses"
"""The path of the records, below the base URL of the API."""


class BusinessApi(ApiClient):
    """The protected API, one method an endpoint."""

    answers: ClassVar[Answers] = Answers()

    @get(COLLECTION + "/{business_id}")
    async def get_business(self, business_id: str) -> ApiResponse[Business]:
        """The record with this id."""
        ...

    @post(COLLECTION)
    async def post_business(
        self,
        # A record that was accepted before goes out as it is, also if the model has changed since.
        business: Annotated[Record | NewBusiness, Field(union_mode="left_to_right"), Body(exclude_none=True)],
        *,
        idempotency_key: Annotated[str | None, Header("Idempotency-Key")] = None,
    ) -> ApiResponse[Business]:
        """Create a record; the same `idempotency_key` again gets the first answer again."""
        ...


business_api = BusinessApi(client_options)
"""The client that every function of a worker process shares; it reads its settings at the first call."""
