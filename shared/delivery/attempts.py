"""One attempt to post a record, and what the API's answer, or none, means for it."""

import logging
import time
from collections.abc import Callable

import httpx
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import shared.business
from shared.access_tokens import TokenError
from shared.business import Business, NewBusiness, Record
from shared.rest import ApiError, ApiResponse, ApiResponseError, ProblemDetails
from shared.settings import SettingsError
from shared.telemetry import tracer

from .outcomes import AttemptOutcome, Deferred, Posted, Rejected

_log = logging.getLogger("post_business")


class Attempt(BaseModel):
    """Input of the activity.

    Attributes:
        record: As it was accepted.
        idempotency_key: The same for every attempt at this record.
    """

    model_config = ConfigDict(frozen=True)

    record: Record
    idempotency_key: str = Field(min_length=1)


_OUTCOME: TypeAdapter[AttemptOutcome] = TypeAdapter(AttemptOutcome)


def parse_outcome(returned: object) -> AttemptOutcome:
    """Read what the activity returned."""
    return _OUTCOME.validate_python(returned)


async def post_record(attempt: Attempt, *, clock: Callable[[], float] = time.perf_counter) -> AttemptOutcome:
    """Try once to post a record. Answers for good and failures that may pass are values; only bugs raise.

    One log line says how the API answered and how long that took. It holds nothing of the record and no URL.
    The client is looked up at each call, so that a test can put another one into `shared.business`.

    Args:
        attempt: The record, and the key under which it is sent.
        clock: Seconds; measures how long the attempt takes, with the time for a token if one is needed.
    """
    began, status = clock(), None
    with tracer.start_as_current_span("post_business", kind=SpanKind.CLIENT) as span:
        try:
            response = await shared.business.business_api.post_business(
                attempt.record, idempotency_key=attempt.idempotency_key
            )
            status = response.status
            span.set_attribute("http.response.status_code", status)
            if status == httpx.codes.CONFLICT:
                outcome = await _look_up(response, attempt.record)
            else:
                replayed = response.headers.get("Idempotency-Replayed", "").lower() == "true"
                outcome = _posted(response.unwrap(), replayed=replayed)
        except (SettingsError, TokenError, ApiError) as error:
            outcome = outcome_of(error)
        span.set_attributes(
            {"post_business.outcome": outcome.outcome, "post_business.idempotency_key": attempt.idempotency_key}
        )
    _log.info(
        "Attempt %s: %s, status %s, %.0f ms",
        attempt.idempotency_key,
        outcome.outcome,
        status or "none",
        (clock() - began) * 1000,
    )
    return outcome


def _posted(business: Business, *, replayed: bool) -> AttemptOutcome:
    content = business.model_dump(mode="json", by_alias=True, exclude_none=True)
    business_id = None if business.id is None else str(business.id)  # an API may number its records
    return Posted(id=business_id, business=content, replayed=replayed)


async def _look_up(conflict: ApiResponse[Business], record: Record) -> AttemptOutcome:
    """Find out what a 409 means: the record is there, another one is, or an earlier attempt is still under way."""
    location = conflict.headers.get("Location")
    if location is None:
        return Deferred(reason="the API is at work on an earlier attempt: 409")
    with tracer.start_as_current_span("get_business", kind=SpanKind.CLIENT) as span:
        found = await shared.business.business_api.get_business(httpx.URL(location).path.rpartition("/")[2])
        span.set_attribute("http.response.status_code", found.status)
    existing = found.unwrap()
    if conflict.error is None or _is_same(existing, record):
        return _posted(existing, replayed=True)
    return outcome_of(conflict.error)


def _is_same(existing: Business, record: Record) -> bool:
    """Whether the API has what was sent: in all fields that callers can send and the API is known to have."""
    there = existing.model_dump(mode="json", by_alias=True, exclude_none=True)
    return all(there.get(name) == record.get(name) for name in _json_names(NewBusiness) & _json_names(Business))


def _json_names(model: type[BaseModel]) -> set[str]:
    return {field.serialization_alias or field.alias or name for name, field in model.model_fields.items()}


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
