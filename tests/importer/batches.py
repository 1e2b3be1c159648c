"""The app's batches on a real socket, with the API behind them: what becomes of a record stands in the record itself.

Stricter than the real thing: the API takes whatever comes under a key that it does not know, and forgets nothing.
"""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from dev.sandbox.serving import serve
from shared.operations.requests import read_operation_id

type Json = dict[str, Any]

REJECTED = {"outcome": "rejected", "status": 422, "problem": {"title": "Refused\u2028for good"}}
GAVE_UP = {"outcome": "gave_up", "reason": "503"}
FATES: dict[str, list[Json]] = {
    "posted": [{"outcome": "posted"}],
    "rejected": [REJECTED],
    "gives up": [GAVE_UP, {"outcome": "posted"}],
    "gives up twice": [GAVE_UP, GAVE_UP, {"outcome": "posted"}],
    "stored unseen": [GAVE_UP | {"may_be_stored": True}, {"outcome": "posted"}],
    "refused unseen": [GAVE_UP | {"may_be_stored": True}, REJECTED | {"may_be_stored": True}],
}
"""What comes of the attempts at a record, by what it says of itself; the last is that of all that follow."""


@dataclass
class Operation:
    """A batch: the body that started it, and of each record the text, how often it was tried, and what came of it."""

    body: bytes
    records: list[Json]
    attempts: list[int]
    results: list[Json]
    starts: int = 1
    looks: int = 0


@dataclass
class Batches:
    """What there is.

    Attributes:
        room: How many records the durable backend takes in one batch.
        stored: Under which keys the API has which records.
        posts: How often each record was sent to the API, by its text.
        asked: The requests, in order.
        keys: The keys that came with them.
    """

    room: int = 1000
    operations: dict[str, Operation] = field(default_factory=dict)
    stored: dict[str, Json] = field(default_factory=dict)
    posts: Counter[str] = field(default_factory=Counter)
    asked: list[str] = field(default_factory=list)
    keys: set[str | None] = field(default_factory=set)
    invalid: set[str] = field(default_factory=set)
    """The records that are not valid."""
    mute: str = ""
    """In the path of requests of which what they ask is done, but the answer is lost; empty for none."""
    running: bool = False
    """Whether no operation ends any more."""
    looked: threading.Event = field(default_factory=threading.Event)
    """Whether somebody has looked at an operation."""
    answers: list[web.Response | None] = field(default_factory=list)
    """Given instead of the usual ones, one after the other; None for the usual one."""

    def attempt(self, operation_id: str, operation: Operation) -> None:
        """Send to the API what has not been posted."""
        for index, record in enumerate(operation.records):
            if operation.results[index].get("outcome") in {"posted", "invalid"}:
                continue
            fates = FATES[record["fate"]]
            outcome = fates[min(operation.attempts[index], len(fates) - 1)]
            operation.attempts[index] += 1
            self.posts[json.dumps(record)] += 1
            key = f"{operation_id}-{index}-{record['text']}"
            if outcome["outcome"] == "posted" or record["fate"] == "stored unseen":
                self.stored[key] = record
            operation.results[index] = dict(outcome) | ({"id": key} if outcome["outcome"] == "posted" else {})

    async def start(self, request: web.Request) -> web.Response:
        """Take a batch in, or find it."""
        body = await request.read()
        records = [json.loads(line) for line in body.splitlines()]
        bad = [at for at, record in enumerate(records) if json.dumps(record) in self.invalid]
        errors = [{"index": at, "field": "name", "detail": "Field required"} for at in bad]
        if len(bad) == len(records):
            return web.json_response({"errors": errors[:100], "errors_total": len(errors)}, status=400)
        if "validate_only" in request.query:
            valid = {"valid": len(records) - len(bad)}
            return web.json_response(valid | {"skipped": errors[:100], "skipped_total": len(errors)})
        assert not bad, "batches of which only some records are valid are for tests/host"
        operation_id = read_operation_id(request.headers["Idempotency-Key"])
        known = self.operations.get(operation_id)
        if known is None:
            if len(records) > self.room:
                return web.json_response({"detail": "too much"}, status=413)
            operation = Operation(body, records, [0] * len(records), [{} for _ in records])
            self.operations[operation_id] = operation
            self.attempt(operation_id, operation)
        elif known.body != body:
            return web.json_response({"detail": "another body"}, status=422)
        return web.json_response({"id": operation_id, "state": "pending"}, status=202, headers={"Retry-After": "0"})

    async def look(self, request: web.Request) -> web.Response:
        """Tell of an operation: that it runs at the first look, and then that it has ended."""
        operation = self.operations.get(request.match_info["id"])
        if operation is None:
            return web.json_response({}, status=404)
        operation.looks += 1
        self.looked.set()
        if operation.looks == 1 or self.running:
            return web.json_response({"state": "running"}, headers={"Retry-After": "0"})
        return web.json_response({"state": "completed", "created_at": str(operation.starts)})

    async def results(self, request: web.Request) -> web.Response:
        """Tell what became of the records."""
        operation = self.operations[request.match_info["id"]]
        lines = [
            json.dumps({"index": index, "result": one}, ensure_ascii=False)
            for index, one in enumerate(operation.results)
        ]
        return web.Response(text="\n".join(lines))

    async def retry(self, request: web.Request) -> web.Response:
        """Send again what was not posted, with others in the places of some."""
        operation_id, body = request.match_info["id"], await request.read()
        operation = self.operations.get(operation_id)
        if operation is None:
            return web.json_response({"detail": "there is no operation with this id"}, status=404)
        for correction in json.loads(body or b"[]"):
            index = correction["index"]
            assert not operation.results[index].get("may_be_stored"), "a correction of what may be stored"
            if operation.results[index]["outcome"] == "posted":
                return web.json_response({"detail": "the API has this record"}, status=409)
            operation.records[index], operation.attempts[index] = correction["record"], 0
        if all(one["outcome"] == "posted" for one in operation.results):
            return web.json_response({"detail": "nothing is left"}, status=409)
        operation.starts, operation.looks = operation.starts + 1, 0
        self.attempt(operation_id, operation)
        return web.json_response({"id": operation_id, "state": "pending"}, status=202)

    @web.middleware
    async def note(self, request: web.Request, handler: Any) -> web.StreamResponse:
        """Note what was asked, and give an answer that was planned."""
        self.asked.append(f"{request.method} {request.path_qs}")
        self.keys.add(request.headers.get("x-functions-key"))
        if self.answers and (planned := self.answers.pop(0)):
            return planned
        found: web.StreamResponse = await handler(request)
        if self.mute and request.path.endswith(self.mute) and request.transport:
            request.transport.abort()
        return found


class Served:
    """An address whose batches are replaced for each example."""

    def __init__(self) -> None:
        self.url = ""
        self.batches = Batches()

    def anew(self, room: int = 1000) -> Batches:
        self.batches.__dict__.update(Batches(room).__dict__)
        return self.batches


@contextmanager
def served() -> Iterator[Served]:
    """Serve batches while the `with` block runs."""
    there = Served()
    batches = there.batches
    app = web.Application(middlewares=[batches.note])
    app.router.add_post("/api/businesses/batch", batches.start)
    app.router.add_get("/api/businesses/operations/{id}", batches.look)
    app.router.add_get("/api/businesses/operations/{id}/results", batches.results)
    app.router.add_post("/api/businesses/operations/{id}/retry", batches.retry)
    with serve(app) as there.url:
        yield there
