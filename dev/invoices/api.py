"""The API that invoices are posted to, and the client that all functions share."""

import json
from typing import Annotated, ClassVar

from pydantic import Field

from shared.business.answers import Answers
from shared.rest import ApiClient, ApiResponse, ApiResponseError, Body, Header, ProblemDetails, get, post
from shared.wiring import client_options

from .models import Business, NewBusiness, Record

COLLECTION = "/api/v3/invoices"
"""The path of the invoices, below the base URL of the API."""


def read_problem(error: ApiResponseError) -> ProblemDetails:
    """Read `{"code": "E17", "text": "no such country"}`."""
    told = json.loads(error.body)
    return ProblemDetails(type=f"urn:invoices:{told['code']}", title="Refused", detail=told["text"])


class BusinessApi(ApiClient):
    """The protected API, one method an endpoint."""

    answers: ClassVar[Answers] = Answers(conflict="duplicate", problem=read_problem)

    @get(COLLECTION + "/{business_id}")
    async def get_business(self, business_id: str) -> ApiResponse[Business]:
        """The invoice with this id."""
        ...

    @post(COLLECTION)
    async def post_business(
        self,
        business: Annotated[Record | NewBusiness, Field(union_mode="left_to_right"), Body(exclude_none=True)],
        *,
        idempotency_key: Annotated[str | None, Header("Idempotency-Key")] = None,
    ) -> ApiResponse[Business]:
        """Create an invoice."""
        ...


business_api = BusinessApi(client_options)
"""The client that every function of a worker process shares."""
