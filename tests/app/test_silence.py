"""What does not fit the models is told by its place and kind only: no exception's text repeats anything of a record."""

import importlib
import json
import logging
import pkgutil
import traceback
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

import httpx
import pytest
from pydantic import BaseModel, ConfigDict

import shared
from devhost.testing import RunningHost
from shared.business import COLLECTION, Business, BusinessApi, assigned, example
from shared.delivery.attempts import Attempt, parse_outcome, post_record
from shared.delivery.batches import Batch
from shared.delivery.chunks import Chunk, Report
from shared.delivery.records import Delivery, Progress
from shared.delivery.results import ItemInvalid, read_line
from shared.delivery.rounds import Round
from shared.operations.durable_http import Instance
from shared.operations.problems import RequestError
from shared.operations.requests import read_batch, read_business
from shared.operations.status import describe
from shared.rest import ApiResponse, Body, ClientOptions, Header, get, post
from shared.settings import DeliverySettings
from tests.sandboxed import business

SECRET = "geheim-4711"
BUSINESS = business(1)


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for subclass in model.__subclasses__():
        yield subclass
        yield from models_of(subclass)


def test_no_model_of_the_app_repeats_its_input_in_errors() -> None:
    for module in pkgutil.walk_packages(shared.__path__, "shared."):
        importlib.import_module(module.name)
    models: set[type[BaseModel]] = {model for model in models_of(BaseModel) if model.__module__.startswith("shared.")}
    assert Batch in models
    assert Delivery in models
    talkative = {model.__module__ for model in models if not model.model_config.get("hide_input_in_errors")}
    assert talkative <= {"shared.business.models", "shared.business.api"}  # an adopter's: see the tests that follow


# Whatever models an adopter writes


class Part(BaseModel):
    """A record inside the record."""

    count: int


class TalkativeRecord(BaseModel):
    """What callers send, described by somebody who has not thought of errors."""

    number: int
    part: Part


class TalkativeBusiness(Business):
    """What the API has, described likewise."""

    model_config = ConfigDict(hide_input_in_errors=False)

    part: Part


class TalkativeApi(BusinessApi):
    """An API with these models."""

    @get(COLLECTION + "/{business_id}")
    async def get_business(self, business_id: str) -> ApiResponse[TalkativeBusiness]: ...  # type: ignore[empty-body]

    @post(COLLECTION)
    async def post_business(  # type: ignore[empty-body]
        self,
        business: Annotated[Any, Body()],
        *,
        idempotency_key: Annotated[str | None, Header("Idempotency-Key")] = None,
    ) -> ApiResponse[TalkativeBusiness]: ...


def all_of(error: BaseException) -> str:
    """What a log would have of it, with the errors that it came from."""
    return "".join(traceback.format_exception(error))


@pytest.mark.parametrize("body", [{"number": SECRET}, {"number": 1, "part": {"count": SECRET}}, {"part": [SECRET]}])
def test_a_record_that_is_refused_is_not_repeated(body: dict[str, Any]) -> None:
    headers, text = {"Content-Type": "application/json"}, json.dumps(body).encode()
    assert SECRET in str(refusal_of(TalkativeRecord.model_validate, body))
    with pytest.raises(RequestError) as alone:
        read_business(headers, text, TalkativeRecord)
    with pytest.raises(RequestError) as in_a_batch:
        list(read_batch(headers, b"[%s]" % text, model=TalkativeRecord))
    for refused in (alone.value, in_a_batch.value):
        assert SECRET not in all_of(refused) + refused.problem.model_dump_json()


