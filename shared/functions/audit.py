"""Who did it: one line in the log for each change that somebody has made to operations."""

import logging
from collections.abc import Generator
from contextlib import contextmanager
from http import HTTPStatus

import azure.durable_functions as df
import azure.functions as func

from shared.http.printable import printable
from shared.http.request_ids import request_id
from shared.operations.model import BulkStatus
from shared.operations.problems import RequestError
from shared.settings import callers_are_authenticated

_log = logging.getLogger("post_business.audit")


def audit(req: func.HttpRequest, change: str) -> None:
    """Log a change, who asked for it, and how they call their request.

    The host tells a function nothing of the key that a request came with. Whom App Service has authenticated, it says
    in a header, which nobody else can send while it does; without it, anybody could.

    Args:
        req: The request.
        change: What was done, and to what.
    """
    principal = req.headers.get("X-MS-CLIENT-PRINCIPAL-NAME") if callers_are_authenticated() else None
    caller = printable(principal) if principal else "a caller with a key"
    _log.info("Audit: %s, by %s, request %s", change, caller, request_id(req.headers) or "without an id")


@contextmanager
def audited(req: func.HttpRequest, change: str) -> Generator[None]:
    """Log a change that is about to be made, once it is; also one that has not shown in time, and may come to be."""
    try:
        yield
    except RequestError as refusal:
        if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
            audit(req, f"{change}, which has not shown yet")
        raise
    audit(req, change)


def audit_end(context: df.DurableOrchestrationContext, status: BulkStatus) -> None:
    """Log how many operations a change of many has reached: once, not at every replay."""
    if not context.is_replaying:
        _log.info("Audit: %s, as operation %s, which has ended", status, context.instance_id)
