"""Batches: many records come in, are posted in rounds, chunk by chunk, and are told one by one.

POST /api/businesses/batch ─▶ StartPostBatch ─▶ PostBusinessesOrchestrator ─▶ PostBusinesses ─▶ API
"""

from collections.abc import Generator
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from shared.delivery.batches import Batch
from shared.delivery.bounds import stored
from shared.delivery.chunks import Chunk, Counts, Report, post_records
from shared.delivery.outcomes import Cancelled, GaveUp
from shared.delivery.rounds import Round
from shared.operations import requests
from shared.operations.bodies import JSON
from shared.operations.resource import Operations
from shared.operations.results import ResultQuery
from shared.operations.status import CANCEL
from shared.settings import DeliverySettings

from .answers import durable_client, json_response, problems_answered, started, validated
from .orchestrations import announce, cancelled_before, count_all, report, see_cancel

batches = df.Blueprint()


@batches.route("businesses/batch", methods=["POST"])
@batches.durable_client_input("client")
@problems_answered
async def StartPostBatch(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Take many records in: all of them, or with `skip_invalid` those that are valid, or none."""
    validate_only = requests.read_dry_run(req.url, req.params)
    skip_invalid = requests.read_flag(req.params, "skip_invalid")
    records = requests.read_batch(req.headers, req.get_body(), skip_invalid=skip_invalid)
    if validate_only:
        return validated(req, list(records))
    batch = Batch.of(records, DeliverySettings.from_environment())
    return await started(req, client, batch, "businesses/batch")


@batches.orchestration_trigger("context")
def PostBusinessesOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any] | None]:
    """Have the records of a batch posted: in one round what is due, then start anew with what is left."""
    began = context.current_utc_datetime
    batch = Batch.model_validate(context.get_input()).begun(context.instance_id, began)
    cancel = context.wait_for_external_event(CANCEL)
    round_ = Round(batch, began)
    report(context, round_.status(context.current_utc_datetime))
    cancelled = yield from posted(context, round_, cancel)
    now = context.current_utc_datetime
    if round_.finished:
        status = round_.status(now)
        yield from announce(context, status, batch.announced, began=began, run=batch.ended_at)
        return stored(status)
    due = None if cancelled else round_.next_at(now)
    if due is not None and due > now:
        report(context, round_.status(now, next_round_at=due))
        cancelled = yield from cancelled_before(context, due, cancel)
    if cancelled or due is None:
        left = round_.closed(Cancelled if cancelled else GaveUp, now)
        count_all(context, Counts(gave_up=left.counts.gave_up, cancelled=left.counts.cancelled))
    else:
        left = round_.following(now, due=due if due > now else None)
    context.continue_as_new(stored(left))
    return None


def posted(context: df.DurableOrchestrationContext, round_: Round, cancel: Any) -> Generator[Any, Any, bool]:
    """Have activities post what is due, as many at once as the round has lanes; tells whether somebody cancelled."""
    under_way: dict[Any, Chunk] = {}
    cancelled = False
    while True:
        while not cancelled and (chunk := round_.next_chunk(context.current_utc_datetime)):
            under_way[context.call_activity("PostBusinesses", stored(chunk))] = chunk
        if not under_way:
            return cancelled
        first = yield context.task_any([*under_way] if cancelled else [*under_way, cancel])
        if first is cancel:
            cancelled = True
            see_cancel(context, round_.status(context.current_utc_datetime))
            continue
        chunk = under_way.pop(first)
        try:
            returned = Report.model_validate((yield first))
        except Exception:  # noqa: BLE001 (the SDK raises nothing narrower where the activity failed)
            round_.failed(chunk)
        else:
            round_.returned(chunk, returned, context.current_utc_datetime)
            count_all(context, returned.counts, sum(len(group.indexes) for group in returned.deferred))
        status = round_.status(context.current_utc_datetime)
        report(context, status.model_copy(update={"cancelling": cancelled}))


@batches.activity_trigger("chunk")
async def PostBusinesses(chunk: dict) -> dict:  # the worker accepts no generic annotation here
    """Try to post some records of a batch; what became of each is a value, never an exception."""
    return stored(await post_records(Chunk.model_validate(chunk)))


@batches.route("businesses/operations/{id}/results", methods=["GET"])
@batches.durable_client_input("client")
@problems_answered
async def GetBatchResults(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Tell what has become of each record of a batch, in the order in which they were sent."""
    query = ResultQuery.read(req.headers, req.params)
    outcomes = await Operations(durable_client(client)).outcomes(req.route_params["id"])
    if query.kind == JSON:
        return json_response(query.page_of(outcomes))
    return func.HttpResponse(query.exported(outcomes), mimetype=query.kind)
