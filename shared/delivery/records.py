"""The delivery of one record: what its orchestrator is given, and what it decides after an attempt."""

import hashlib
import json
import operator
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shared.business import NewBusiness, Record
from shared.settings import DeliverySettings

from .attempts import Attempt
from .outcomes import AttemptOutcome, Cancelled, Deferred, GaveUp, Outcome, Rejected, doubted, may_be_stored
from .retries import retry_delay


def accepted(business: NewBusiness) -> Record:
    """The plain JSON of a business that a caller has sent: from here on nothing looks into it any more."""
    return business.model_dump(mode="json", by_alias=True, exclude_none=True)


def as_sent(business: NewBusiness) -> str:
    """The JSON of a business, equal for equal records, however they are written and whatever is left out.

    It leaves out what was not sent or has its default value, so that a new optional field does not change it.
    """
    sent = business.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_defaults=True)
    return json.dumps(sent, sort_keys=True)


def fingerprint_of(sent: Iterable[str]) -> str:
    """A digest of what was sent (`as_sent`)."""
    return hashlib.sha256(f"[{', '.join(sent)}]".encode()).hexdigest()


class Delivery(BaseModel):
    """Input of the orchestrator that delivers one record.

    The settings travel with it: a replay must decide as the first run did, even after a deployment changed them.

    Attributes:
        record: As it was accepted.
        fingerprint: Of what the caller sent first; tells a repeated request from a reused `Idempotency-Key`.
        key: What the API's idempotency key is made of: the id of the first instance with this input, which an operator
            may have started again under another id.
        revision: How often the key was changed since: a corrected record is another one to the API, and an API may
            remember its refusal of the same one by the key.
        may_be_stored: Whether an attempt that was made before may have brought the record to the API.
        was_refused: Whether the API has refused this very record before, under the key that comes first now.
        instance: Id of the instance for which this was written: an operator may have started another one with it.
        mark: Tells this start of the operation from others of the same id.
        announced: The path of the operations, which the event about the end tells; empty if nobody is told of the end.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    record: Record
    settings: DeliverySettings = DeliverySettings()
    fingerprint: str = ""
    key: str = ""
    revision: int = 0
    may_be_stored: bool = False
    was_refused: bool = False
    instance: str = ""
    mark: str = ""
    announced: Annotated[str, Field(exclude_if=operator.not_)] = ""

    @classmethod
    def of(cls, business: NewBusiness, settings: DeliverySettings) -> "Delivery":
        """The delivery of a business that a caller has sent."""
        return cls(record=accepted(business), settings=settings, fingerprint=fingerprint_of([as_sent(business)]))

    def is_corrected_by(self, other: "Delivery") -> bool:
        """Whether another delivery would bring another record than this one."""
        # The model may have changed since: then the same body makes another record.
        same_body = self.revision == 0 and other.fingerprint == self.fingerprint
        return not same_body and other.record != self.record

    def attempt(self, instance_id: str) -> Attempt:
        """The same on every try, replay and restart: however often the record is sent, the API stores it once."""
        key = self.key or instance_id
        return Attempt(record=self.record, idempotency_key=f"{key}.{self.revision}" if self.revision else key)

    def deadline(self, started_at: datetime) -> datetime:
        """When the record is given up, if the delivery began at `started_at`."""
        return started_at + timedelta(seconds=self.settings.deadline)

    def begun(self, instance_id: str) -> "Progress":
        """How far the delivery is before its first attempt.

        If an operator has started it again under another id, the first instance may have brought the record there.
        """
        again = (self.instance or self.key) not in {"", instance_id}
        return Progress(may_be_stored=self.may_be_stored or again, revision=self.revision, mark=self.mark)

    def corrected(self, other: "Delivery") -> "Delivery":
        """The delivery of another record in place of this one, which the API does not have."""
        return self.renewed().model_copy(update={"record": other.record, "settings": other.settings})

    def renewed(self) -> "Delivery":
        """The delivery anew, under another key, of a record that the API certainly does not have."""
        return self.model_copy(update={"revision": self.revision + 1, "may_be_stored": False, "was_refused": False})

    def needs_another_key(self, outcome: AttemptOutcome, before: "Progress") -> bool:
        """Whether the refusal of a record that was refused before may be no more than the last one, given again.

        An API may remember its refusals by their keys, and give them for ever. The old key is asked first all the same:
        if a kill of the host had hidden an attempt that brought the record there, the API says so now.
        """
        return self.was_refused and isinstance(outcome, Rejected) and not before.may_be_stored


class Progress(BaseModel):
    """How far a delivery is: custom status of the orchestration, and in the end its output.

    Attributes:
        attempt: Number of the last attempt, from 1; 0 before the first has ended.
        outcome: Of that attempt; final unless deferred. None before that.
        next_attempt_at: UTC; None if the outcome is final.
        may_be_stored: Whether the API may have the record, though it was not posted.
        revision: Of the delivery, which a refusal may have raised.
        mark: Of the start, as in `Delivery`.
        cancelling: Whether the orchestration has seen that somebody cancels, and waits for the attempt under way.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    attempt: int = 0
    outcome: Outcome | None = None
    next_attempt_at: datetime | None = None
    may_be_stored: Annotated[bool, Field(exclude_if=operator.not_)] = False
    revision: Annotated[int, Field(exclude_if=operator.not_)] = 0
    mark: str = ""
    cancelling: Annotated[bool, Field(exclude_if=operator.not_)] = False

    def __str__(self) -> str:
        reason = getattr(self.outcome, "reason", "")
        doubt = ", may be stored" if self.may_be_stored else ""
        due = f", next attempt at {self.next_attempt_at:%Y-%m-%d %H:%M:%S} UTC" if self.next_attempt_at else ""
        state = self.outcome.outcome if self.outcome else "running"
        return f"attempt {self.attempt} {state}{doubt}{due}{': ' if reason else ''}{reason}"

    def cancelled(self) -> "Progress":
        """The end of a delivery that somebody cancelled while it was deferred; what has ended stays as it is."""
        return self._ended(Cancelled)

    def given_up(self) -> "Progress":
        """The end of a delivery whose timer fired after its deadline: late, or since it was suspended."""
        return self._ended(GaveUp)

    def _ended(self, end: type[Cancelled | GaveUp]) -> "Progress":
        outcome = end.after(self.outcome) if isinstance(self.outcome, Deferred) else self.outcome
        return self.model_copy(update={"outcome": outcome, "next_attempt_at": None, "cancelling": False})


def after_attempt(
    outcome: AttemptOutcome,
    delivery: Delivery,
    before: Progress,
    *,
    started_at: datetime,
    now: datetime,
    instance_id: str,
) -> Progress:
    """Decide what follows an attempt: the end, or another one later.

    Args:
        outcome: Of the attempt.
        delivery: What is delivered, with the delays and the deadline.
        before: How far the delivery was before the attempt.
        started_at: When the delivery began, in durable time (UTC).
        now: Durable time (UTC).
        instance_id: Of the orchestration; spreads the retries of records that were deferred together.
    """
    settings, attempt = delivery.settings, before.attempt + 1
    last = doubted(outcome, before=before.may_be_stored)
    ended = Progress(
        attempt=attempt,
        outcome=last,
        may_be_stored=may_be_stored(last),
        revision=delivery.revision,
        mark=delivery.mark,
    )
    if not isinstance(last, Deferred):
        return ended
    next_attempt_at = now + retry_delay(last.retry_after, attempt=attempt, instance_id=instance_id, settings=settings)
    if next_attempt_at > delivery.deadline(started_at):
        return ended.model_copy(update={"outcome": GaveUp.after(last)})
    return ended.model_copy(update={"next_attempt_at": next_attempt_at})
