"""News of the end: when an operation has ended, the operator's receiver is told by a CloudEvents 1.0 message over HTTP.

The message is signed as Standard Webhooks has it (https://www.standardwebhooks.com), and nothing of a record is in it.
It is sent at least once, by whoever calls `tell` until it is not deferred, and has the same id each time.
"""

import asyncio
import base64
import functools
import hashlib
import hmac
import logging
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Literal, Self

import httpx
from pydantic import BaseModel, ConfigDict

from shared.delivery.batches import BatchStatus, Tally
from shared.delivery.records import Progress
from shared.http.printable import printable
from shared.http.retry_after import parse_retry_after
from shared.settings import EventsSettings, SettingsError, public_origin

from .model import BulkStatus, State
from .problems import TaskHubError
from .status import OrchestrationClient, OrchestrationStatus, describe, ended_as, has_ended

_log = logging.getLogger("post_business")

CONTENT_TYPE = "application/cloudevents+json"

PATIENCE = 15.0
"""Seconds that a receiver may take to answer."""

MOST_AT_ONCE = 8
"""Messages that a process has under way at once: a receiver that hangs must not take the places of deliveries."""

_LOOKS = (0.0, 0.1, 0.4, 1.5)
"""Seconds before each look at an operation that is about to end."""


class EndedOperation(BaseModel):
    """An operation that has ended.

    Attributes:
        url: Where it is looked up; a path if the app does not know under which name it is reached.
        tally: How many records of a batch ended how; None for a single record.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    id: str
    state: State
    url: str
    tally: Tally | None = None


class Event(BaseModel):
    """The message that an operation has ended, as CloudEvents 1.0 in structured mode.

    Attributes:
        id: The same however often the message comes; another one if the operation ends once more after a retry.
        source: The URL of the operations, or their path.
        subject: The id of the operation.
        time: When it ended.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    specversion: Literal["1.0"] = "1.0"
    id: str
    source: str
    type: Literal["business.operation.ended"] = "business.operation.ended"
    subject: str
    time: datetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: EndedOperation


class End(BaseModel):
    """An end as the orchestrator that tells it is given it.

    Attributes:
        event_id: Id of the event, and of the instance that tells it.
        operation: Id of the operation.
        operations: Path of the operations.
        began: When the orchestration that ended began, in durable time; later ones of the same id begin after it.
        at: When it ended, in durable time.
        state: How it ended.
        tally: Of a batch.
        seen: Whether the operation was seen to have ended so.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    event_id: str
    operation: str
    operations: str
    began: datetime
    at: datetime
    state: State
    tally: Tally | None = None
    seen: bool = False

    @classmethod
    def of(
        cls,
        operation_id: str,
        progress: Progress | BatchStatus | BulkStatus,
        operations: str,
        *,
        began: datetime,
        run: datetime,
        now: datetime,
    ) -> Self:
        """The end of an operation that its orchestrator is about to come to.

        Args:
            operation_id: Of the operation.
            progress: Its last.
            operations: Path of the operations.
            began: When the orchestration began, in durable time.
            run: Tells this end from others of the same start, however often the orchestrator comes to it.
            now: Durable time (UTC).
        """
        mark = "" if isinstance(progress, BulkStatus) else progress.mark
        return cls(
            # Hexadecimal digits, as the ids of operations are: their list takes those of instances for random.
            event_id=hashlib.sha256(f"{operation_id} {mark} {run.isoformat()}".encode()).hexdigest()[:32],
            operation=operation_id,
            operations=operations,
            began=began,
            at=now,
            state=ended_as(progress),
            tally=progress.tally if isinstance(progress, BatchStatus) else None,
        )

    def as_seen(self, status: OrchestrationStatus) -> "End | None":
        """The end as those see it who look the operation up; None while they do not see one.

        What is forgotten, or has begun again since, remains as it was announced.
        """
        if not status or (status.created_time is not None and status.created_time > self.began):
            return self.model_copy(update={"seen": True})
        if not has_ended(status):
            return None
        operation = describe(status)
        tally = None if operation.batch is None else operation.batch.tally
        return self.model_copy(update={"state": operation.state, "tally": tally, "seen": True})

    def event(self, origin: str = "") -> Event:
        """The message.

        Args:
            origin: Scheme and host of the app's URLs; empty if nobody knows them.
        """
        source = f"{origin}{self.operations}"
        ended = EndedOperation(id=self.operation, state=self.state, url=f"{source}/{self.operation}", tally=self.tally)
        return Event(id=self.event_id, source=source, subject=self.operation, time=self.at, data=ended)


class Sending(BaseModel):
    """What became of a message that was sent once.

    Attributes:
        outcome: `refused` if the receiver wants no more of it, or the operator no more events.
        reason: Why it was not sent.
        retry_after: Seconds, as the receiver has asked for.
        end: What was seen of the operation, for the next time.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["sent", "refused", "deferred"]
    reason: str | None = None
    retry_after: float | None = None
    end: End | None = None


