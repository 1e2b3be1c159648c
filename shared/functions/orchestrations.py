"""What the orchestrators have in common: reading attempts, sleeping unless cancelled, reporting once."""

import logging
from collections.abc import Generator
from datetime import datetime
from typing import Any

import azure.durable_functions as df

from shared.delivery.attempts import parse_outcome
from shared.delivery.batches import BatchProgress, BatchStatus
from shared.delivery.bounds import SINGLE_LIMIT, STATUS_LIMIT, bounded, size, stored
from shared.delivery.chunks import Counts
from shared.delivery.judgement import FAILED
from shared.delivery.outcomes import AttemptOutcome, Deferred, Outcome, Posted
from shared.delivery.records import Progress
from shared.operations.model import BulkStatus
from shared.telemetry import count_outcomes

_log = logging.getLogger("post_business")

type Reported = Progress | BatchProgress | BulkStatus
"""What an orchestrator shows of how far it is."""

_ANNOUNCEMENTS = 3
"""How often it is tried to announce an end: its outcome counts more, and is not held up for longer."""


def attempted(posting: Any) -> Generator[Any, Any, AttemptOutcome]:
    """What became of an attempt. A bug in the activity, which has logged it, leaves the record to the next one."""
    try:
        return bounded(parse_outcome((yield posting)), SINGLE_LIMIT)  # an earlier version may have returned more
    except Exception:  # noqa: BLE001 (the SDK raises nothing narrower)
        return Deferred(reason="the activity PostBusiness failed", may_be_stored=FAILED.may_be_stored)


def cancelled_during(
    context: df.DurableOrchestrationContext, task: Any, cancel: Any, progress: Progress | BulkStatus
) -> Generator[Any, Any, bool]:
    """Wait for a task, or until somebody cancels; tells whether somebody did, and shows it at once to who asked."""
    if (yield context.task_any([task, cancel])) is not cancel:
        return False
    see_cancel(context, progress)
    return True


def see_cancel(context: df.DurableOrchestrationContext, progress: Reported) -> None:
    """Show at once to who cancels that this has been seen."""
    show(context, stored(progress.model_copy(update={"cancelling": True})))
    if not context.is_replaying:
        _log.info("Operation %s: cancelling", context.instance_id)


def cancelled_before(context: df.DurableOrchestrationContext, due: datetime, cancel: Any) -> Generator[Any, Any, bool]:
    """Sleep until a time, unless somebody cancels before; tells whether somebody did."""
    timer = context.create_timer(due)
    first = yield context.task_any([timer, cancel])
    if first is timer:
        return False
    timer.cancel()  # an orchestration does not end before its timers
    return True


def report(context: df.DurableOrchestrationContext, progress: Reported) -> None:
    """Show where an operation is to those who look it up, log it and count it: once, not at every replay."""
    show(context, stored(progress))
    if not context.is_replaying:
        _log.info("Operation %s: %s", context.instance_id, progress)
        if isinstance(progress, Progress) and progress.outcome is not None:
            count(progress.outcome)


def announce(
    context: df.DurableOrchestrationContext,
    progress: Progress | BatchStatus | BulkStatus,
    announced: str,
    *,
    began: datetime,
    run: datetime | None = None,
) -> Generator[Any, Any]:
    """Have the end of an operation told, if it is to be, as the last that is done before it is shown.

    So what has ended stays as it is: it may be retried and erased, and no event is sent before it.

    Args:
        context: Of the orchestrator.
        progress: At the end.
        announced: The path of the operations; empty if nobody is told of the end.
        began: When this orchestration began, in durable time.
        run: What tells this end from others of the same start, if that is not the beginning.
    """
    if not announced:
        return
    from shared.operations.events import End  # here, since only who wants events should pay for them

    now = context.current_utc_datetime
    end = End.of(context.instance_id, progress, announced, began=began, run=run or began, now=now)
    for _ in range(_ANNOUNCEMENTS):
        try:
            yield context.call_activity("AnnounceEnd", stored(end))
        except Exception:  # noqa: BLE001, S112 (the SDK raises nothing narrower, and the host logs it)
            continue
        return
    if not context.is_replaying:
        _log.error("Operation %s: nobody is told of its end, since that could not be begun", end.operation)


def show(context: df.DurableOrchestrationContext, status: dict[str, Any]) -> None:
    """Set the custom status, but not one that is so large that the engine would fail the orchestration for it."""
    if size(status) <= STATUS_LIMIT:
        context.set_custom_status(status)
    elif not context.is_replaying:
        _log.error(
            "Operation %s: its status is too large to be shown: %d characters", context.instance_id, size(status)
        )


def count(outcome: Outcome) -> None:
    """Count an outcome for the operators."""
    posted = outcome if isinstance(outcome, Posted) else None
    count_outcomes(
        outcome.outcome,
        replayed=int(posted is not None and posted.replayed),
        warned=int(posted is not None and posted.warning is not None),
    )


def count_all(context: df.DurableOrchestrationContext, counts: Counts, deferred: int = 0) -> None:
    """Count the outcomes of many records for the operators: once, not at every replay."""
    if context.is_replaying:
        return
    count_outcomes("posted", counts.posted, replayed=counts.replayed, warned=counts.warnings)
    for outcome in ("rejected", "gave_up", "cancelled"):
        count_outcomes(outcome, getattr(counts, outcome))
    count_outcomes("deferred", deferred)
