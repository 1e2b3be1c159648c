"""Posts business records to an OAuth 2.0-protected API.

    POST /api/businesses        ─▶ StartPostBusiness ─▶ PostBusinessOrchestrator ──────────────────▶ PostBusiness ─▶ API
    POST /api/businesses/batch  ─▶ StartPostBatch ─▶ PostBatchOrchestrator ─▶ PostSectionOrchestrator ─▶ PostBusiness

The starters answer at once with an operation, and the functions below them tell what became of it. What is decided
between two attempts stands in `shared/delivery/`; the API, in `shared/business/api.py`.

Nothing here secures, wraps or catches routes: calls that come in are authorized by the Functions host, access tokens
for calls that go out are the concern of `business_api`. That is why `/admin` and `/runtime` work as on any other app.
"""

import functools
import itertools
import json
import logging
import math
from collections.abc import Awaitable, Callable, Generator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import azure.durable_functions as df
import azure.functions as func
from pydantic import BaseModel

from shared.access_tokens import shared_cache
from shared.business.api import Deferred, Posted, Rejected, business_api, post_business
from shared.delivery.batches import Batch, BatchProgress, ItemResult, Section, item_outcome, read_results
from shared.delivery.records import Cancelled, DeliveryOrder, GaveUp, PostOrder, Progress, after_attempt, parse_outcome
from shared.operations import requests as intake
from shared.operations.problems import ANSWERABLE, as_request_error
from shared.operations.resource import CANCEL, Operation, Operations
from shared.rest import ProblemDetails
from shared.settings import DeliverySettings
from shared.telemetry import count_outcome

for library in ("azure", "httpcore", "httpx"):
    logging.getLogger(library).setLevel(logging.WARNING)

log = logging.getLogger("post_business")

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


def problems_answered[**P](
    handler: Callable[P, Awaitable[func.HttpResponse]],
) -> Callable[P, Awaitable[func.HttpResponse]]:
    """Answer the errors that a caller can do something about with problem+json; bugs stay exceptions."""

    @functools.wraps(handler)
    async def answer(*args: P.args, **kwargs: P.kwargs) -> func.HttpResponse:
        try:
            return await handler(*args, **kwargs)
        except ANSWERABLE as error:
            refusal = as_request_error(error)
            if refusal is not error:
                log.warning("%s: %s", type(error).__name__, error)
            return json_response(refusal.problem, refusal.status, Retry_After=seconds(refusal.retry_after))

    return answer


# Starting: a record or a batch comes in.


