"""One attempt to post a record: made, measured and logged."""

import logging
import time
from collections.abc import Callable

from opentelemetry.trace import SpanKind
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

import shared.business
from shared.access_tokens import TokenError
from shared.business import BusinessApi, Record
from shared.http.printable import printable
from shared.rest import ApiError, ApiPausedError
from shared.settings import SettingsError
from shared.telemetry import tracer

from .answers import outcome_of, unanswered
from .bounds import SINGLE_LIMIT, bounded, size, stored
from .outcomes import AttemptOutcome, Posted
from .reading import HIDDEN

_log = logging.getLogger("post_business")


class Attempt(BaseModel):
    """Input of the activity.

    Attributes:
        record: As it was accepted.
        idempotency_key: The same for every attempt at this record.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    record: Record
    idempotency_key: str = Field(min_length=1)


_OUTCOME: TypeAdapter[AttemptOutcome] = TypeAdapter(AttemptOutcome, config=HIDDEN)


def parse_outcome(returned: object) -> AttemptOutcome:
    """Read what the activity returned: if that cannot be read, but is a yes of the API, it stays one."""
    try:
        return _OUTCOME.validate_python(returned)
    except ValueError:
        if isinstance(returned, dict) and returned.get("outcome") == "posted":
            return Posted(warning="the activity returned what this version of the app cannot read")
        raise


async def post_record(attempt: Attempt, *, clock: Callable[[], float] = time.perf_counter) -> AttemptOutcome:
    """Try once to post a record. Answers for good and failures that may pass are values; only bugs raise.

    The client is looked up at each call, so that a test can put another one into `shared.business`.

    Args:
        attempt: The record, and the key under which it is sent.
        clock: As in `try_to_post`.
    """
    try:
        outcome = await try_to_post(attempt, shared.business.business_api, clock=clock)
    except ApiPausedError as error:
        outcome = unanswered(error)
    return bounded(outcome, SINGLE_LIMIT)


async def try_to_post(
    attempt: Attempt,
    api: BusinessApi,
    *,
    clock: Callable[[], float] = time.perf_counter,
    posted_level: int = logging.INFO,
) -> AttemptOutcome:
    """Make one attempt, measured and logged.

    Log lines say how the API answered and how long that took. They hold nothing of the record, no URL but its path, and
    of what the API said only type and title of a problem: the rest may quote the record.

    Args:
        attempt: The record, and the key under which it is sent.
        api: What it is posted to.
        clock: Seconds; measures how long the attempt takes, with the time for a token if one is needed.
        posted_level: Of the log line about a record that was posted.

    Raises:
        ApiPausedError: Nothing was sent, since the API wants nothing at the moment.
    """
    began, status = clock(), None
    with tracer.start_as_current_span("post_business", kind=SpanKind.CLIENT) as span:
        try:
            response = await api.post_business(attempt.record, idempotency_key=attempt.idempotency_key)
            status = response.status
            span.set_attribute("http.response.status_code", status)
            outcome = await outcome_of(response, attempt.record)
        except ApiPausedError:
            raise
        except (SettingsError, TokenError, ApiError) as error:
            outcome = unanswered(error)
        if not isinstance(outcome, Posted):
            outcome = bounded(outcome, SINGLE_LIMIT)
        span.set_attributes(
            {"post_business.outcome": outcome.outcome, "post_business.idempotency_key": attempt.idempotency_key}
        )
    _log.log(
        posted_level if isinstance(outcome, Posted) else logging.INFO,
        "Attempt %s: %s, status %s, %.0f ms",
        attempt.idempotency_key,
        outcome.outcome,
        status or "none",
        (clock() - began) * 1000,
    )
    _log_what_was_told(attempt.idempotency_key, outcome)
    return outcome


def _log_what_was_told(key: str, outcome: AttemptOutcome) -> None:
    if isinstance(outcome, Posted):
        if outcome.warning is not None:
            _log.warning("Attempt %s: the API said yes, but its answer could not be read: %s", key, outcome.warning)
        return
    if problem := outcome.problem:
        _log.info(
            "Attempt %s: problem %s, %s, %d bytes kept",
            key,
            printable(problem.type),
            printable(problem.title or "no title"),
            size(stored(problem)),
        )
    elif outcome.excerpt:
        _log.info("Attempt %s: no problem document, %d bytes of the answer kept", key, size(outcome.excerpt))
