"""What the API answered, or why it did not, becomes the outcome of an attempt."""

import logging
from typing import TypedDict
from urllib.parse import quote
from uuid import UUID

import httpx
from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

import shared.business
from shared.access_tokens import TokenError
from shared.business import Business, Record
from shared.http.media_types import BYTE_ORDER_MARK, media_type
from shared.http.urls import last_segment
from shared.rest import ApiError, ApiResponse, ApiResponseError, ProblemDetails
from shared.settings import SettingsError
from shared.telemetry import tracer

from .bounds import ID_LIMIT, SINGLE_LIMIT, size
from .judgement import ANOTHER_IS_THERE, NO_ANSWER, NOT_SENT, UNSEEN, Rule, rule_for
from .outcomes import AttemptOutcome, Deferred, Posted, Rejected

_log = logging.getLogger("post_business")


async def outcome_of(response: ApiResponse[Business | None], record: Record) -> AttemptOutcome:
    """What an answer means for the record."""
    error = response.error
    if not isinstance(error, ApiResponseError):
        try:
            return _posted(response)
        except Exception as failure:  # noqa: BLE001 (whatever is wrong with a model, the API has the record by now)
            return Posted(warning=f"{response.status}: {type(failure).__name__} in the model of the answer")
    answers = shared.business.business_api.answers
    if response.status == httpx.codes.CONFLICT and httpx.codes.CONFLICT not in answers.statuses:
        business_id = last_segment(response.headers.get("Location"))
        if business_id is not None:
            return await _look_up(business_id, error, record)
    html = media_type(error.headers.get("Content-Type")) == "text/html"
    return _refused(error, rule_for(response.status, html=html, answers=answers))


def _posted(response: ApiResponse[Business | None], *, replayed: bool = False) -> Posted:
    """The API said yes: whatever came with that, the record is never sent again."""
    replayed = replayed or response.headers.get("Idempotency-Replayed", "").lower() == "true"
    content, warning = None, None
    if (business := response.content) is not None:
        named = _as_id(business.id)
        content = business.model_dump(mode="json", by_alias=True, exclude_none=True)
    elif (error := response.error) is not None:
        named = _id_in(error.body)
        warning = f"{error.status}: {error.reason}"
    else:  # the description promises no content
        named = None
    if named is None:
        named = _as_id(last_segment(response.headers.get("Location")))
    return Posted(id=named, business=content, replayed=replayed, warning=warning)


def _id_in(body: bytes) -> str | None:
    """The id in an answer that is no `Business`, if it is an object with a member of that name."""
    try:
        answered = from_json(body.removeprefix(BYTE_ORDER_MARK), allow_partial=True)
    except ValueError:
        return None
    return _as_id(answered.get(json_name(Business, "id"))) if isinstance(answered, dict) else None


def _as_id(value: object) -> str | None:
    """An id as it can stand in a path, and in the results of a batch; None if it cannot."""
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        return None
    text = str(value)
    usable = last_segment(quote(text, safe="", errors="replace")) == text and size(text) <= ID_LIMIT
    return text if usable else None


async def _look_up(business_id: str, conflict: ApiResponseError, record: Record) -> AttemptOutcome:
    """Find out which record the API has already: this one, or another."""
    try:
        with tracer.start_as_current_span("get_business", kind=SpanKind.CLIENT) as span:
            found = await shared.business.business_api.get_business(business_id)
            span.set_attribute("http.response.status_code", found.status)
        existing = found.unwrap()
    except (SettingsError, TokenError, ApiError) as error:
        # Only the answer to the post is about the record: whatever the look-up was answered, it says nothing of it.
        unseen = unanswered(error)
        return unseen.model_copy(update={"reason": f"409; {unseen.reason}", "may_be_stored": UNSEEN.may_be_stored})
    if _is_same(existing, record):
        return _posted(found, replayed=True)
    return _refused(conflict, ANOTHER_IS_THERE)


def _is_same(existing: Business, record: Record) -> bool:
    """Whether the API has what was sent: all members of it that the API is known to have, with the same values."""
    sent_fields = [name for name in Business.model_fields if json_name(Business, name) in record]
    there = existing.model_dump(mode="json", by_alias=True, exclude_none=True)
    try:
        # Read as the API's own is read, since a value can be written in several ways, such as 1.5 and 1.50.
        sent = Business.model_validate(there | record)
    except ValidationError:  # the model has changed since the record was accepted
        same = [there.get(name) == record[name] for name in (json_name(Business, field) for field in sent_fields)]
    else:
        same = [getattr(existing, field) == getattr(sent, field) for field in sent_fields]
    return bool(same) and all(same)


def _refused(error: ApiResponseError, rule: Rule) -> Rejected | Deferred:
    """The outcome by a rule, with what the API told."""
    status, problem = error.status or 0, _problem_of(error)
    told = _Told(problem=problem, excerpt=None if problem else _excerpt_of(error), may_be_stored=rule.may_be_stored)
    if rule.outcome == "rejected":
        told["problem"] = problem or ProblemDetails(status=status, title=httpx.codes.get_reason_phrase(status) or None)
        return Rejected(status=status, **told)
    limited = status == httpx.codes.TOO_MANY_REQUESTS or (
        status == httpx.codes.SERVICE_UNAVAILABLE and error.retry_after is not None
    )
    return Deferred(reason=_reason(error), retry_after=error.retry_after, limited=limited, **told)


class _Told(TypedDict):
    problem: ProblemDetails | None
    excerpt: str | None
    may_be_stored: bool


def _problem_of(error: ApiResponseError) -> ProblemDetails | None:
    try:
        own = shared.business.business_api.answers.problem(error)
    except Exception as failure:  # noqa: BLE001 (whatever an adopter's reader raises on an answer that it does not expect)
        _log.warning("The API's own error format could not be read: %s", type(failure).__name__)
        own = None
    return own or error.problem


def _excerpt_of(error: ApiResponseError) -> str | None:
    """The beginning of a text or of JSON; None of anything else."""
    received = media_type(error.headers.get("Content-Type"))
    if not (received == "" or received.startswith("text/") or received.endswith(("json", "xml"))):
        return None
    return error.body.decode(errors="replace").strip()[:SINGLE_LIMIT] or None


def unanswered(error: SettingsError | TokenError | ApiError) -> Deferred:
    """Whatever stands between app and API defers a record: an expired secret at night must not lose one."""
    match error:
        case SettingsError():
            return Deferred(reason=f"settings: {error}")
        case TokenError():
            return Deferred(reason=f"access token: {error}", retry_after=error.retry_after)
        case ApiError():
            rule = NO_ANSWER if error.sent else NOT_SENT
            return Deferred(reason=_reason(error), retry_after=error.retry_after, may_be_stored=rule.may_be_stored)


def _reason(error: ApiError) -> str:
    """What went wrong with a request, for callers and logs: with the path of its URL, and without what the API told."""
    return f"{error.method} {httpx.URL(error.url).path}: {error.reason}"


def json_name(model: type[BaseModel], name: str) -> str:
    """The name in JSON of a field of a model."""
    field = model.model_fields[name]
    return field.serialization_alias or field.alias or name
