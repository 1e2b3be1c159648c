"""Maintenance: what ended long ago is forgotten, once a day, and what a caller wants forgotten, at once."""

import asyncio
import logging
import time
from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func

from shared.operations.resource import Operations
from shared.operations.retention import REQUEST_LIMIT, cutoff, purge_before
from shared.settings import OperationsSettings, SettingsError

from .answers import durable_client, problems_answered
from .audit import audit

_log = logging.getLogger("post_business")

# A purge that names no state, or one that has not ended, deletes running instances.
_ENDED = [
    df.OrchestrationRuntimeStatus.Completed,
    df.OrchestrationRuntimeStatus.Failed,
    df.OrchestrationRuntimeStatus.Terminated,
]

maintenance = df.Blueprint()


@maintenance.timer_trigger("timer", "0 30 3 * * *")
@maintenance.durable_client_input("client")
async def PurgeOperations(timer: func.TimerRequest, client: df.DurableOrchestrationClient) -> None:
    """Forget operations that ended before the retention; every night at 3:30 UTC."""
    if timer.past_due:
        _log.info("The purge of the night is made up for")
    try:
        days = OperationsSettings.from_environment().retention_days
    except SettingsError as error:
        _log.error("Nothing is purged: %s", error)
        return
    if not days:
        return

    async def purge(begin: datetime, end: datetime) -> int:
        async with asyncio.timeout(REQUEST_LIMIT):
            result = await client.purge_instance_history_by(begin, end, _ENDED)
        return int(result.instances_deleted)

    purged, reached = await purge_before(cutoff(datetime.now(UTC), days), purge, time.monotonic)
    _log.info("Purged %d instances of ended operations, back to %s", purged, f"{reached:%Y-%m-%d %H:%M} UTC")


@maintenance.route("businesses/operations/{id}", methods=["DELETE"])
@maintenance.durable_client_input("client")
@problems_answered
async def EraseOperation(req: func.HttpRequest, client: df.DurableOrchestrationClient) -> func.HttpResponse:
    """Forget a finished operation at once, with its record and all that belongs to it."""
    operation_id = req.route_params["id"]
    await Operations(durable_client(client)).erase(operation_id)
    audit(req, f"erasure of {operation_id}")
    return func.HttpResponse(status_code=204)
