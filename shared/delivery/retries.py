"""When a deferred record is tried again."""

import hashlib
from datetime import timedelta

from shared.settings import DeliverySettings

_JITTER = 0.2
EARLIEST = 1.0
"""Seconds by which a durable timer may fire early: Azure Storage takes whole seconds, cut off."""


def retry_delay(retry_after: float | None, *, attempt: int, instance_id: str, settings: DeliverySettings) -> timedelta:
    """The longer of the API's `Retry-After` (seconds, capped) and a doubling backoff with +-20 % jitter.

    The jitter is a function of instance and attempt, so that every replay computes the same delay. `Retry-After` is
    not undercut: durable timers fire up to a second early, so that a second is added to it.
    """
    wished = min(retry_after, settings.max_retry_after) + EARLIEST if retry_after else 0.0
    backoff = min(settings.first_delay * 2.0 ** min(attempt - 1, 32), settings.max_delay)
    digest = hashlib.sha256(f"{instance_id}:{attempt}".encode()).digest()
    fraction = int.from_bytes(digest[:8]) / 2**64
    jittered = backoff * (1 + _JITTER * (2 * fraction - 1))
    return timedelta(seconds=max(jittered, wished))
