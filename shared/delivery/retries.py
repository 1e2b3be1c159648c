"""When a deferred record is tried again."""

import hashlib
from datetime import timedelta

from shared.settings import DeliverySettings

_JITTER = 0.2


def retry_delay(retry_after: float | None, *, attempt: int, instance_id: str, settings: DeliverySettings) -> timedelta:
    """The longer of the API's `Retry-After` (seconds, capped) and a doubling backoff with +-20 % jitter.

    The jitter is a function of instance and attempt, so that every replay computes the same delay.
    """
    backoff = min(settings.first_delay * 2.0 ** min(attempt - 1, 32), settings.max_delay)
    digest = hashlib.sha256(f"{instance_id}:{attempt}".encode()).digest()
    fraction = int.from_bytes(digest[:8]) / 2**64
    jittered = backoff * (1 + _JITTER * (2 * fraction - 1))
    return timedelta(seconds=max(jittered, min(retry_after or 0.0, settings.max_retry_after)))