async def tell(end: End, client: OrchestrationClient, *, clock: Callable[[], float] = time.time) -> Sending:
    """Send the event about an end once, if the operation is seen to have ended; what comes of that is a value.

    Args:
        end: As it was announced, or as it was seen the last time.
        client: Of the task hub.
        clock: Seconds since 1970.
    """
    if not EventsSettings.wanted():
        return Sending(outcome="refused", reason="OPERATIONS_EVENTS_URL is not set any more")
    try:
        settings = EventsSettings.from_environment()
        seen = end if end.seen else await _seen(end, client)
    except SettingsError as error:
        _log.error("No event is sent: %s", error)
        return Sending(outcome="deferred", reason=f"settings: {error}")
    except TaskHubError as error:
        return Sending(outcome="deferred", reason=f"task hub: {error}")
    if seen is None:
        return Sending(outcome="deferred", reason="the operation is not seen to have ended yet")
    if not _places.acquire(blocking=False):
        return Sending(outcome="deferred", reason=f"{MOST_AT_ONCE} messages are under way", end=seen)
    try:
        sending = await _send(seen.event(public_origin()), settings, clock)
    finally:
        _places.release()
    return sending if sending.outcome != "deferred" else sending.model_copy(update={"end": seen})


async def _seen(end: End, client: OrchestrationClient) -> End | None:
    for pause in _LOOKS:
        await asyncio.sleep(pause)
        if (seen := end.as_seen(await client.get_status(end.operation))) is not None:
            return seen
    return None


_places = threading.BoundedSemaphore(MOST_AT_ONCE)


async def _send(event: Event, settings: EventsSettings, clock: Callable[[], float]) -> Sending:
    body = event.model_dump_json(exclude_none=True).encode()
    headers = {"Content-Type": CONTENT_TYPE, **signed(event.id, body, settings.signing_keys, int(clock()))}
    url = settings.url.get_secret_value() if settings.url else ""
    try:
        # The status says it all: of the body nothing is read, and a redirect may lead anywhere.
        async with (
            asyncio.timeout(PATIENCE),
            _connected() as client,
            client.stream("POST", url, content=body, headers=headers, follow_redirects=False) as response,
        ):
            status, wish = response.status_code, response.headers.get("Retry-After")
    except (httpx.HTTPError, OSError, ValueError) as error:  # a time-out is an OSError
        return Sending(outcome="deferred", reason=printable(f"{type(error).__name__}: {error}"))
    if 200 <= status < 300:
        return Sending(outcome="sent")
    reason = f"status {status}"
    if status == httpx.codes.GONE:
        return Sending(outcome="refused", reason=reason)
    return Sending(outcome="deferred", reason=reason, retry_after=parse_retry_after(wish, now=clock()))


def signed(event_id: str, body: bytes, keys: tuple[bytes, ...], timestamp: int) -> dict[str, str]:
    """The headers by which a receiver knows who has sent a message, which one it is, and when.

    Args:
        event_id: Of the event.
        body: Of the message.
        keys: Each makes a signature; with none there is no header for them.
        timestamp: Seconds since 1970.
    """
    content = f"{event_id}.{timestamp}.".encode() + body
    digests = [base64.b64encode(hmac.digest(key, content, "sha256")).decode() for key in keys]
    headers = {"webhook-id": event_id, "webhook-timestamp": str(timestamp)}
    return headers | ({"webhook-signature": " ".join(f"v1,{digest}" for digest in digests)} if keys else {})


_tls = functools.cache(httpx.create_ssl_context)  # it costs more than all else that is done to a message


def _connected() -> httpx.AsyncClient:
    return httpx.AsyncClient(verify=_tls(), timeout=PATIENCE)