@app.route("businesses", methods=["POST"])
@app.durable_client_input("client")
@problems_answered
async def StartPostBusiness(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Take one record in, and answer at once where its operation can be followed."""
    business = intake.read_business(req.headers.get("Content-Type"), req.get_body())
    settings = DeliverySettings.from_environment()
    order = DeliveryOrder(business=business, settings=settings, fingerprint=intake.fingerprint_of([business]))
    return await start(req, client, order)


@app.route("businesses/batch", methods=["POST"])
@app.durable_client_input("client")
@problems_answered
async def StartPostBatch(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Take many records in: all of them, or with `skip_invalid` those that are valid, or none."""
    skip_invalid = intake.read_flag(req.params, "skip_invalid")
    taken = intake.read_batch(req.headers.get("Content-Type"), req.get_body(), skip_invalid=skip_invalid)
    batch = Batch.of(taken.businesses, DeliverySettings.from_environment(), taken.fingerprint)
    return await start(req, client, batch, skipped=taken.skipped)


async def start(
    req: func.HttpRequest,
    client: df.DurableOrchestrationClient,
    order: DeliveryOrder | Batch,
    skipped: list[dict[str, Any]] | None = None,
) -> func.HttpResponse:
    """Start an operation, or find it; with `Prefer: wait=N`, answer with its end if that comes in time."""
    operations = Operations(client)
    operation = await operations.start(intake.read_operation_id(req.headers.get("Idempotency-Key")), order)
    location = f"{urlsplit(req.url).path.rstrip('/').removesuffix('/batch')}/operations/{operation.id}"
    status, applied = 202, None
    if preferred_wait := intake.read_preferred_wait(req.headers.get("Prefer")):
        operation = await operations.get(operation.id, wait=preferred_wait)
        applied = f"wait={preferred_wait:g}"
        if operation.finished:
            status = 201 if operation.state == "posted" else 200
    operation.skipped = skipped or None
    return operation_response(operation, status, Location=location, Preference_Applied=applied)


# Delivering: one record, and the batch of many.


@app.orchestration_trigger("context")
def PostBusinessOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Have one record posted; sleep on durable timers while that is deferred; give up at the deadline."""
    order = read_input(context, DeliveryOrder)
    post_order = PostOrder(business=order.business, idempotency_key=order.idempotency_key(context.instance_id))
    started_at = context.current_utc_datetime
    cancel = context.wait_for_external_event(CANCEL)
    for attempt in itertools.count(1):
        posting = context.call_activity("PostBusiness", post_order.model_dump(mode="json"))
        progress = after_attempt(
            (yield from outcome_of(posting)),
            attempt=attempt,
            started_at=started_at,
            now=context.current_utc_datetime,
            instance_id=context.instance_id,
            settings=order.settings,
        )
        report(context, progress)
        if progress.next_attempt_at is None:
            break
        if (yield from cancelled_before(context, progress.next_attempt_at, cancel)):
            progress = progress.cancelled()
            report(context, progress)
            break
    return progress.model_dump(mode="json")


@app.activity_trigger("order")
async def PostBusiness(order: dict) -> dict:  # the worker accepts no generic annotation here
    """Try once to post one record; what became of it is a value, never an exception."""
    post_order = PostOrder.model_validate(order)
    outcome = await post_business(post_order.business, idempotency_key=post_order.idempotency_key)
    return outcome.model_dump(mode="json")


@app.orchestration_trigger("context")
def PostBatchOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any] | None]:
    """Have the records of a batch posted: one round through its sections, then start anew with what was deferred."""
    batch = read_input(context, Batch)
    batch = batch.model_copy(update={"started_at": batch.started_at or context.current_utc_datetime})
    cancel = context.wait_for_external_event(CANCEL)
    for instance_id, section in batch.sections(context.instance_id):
        report(context, batch.progress(context.current_utc_datetime, section=instance_id))
        posting = context.call_sub_orchestrator("PostSectionOrchestrator", section.model_dump(mode="json"), instance_id)
        first = yield context.task_any([posting, cancel])
        batch = batch.with_results(read_results((yield posting)))
        if first is cancel:
            batch = batch.cancelled()
            break
    batch, next_round_at = batch.after_round(context.current_utc_datetime, context.instance_id)
    report(context, batch.progress(context.current_utc_datetime, next_round_at=next_round_at))
    if next_round_at is not None:
        if not (yield from cancelled_before(context, next_round_at, cancel)):
            context.continue_as_new(batch.model_dump(mode="json"))
            return None
        batch = batch.cancelled()
        report(context, batch.progress(context.current_utc_datetime))
    if not context.is_replaying:
        for end in batch.ended_unsettled:
            count(end)
    return batch.model_dump(mode="json")


@app.orchestration_trigger("context")
def PostSectionOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, list[dict[str, Any]]]:
    """Try each record of a part of a batch once: wave by wave, or if there are many, through smaller sections."""
    section = read_input(context, Section)
    cancel = context.wait_for_external_event(CANCEL)
    results: list[dict[str, Any]] = []
    if section.small:
        for wave in section.waves():
            orders = [PostOrder(business=item.business, idempotency_key=section.idempotency_key(item)) for item in wave]
            posts = [context.call_activity("PostBusiness", order.model_dump(mode="json")) for order in orders]
            # Have all of them sent. Not by a `task_all` in it: if a task of that failed, the SDK could not go on.
            yield context.task_any([*posts, cancel])
            outcomes, replayed = [], True
            for posting in posts:
                outcomes.append((yield from outcome_of(posting)))
                replayed = replayed and context.is_replaying  # false if even one is news to this turn
            for item, outcome in zip(wave, outcomes, strict=True):
                results.append(ItemResult(index=item.index, result=item_outcome(outcome)).model_dump(mode="json"))
                if not replayed:
                    count(outcome)
            if (yield context.task_any([cancel, posts[-1]])) is cancel:  # does not wait: one of them has ended
                break
    else:
        for number, part in enumerate(section.divide()):
            instance_id = f"{context.instance_id}-{number}"
            context.set_custom_status({"section": instance_id})
            posting = context.call_sub_orchestrator(
                "PostSectionOrchestrator", part.model_dump(mode="json"), instance_id
            )
            first = yield context.task_any([posting, cancel])
            results += yield posting
            if first is cancel:
                break
    return results


# Looking after what was started.


@app.route("businesses/operations", methods=["GET"])
@app.durable_client_input("client")
@problems_answered
async def ListOperations(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """List the operations that began since a time, the latest first."""
    since = intake.read_since(req.params, now=datetime.now(UTC))
    state, page = intake.read_state(req.params), intake.read_page(req.params)
    return json_response(await Operations(client).list(since=since, state=state, page=page))


@app.route("businesses/operations/{id}", methods=["GET"])
@app.durable_client_input("client")
@problems_answered
async def GetOperation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Tell what has become of a record or a batch so far."""
    wait = intake.read_number(req.params, "wait", 0, 0, intake.MAX_WAIT_SECONDS)
    operation = await Operations(client).get(req.route_params["id"], wait=wait)
    if req.headers.get("If-None-Match") == operation.entity_tag:
        return func.HttpResponse(status_code=304, headers={"ETag": operation.entity_tag})
    return operation_response(operation)


@app.route("businesses/operations/{id}/results", methods=["GET"])
@app.durable_client_input("client")
@problems_answered
async def GetBatchResults(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Tell what has become of each record of a batch, in the order in which they were sent."""
    return json_response(await Operations(client).results(req.route_params["id"], page=intake.read_page(req.params)))


@app.route("businesses/operations/{id}/cancel", methods=["POST"])
@app.durable_client_input("client")
@problems_answered
async def CancelOperation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Ask that nothing more be sent."""
    return operation_response(await Operations(client).cancel(req.route_params["id"]), 202)


@app.route("businesses/operations/{id}/retry", methods=["POST"])
@app.durable_client_input("client")
@problems_answered
async def RetryOperation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Deliver a record again that was not posted, corrected if a body is given."""
    corrected = None
    if body := req.get_body():
        business = intake.read_business(req.headers.get("Content-Type"), body)
        corrected = DeliveryOrder(business=business, settings=DeliverySettings.from_environment())
    return operation_response(await Operations(client).retry(req.route_params["id"], corrected), 202)


@app.route("businesses/{id}", methods=["GET"])
@problems_answered
async def GetBusiness(req: func.HttpRequest) -> func.HttpResponse:
    """Read a record from the API."""
    response = await business_api.get_business(req.route_params["id"])
    return json_response(response.unwrap())


@app.route("openapi.json", methods=["GET"])
async def GetOpenApi(req: func.HttpRequest) -> func.HttpResponse:
    """Describe the routes above as an OpenAPI 3.1 document."""
    from shared.operations.openapi import document  # here, since only who reads it should pay for it

    server_url = urlsplit(req.url).path.removesuffix("/openapi.json")
    return func.HttpResponse(json.dumps(document(server_url)), mimetype="application/json")


def devhost_panel() -> dict[str, object]:
    """What the embedded host's page shows of the access tokens: counters and remaining life, never a token."""
    counters = shared_cache.statistics()
    remaining = max((token.remaining for token in shared_cache.tokens()), default=0.0)
    return {
        "Tokens used": counters.used,
        "Tokens fetched": counters.fetched,
        "Fetches failed": counters.failed,
        "Requests resent after a 401": counters.resent,
        "Token usable for (s)": round(remaining),
    }


# What the functions above have in common.


def read_input[Order: BaseModel](context: df.DurableOrchestrationContext, order_type: type[Order]) -> Order:
    """Read the input of an orchestration; a sub-orchestration gets it as a JSON text."""
    document = context.get_input()
    return (
        order_type.model_validate_json(document) if isinstance(document, str) else order_type.model_validate(document)
    )


def report(context: df.DurableOrchestrationContext, progress: Progress | BatchProgress) -> None:
    """Show where an operation is to those who look it up, log it and count it: once, not at every replay."""
    context.set_custom_status(progress.model_dump(mode="json"))
    if not context.is_replaying:
        log.info("Operation %s: %s", context.instance_id, progress)
        if isinstance(progress, Progress):
            count(progress.outcome)


def count(outcome: Posted | Rejected | Deferred | GaveUp | Cancelled) -> None:
    """Count an outcome for the operators."""
    count_outcome(outcome.outcome, replayed=isinstance(outcome, Posted) and outcome.replayed)


def outcome_of(posting: Any) -> Generator[Any, Any, Posted | Rejected | Deferred]:
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


def json_response(content: BaseModel, status: int = 200, **headers: str | None) -> func.HttpResponse:
    """Write a model as the body of an HTTP response; headers are written with `_` for `-`, and left out if None."""
    return func.HttpResponse(
        content.model_dump_json(exclude_none=True),
        status_code=status,
        headers={name.replace("_", "-"): value for name, value in headers.items() if value is not None},
        mimetype="application/problem+json" if isinstance(content, ProblemDetails) else "application/json",
    )


def operation_response(operation: Operation, status: int = 200, **headers: str | None) -> func.HttpResponse:
    """Write an operation, with its entity tag, and when to look again while it has not ended."""
    tag, retry_after = operation.entity_tag, seconds(operation.poll_after)
    return json_response(operation, status, ETag=tag, Retry_After=retry_after, **headers)


def seconds(duration: float | None) -> str | None:
    """Write a duration as the whole number of seconds that `Retry-After` wants."""
    return None if duration is None else str(math.ceil(duration))
