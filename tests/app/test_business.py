"""The record: strictly read from callers, sent as it was accepted, shown as the API has it, whatever the model."""

import asyncio
import hashlib
import json
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from pydantic import ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from devhost.testing import RunningHost
from function_app import PostBusiness
from shared.business import BusinessApi, NewBusiness, Record, assigned, example
from shared.delivery.batches import Batch
from shared.delivery.bounds import stored
from shared.delivery.outcomes import Rejected
from shared.delivery.records import Delivery, accepted, as_sent, fingerprint_of
from shared.delivery.results import write_line
from shared.operations.list_query import ListQuery
from shared.operations.listing import list_operations
from shared.operations.requests import Corrections
from shared.operations.status import BATCH, DELIVERY
from shared.rest import ClientOptions, ProblemDetails
from shared.settings import DeliverySettings
from tests.sandboxed import business
from tests.simulation.staged import StagedHub
from tests.simulation.task_hub import START

pytestmark = pytest.mark.virtual_time

RECORD, OTHER, ASSIGNED = example(1), example(2), assigned(1)
# What an earlier deployment accepted, under a model that had other fields and none of today's.
OLD: Record = {"number": "HRB 1", "title": "Acme", "branches": [{"city": "Köln", "closed": None}], "share": 1.5}
PROBLEM = {"outcome": "rejected", "status": 422, "problem": {"title": "No", "status": 422}}
DEFERRED = {"outcome": "deferred", "reason": "the API answered 503"}


class WithNewField(NewBusiness):
    """The model of the next release, which has two more optional fields."""

    phone: str | None = None
    source: str = "web"


class WithFactory(NewBusiness):
    """A model with a default that is another one each time."""

    requested: str = Field(default_factory=lambda: uuid.uuid4().hex)


