"""The business record, the API that it is posted to, and what can become of a post."""

from typing import Annotated, Literal

import httpx
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ConfigDict, Field

from shared.access_tokens import TokenError
from shared.rest import ApiClient, ApiError, ApiResponse, ApiResponseError, Body, Header, ProblemDetails, get, post
from shared.settings import SettingsError
from shared.telemetry import tracer
from shared.wiring import client_options


class Business(BaseModel):
    """A business as the API knows it."""

    model_config = ConfigDict(frozen=True, str_strip_whitespace=True)

    id: Annotated[str | None, Field(description="Assigned by the API")] = None
    registration_number: Annotated[str, Field(min_length=1, max_length=64, examples=["HRB 1001"])]
    name: Annotated[str, Field(min_length=1, max_length=200, examples=["Acme GmbH"])]
    country: Annotated[str, Field(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2", examples=["DE"])]
    email: Annotated[str | None, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)] = None
    website: Annotated[str | None, Field(pattern=r"^https?://\S+$", max_length=2000)] = None
    employees: Annotated[int | None, Field(ge=0)] = None


class BusinessApi(ApiClient):
    """The protected API, one method an endpoint."""

    @get("/businesses/{business_id}")
    async def get_business(self, business_id: str) -> ApiResponse[Business]:
        """The record with this id."""
        ...

    @post("/businesses")
    async def post_business(
        self,
        business: Annotated[Business, Body(exclude_none=True)],
        *,
        idempotency_key: Annotated[str | None, Header("Idempotency-Key")] = None,
    ) -> ApiResponse[Business]:
        """Create a record; the same `idempotency_key` again gets the first answer again."""
        ...


class Posted(BaseModel):
    """The API has the record; `replayed` if an earlier attempt, whose answer was lost, had brought it there."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["posted"] = "posted"
    business: Business
    replayed: bool = False


class Rejected(BaseModel):
    """The API refused the record for good; sending it again would not help."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["rejected"] = "rejected"
    status: int
    problem: ProblemDetails


class Deferred(BaseModel):
    """Not posted yet, for a reason that may pass. `retry_after` is the server's wish in seconds, if it had one."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["deferred"] = "deferred"
    reason: str
    retry_after: float | None = None


business_api = BusinessApi(client_options)
"""The client that every function of a worker process shares; it reads its settings at the first call."""


async def post_business(
    business: Business, *, idempotency_key: str, api: BusinessApi = business_api
) -> Posted | Rejected | Deferred:
    """Try once to post a record. Answers for good and failures that may pass are values; only bugs raise.

    Args:
        business: The record.
        idempotency_key: The same for every attempt at this record.
        api: The API to post it to.
    """
    with tracer.start_as_current_span("post_business", kind=SpanKind.CLIENT) as span:
        try:
            response = await api.post_business(business, idempotency_key=idempotency_key)
            outcome: Posted | Rejected | Deferred
            if response.status == httpx.codes.CONFLICT:
                outcome = await _look_up(response, business, api)
            else:
                replayed = response.headers.get("Idempotency-Replayed", "").lower() == "true"
                outcome = Posted(business=response.unwrap(), replayed=replayed)
        except (SettingsError, TokenError, ApiError) as error:
            outcome = outcome_of(error)
        span.set_attributes(
            {"post_business.outcome": outcome.outcome, "post_business.idempotency_key": idempotency_key}
        )
    return outcome


async def _look_up(
    conflict: ApiResponse[Business], business: Business, api: BusinessApi
) -> Posted | Rejected | Deferred:
    """Find out what a 409 means: the record is there, another one is, or an earlier attempt is still under way."""
    location = conflict.headers.get("Location")
    if location is None:
        return Deferred(reason="the API is at work on an earlier attempt: 409")
    existing = (await api.get_business(httpx.URL(location).path.rpartition("/")[2])).unwrap()
    if existing.model_copy(update={"id": None}) == business:
        return Posted(business=existing, replayed=True)
    return outcome_of(conflict.error) if conflict.error else Posted(business=existing)


def outcome_of(error: SettingsError | TokenError | ApiError) -> Rejected | Deferred:
    """What a failed attempt means for the record.

    Only an answer to the record itself rejects it. Whatever stands between app and API - settings, token, connection,
    an overloaded server - defers it: an expired secret at night must not lose a record.
    """
    match error:
        case SettingsError():
            return Deferred(reason=f"settings: {error}")
        case TokenError():
            return Deferred(reason=f"access token: {error}", retry_after=error.retry_after)
        case ApiResponseError(status=int(status)) if _is_about_the_record(error, status):
            problem = error.problem or ProblemDetails(status=status, title=error.reason)
            return Rejected(status=status, problem=problem)
        case _:
            return Deferred(reason=str(error), retry_after=error.retry_after)


def _is_about_the_record(error: ApiResponseError, status: int) -> bool:
    """Whether another record might have been accepted: not so for a token that is refused or lacks a scope."""
    lacks_scope = "insufficient_scope" in error.headers.get("WWW-Authenticate", "")
    return 400 <= status < 500 and status != httpx.codes.UNAUTHORIZED and not lacks_scope and not error.retryable
