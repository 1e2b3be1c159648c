"""Retries and cancels many operations: finds them in the list, and asks for each."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing, nullcontext
from dataclasses import replace
from http import HTTPStatus

from .bulk import Bulk, Changes, Selected, Selection
from .list_query import MAX_LIMIT, Place
from .listing import Instances, list_operations
from .model import BulkPreview, BulkRefusal, Operation
from .problems import RequestError
from .requests import Corrections
from .resource import Operations
from .status import is_of_records

_TIME_BOX = 30.0
"""Seconds after which an activity, or a dry run, begins nothing more."""

_AT_ONCE = 16
_SHOWN = 10
"""How many operations a dry run shows."""

_log = logging.getLogger("post_business")


async def select(instances: Instances, bulk: Bulk) -> Selection:
    """Find the next operations of the list that are to be changed. Raises `TaskHubError`."""
    selection = Selection(operations=(), after=bulk.query.after)
    async with aclosing(_pages(instances, bulk, bulk.query.limit)) as pages:
        async for found, after in pages:
            selected = tuple(Selected(one.id, _may_be_large(one)) for one in found)
            selection = Selection(operations=selected, after=after)
            if selected:
                break
    return selection


def _may_be_large(operation: Operation) -> bool:
    """Whether it is a batch, or has ended before it could say that it is one."""
    return operation.batch is not None or not operation.attempt


async def preview(instances: Instances, bulk: Bulk) -> BulkPreview:
    """Tell what would be changed, without changing anything. Raises `TaskHubError`."""
    matching, shown, complete = 0, list[Operation](), False
    async with aclosing(_pages(instances, bulk, MAX_LIMIT)) as pages:
        async for found, after in pages:
            matching += len(found)
            shown += found[: _SHOWN - len(shown)]
            complete = after is None
    return BulkPreview(matching=matching, complete=complete, operations=shown)


async def _pages(instances: Instances, bulk: Bulk, limit: int) -> AsyncGenerator[tuple[list[Operation], Place | None]]:
    """The operations that are to be changed, page by page, as far as time allows; each with where the list goes on."""
    clock, query = asyncio.get_running_loop().time, replace(bulk.query, limit=limit)
    end = clock() + _TIME_BOX
    while True:
        found, after = await list_operations(instances, query, is_of_records)
        yield [one for one in found if bulk.concerns(one)], after
        if after is None or clock() > end:
            return
        query = replace(query, after=after)


async def change(operations: Operations, bulk: Bulk) -> Changes:
    """Retry or cancel what is selected, as far as time allows; done again, it changes nothing twice.

    Raises:
        Exception: The task hub could not be asked about any of them.
    """
    one_large = asyncio.Lock()
    refusals, late, untried = list[BulkRefusal](), list[Selected](), list[Selected]()
    errors = list[Exception]()
    clock, left = asyncio.get_running_loop().time, bulk.selected
    end = clock() + _TIME_BOX

    async def ask(one: Selected, *, again: bool = False) -> None:
        try:
            async with one_large if one.is_large and bulk.status.action == "retry" else nullcontext():
                if clock() > end and not again:
                    untried.append(one)
                elif bulk.status.action == "retry":
                    await operations.retry(one.id, Corrections({}, b""), bulk.settings, mark=bulk.mark)
                elif not again or (await operations.get(one.id)).state != "cancelled":
                    await operations.cancel(one.id)
        except RequestError as refusal:
            if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
                late.append(one)
            elif again:
                refusals.append(BulkRefusal.of(one.id, str(refusal)))
            else:  # the same activity may run twice, and the other one have changed it
                await ask(one, again=True)
        except ValueError as error:  # as of an orchestration that has failed because its input is none
            _log.warning("Operation %s cannot be read: %s", one.id, type(error).__name__)
            refusals.append(BulkRefusal.of(one.id, "its durable state cannot be read by this version of the app"))
        except Exception as error:  # noqa: BLE001 (the SDK raises nothing narrower); the others are asked all the same
            errors.append(error)
            late.append(one)

    while left and clock() < end:
        async with asyncio.TaskGroup() as group:
            for one in left[:_AT_ONCE]:
                group.create_task(ask(one))
        left = left[_AT_ONCE:]
    changed = len(bulk.selected) - len(left) - len(refusals) - len(late) - len(untried)
    if errors and not changed and not refusals:
        raise errors[0]
    return Changes(changed=changed, refusals=tuple(refusals), left=(*left, *untried, *late))
