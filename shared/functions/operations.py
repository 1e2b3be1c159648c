"""Operations: what was started is looked up, listed, cancelled and retried; and the whole interface is described."""

import json
from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func

from shared.operations import requests
from shared.operations.links import Links
from shared.operations.list_query import ListQuery
from shared.operations.listing import list_operations
from shared.operations.model import OperationPage
from shared.operations.resource import Operations
from shared.settings import DeliverySettings

from .answers import announced, durable_client, json_response, linked, operation_response, problems_answered
from .audit import audited

operations = df.Blueprint()


@operations.route("businesses/operations", methods=["GET"])
@operations.durable_client_input("client")
@problems_answered
async def FindOperations(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Find the operations that began since a time, the latest first.

    The name stands before `GetBusiness`, whose route `businesses/{id}` would take these requests on Azure otherwise.
    """
    query = ListQuery.read(req.params, datetime.now(UTC))
    found, place = await list_operations(durable_client(client), query)
    links = Links.of(req.url, "businesses/operations")
    following = None if place is None else query.link(links.operations, place)
    return json_response(OperationPage(operations=[linked(one, links) for one in found], next=following))


@operations.route("businesses/operations/{id}", methods=["GET"])
@operations.durable_client_input("client")
@problems_answered
async def GetOperation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Tell what has become of a record or a batch so far."""
    wait = requests.read_number(req.params, "wait", 0, 0, requests.MAX_WAIT_SECONDS)
    operation = await Operations(durable_client(client)).get(req.route_params["id"], wait=wait)
    known = requests.is_known(operation.entity_tag, req.headers.get("If-None-Match"))
    return operation_response(operation, Links.of(req.url, "businesses/operations/{id}"), 304 if known else 200)


@operations.route("businesses/operations/{id}/cancel", methods=["POST"])
@operations.durable_client_input("client")
@problems_answered
async def CancelOperation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Ask that nothing more be sent."""
    operation_id = req.route_params["id"]
    with audited(req, f"cancel of {operation_id}"):
        operation = await Operations(durable_client(client)).cancel(operation_id)
    links = Links.of(req.url, "businesses/operations/{id}/cancel")
    return operation_response(operation, links, 202, located=True)


@operations.route("businesses/operations/{id}/retry", methods=["POST"])
@operations.durable_client_input("client")
@problems_answered
async def RetryOperation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Deliver again what was not posted: a record, corrected if a body is given, or those of a batch."""
    not_stored = requests.read_flag(req.params, "not_stored")
    corrections = requests.Corrections.of(req.headers, req.get_body())
    settings = DeliverySettings.from_environment()
    links, operation_id = Links.of(req.url, "businesses/operations/{id}/retry"), req.route_params["id"]
    operations = Operations(durable_client(client), announced=announced(links))
    with_what = " with corrections" if corrections.body else ""
    with audited(req, f"retry of {operation_id}{with_what}{', since nothing of it is stored' if not_stored else ''}"):
        retried = await operations.retry(operation_id, corrections, settings, not_stored=not_stored)
    return operation_response(retried, links, 202, located=True)


@operations.route("openapi.json", methods=["GET"])
async def GetOpenApi(req: func.HttpRequest) -> func.HttpResponse:
    """Describe all routes as an OpenAPI 3.1 document."""
    from shared.operations.openapi import document  # here, since only who reads it should pay for it

    server_url = Links.of(req.url, "openapi.json").prefix
    return func.HttpResponse(json.dumps(document(server_url)), mimetype="application/json")
