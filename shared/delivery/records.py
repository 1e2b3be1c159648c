"""What the orchestrator decides after an attempt, as pure functions: safe to replay and easy to test."""

import hashlib
from datetime import datetime, timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from shared.business.api import Business, Deferred, Posted, Rejected
from shared.settings import DeliverySettings

_JITTER = 0.2


class DeliveryOrder(BaseModel):
    """Input of the orchestrator that delivers one record.

    The settings travel with the order: a replay must decide as the first run did, even after a deployment changed them.

    Attributes:
        fingerprint: Of what the caller sent first; tells a repeated request from a reused `Idempotency-Key`.
        revision: How often the record was corrected since. A corrected record is another one to the API, so it goes
            under another key.
    """

    model_config = ConfigDict(frozen=True)

    business: Business
    settings: DeliverySettings = DeliverySettings()
    fingerprint: str = ""
    revision: int = 0

    def idempotency_key(self, instance_id: str) -> str:
        """The same on every attempt, replay and restart: however often the record is sent, the API stores it once."""
        return f"{instance_id}.{self.revision}" if self.revision else instance_id


class PostOrder(BaseModel):
    """Input of the activity: one attempt to post one record."""

    model_config = ConfigDict(frozen=True)

    business: Business
    idempotency_key: Annotated[str, Field(min_length=1)]


type Outcome = Annotated[Posted | Rejected | Deferred, Field(discriminator="outcome")]

_OUTCOME: TypeAdapter[Posted | Rejected | Deferred] = TypeAdapter(Outcome)


def parse_outcome(document: object) -> Posted | Rejected | Deferred:
    """Read what the activity returned."""
    return _OUTCOME.validate_python(document)


class GaveUp(BaseModel):
    """The deadline came before the API took or refused the record; `reason` is that of the last attempt."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["gave_up"] = "gave_up"
    reason: str


class Cancelled(BaseModel):
    """Somebody cancelled the delivery before the API took or refused the record."""

    model_config = ConfigDict(frozen=True)

    outcome: Literal["cancelled"] = "cancelled"
    reason: str


class Progress(BaseModel):
    """How far a delivery is: custom status of the orchestration after each attempt, and in the end its output.

    Attributes:
        attempt: Number of the last attempt, from 1.
        outcome: Of that attempt; final unless deferred.
        next_attempt_at: UTC; None if the outcome is final.
    """

    model_config = ConfigDict(frozen=True)

    attempt: int
    outcome: Annotated[Posted | Rejected | Deferred | GaveUp | Cancelled, Field(discriminator="outcome")]
    next_attempt_at: datetime | None = None

    def __str__(self) -> str:
        reason = getattr(self.outcome, "reason", "")
        due = f", next attempt at {self.next_attempt_at:%Y-%m-%d %H:%M:%S} UTC" if self.next_attempt_at else ""
        return f"attempt {self.attempt} {self.outcome.outcome}{due}{': ' if reason else ''}{reason}"

    def cancelled(self) -> "Progress":
        """The end of a delivery that somebody cancelled while it was deferred."""
        reason = self.outcome.reason if isinstance(self.outcome, Deferred) else ""
        return Progress(attempt=self.attempt, outcome=Cancelled(reason=reason))


def after_attempt(
    outcome: Posted | Rejected | Deferred,
    *,
    attempt: int,
    started_at: datetime,
    now: datetime,
    instance_id: str,
    settings: DeliverySettings,
) -> Progress:
    """Decide what follows an attempt: the end, or another one later.

    Args:
        outcome: Of the attempt.
        attempt: Its number, from 1.
        started_at: When the delivery began, in durable time (UTC).
        now: Durable time (UTC).
        instance_id: Of the orchestration; spreads the retries of records that were deferred together.
        settings: The delays and the deadline.
    """
    if not isinstance(outcome, Deferred):
        return Progress(attempt=attempt, outcome=outcome)
    next_attempt_at = now + retry_delay(
        outcome.retry_after, attempt=attempt, instance_id=instance_id, settings=settings
    )
    if next_attempt_at > started_at + timedelta(seconds=settings.deadline):
        return Progress(attempt=attempt, outcome=GaveUp(reason=outcome.reason))
    return Progress(attempt=attempt, outcome=outcome, next_attempt_at=next_attempt_at)


def retry_delay(retry_after: float | None, *, attempt: int, instance_id: str, settings: DeliverySettings) -> timedelta:
    """The longer of the API's `Retry-After` (seconds, capped) and a doubling backoff with +-20 % jitter.

    The jitter is a function of instance and attempt, so that every replay computes the same delay.
    """
    backoff = min(settings.first_delay * 2.0 ** min(attempt - 1, 32), settings.max_delay)
    digest = hashlib.sha256(f"{instance_id}:{attempt}".encode()).digest()
    fraction = int.from_bytes(digest[:8]) / 2**64
    jittered = backoff * (1 + _JITTER * (2 * fraction - 1))
    return timedelta(seconds=max(jittered, min(retry_after or 0.0, settings.max_retry_after)))
