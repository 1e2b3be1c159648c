"""Batches: many records come in, are posted in rounds, section by section, and are told one by one.

POST /api/businesses/batch ─▶ StartPostBatch ─▶ PostBatchOrchestrator ─▶ PostSectionOrchestrator ─▶ PostBusiness
"""

from collections.abc import Generator
from typing import Any

import azure.durable_functions as df
import azure.functions as func

from shared.delivery.batches import Batch, ItemResult, Section, read_results
from shared.delivery.bounds import stored
from shared.operations import requests
from shared.operations.resource import Operations
from shared.operations.status import CANCEL
from shared.settings import DeliverySettings

from .answers import durable_client, json_response, problems_answered, started, validated
from .orchestrations import attempted, cancelled_before, cancelled_during, count, report, show

batches = df.Blueprint()


@batches.route("businesses/batch", methods=["POST"])
@batches.durable_client_input("client")
@problems_answered
async def StartPostBatch(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Take many records in: all of them, or with `skip_invalid` those that are valid, or none."""
    skip_invalid, validate_only = (requests.read_flag(req.params, name) for name in ("skip_invalid", "validate_only"))
    records = requests.read_batch(req.headers, req.get_body(), skip_invalid=skip_invalid)
    if validate_only:
        return validated(req, records)
    return await started(req, client, Batch.of(records, DeliverySettings.from_environment()))


@batches.orchestration_trigger("context")
def PostBatchOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any] | None]:
    """Have the records of a batch posted: one round through its sections, then start anew with what was deferred."""
    batch = Batch.model_validate(context.get_input()).begun(context.instance_id, context.current_utc_datetime)
    cancel = context.wait_for_external_event(CANCEL)
    for instance_id, section in batch.sections(context.instance_id):
        progress = batch.progress(context.current_utc_datetime, section=instance_id)
        report(context, progress)
        posting = context.call_sub_orchestrator("PostSectionOrchestrator", stored(section), instance_id)
        cancelled = yield from cancelled_during(context, posting, cancel, progress)
        batch = batch.with_results((yield from tried(posting, section)))
        if cancelled:
            batch = batch.cancelled()
            break
    batch, next_round_at = batch.after_round(context.current_utc_datetime, context.instance_id)
    report(context, batch.progress(context.current_utc_datetime, next_round_at=next_round_at))
    if next_round_at is not None:
        if not (yield from cancelled_before(context, next_round_at, cancel)):
            context.continue_as_new(stored(batch))
            return None
        batch = batch.cancelled(before_round=True)
        report(context, batch.progress(context.current_utc_datetime))
    if not context.is_replaying:
        for end in batch.ended_unsettled:
            count(end)
    return stored(batch)


def tried(posting: Any, section: Section) -> Generator[Any, Any, list[ItemResult]]:
    """What became of the records of a part. One that fails leaves them in doubt, to the next round."""
    try:
        return read_results((yield posting))
    except Exception:  # noqa: BLE001 (the SDK raises nothing narrower)
        return section.failed()


@batches.orchestration_trigger("context")
def PostSectionOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, list[dict[str, Any]]]:
    """Try each record of a part of a batch once: wave by wave, or if there are many, through smaller sections."""
    section = Section.read(context.get_input())
    cancel = context.wait_for_external_event(CANCEL)
    results: list[dict[str, Any]] = []
    if section.small:
        for wave in section.waves():
            attempts = [stored(section.attempt(item)) for item in wave]
            posts = [context.call_activity("PostBusiness", attempt) for attempt in attempts]
            # Have all of them sent. Not by a `task_all` in it: if a task of that failed, the SDK could not go on.
            yield context.task_any([*posts, cancel])
            outcomes, replayed = [], True
            for posting in posts:
                outcomes.append((yield from attempted(posting)))
                replayed = replayed and context.is_replaying  # false if even one is news to this turn
            for item, outcome in zip(wave, outcomes, strict=True):
                results.append(stored(section.result(item, outcome)))
                if not replayed:
                    count(outcome)
            if (yield context.task_any([cancel, posts[-1]])) is cancel:  # does not wait: one of them has ended
                break
    else:
        for number, part in enumerate(section.divide()):
            instance_id = f"{context.instance_id}-{number}"
            show(context, {"section": instance_id})
            posting = context.call_sub_orchestrator("PostSectionOrchestrator", stored(part), instance_id)
            first = yield context.task_any([posting, cancel])
            results += [stored(result) for result in (yield from tried(posting, part))]
            if first is cancel:
                break
    return results


@batches.route("businesses/operations/{id}/results", methods=["GET"])
@batches.durable_client_input("client")
@problems_answered
async def GetBatchResults(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Tell what has become of each record of a batch, in the order in which they were sent."""
    results = await Operations(durable_client(client)).results(
        req.route_params["id"],
        warning=requests.read_flag(req.params, "warning"),
        may_be_stored=requests.read_flag(req.params, "may_be_stored"),
        page=requests.read_page(req.params),
    )
    return json_response(results)
