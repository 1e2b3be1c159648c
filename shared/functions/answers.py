"""How the functions answer callers: with operations, records and problems."""

import functools
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import unquote

import azure.durable_functions as df
import azure.functions as func
from pydantic import BaseModel

from shared.delivery.batches import Batch
from shared.delivery.records import Delivery
from shared.delivery.results import ItemInvalid
from shared.operations import requests
from shared.operations.bulk import Bulk
from shared.operations.durable_http import DurableHttpClient, durable_http_api
from shared.operations.links import Links
from shared.operations.model import Operation, Skipped, Validation
from shared.operations.problems import ANSWERABLE, as_request_error
from shared.operations.resource import Operations
from shared.rest import ProblemDetails
from shared.settings import EventsSettings

from .audit import audit

_log = logging.getLogger("post_business")


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
                _log.warning("%s: %s", type(error).__name__, error)
            return json_response(refusal.problem, refusal.status, Retry_After=_seconds(refusal.retry_after))

    return answer


def durable_client(client: df.DurableOrchestrationClient) -> DurableHttpClient:
    """The client of a binding, which looks up and lists as the SDK's own does not."""
    # The binding tells the URL, and the SDK offers no other way to it.
    return DurableHttpClient(client, durable_http_api(client._orchestration_bindings.rpc_base_url))  # noqa: SLF001


def announced(links: Links) -> str:
    """The path of the operations, however the caller has spelled it; empty if nobody is told of their ends."""
    return unquote(links.operations).lower() if EventsSettings.wanted() else ""


async def started(
    req: func.HttpRequest,
    client: df.DurableOrchestrationClient,
    wanted: Delivery | Batch | Bulk,
    route: str,
) -> func.HttpResponse:
    """Start an operation, or find it; with `Prefer: wait=N`, answer with its end if that comes in time.

    Args:
        req: The request.
        client: Of the task hub.
        wanted: What the operation is to do.
        route: The template of the route that took the request.
    """
    operation_id = requests.read_operation_id(req.headers.get("Idempotency-Key"))
    preferred_wait = requests.read_preferred_wait(req.headers.get("Prefer"))
    links = Links.of(req.url, route)
    operations = Operations(durable_client(client), announced=announced(links))
    operation = await operations.start(operation_id, wanted)
    if isinstance(wanted, Bulk):
        found = operation.bulk or wanted.status
        audit(req, f"{found.action} of all with {found.filter}, as {links.operation(operation.id)}")
    status, applied = 202, None
    if preferred_wait:
        operation = await operations.get(operation.id, wait=preferred_wait)
        applied = f"wait={preferred_wait:g}"
        if operation.finished:
            status = 201 if operation.state == "posted" else 200
    if isinstance(wanted, Batch):
        operation.skipped, operation.skipped_total = _skipped(wanted.skipped)
    return operation_response(operation, links, status, located=True, Preference_Applied=applied)


def validated(req: func.HttpRequest, records: Sequence[BaseModel]) -> func.HttpResponse:
    """Tell what a start with these records would take, without starting anything."""
    requests.read_operation_id(req.headers.get("Idempotency-Key"))
    skipped, total = _skipped((i, one) for i, one in enumerate(records) if isinstance(one, ItemInvalid))
    return json_response(Validation(valid=len(records) - (total or 0), skipped=skipped, skipped_total=total))


def _skipped(results: Iterable[tuple[int, ItemInvalid]]) -> tuple[list[Skipped] | None, int | None]:
    """The records that are left out, as many as are listed, and how many there are; None for none."""
    skipped = [
        Skipped(index=index, line=result.line, field=result.field, detail=result.detail) for index, result in results
    ]
    return skipped[: requests.MAX_ERRORS] or None, len(skipped) or None


def json_response(content: BaseModel, status: int = 200, **headers: str | None) -> func.HttpResponse:
    """Write a model as the body of an HTTP response; headers are written with `_` for `-`, and left out if None."""
    return func.HttpResponse(
        content.model_dump_json(by_alias=True, exclude_none=True),
        status_code=status,
        headers=_written(headers),
        mimetype="application/problem+json" if isinstance(content, ProblemDetails) else "application/json",
    )


def operation_response(
    operation: Operation, links: Links, status: int = 200, *, located: bool = False, **headers: str | None
) -> func.HttpResponse:
    """Write an operation, with its entity tag, and when to look again while it has not ended.

    Args:
        operation: What is told.
        links: The paths of the host.
        status: Of the answer.
        located: Whether `Location` tells where the operation is.
        headers: More of them.
    """
    operation = linked(operation, links)
    headers |= {"ETag": operation.entity_tag, "Retry_After": _seconds(operation.poll_after)}
    if located:
        headers["Location"] = links.operation(operation.id)
    if status == HTTPStatus.NOT_MODIFIED:
        return func.HttpResponse(status_code=status, headers=_written(headers))
    return json_response(operation, status, **headers)


def linked(operation: Operation, links: Links) -> Operation:
    """An operation with the path of the record that it posted."""
    return operation.model_copy(update={"business_url": links.business(operation.business_id)})


def _written(headers: Mapping[str, str | None]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items() if value is not None}


def _seconds(duration: float | None) -> str | None:
    """A duration as the whole number of seconds that `Retry-After` wants."""
    return None if duration is None else str(math.ceil(duration))
