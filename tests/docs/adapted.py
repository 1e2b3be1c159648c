"""The app with `shared/business/` as a recipe of docs/adapting.md has it, and an API that answers as a test wants."""

import importlib
import itertools
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func
import pytest
from aiohttp import web
from pydantic import BaseModel

from function_app import GetBusiness, PostBusiness
from shared.business import Record
from shared.delivery.attempts import parse_outcome
from shared.delivery.outcomes import AttemptOutcome
from shared.delivery.records import Delivery, Progress, accepted, after_attempt
from shared.operations.requests import read_business
from shared.settings import DeliverySettings
from tests.docs.markdown import ROOT, Block

_BUSINESS = ROOT / "shared" / "business"
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Request:
    """What an API was asked.

    Attributes:
        method: HTTP method.
        path: With the query, as it was sent.
        headers: By name, in any case.
        body: Parsed JSON; None if there was none.
    """

    method: str
    path: str
    headers: Any
    body: Any

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


type Answer = Callable[[Request], web.Response | None]
"""What an API answers; None breaks the connection."""


def said(status: int, body: object = None, **headers: str) -> web.Response:
    """An answer of an API, with JSON unless there is no body."""
    if body is None:
        return web.Response(status=status, headers=headers)
    return web.json_response(body, status=status, headers=headers)


def server(answer: Answer, requests: list[Request]) -> web.Application:
    """An API that answers so, and what it is asked goes to the list."""

    async def handle(request: web.Request) -> web.Response:
        text = await request.text()
        asked = Request(request.method, request.raw_path, request.headers, json.loads(text) if text else None)
        requests.append(asked)
        answered = answer(asked)
        if answered is None:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return answered

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    return app


def package_of(blocks: list[Block], folder: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package like `shared.business` in which the blocks stand in for what has the same names in their files.

    What a block leaves out of the description of the API is as in the file.
    """
    name = f"adapted_{next(_numbers)}"
    shutil.copytree(_BUSINESS, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for block in blocks:
        assert Path(block.file).parent == Path("shared/business")
        file = folder / name / Path(block.file).name
        text = file.read_text(encoding="utf-8")
        if "class BusinessApi(" in block.text:
            text += "\n\nAsInTheFile = BusinessApi\n"
        text += f"\n\n{block.text}\n"
        if "class BusinessApi(" in block.text:
            text += "\n\nclass BusinessApi(BusinessApi, AsInTheFile):\n    pass\n"
        file.write_text(text, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    return importlib.import_module(name)


class Adapted:
    """The app that posts to an adapted API.

    Attributes:
        business: The package in the place of `shared.business`.
        api: Its module with the description.
        requests: What the API was asked.
    """

    def __init__(self, business: Any, requests: list[Request]) -> None:
        self.business = business
        self.api: Any = sys.modules[f"{business.__name__}.api"]
        self.requests = requests

    @property
    def asked(self) -> list[str]:
        """Methods and paths."""
        return [str(request) for request in self.requests]

    def read(self, sent: str | Record) -> BaseModel:
        """What the starter makes of a caller's body. Raises `RequestError`."""
        body = (sent if isinstance(sent, str) else json.dumps(sent)).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body))}
        model: type[BaseModel] = self.business.NewBusiness
        return read_business(headers, body, model)

    def accept(self, sent: str | Record) -> Record:
        """The record as durable state holds it."""
        business: Any = self.read(sent)
        return accepted(business)

    async def post(self, record: Record, key: str = "key-1") -> AttemptOutcome:
        """One run of the activity; its outcome goes the way through JSON, as the engine takes it."""
        returned = await PostBusiness({"record": record, "idempotency_key": key})
        return parse_outcome(json.loads(json.dumps(returned)))

    async def deliver(self, record: Record, attempts: int) -> Progress:
        """How far a delivery is after some attempts, by the orchestrator's decisions."""
        delivery = Delivery(record=record, settings=DeliverySettings())
        progress, now = Progress(), datetime.now(UTC)
        for _ in range(attempts):
            outcome = await self.post(record)
            progress = after_attempt(outcome, delivery, progress, started_at=now, now=now, instance_id="i")
        return progress

    async def show(self, business_id: str) -> tuple[int, Any]:
        """What GetBusiness answers."""
        request = func.HttpRequest("GET", "/api/businesses/x", route_params={"id": business_id}, body=b"")
        response = await GetBusiness(request)
        return response.status_code, json.loads(response.get_body())
