"""Drives the app through the Python client that was generated from its OpenAPI document; the types are checked."""

import datetime
import json
import sys
from io import BytesIO
from pathlib import Path
from typing import assert_type
from urllib.parse import parse_qs, urlsplit

import httpx
from business_client import Client
from business_client.api.batches import get_batch_results, start_post_batch
from business_client.api.operations import (
    cancel_operation,
    erase_operation,
    find_operations,
    get_operation,
    retry_operation,
)
from business_client.api.records import get_business, start_post_business
from business_client.models import (
    Business,
    Cancelled,
    Correction,
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
    Validation,
)
from business_client.types import UNSET, File, Unset

given = json.loads(Path(sys.argv[1]).read_text())
records = {role: NewBusiness.from_dict(record) for role, record in given["records"].items()}
posted, first, invalid = (records[role] for role in ("posted", "first", "invalid"))
app = Client(base_url=given["url"], headers={"x-functions-key": given["key"]}, timeout=httpx.Timeout(20))


def lines(*sent: NewBusiness) -> File:
    return File(payload=BytesIO("\n".join(json.dumps(one.to_dict()) for one in sent).encode()))


# start, look up
started = start_post_business.sync(client=app, body=posted, idempotency_key='"py 1"', prefer="wait=10")
assert isinstance(started, Operation)
assert_type(started.state, State)
found = get_operation.sync_detailed(started.id, client=app, wait=10)
operation = found.parsed
assert isinstance(operation, Operation)
assert operation.state is State.POSTED
assert isinstance(operation.outcome, Posted)
assert_type(operation.outcome.id, str | Unset)
assert isinstance(operation.outcome.business, Business)
assert isinstance(operation.outcome.warning, Unset)
assert isinstance(operation.may_be_stored, Unset)
assert_type(operation.business_url, str | Unset)
assert operation.business_url == f"/api/businesses/{operation.outcome.id}"
assert isinstance(get_business.sync(str(operation.outcome.id), client=app), Business)
unchanged = get_operation.sync_detailed(started.id, client=app, if_none_match=found.headers["ETag"])
assert unchanged.status_code == 304

# retry with a correction, erase
wrong = start_post_business.sync(client=app, body=records["refused"], prefer="wait=10")
assert isinstance(wrong, Operation)
assert isinstance(wrong.outcome, Rejected)
assert_type(wrong.outcome.status, int)
assert isinstance(retry_operation.sync(wrong.id, client=app, body=records["corrected"]), Operation)
again = get_operation.sync(wrong.id, client=app, wait=10)
assert isinstance(again, Operation)
assert isinstance(again.outcome, Posted)

# list, page by page
listed: list[str] = []
since: datetime.datetime | Unset = UNSET
cursor: str | Unset = UNSET
while True:
    page = find_operations.sync(client=app, state=[State.POSTED], limit=1, since=since, cursor=cursor)
    assert isinstance(page, OperationPage)
    listed += [one.id for one in page.operations]
    if isinstance(page.next_, Unset):
        break
    link = parse_qs(urlsplit(page.next_).query)
    since, cursor = datetime.datetime.fromisoformat(link["since"][0]), link["cursor"][0]
assert sorted(one for one in listed if one in (started.id, wrong.id)) == sorted((started.id, wrong.id))
assert erase_operation.sync_detailed(wrong.id, client=app).status_code == 204

# in doubt, cancelled
waiting = start_post_business.sync(client=app, body=records["doubtful"])
assert isinstance(waiting, Operation)
while waiting.state in (State.PENDING, State.RUNNING):
    waiting = get_operation.sync(waiting.id, client=app, wait=0.5)
    assert isinstance(waiting, Operation)
assert isinstance(waiting.outcome, Deferred)
assert_type(waiting.outcome.retry_after, float | Unset)
ended = cancel_operation.sync(waiting.id, client=app)
assert isinstance(ended, Operation)
assert isinstance(ended.outcome, Cancelled)
assert_type(ended.may_be_stored, bool | Unset)
assert ended.may_be_stored is True
doubted = find_operations.sync(client=app, may_be_stored=True)
assert isinstance(doubted, OperationPage)
assert ended.id in [one.id for one in doubted.operations]
retried = retry_operation.sync(ended.id, client=app, body=records["corrected"])
assert isinstance(retried, Refusal)
assert_type(retried.status, int)
assert retried.status == 409

# cancelled while under way
running = start_post_business.sync(client=app, body=records["slow"])
assert isinstance(running, Operation)
stopping = cancel_operation.sync(running.id, client=app)
assert isinstance(stopping, Operation)
assert_type(stopping.cancelling, bool | Unset)
assert (stopping.state, stopping.cancelling) == (State.RUNNING, True)

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
mended = retry_operation.sync(batch.id, client=app, body=[Correction(index=1, record=records["corrected"])])
assert isinstance(mended, Operation)
assert (mended.id, mended.state) == (batch.id, State.PENDING)
assert isinstance(start_post_batch.sync(client=app, body=lines(records["second"])), Operation)

# dry runs
whole = start_post_business.sync(client=app, body=posted, validate_only=True)
assert isinstance(whole, Validation)
assert_type(whole.valid, int)
assert whole.valid == 1
part = start_post_batch.sync(client=app, body=lines(first, invalid), validate_only=True, skip_invalid=True)
assert isinstance(part, Validation)
assert not isinstance(part.skipped, Unset)
assert (part.valid, part.skipped[0].line, part.skipped_total) == (1, 2, 1)

# refusals
refusal = start_post_batch.sync(client=app, body=[first, invalid])
assert isinstance(refusal, Refusal)
assert_type(refusal.errors_total, int | Unset)
assert not isinstance(refusal.errors, Unset)
assert (refusal.status, refusal.errors[0].index, refusal.errors[0].field) == (400, 1, given["field"])
rows = File(payload=BytesIO(b"no such column\n"), mime_type="text/csv")
refusal = start_post_batch.sync(client=app, body=rows, validate_only=True)
assert isinstance(refusal, Refusal)
assert not isinstance(refusal.errors, Unset)
assert refusal.errors[0].field == "no such column"
assert start_post_business.sync_detailed(client=Client(base_url=given["url"]), body=posted).status_code == 401
