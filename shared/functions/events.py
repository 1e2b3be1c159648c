"""Events: the operator's receiver is told of each operation that ends, if there is one (`OPERATIONS_EVENTS_URL`).

orchestrator of an operation ─▶ AnnounceEnd ─▶ SendEventOrchestrator ─▶ SendEvent ─▶ receiver

The first orchestrator only has the other one started, which outlives it: an operation has ended when it has, whether or
not anybody could be told. Without a receiver nothing of this runs, and `shared.operations.events` is not imported.
"""

import logging
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df

from shared.delivery.bounds import stored
from shared.delivery.retries import retry_delay
from shared.settings import DeliverySettings
from shared.telemetry import count_event

from .answers import durable_client

_log = logging.getLogger("post_business")

_PACE = DeliverySettings()
"""Delays, the longest `Retry-After` and the deadline: the defaults of deliveries, and a replay must find the same."""

events = df.Blueprint()


@events.activity_trigger("end")
@events.durable_client_input("client")
async def AnnounceEnd(end: dict, client: df.DurableOrchestrationClient) -> None:
    """Have an event sent, unless that was begun before: an activity may run twice."""
    hub, instance_id = durable_client(client), end["event_id"]
    if await hub.get_status(instance_id):
        return
    try:
        await hub.start_new("SendEventOrchestrator", instance_id, end)
    except Exception:  # the SDK raises nothing narrower when another run has come first
        if not await hub.get_status(instance_id):
            raise


@events.orchestration_trigger("context")
def SendEventOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Have an event sent; sleep on durable timers while the receiver does not take it; give up after a day."""
    end, attempt = context.get_input(), 0
    deadline = context.current_utc_datetime + timedelta(seconds=_PACE.deadline)
    while True:
        attempt += 1
        try:
            sending = yield context.call_activity("SendEvent", end)
        except Exception:  # noqa: BLE001 (the SDK raises nothing narrower)
            sending = {"outcome": "deferred", "reason": "the activity SendEvent failed"}
        end = sending.pop("end", end)
        now = context.current_utc_datetime
        wish = sending.get("retry_after")
        delay = retry_delay(wish, attempt=attempt, instance_id=context.instance_id, settings=_PACE)
        if sending["outcome"] == "deferred" and now + delay > deadline:
            sending["outcome"] = "gave_up"
        status = {"operation": end["operation"], "attempt": attempt, **sending}
        context.set_custom_status(status)
        if not context.is_replaying:
            _report(context.instance_id, status)
        if sending["outcome"] != "deferred":
            return status
        yield context.create_timer(now + delay)


def _report(event_id: str, status: dict[str, Any]) -> None:
    """Log what became of an attempt, and count it if it was the last."""
    outcome = status["outcome"]
    level = {"gave_up": logging.ERROR, "refused": logging.WARNING}.get(outcome, logging.INFO)
    told = f"attempt {status['attempt']} {outcome}" + (f": {status['reason']}" if "reason" in status else "")
    _log.log(level, "Event %s of operation %s: %s", event_id, status["operation"], told)
    if outcome != "deferred":
        count_event(outcome)


@events.activity_trigger("end")
@events.durable_client_input("client")
async def SendEvent(end: dict, client: df.DurableOrchestrationClient) -> dict:
    """Send an event once; what became of it is a value, never an exception."""
    from shared.operations.events import End, tell  # here, since only who wants events should pay for them

    return stored(await tell(End.model_validate(end), durable_client(client)))
