"""The delivery of one record: what its orchestrator is given, and what it decides after an attempt."""

import hashlib
import json
from collections.abc import Iterable
from datetime import datetime, timedelta

from pydantic import BaseModel, ConfigDict

from shared.business import NewBusiness, Record
from shared.settings import DeliverySettings

from .attempts import Attempt
from .outcomes import AttemptOutcome, Cancelled, Deferred, GaveUp, Outcome
from .retries import retry_delay


def accepted(business: NewBusiness) -> Record:
    """The plain JSON of a business that a caller has sent: from here on nothing looks into it any more."""
    return business.model_dump(mode="json", by_alias=True, exclude_none=True)


def fingerprint_of(businesses: Iterable[NewBusiness]) -> str:
    """A digest of what was sent, equal for equal records, however they are written and whatever is left out.

    It leaves out what was not sent or has its default value, so that a new optional field does not change it.
    """
    sent = [
        business.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_defaults=True)
        for business in businesses
    ]
    return hashlib.sha256(json.dumps(sent, sort_keys=True).encode()).hexdigest()


class Delivery(BaseModel):
    """Input of the orchestrator that delivers one record.

    The settings travel with it: a replay must decide as the first run did, even after a deployment changed them.

    Attributes:
        record: As it was accepted.
        fingerprint: Of what the caller sent first; tells a repeated request from a reused `Idempotency-Key`.
        revision: How often the record was corrected since. A corrected record is another one to the API, so it goes
            under another key.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    record: Record
    settings: DeliverySettings = DeliverySettings()
    fingerprint: str = ""
    revision: int = 0

    @classmethod
    def of(cls, business: NewBusiness, settings: DeliverySettings) -> "Delivery":
        """The delivery of a business that a caller has sent."""
        return cls(record=accepted(business), settings=settings, fingerprint=fingerprint_of([business]))

    def is_corrected_by(self, other: "Delivery") -> bool:
        """Whether another delivery would bring another record than this one."""
        # The model may have changed since: then the same body makes another record.
        same_body = self.revision == 0 and other.fingerprint == self.fingerprint
        return not same_body and other.record != self.record

    def attempt(self, instance_id: str) -> Attempt:
        """The same on every try, replay and restart: however often the record is sent, the API stores it once."""
        key = f"{instance_id}.{self.revision}" if self.revision else instance_id
        return Attempt(record=self.record, idempotency_key=key)


class Progress(BaseModel):
    """How far a delivery is: custom status of the orchestration after each attempt, and in the end its output.

    Attributes:
        attempt: Number of the last attempt, from 1.
        outcome: Of that attempt; final unless deferred.
        next_attempt_at: UTC; None if the outcome is final.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    attempt: int
    outcome: Outcome
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
    outcome: AttemptOutcome,
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
