"""What does not fit the models is told by its place and kind only: no exception's text repeats anything of a record."""

import importlib
import json
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import shared
from devhost.testing import RunningHost
from shared.business import NewBusiness
from shared.delivery.attempts import Attempt, parse_outcome
from shared.delivery.batches import Batch, ItemInvalid, ItemPending, ItemResult, Section, read_results
from shared.delivery.records import Delivery, Progress
from shared.operations.status import describe
from shared.settings import DeliverySettings
from tests.sandboxed import business

from .task_hub import Status

SECRET = "geheim-4711"
BUSINESS = business(1)


def models_of(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for subclass in model.__subclasses__():
        yield subclass
        yield from models_of(subclass)


def test_no_model_repeats_its_input_in_errors() -> None:
    for module in pkgutil.walk_packages(shared.__path__, "shared."):
        importlib.import_module(module.name)
    models = {model for model in models_of(BaseModel) if model.__module__.partition(".")[0] == "shared"}
    assert {Batch, Delivery, NewBusiness} < models
    assert [model for model in models if not model.model_config.get("hide_input_in_errors")] == []


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
    except ValidationError as error:
        return str(error)
    return None


DELIVERY = Delivery.of(BUSINESS, DeliverySettings())
BATCH = Batch.of([BUSINESS, ItemInvalid(field="name", detail="Field required")], DeliverySettings())
POSTED = {"outcome": "posted", "id": "b-1", "business": {"name": "Acme"}, "replayed": False}
RESULT = ItemResult(index=0, result=ItemPending()).model_dump(mode="json")
((_, SECTION),) = BATCH.sections("b")


@pytest.mark.parametrize(
    ("read", "document"),
    [
        (Delivery.model_validate, DELIVERY.model_dump(mode="json")),
        (Batch.model_validate, BATCH.model_dump(mode="json")),
        (Section.read, SECTION.model_dump(mode="json")),
        (lambda document: Section.read(json.dumps(document)), SECTION.model_dump(mode="json")),
        (Attempt.model_validate, DELIVERY.attempt("i").model_dump(mode="json")),
        (Progress.model_validate, {"attempt": 1, "outcome": POSTED, "next_attempt_at": None}),
        (read_results, [RESULT]),
        (parse_outcome, POSTED),
        (lambda document: describe(Status("i", custom_status=document)), {"attempt": 1, "outcome": POSTED}),
    ],
)
def test_durable_state_of_another_version_is_refused_without_repeating_it(
    read: Callable[[Any], object], document: Any
) -> None:
    assert refusal_of(read, document) is None
    refusals = [refusal for bad in spoiled(document) if (refusal := refusal_of(read, bad))]
    assert len(refusals) > 3
    assert [refusal for refusal in refusals if SECRET in refusal] == []


@pytest.mark.parametrize("orchestrator", ["PostBusinessOrchestrator", "PostBatchOrchestrator"])
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
