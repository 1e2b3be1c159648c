"""Posts business records to an OAuth 2.0-protected API, without losing one or posting one twice.

    POST /api/businesses ─▶ StartPostBusiness ─▶ PostBusinessOrchestrator ─▶ PostBusiness ─▶ API

The starter answers at once with an operation. The orchestrator has the activity try until the API has taken or refused
the record, asleep on durable timers in between. The activity makes one attempt through `business_api`, the one client
of the process, whose calls carry an access token from the one cache of the process.

Nothing here secures, wraps or catches routes: calls that come in are authorized by the Functions host, access tokens
for calls that go out are the concern of the client. That is why `/admin` and `/runtime` work as on any other app.
"""

import logging
from collections.abc import Generator
from typing import Any

import azure.durable_functions as df
import azure.functions as func

import shared.business
from shared.delivery.attempts import Attempt, post_record
from shared.delivery.bounds import stored
from shared.delivery.records import Delivery, after_attempt
from shared.functions.answers import json_response, problems_answered, started, validated
from shared.functions.batches import batches
from shared.functions.bulk import bulk
from shared.functions.events import events
from shared.functions.maintenance import maintenance
from shared.functions.operations import operations
from shared.functions.orchestrations import announce, attempted, cancelled_before, cancelled_during, report, show
from shared.operations import requests
from shared.operations.status import CANCEL
from shared.settings import DeliverySettings

for library in ("azure", "httpcore", "httpx"):
    logging.getLogger(library).setLevel(logging.WARNING)

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


@app.route("businesses", methods=["POST"])
@app.durable_client_input("client")
@problems_answered
async def StartPostBusiness(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Take one record in, and answer at once where its operation can be followed."""
    validate_only = requests.read_dry_run(req.url, req.params)
    business = requests.read_business(req.headers, req.get_body())
    if validate_only:
        return validated(req, [business])
    delivery = Delivery.of(business, DeliverySettings.from_environment())
    return await started(req, client, delivery, "businesses")


@app.orchestration_trigger("context")
def PostBusinessOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Have one record posted; sleep on durable timers while that is deferred; give up at the deadline."""
    delivery = Delivery.model_validate(context.get_input())
    started_at, progress = context.current_utc_datetime, delivery.begun(context.instance_id)
    cancel = context.wait_for_external_event(CANCEL)
    show(context, stored(progress))
    while True:
        posting = context.call_activity("PostBusiness", stored(delivery.attempt(context.instance_id)))
        cancelled = yield from cancelled_during(context, posting, cancel, progress)
        outcome = yield from attempted(posting)
        if delivery.needs_another_key(outcome, progress) and not cancelled:
            delivery = delivery.renewed()
            progress = progress.model_copy(update={"revision": delivery.revision})
            show(context, stored(progress))
            continue
        progress = after_attempt(
            outcome,
            delivery,
            progress,
            started_at=started_at,
            now=context.current_utc_datetime,
            instance_id=context.instance_id,
        )
        if cancelled:
            progress = progress.cancelled()
        if progress.next_attempt_at is None:
            break
        report(context, progress)
        cancelled = yield from cancelled_before(context, progress.next_attempt_at, cancel)
        if cancelled or context.current_utc_datetime > delivery.deadline(started_at):
            progress = progress.cancelled() if cancelled else progress.given_up()
            break
    yield from announce(context, progress, delivery.announced, began=started_at)
    report(context, progress)
    return stored(progress)


@app.activity_trigger("attempt")
async def PostBusiness(attempt: dict) -> dict:  # the worker accepts no generic annotation here
    """Try once to post a record; what became of it is a value, never an exception."""
    return stored(await post_record(Attempt.model_validate(attempt)))


@app.route("businesses/{id}", methods=["GET"])
@problems_answered
async def GetBusiness(req: func.HttpRequest) -> func.HttpResponse:
    """Read a record from the API."""
    business_id = requests.read_id(req.route_params["id"])
    response = await shared.business.business_api.get_business(business_id)
    return json_response(response.unwrap())


app.register_functions(batches)
app.register_functions(operations)
app.register_functions(bulk)
app.register_functions(maintenance)
app.register_functions(events)
