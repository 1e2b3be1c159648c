"""Many operations at once: those that a filter finds are retried or cancelled, as an operation of its own.

POST /api/businesses/operations/retry, …/cancel ─▶ ChangeOperationsOrchestrator ─▶ SelectOperations, ChangeOperations
"""

from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from shared.delivery.bounds import stored
from shared.operations import bulk_work, requests
from shared.operations.bulk import Bulk
from shared.operations.links import Links
from shared.operations.resource import Operations
from shared.operations.status import CANCEL
from shared.settings import DeliverySettings

from .answers import durable_client, json_response, linked, problems_answered, started
from .audit import audit_end
from .orchestrations import announce, cancelled_before, cancelled_during, report

bulk = df.Blueprint()

_STEPS = 100
"""Activities after which the history begins anew."""

_PAUSE = timedelta(seconds=30)
"""How long nothing is asked of a task hub that did not answer."""


@bulk.route("businesses/operations/retry", methods=["POST"])
@bulk.durable_client_input("client")
@problems_answered
async def RetryOperations(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Retry all operations that a filter finds, or tell which these are."""
    return await _begun(req, client, "retry")


@bulk.route("businesses/operations/cancel", methods=["POST"])
@bulk.durable_client_input("client")
@problems_answered
async def CancelOperations(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Cancel all operations that a filter finds, or tell which these are."""
    return await _begun(req, client, "cancel")


async def _begun(req: func.HttpRequest, client: df.DurableOrchestrationClient, action: str) -> func.HttpResponse:
    requests.refuse_empty(req.url)  # lest `?dry_run` or `reason=` do what nobody wants
    dry_run = requests.read_flag(req.params, "dry_run")
    wanted = Bulk.read(action, req.params, DeliverySettings.from_environment(), datetime.now(UTC))
    route = f"businesses/operations/{action}"
    if not dry_run:
        return await started(req, client, wanted, route)
    found, links = await bulk_work.preview(durable_client(client), wanted), Links.of(req.url, route)
    return json_response(found.model_copy(update={"operations": [linked(one, links) for one in found.operations]}))


@bulk.orchestration_trigger("context")
def ChangeOperationsOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any] | None]:
    """Have the operations that a filter finds retried or cancelled, some at a time."""
    began = context.current_utc_datetime
    work = Bulk.model_validate(context.get_input()).model_copy(update={"instance": context.instance_id})
    cancel = context.wait_for_external_event(CANCEL)
    report(context, work.status)
    for _ in range(_STEPS):
        task = context.call_activity("ChangeOperations" if work.selected else "SelectOperations", stored(work))
        cancelled = yield from cancelled_during(context, task, cancel, work.status)
        try:
            work = work.advanced((yield task), context.current_utc_datetime)
        except Exception:  # noqa: BLE001 (the SDK raises nothing narrower where the activity failed)
            if not cancelled:
                work = work.failed()
                cancelled = yield from cancelled_before(context, context.current_utc_datetime + _PAUSE, cancel)
        if cancelled:
            work = work.cancelled()
        if work.finished:
            break
        report(context, work.status)
    else:
        context.continue_as_new(stored(work))
        return None
    yield from announce(context, work.status, work.announced, began=began)
    report(context, work.status)
    audit_end(context, work.status)
    return stored(work.status)


@bulk.activity_trigger("work")
@bulk.durable_client_input("client")
async def SelectOperations(work: dict, client: df.DurableOrchestrationClient) -> dict:  # no generic annotation here
    """Find the next operations that are to be changed."""
    return stored(await bulk_work.select(durable_client(client), Bulk.model_validate(work)))


@bulk.activity_trigger("work")
@bulk.durable_client_input("client")
async def ChangeOperations(work: dict, client: df.DurableOrchestrationClient) -> dict:  # no generic annotation here
    """Retry or cancel some operations; done twice, it comes to the same."""
    wanted = Bulk.model_validate(work)
    return stored(await bulk_work.change(Operations(durable_client(client), announced=wanted.announced), wanted))
