"""Drives the app through the Python client that was generated from its OpenAPI document; the types are checked."""

import json
import sys
from io import BytesIO
from pathlib import Path
from typing import assert_type

import httpx
from business_client import Client
from business_client.api.batches import get_batch_results, start_post_batch
from business_client.api.operations import cancel_operation, find_operations, get_operation, retry_operation
from business_client.api.records import get_business, start_post_business
from business_client.models import (
    Business,
    Cancelled,
    Deferred,
    ItemPosted,
    NewBusiness,
    Operation,
    OperationPage,
    Posted,
    Refusal,
    Rejected,
    ResultPage,
    State,
)
from business_client.types import File, Unset

given = json.loads(Path(sys.argv[1]).read_text())
posted, refused, corrected, deferred, first, second, invalid = map(NewBusiness.from_dict, given["records"])
app = Client(base_url=given["url"], headers={"x-functions-key": given["key"]}, timeout=httpx.Timeout(20))

# start, look up, list
started = start_post_business.sync(client=app, body=posted, idempotency_key='"py 1"', prefer="wait=10")
assert isinstance(started, Operation)
assert_type(started.state, State)
operation = get_operation.sync(started.id, client=app, wait=10)
assert isinstance(operation, Operation)
assert operation.state is State.POSTED
assert isinstance(operation.outcome, Posted)
assert_type(operation.outcome.id, str | Unset)
assert isinstance(operation.outcome.business, Business)
assert isinstance(operation.outcome.warning, Unset)
assert isinstance(operation.may_be_stored, Unset)
assert isinstance(get_business.sync(str(operation.outcome.id), client=app), Business)
page = find_operations.sync(client=app, state=[State.POSTED, State.REJECTED], limit=10)
assert isinstance(page, OperationPage)
assert started.id in [one.id for one in page.operations]

# retry, with a correction
wrong = start_post_business.sync(client=app, body=refused, prefer="wait=10")
assert isinstance(wrong, Operation)
assert isinstance(wrong.outcome, Rejected)
assert_type(wrong.outcome.status, int)
assert isinstance(retry_operation.sync(wrong.id, client=app, body=corrected), Operation)
again = get_operation.sync(wrong.id, client=app, wait=10)
assert isinstance(again, Operation)
assert isinstance(again.outcome, Posted)

# cancel
waiting = start_post_business.sync(client=app, body=deferred, prefer="wait=1")
assert isinstance(waiting, Operation)
assert isinstance(waiting.outcome, Deferred)
assert_type(waiting.outcome.retry_after, float | Unset)
ended = cancel_operation.sync(waiting.id, client=app)
assert isinstance(ended, Operation)
assert isinstance(ended.outcome, Cancelled)

# batch, as a list and as lines, and its results
batch = start_post_batch.sync(client=app, body=[first, invalid], skip_invalid=True, prefer="wait=10")
assert isinstance(batch, Operation)
assert not isinstance(batch.batch, Unset)
assert (batch.batch.tally.posted, batch.batch.tally.invalid) == (1, 1)
assert not isinstance(batch.skipped, Unset)
assert_type(batch.skipped[0].index, int)
results = get_batch_results.sync(batch.id, client=app)
assert isinstance(results, ResultPage)
assert [one.result.outcome for one in results.results] == ["posted", "invalid"]
assert isinstance(results.results[0].result, ItemPosted)
lines = File(payload=BytesIO(json.dumps(second.to_dict()).encode()))
assert isinstance(start_post_batch.sync(client=app, body=lines), Operation)

# refusals
refusal = start_post_batch.sync(client=app, body=[first, invalid])
assert isinstance(refusal, Refusal)
assert_type(refusal.errors_total, int | Unset)
assert not isinstance(refusal.errors, Unset)
assert (refusal.status, refusal.errors[0].index, refusal.errors[0].field) == (400, 1, given["field"])
assert start_post_business.sync_detailed(client=Client(base_url=given["url"]), body=posted).status_code == 401