@pytest.mark.parametrize(
    ("status", "there", "outcome"),
    [(201, SECRET, "posted"), (409, SECRET, "deferred"), (409, 1, "rejected")],
    ids=["answer", "look-up", "comparison"],
)
async def test_what_does_not_fit_the_model_of_the_api_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, there: object, outcome: str
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        stored = assigned() | example(1) | {"part": {"count": there}}
        if request.method == "POST":
            return httpx.Response(status, headers={"Location": "/7"}, json=stored)
        return httpx.Response(200, json=stored)

    caplog.set_level(logging.DEBUG)
    options = ClientOptions(base_url="https://api.example.com", transport=lambda: httpx.MockTransport(answer))
    monkeypatch.setattr("shared.business.business_api", TalkativeApi(options))
    monkeypatch.setattr("shared.delivery.answers.Business", TalkativeBusiness)
    record = example(1) | {"part": {"count": SECRET}}
    told = await post_record(Attempt(record=record, idempotency_key="k"))
    assert told.outcome == outcome
    assert SECRET not in told.model_dump_json() + caplog.text


# Whatever durable state another version has left


def spoiled(document: Any) -> Iterator[Any]:
    """The document with a secret, or something that holds one, in place of each of its values, one at a time."""
    yield from (SECRET, {SECRET: SECRET}, [SECRET], {"outcome": SECRET}, {"outcome": "posted", SECRET: SECRET})
    if isinstance(document, dict):
        for name, value in document.items():
            yield {SECRET if one == name else one: document[one] for one in document}
            yield from ({**document, name: bad} for bad in spoiled(value))
    if isinstance(document, list):
        for index, value in enumerate(document):
            yield from ([*document[:index], bad, *document[index + 1 :]] for bad in spoiled(value))


def refusal_of(read: Callable[[Any], object], document: Any) -> str | None:
    try:
        read(document)
    except ValueError as error:
        return str(error)
    return None


DELIVERY = Delivery.of(BUSINESS, DeliverySettings())
BATCH = Batch.of([BUSINESS, ItemInvalid(field="name", detail="Field required")], DeliverySettings())
POSTED = {"outcome": "posted", "id": "b-1", "business": {"name": "Acme"}, "replayed": False}
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CHUNK = Round(BATCH.begun("b", NOW), NOW).next_chunk(NOW)
RUNNING = {"name": "PostBusinessOrchestrator", "runtimeStatus": "Running"}
REPORT = {"settled": [0], "results": "null", "counts": {"posted": 1}, "deferred": [{"indexes": [1], "reason": "503"}]}


@pytest.mark.parametrize(
    ("read", "document"),
    [
        (Delivery.model_validate, DELIVERY.model_dump(mode="json")),
        (Batch.model_validate, BATCH.model_dump(mode="json")),
        (Chunk.model_validate, CHUNK and CHUNK.model_dump(mode="json")),
        (Report.model_validate, REPORT),
        (Attempt.model_validate, DELIVERY.attempt("i").model_dump(mode="json")),
        (Progress.model_validate, {"attempt": 1, "outcome": POSTED, "next_attempt_at": None}),
        (lambda document: read_line(json.dumps(document)), {"outcome": "rejected", "status": 422}),
        (parse_outcome, POSTED),
        (
            lambda document: describe(Instance.model_validate(RUNNING | {"customStatus": document})),
            {"attempt": 1, "outcome": POSTED},
        ),
    ],
)
def test_durable_state_of_another_version_is_refused_without_repeating_it(
    read: Callable[[Any], object], document: Any
) -> None:
    assert refusal_of(read, document) is None
    refusals = [refusal for bad in spoiled(document) if (refusal := refusal_of(read, bad))]
    assert len(refusals) > 3
    assert [refusal for refusal in refusals if SECRET in refusal] == []


@pytest.mark.parametrize("orchestrator", ["PostBusinessOrchestrator", "PostBusinessesOrchestrator"])
@pytest.mark.parametrize(
    "given", [{"record": SECRET}, {**BATCH.model_dump(mode="json"), "results": [{"outcome": SECRET}]}]
)
def test_an_orchestration_of_another_version_fails_without_repeating_its_input(
    host: RunningHost, caplog: pytest.LogCaptureFixture, orchestrator: str, given: dict[str, Any]
) -> None:
    status = host.wait(host.start(orchestrator, given))
    assert status.runtime_status == "Failed"
    assert "validation error" in str(status.output)
    assert SECRET not in caplog.text + str(status.output)
