"""What the orchestrators have in common: reading attempts, sleeping unless cancelled, reporting once."""

import logging
from collections.abc import Generator
from datetime import datetime
from typing import Any

import azure.durable_functions as df

from shared.delivery.attempts import parse_outcome
from shared.delivery.batches import BatchProgress
from shared.delivery.outcomes import AttemptOutcome, Deferred, Outcome, Posted
from shared.delivery.records import Progress
from shared.telemetry import count_outcome

_log = logging.getLogger("post_business")


def attempted(posting: Any) -> Generator[Any, Any, AttemptOutcome]:
    """What became of an attempt. A bug in the activity, which has logged it, leaves the record to the next one."""
    try:
        return parse_outcome((yield posting))
    except Exception:  # noqa: BLE001 (the SDK raises nothing narrower)
        return Deferred(reason="the activity PostBusiness failed")


def cancelled_before(context: df.DurableOrchestrationContext, due: datetime, cancel: Any) -> Generator[Any, Any, bool]:
    """Sleep until a time, unless somebody cancels before; tells whether somebody did."""
    timer = context.create_timer(due)
    first = yield context.task_any([timer, cancel])
    if first is timer:
        return False
    timer.cancel()  # an orchestration does not end before its timers
    return True


def report(context: df.DurableOrchestrationContext, progress: Progress | BatchProgress) -> None:
    """Show where an operation is to those who look it up, log it and count it: once, not at every replay."""
    context.set_custom_status(progress.model_dump(mode="json"))
    if not context.is_replaying:
        _log.info("Operation %s: %s", context.instance_id, progress)
        if isinstance(progress, Progress):
            count(progress.outcome)


def count(outcome: Outcome) -> None:
    """Count an outcome for the operators."""
    count_outcome(outcome.outcome, replayed=isinstance(outcome, Posted) and outcome.replayed)