class CamelCase(NewBusiness):
    """A model whose fields have other names in JSON."""

    model_config = ConfigDict(alias_generator=to_camel)

    vat_number: Annotated[str, Field(min_length=1)]
    note: str | None = None


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """The requests that reach an API which takes whatever it gets."""
    requests: list[httpx.Request] = []

    def take(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(201, json=ASSIGNED | RECORD)

    options = ClientOptions(base_url="https://api.example.com", transport=lambda: httpx.MockTransport(take))
    monkeypatch.setattr("shared.business.business_api", BusinessApi(options))
    return requests


def test_what_callers_send_has_no_id_and_no_unknown_fields() -> None:
    for unwanted in (ASSIGNED, dict.fromkeys(ASSIGNED), {"unknown": "1"}):
        with pytest.raises(ValidationError):
            business(1, **unwanted)


async def test_a_record_goes_to_the_api_as_it_was_accepted(sent: list[httpx.Request]) -> None:
    for record in (OLD, {**RECORD, "unknown": None}, {"blank": " ", "nested": {"null": None}}):
        await PostBusiness({"record": record, "idempotency_key": "k"})
        assert json.loads(sent[-1].content) == record


def test_numbers_go_all_the_way_with_all_their_digits(host: RunningHost, sent: list[httpx.Request]) -> None:
    numbers = [2**53 + 1, 2**63 + 1, -(10**300) - 1, 0.1, 119.1, 1e22, 5e-324]
    host.wait(host.start("PostBusinessOrchestrator", {"record": {"numbers": numbers}}))
    assert json.loads(sent[-1].content) == {"numbers": numbers}


def test_a_record_is_accepted_under_the_names_that_it_has_in_json() -> None:
    sent = {to_camel(name): value for name, value in RECORD.items()} | {"vatNumber": "7"}
    assert accepted(CamelCase.model_validate_json(json.dumps(sent | {"note": None}))) == sent


def test_a_new_optional_field_does_not_change_the_fingerprint_of_an_equal_request() -> None:
    old, new = as_sent(business(1)), as_sent(business(1, WithNewField))
    assert old == new == as_sent(business(1, WithNewField, phone=None)) == as_sent(business(1, WithFactory))
    assert new != as_sent(business(1, WithNewField, phone="1"))
    assert fingerprint_of([old]) != fingerprint_of([old, old])


def test_a_fingerprint_is_that_of_the_json_of_what_was_sent() -> None:
    """As of earlier versions: a request that is repeated after a deployment must be known."""
    sent = [example(1), example(2)]
    text = json.dumps(sent, sort_keys=True)
    assert fingerprint_of([as_sent(business(1)), as_sent(business(2))]) == hashlib.sha256(text.encode()).hexdigest()


# Operations that began under another model.


@pytest.fixture
async def hub() -> StagedHub:
    """One operation of each kind and state, all of them with records of another model."""
    hub = StagedHub(DEFERRED)
    delivery = {"record": OLD, "settings": {}, "fingerprint": "f", "revision": 0}
    posted = {"outcome": "posted", "id": "b-1", "business": {"id": "b-1", **OLD}}
    for operation_id, outcome in (("posted", posted), ("rejected", PROBLEM)):
        progress = {"attempt": 1, "outcome": outcome}
        hub.put(operation_id, "Completed", progress, progress, given=delivery)
    refused = write_line(Rejected(status=422, problem=ProblemDetails(title="No")))
    batch = stored(Batch.of([business(1)] * 2, DeliverySettings()))
    document = {**batch, "records": f"{json.dumps(OLD)}\n{json.dumps(OLD)}", "results": f"\n{refused}"}
    for name, operation_id, given in ((DELIVERY, "deferred", delivery), (BATCH, "batch", document)):
        await hub.client.start_new(name, operation_id, given)
        await asyncio.sleep(1.0)
    return hub


async def test_they_are_shown_listed_and_told_record_by_record(hub: StagedHub) -> None:
    shown = (await hub.operations.get("posted")).model_dump(mode="json")
    assert shown["outcome"]["business"] == {"id": "b-1", **OLD}
    listed, _ = await list_operations(hub.client, ListQuery(since=START))
    states = {"posted": "posted", "rejected": "rejected", "deferred": "deferred", "batch": "running"}
    assert {one.id: one.state for one in listed} == states
    assert [one.outcome for one in await hub.operations.outcomes("batch")] == ["pending", "rejected"]


def sent_with_retry(record: Record | None) -> Corrections:
    """What a caller sends with a retry."""
    if record is None:
        return Corrections({}, b"")
    return Corrections({"Content-Type": "application/json"}, json.dumps(record).encode())


async def test_they_are_cancelled(hub: StagedHub) -> None:
    cancelled = [await hub.operations.cancel(operation_id) for operation_id in ("deferred", "batch")]
    assert [(one.state, one.cancelling) for one in cancelled] == [("cancelled", False), ("running", True)]
    assert hub.changes[-2:] == [("POST", f"/instances/{one.id}/raiseEvent/Cancel", 202) for one in cancelled]


@pytest.mark.parametrize("corrected", [None, RECORD])
async def test_they_are_retried_as_they_were_or_corrected(hub: StagedHub, corrected: Record | None) -> None:
    await hub.operations.retry("rejected", sent_with_retry(corrected), DeliverySettings())
    assert hub.instances["rejected"].status == "Running"
    assert hub.given("rejected")["record"] == (RECORD if corrected else OLD)


async def test_the_same_body_under_a_model_with_another_default_is_no_correction() -> None:
    again = Delivery.of(business(1), DeliverySettings())
    begun = Delivery.of(business(1, WithNewField), DeliverySettings())
    assert again.record != begun.record
    gave_up = {"attempt": 9, "outcome": {"outcome": "gave_up", "reason": "503"}}
    hub = StagedHub()
    hub.put("gave-up", "Completed", gave_up, gave_up, given=begun.model_dump(mode="json"))
    await hub.operations.retry("gave-up", sent_with_retry(RECORD), DeliverySettings())
    assert hub.given("gave-up")["record"] == begun.record


@pytest.mark.parametrize("added", [{}, {"created_at": "2026-01-01", "unknown": None}])
async def test_a_record_is_there_whatever_the_api_has_added_to_it(
    monkeypatch: pytest.MonkeyPatch, conflicting: Callable[[dict[str, Any]], BusinessApi], added: dict[str, Any]
) -> None:
    monkeypatch.setattr("shared.business.business_api", conflicting(ASSIGNED | RECORD | added))
    assert (await PostBusiness({"record": RECORD, "idempotency_key": "k"}))["outcome"] == "posted"
    assert (await PostBusiness({"record": OTHER, "idempotency_key": "k"}))["outcome"] == "rejected"


@pytest.mark.usefixtures("sent")
async def test_an_api_that_has_the_record_of_another_model_is_no_error(
    monkeypatch: pytest.MonkeyPatch, conflicting: Callable[[dict[str, Any]], BusinessApi]
) -> None:
    monkeypatch.setattr("shared.business.business_api", conflicting(ASSIGNED | RECORD))
    assert (await PostBusiness({"record": RECORD, "idempotency_key": "k"}))["outcome"] == "posted"
    assert (await PostBusiness({"record": OLD, "idempotency_key": "k"}))["outcome"] == "rejected"


@pytest.fixture
def conflicting() -> Callable[[dict[str, Any]], BusinessApi]:
    """An API that has a record already, and says where."""

    def api(stored: dict[str, Any]) -> BusinessApi:
        def answer(request: httpx.Request) -> httpx.Response:
            if request.method == "GET":
                return httpx.Response(200, json=stored)
            return httpx.Response(409, headers={"Location": "/businesses/b-1"})

        return BusinessApi(
            ClientOptions(base_url="https://api.example.com", transport=lambda: httpx.MockTransport(answer))
        )

    return api
