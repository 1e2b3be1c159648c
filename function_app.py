"""Posts business records to an OAuth 2.0-protected API: trigger, orchestrator, activity, and two look-ups.

    POST /api/businesses ─▶ StartPostBusiness ─▶ PostBusinessOrchestrator ─▶ PostBusiness ─▶ Business API

Nothing here secures, wraps or catches routes: calls that come in are authorized by the Functions host, access tokens
for calls that go out are the concern of `business_api`. That is why `/admin` and `/runtime` work as on any other app.
"""

import functools
import logging
import math
from collections.abc import Awaitable, Callable, Generator
from typing import Any
from urllib.parse import urlsplit

import azure.durable_functions as df
import azure.functions as func
from pydantic import BaseModel

from shared import intake
from shared.business import Deferred, business_api, post_business
from shared.delivery import DeliveryOrder, PostOrder, after_attempt, parse_outcome
from shared.operations import Operations
from shared.problems import ANSWERABLE, as_request_error
from shared.rest import ProblemDetails
from shared.settings import DeliverySettings

for library in ("azure", "httpcore", "httpx"):
    logging.getLogger(library).setLevel(logging.WARNING)

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
            return json_response(refusal.status, refusal.problem, retry_after=refusal.retry_after)

    return answer


def json_response(
    status: int, content: BaseModel, *, location: str | None = None, retry_after: float | None = None
) -> func.HttpResponse:
    """Write a model as the body of an HTTP response."""
    headers = {"Location": location, "Retry-After": None if retry_after is None else str(math.ceil(retry_after))}
    return func.HttpResponse(
        content.model_dump_json(exclude_none=True),
        status_code=status,
        headers={name: value for name, value in headers.items() if value is not None},
        mimetype="application/problem+json" if isinstance(content, ProblemDetails) else "application/json",
    )


@app.route("businesses", methods=["POST"])
@app.durable_client_input("client")
@problems_answered
async def StartPostBusiness(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Take one record in and answer at once where its operation can be followed."""
    business = intake.read_business(req.headers.get("Content-Type"), req.get_body())
    operation_id = intake.read_operation_id(req.headers.get("Idempotency-Key"))
    order = DeliveryOrder(business=business, settings=DeliverySettings.from_environment())
    operation = await Operations("PostBusinessOrchestrator", client).start(operation_id, order)
    location = f"{urlsplit(req.url).path.rstrip('/')}/operations/{operation.id}"
    return json_response(202, operation, location=location, retry_after=operation.poll_after)


@app.orchestration_trigger("context")
def PostBusinessOrchestrator(context: df.DurableOrchestrationContext) -> Generator[Any, Any, dict[str, Any]]:
    """Have one record posted; sleep on durable timers while that is deferred; give up at the deadline."""
    order = DeliveryOrder.model_validate(context.get_input())
    # The same key on every attempt, replay and restart: however often the activity runs, the API stores one record.
    post_order = PostOrder(business=order.business, idempotency_key=context.instance_id)
    started_at = context.current_utc_datetime
    attempt = 0
    while True:
        attempt += 1
        try:
            outcome = parse_outcome((yield context.call_activity("PostBusiness", post_order.model_dump(mode="json"))))
        except Exception:  # noqa: BLE001 (a bug, logged by the activity: the record waits for the next deployment)
            outcome = Deferred(reason="the activity PostBusiness failed")
        progress = after_attempt(
            outcome,
            attempt=attempt,
            started_at=started_at,
            now=context.current_utc_datetime,
            instance_id=context.instance_id,
            settings=order.settings,
        )
        context.set_custom_status(progress.model_dump(mode="json"))
        if progress.next_attempt_at is None:
            return progress.model_dump(mode="json")
        yield context.create_timer(progress.next_attempt_at)


@app.activity_trigger("order")
async def PostBusiness(order: dict) -> dict:  # the worker accepts no generic annotation here
    """Try once to post one record; what became of it is a value, never an exception."""
    post_order = PostOrder.model_validate(order)
    outcome = await post_business(post_order.business, idempotency_key=post_order.idempotency_key)
    return outcome.model_dump(mode="json")


@app.route("businesses/operations/{id}", methods=["GET"])
@app.durable_client_input("client")
@problems_answered
async def GetOperation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Tell what has become of a record so far."""
    operation = await Operations("PostBusinessOrchestrator", client).get(req.route_params["id"])
    return json_response(200, operation, retry_after=operation.poll_after)


@app.route("businesses/{id}", methods=["GET"])
@problems_answered
async def GetBusiness(req: func.HttpRequest) -> func.HttpResponse:
    """Read a record from the API."""
    response = await business_api.get_business(req.route_params["id"])
    return json_response(200, response.unwrap())
