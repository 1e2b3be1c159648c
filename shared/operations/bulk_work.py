"""Retries and cancels many operations: finds them in the list, and asks for each."""

import asyncio
from contextlib import nullcontext
from dataclasses import replace
from http import HTTPStatus

from .bulk import Bulk, Changes, Selected, Selection
from .list_query import MAX_LIMIT
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

_LONGEST_DETAIL = 200


async def select(instances: Instances, bulk: Bulk) -> Selection:
    """Find the next operations of the list that are to be changed. Raises `TaskHubError`."""
    clock, query = asyncio.get_running_loop().time, bulk.query
    end = clock() + _TIME_BOX
    while True:
        found, after = await list_operations(instances, query, is_of_records)
        selected = tuple(Selected(one.id, one.batch is not None) for one in found if bulk.concerns(one))
        if selected or after is None or clock() > end:
            return Selection(operations=selected, after=after)
        query = replace(query, after=after)


async def preview(instances: Instances, bulk: Bulk) -> BulkPreview:
    """Tell what would be changed, without changing anything. Raises `TaskHubError`."""
    clock, query = asyncio.get_running_loop().time, replace(bulk.query, limit=MAX_LIMIT)
    end = clock() + _TIME_BOX
    matching, shown = 0, list[Operation]()
    while True:
        found, after = await list_operations(instances, query, is_of_records)
        concerned = [one for one in found if bulk.concerns(one)]
        matching += len(concerned)
        shown += concerned[: _SHOWN - len(shown)]
        if after is None or clock() > end:
            return BulkPreview(matching=matching, complete=after is None, operations=shown)
        query = replace(query, after=after)


async def change(operations: Operations, bulk: Bulk) -> Changes:
    """Retry or cancel what is selected, as far as time allows; done again, it changes nothing twice."""
    one_batch = asyncio.Lock()  # they may be large
    refusals, late = list[BulkRefusal](), list[Selected]()

    async def ask(one: Selected, *, again: bool = False) -> None:
        try:
            async with one_batch if one.is_batch else nullcontext():
                if bulk.status.action == "retry":
                    await operations.retry(one.id, Corrections({}, b""), bulk.settings, mark=bulk.instance)
                elif not again or (await operations.get(one.id)).state != "cancelled":
                    await operations.cancel(one.id)
        except RequestError as refusal:
            if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
                late.append(one)
            elif again:
                refusals.append(BulkRefusal(id=one.id, detail=str(refusal)[:_LONGEST_DETAIL]))
            else:  # the same activity may run twice, and the other one have changed it
                await ask(one, again=True)

    clock, left = asyncio.get_running_loop().time, bulk.selected
    end = clock() + _TIME_BOX
    while left and clock() < end:
        async with asyncio.TaskGroup() as group:
            for one in left[:_AT_ONCE]:
                group.create_task(ask(one))
        left = left[_AT_ONCE:]
    changed = len(bulk.selected) - len(left) - len(refusals) - len(late)
    return Changes(changed=changed, refusals=tuple(refusals), left=(*left, *late))
