"""docs/adapting.md: the app delivers records with every block in its place, to an API on a socket that is so."""

import contextlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import azure.functions as func
import pytest
from aiohttp import web
from pycep import BicepParser
from pydantic import AwareDatetime, ConfigDict, TypeAdapter

from dev.adopt import AS_IT_CAME
from dev.sandbox.serving import serve
from shared.access_tokens import TokenError
from shared.business import Record, example
from shared.delivery.outcomes import Deferred, Posted, Rejected
from shared.operations.openapi import document
from shared.operations.problems import RequestError
from shared.rest import ProblemDetails
from tests.docs.adapted import Adapted, Answer, Request, package_of, said, server
from tests.docs.markdown import ROOT, Block, read_blocks, read_page

PAGE = read_page("adapting.md")
BLOCKS = read_blocks(PAGE)
CODE = [block for block in BLOCKS if block.language == "python"]
(DIFF,) = (block.text for block in BLOCKS if block.language == "diff")
RECIPES = re.findall(r"^\| .+ \| \[(.+)\]\(#(.+)\) \|$", PAGE, re.MULTILINE)
SECOND = "A second API"

pytestmark = pytest.mark.skipif(not AS_IT_CAME, reason="the recipes start from the description that came with the tree")

type Adapt = Callable[..., Awaitable[Adapted]]


def blocks_of(heading: str) -> list[Block]:
    return [block for block in CODE if block.heading == heading]


@pytest.fixture
async def adapt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Adapt]:
    """Puts the blocks of a section in their place, and the API that they describe behind them."""
    async with contextlib.AsyncExitStack() as stack:

        async def adapt(blocks: str | list[Block], answer: Answer) -> Adapted:
            business: Any = package_of(blocks_of(blocks) if isinstance(blocks, str) else blocks, tmp_path, monkeypatch)
            requests: list[Request] = []
            url = stack.enter_context(serve(server(answer, requests)))
            client = await stack.enter_async_context(business.BusinessApi(url))
            monkeypatch.setattr("shared.business.business_api", client)
            for name in ("delivery.answers.Business", "operations.openapi.Business", "operations.openapi.NewBusiness"):
                monkeypatch.setattr(f"shared.{name}", getattr(business, name.rpartition(".")[2]))
            return Adapted(business, requests)

        yield adapt


# The page


def test_the_table_names_every_section_that_follows_and_no_other() -> None:
    headings = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    assert [name for name, _ in RECIPES] == headings
    assert [anchor for _, anchor in RECIPES] == [
        re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
    ]


def test_every_block_stands_in_a_section_that_a_test_here_uses() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert {block.heading for block in BLOCKS} == {name for name, _ in RECIPES}
    assert [name for name, _ in RECIPES if f'"{name}"' not in here] == []


@pytest.mark.parametrize("heading", [name for name, _ in RECIPES if name != SECOND])
async def test_the_openapi_document_is_made_of_the_models_of_a_recipe(adapt: Adapt, heading: str) -> None:
    adapted = await adapt(heading, lambda _: said(500))
    document.cache_clear()
    try:
        schemas = document("/api")["components"]["schemas"]
    finally:
        document.cache_clear()
    for name in ("NewBusiness", "Business"):
        fields = getattr(adapted.business, name).model_fields
        assert set(schemas[name]["properties"]) == {field.alias or member for member, field in fields.items()}


async def test_what_is_raised_after_a_yes_is_no_outcome(adapt: Adapt) -> None:
    raises = """
class BusinessApi(ApiClient):
    async def post_business(self, business: Record, *, idempotency_key: str | None = None) -> ApiResponse[Business]:
        await AsInTheFile.post_business(self, business, idempotency_key=idempotency_key)
        raise KeyError("data")
"""
    blocks = [Block("", "In `shared/business/api.py`", "python", raises)]
    adapted = await adapt(blocks, lambda request: said(201, {"id": "7", **request.body}))
    with pytest.raises(KeyError):
        await adapted.post(example())


# Names in camel case

CAMEL: Record = {"registrationNumber": "HRB 1", "name": "Acme", "vatNumber": "DE1"}


async def test_in_camel_case_records_are_taken_in_sent_looked_up_and_shown(adapt: Adapt) -> None:
    stored = {"id": "7", **CAMEL}

    def answer(request: Request) -> web.Response:
        return said(200, stored) if request.method == "GET" else said(409, {}, Location="/businesses/7")

    adapted = await adapt("Names in camel case", answer)
    record = adapted.accept({**CAMEL})
    assert record == CAMEL
    assert await adapted.post(record) == Posted(id="7", business=stored, replayed=True)
    assert adapted.requests[0].body == CAMEL
    assert (await adapted.post({**CAMEL, "vatNumber": "DE2"})).outcome == "rejected"
    assert await adapted.show("7") == (200, stored)


async def test_in_camel_case_errors_name_the_field_as_it_was_sent(adapt: Adapt) -> None:
    adapted = await adapt("Names in camel case", lambda _: said(500))
    with pytest.raises(RequestError, match=r"see registrationNumber, registration_number$"):
        adapted.read({"registration_number": "HRB 1", "name": "Acme"})


# Amounts, dates, nested records

RICH = """{"name": "Acme", "capital": "1.50", "fee": 2.50, "registered_at": "2026-01-31T12:00:00+01:00",
           "branches": [{"city": "Bonn", "opened": "2020-02-29"}, {"city": "Köln"}]}"""
TRAVELS: Record = {
    "name": "Acme",
    "capital": "1.50",
    "fee": 2.5,
    "registered_at": "2026-01-31T12:00:00+01:00",
    "branches": [{"city": "Bonn", "opened": "2020-02-29"}, {"city": "Köln"}],
}


@pytest.mark.parametrize(
    ("there", "outcome"),
    [
        ({"capital": "1.500"}, "posted"),
        ({"capital": 1.50, "fee": "2.500"}, "posted"),
        ({"registered_at": "2026-01-31T11:00:00Z"}, "posted"),
        ({"branches": [{"city": "Bonn", "opened": "2020-02-29", "id": 1}, {"city": "Köln", "opened": None}]}, "posted"),
        ({"capital": "1.51"}, "rejected"),
        ({"registered_at": "2026-01-31T12:00:00Z"}, "rejected"),
        ({"branches": [{"city": "Bonn", "opened": "2020-02-28"}, {"city": "Köln"}]}, "rejected"),
        ({"branches": []}, "rejected"),
    ],
)
async def test_of_rich_records_the_values_are_compared(adapt: Adapt, there: dict[str, Any], outcome: str) -> None:
    def answer(request: Request) -> web.Response:
        found = {"id": "7", **TRAVELS, **there}
        return said(200, found) if request.method == "GET" else said(409, {}, Location="/businesses/7")

    adapted = await adapt("Amounts, dates, nested records", answer)
    record = adapted.accept(RICH)
    assert record == TRAVELS
    assert (await adapted.post(record)).outcome == outcome
    assert adapted.requests[0].body == TRAVELS
    status, shown = await adapted.show("7")
    assert (status, shown["name"]) == (200, "Acme")


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"capital": "1.005"}, "capital"),
        ({"capital": 1.5}, "capital"),
        ({"capital": "1e2"}, "capital"),
        ({"capital": "1_000"}, "capital"),
        ({"capital": " 1"}, "capital"),
        ({"capital": "01"}, "capital"),
        ({"capital": "NaN"}, "capital"),
        ({"capital": True}, "capital"),
        ({"fee": "2.50"}, "fee"),
        ({"fee": 1.005}, "fee"),
        ({"fee": 10**15}, "fee"),
        ({"fee": True}, "fee"),
        ({"registered_at": "2026-01-31T12:00:00"}, "registered_at"),
        ({"registered_at": 1769857200}, "registered_at"),
        ({"registered_at": "1769857200"}, "registered_at"),
        ({"branches": [{"city": 7}]}, "branches.0.city"),
        ({"branches": [{"city": "Bonn", "opened": 0}]}, "branches.0.opened"),
        ({"branches": [{"city": "Bonn", "opened": "1769817600"}]}, "branches.0.opened"),
        ({"branches": [{"city": "Bonn", "opened": "2020-02-29T00:00:00"}]}, "branches.0.opened"),
        ({"branches": [{"city": "Bonn", "street": "x"}]}, "branches.0.street"),
    ],
)
async def test_of_rich_records_nothing_is_converted(adapt: Adapt, changed: dict[str, Any], field: str) -> None:
    adapted = await adapt("Amounts, dates, nested records", lambda _: said(500))
    with pytest.raises(RequestError, match=f"see {re.escape(field)}$"):
        adapted.read(json.loads(RICH) | changed)


@pytest.mark.parametrize("amount", ["119.10", "0.00", "-119.1", "119", "9999999999999.99"])
async def test_amounts_travel_and_are_shown_as_the_text_or_the_number_that_they_were_sent_as(
    adapt: Adapt, amount: str
) -> None:
    adapted = await adapt("Amounts, dates, nested records", lambda request: said(201, {"id": "7", **request.body}))
    sent = json.loads(RICH) | {"capital": amount, "fee": json.loads(amount)}
    outcome = await adapted.post(adapted.accept(sent))
    assert adapted.requests[0].body == sent
    assert isinstance(outcome, Posted)
    assert outcome.business == {"id": "7", **sent}


@pytest.mark.parametrize("plain", [Decimal, date, AwareDatetime, float, int], ids=lambda plain: plain.__name__)
def test_the_plain_types_write_values_as_the_page_says(plain: Any) -> None:
    (row,) = re.findall(rf"^\| `{plain.__name__}` \| (.+) \| (.+) \|$", PAGE, re.MULTILINE)
    sent, written = (re.findall(r"`(.+?)`", cell) for cell in row)
    strict = TypeAdapter[Any](plain, config=ConfigDict(strict=True))
    assert [json.dumps(strict.dump_python(strict.validate_json(text), mode="json")) for text in sent] == written


# An id that is a number, or has another name


async def test_a_number_under_another_name_is_the_id_everywhere(adapt: Adapt) -> None:
    stored = {"customerId": 7, **example()}
    posts = iter([said(201, stored), said(201, {"customerId": 8}), said(409, {}, Location="/businesses/7")])
    adapted = await adapt(
        "An id that is a number, or has another name",
        lambda request: said(200, stored) if request.method == "GET" else next(posts),
    )
    assert await adapted.post(example()) == Posted(id="7", business=stored)
    unreadable = await adapted.post(example())
    assert isinstance(unreadable, Posted)
    assert (unreadable.id, unreadable.warning is None) == ("8", False)
    assert await adapted.post(example()) == Posted(id="7", business=stored, replayed=True)
    assert await adapted.show("7") == (200, stored)
    assert adapted.asked[-1] == "GET /businesses/7"


async def test_with_ids_that_are_numbers_a_location_that_names_none_is_no_bug(adapt: Adapt) -> None:
    def answer(request: Request) -> web.Response:
        return said(404) if request.method == "GET" else said(409, Location="/somewhere/else")

    adapted = await adapt("An id that is a number, or has another name", answer)
    outcome = await adapted.post(example())
    assert isinstance(outcome, Deferred)
    assert outcome.reason == "409; GET /businesses/else: 404 Not Found"


# PUT under the natural key

CUSTOMER: Record = {"number": "C1", "name": "Acme"}


class Customers:
    """An API that stores what is put under its number, and loses the first answers if it is told to."""

    def __init__(self, *, lost: int = 0) -> None:
        self.stored: dict[str, Record] = {}
        self.lost = lost

    def answer(self, request: Request) -> web.Response | None:
        path = request.path
        if request.method == "GET":
            return said(200, self.stored[path]) if path in self.stored else said(404)
        assert request.method == "PUT"
        if path in self.stored and request.headers.get("If-None-Match") == "*":
            return said(412)
        status = 200 if path in self.stored else 201
        self.stored[path] = request.body
        self.lost -= 1
        return None if self.lost >= 0 else said(status, request.body)


async def test_a_record_is_put_under_its_number_which_is_its_id(adapt: Adapt) -> None:
    adapted = await adapt("PUT under the natural key", Customers().answer)
    record = adapted.accept(CUSTOMER)
    assert await adapted.post(record) == Posted(id="C1", business=CUSTOMER)
    assert adapted.asked == ["PUT /customers/C1"]
    assert adapted.requests[0].body == CUSTOMER
    assert await adapted.show("C1") == (200, CUSTOMER)


@pytest.mark.parametrize("number", ["", "..", "a/b", "C 1"])
async def test_a_number_that_cannot_stand_in_a_path_is_refused(adapt: Adapt, number: str) -> None:
    adapted = await adapt("PUT under the natural key", Customers().answer)
    with pytest.raises(RequestError, match=r"see number$"):
        adapted.read({**CUSTOMER, "number": number})


async def test_a_put_whose_answer_was_lost_is_looked_up_and_posted(adapt: Adapt) -> None:
    adapted = await adapt("PUT under the natural key", Customers(lost=1).answer)
    assert (await adapted.deliver(CUSTOMER, 1)).may_be_stored
    progress = await adapted.deliver(CUSTOMER, 1)
    assert progress.outcome == Posted(id="C1", business=CUSTOMER, replayed=True)
    assert adapted.asked == ["PUT /customers/C1", "PUT /customers/C1", "GET /customers/C1"]


async def test_a_put_to_a_number_that_another_record_has_is_rejected(adapt: Adapt) -> None:
    customers = Customers()
    adapted = await adapt("PUT under the natural key", customers.answer)
    await adapted.post(CUSTOMER)
    outcome = await adapted.post({**CUSTOMER, "name": "Other"})
    assert isinstance(outcome, Rejected)
    assert customers.stored == {"/customers/C1": CUSTOMER}


async def test_a_put_without_condition_is_repeated_at_no_cost_but_replaces_what_is_there(adapt: Adapt) -> None:
    models, api = blocks_of("PUT under the natural key")
    blind = replace(api, text=api.text.replace(', headers={"If-None-Match": "*"}', ""))
    assert blind != api
    customers = Customers(lost=1)
    adapted = await adapt([models, blind], customers.answer)
    assert (await adapted.deliver(CUSTOMER, 2)).outcome == Posted(id="C1", business=CUSTOMER)
    await adapted.post({**CUSTOMER, "name": "Other"})
    assert customers.stored["/customers/C1"]["name"] == "Other"


async def test_a_record_under_another_number_is_another_one(adapt: Adapt) -> None:
    """The number has another name in `Business` than in `NewBusiness`, and the same in JSON."""
    other = {**CUSTOMER, "number": "C2"}

    def answer(request: Request) -> web.Response:
        return said(200, other) if request.method == "GET" else said(409, Location="/customers/C2")

    adapted = await adapt("PUT under the natural key", answer)
    assert (await adapted.post(CUSTOMER)).outcome == "rejected"


# Envelopes


async def test_envelopes_are_closed_and_opened(adapt: Adapt) -> None:
    stored = {"id": "7", **example()}
    posts = iter([said(201, {"data": stored}), said(409, Location="/businesses/7")])
    adapted = await adapt(
        "Envelopes", lambda request: said(200, {"data": stored}) if request.method == "GET" else next(posts)
    )
    assert await adapted.post(example()) == Posted(id="7", business=stored)
    assert await adapted.post(example()) == Posted(id="7", business=stored, replayed=True)
    assert [request.body for request in adapted.requests] == [{"data": example()}, {"data": example()}, None]
    assert adapted.requests[0].headers["Idempotency-Key"] == "key-1"
    assert await adapted.show("7") == (200, stored)


async def test_of_an_envelope_that_cannot_be_read_the_location_tells_the_id(adapt: Adapt) -> None:
    posts = iter([said(201, {"data": {"id": "7"}}, Location="/businesses/7"), said(201, {"data": {"id": "7"}})])
    adapted = await adapt("Envelopes", lambda _: next(posts))
    for business_id in ("7", None):
        outcome = await adapted.post(example())
        assert isinstance(outcome, Posted)
        assert (outcome.id, outcome.warning is None) == (business_id, False)


async def test_a_refusal_comes_through_an_envelope_as_it_is(adapt: Adapt) -> None:
    adapted = await adapt("Envelopes", lambda _: said(422, {"title": "No"}))
    assert (await adapted.post(example())).outcome == "rejected"


# Errors in a format of its own


@pytest.mark.parametrize(
    ("status", "becomes"),
    [(402, "rejected"), (403, "rejected"), (422, "rejected"), (400, "deferred"), (401, "deferred")],
)
async def test_errors_are_read_and_statuses_mean_what_the_description_says(
    adapt: Adapt, status: int, becomes: str
) -> None:
    adapted = await adapt(
        "Errors in a format of its own", lambda _: said(status, {"code": "E17", "text": "no country"})
    )
    outcome = await adapted.post(example())
    assert outcome.outcome == becomes
    assert not isinstance(outcome, Posted)
    assert outcome.problem == ProblemDetails(type="urn:acme:E17", title="Refused by Acme", detail="no country")


async def test_an_error_that_cannot_be_read_is_shown_as_it_is(adapt: Adapt) -> None:
    adapted = await adapt("Errors in a format of its own", lambda _: said(402, {"code": 1}))
    outcome = await adapted.post(example())
    assert isinstance(outcome, Rejected)
    assert outcome.excerpt == '{"code": 1}'


# 200 with an error inside


@pytest.mark.parametrize(("code", "becomes"), [("NO_COUNTRY", "rejected"), ("BUSY", "deferred")])
async def test_a_200_with_an_error_inside_is_no_yes(adapt: Adapt, code: str, becomes: str) -> None:
    adapted = await adapt("200 with an error inside", lambda _: said(200, {"error_code": code, "message": "no"}))
    outcome = await adapted.post(example())
    assert outcome.outcome == becomes
    assert not isinstance(outcome, Posted)
    assert outcome.problem == ProblemDetails(title=code, detail="no")
    assert adapted.requests[0].body == example()


@pytest.mark.parametrize(("body", "business_id"), [({"id": "7", **example()}, "7"), ({"id": "7"}, "7"), ({}, None)])
async def test_any_other_200_is_a_yes(adapt: Adapt, body: Record, business_id: str | None) -> None:
    adapted = await adapt("200 with an error inside", lambda _: said(200, body))
    outcome = await adapted.post(example())
    assert isinstance(outcome, Posted)
    assert (outcome.id, outcome.warning is None) == (business_id, len(body) > 1)


# 202 and a job


class Jobs:
    """An API that works later: what it says of the job, one after the other, the last for ever."""

    def __init__(self, *told: web.Response | dict[str, Any] | None, location: str | None = "/jobs/j1") -> None:
        self.told = list(told)
        self.location = location

    def answer(self, request: Request) -> web.Response | None:
        if request.method == "POST":
            return said(202, **({} if self.location is None else {"Location": self.location}))
        assert request.path == "/jobs/j1"
        told = self.told.pop(0) if len(self.told) > 1 else self.told[0]
        return said(200, told) if isinstance(told, dict) else told


@pytest.fixture
def job(adapt: Adapt, monkeypatch: pytest.MonkeyPatch) -> Adapt:
    async def adapted_to(jobs: Jobs, blocks: str | list[Block] = "202 and a job") -> Adapted:
        adapted = await adapt(blocks, jobs.answer)
        monkeypatch.setattr(adapted.api, "PATIENCE", 0.5)
        monkeypatch.setattr(adapted.api, "PAUSE", 0.01)
        return adapted

    return adapted_to


RUNNING = {"state": "running"}


async def test_a_job_that_ends_well_is_posted_with_its_record(job: Adapt) -> None:
    stored = {"id": "7", **example()}
    adapted = await job(Jobs(RUNNING, said(503), RUNNING, {"state": "done", "business": stored}))
    assert await adapted.post(example()) == Posted(id="7", business=stored)
    assert adapted.asked == ["POST /businesses", *["GET /jobs/j1"] * 4]
    assert adapted.requests[0].headers["Idempotency-Key"] == "key-1"


async def test_a_job_that_failed_is_a_refusal(job: Adapt) -> None:
    adapted = await job(Jobs(RUNNING, {"state": "failed", "message": "no such country"}))
    problem = ProblemDetails(title="The job failed", detail="no such country")
    assert await adapted.post(example()) == Rejected(status=422, problem=problem)


@pytest.mark.parametrize(
    "jobs",
    [
        Jobs(RUNNING),
        Jobs(None),
        Jobs({"status": "ok"}),
        Jobs({"state": "done", "business": 7}),
        Jobs(RUNNING, location="/jobs/j1/"),
        Jobs(RUNNING, location=None),
        Jobs(RUNNING, location="/.."),
    ],
)
async def test_a_job_whose_end_is_not_known_is_posted_with_a_warning_and_never_again(job: Adapt, jobs: Jobs) -> None:
    adapted = await job(jobs)
    name = None if jobs.location in {None, "/.."} else "j1"
    assert await adapted.post(example()) == Posted(warning=f"202: how job {name} ends is not known")
    assert [request.method for request in adapted.requests].count("POST") == 1


async def test_a_job_that_cannot_be_asked_for_is_posted_with_a_warning_too(
    job: Adapt, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def signed_out(client: object, job_id: str) -> None:
        raise TokenError(401, "invalid_client", "no")

    adapted = await job(Jobs(RUNNING))
    monkeypatch.setattr(adapted.api.BusinessApi, "get_job", signed_out)
    assert await adapted.post(example()) == Posted(warning="202: how job j1 ends is not known")


async def test_a_question_that_hangs_ends_with_the_patience(job: Adapt) -> None:
    def answer(request: Request) -> web.Response:
        if request.method == "GET":
            time.sleep(2.0)
        return said(202, Location="/jobs/j1")

    jobs = Jobs(RUNNING)
    jobs.answer = answer  # type: ignore[method-assign]
    adapted = await job(jobs)
    began = time.monotonic()
    assert await adapted.post(example()) == Posted(warning="202: how job j1 ends is not known")
    assert time.monotonic() - began < 1.5


async def test_without_an_error_there_is_no_warning(job: Adapt) -> None:
    (block,) = blocks_of("202 and a job")
    silent = replace(block, text=block.text.replace("None, unknown)", "None)"))
    assert silent != block
    assert await (await job(Jobs(RUNNING), [silent])).post(example()) == Posted()


async def test_an_api_that_does_not_start_a_job_is_judged_as_usual(adapt: Adapt) -> None:
    adapted = await adapt("202 and a job", lambda _: said(422))
    assert (await adapted.post(example())).outcome == "rejected"
    assert adapted.asked == ["POST /businesses"]


async def test_post_and_job_end_before_the_host_ends_the_function(adapt: Adapt) -> None:
    adapted = await adapt("202 and a job", lambda _: said(500))
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    assert "functionTimeout" not in host  # by default five minutes on the Consumption plan, 30 on the others
    assert adapted.api.PATIENCE + 100 < 300
    assert host["extensions"]["durableTask"]["maxConcurrentActivityFunctions"] == 20


# 409 for a natural key


class Register:
    """An API that knows no idempotency keys, perhaps refuses a number twice, and loses the first answers.

    Attributes:
        stored: The records, in the order in which they came.
        refuses: Whether it refuses a number that it has.
        lost: How many answers to posts are still to be lost.
        find_status: What it answers to a search by number with.
    """

    def __init__(self, *stored: Record, refuses: bool = True, lost: int = 0, find_status: int = 200) -> None:
        self.stored = [*stored]
        self.refuses = refuses
        self.lost = lost
        self.find_status = find_status

    def answer(self, request: Request) -> web.Response | None:
        if request.method == "GET":
            _, _, number = request.path.partition("?registration_number=")
            named = [{"id": f"b/{index}", **record} for index, record in enumerate(self.stored)]
            if number:
                found = [record for record in named if record["registration_number"].replace(" ", "%20") == number]
                return said(self.find_status, found)
            return next(
                (said(200, one) for one in named if request.path == f"/businesses/b%2F{one['id'][2:]}"), said(404)
            )
        numbers = [record["registration_number"] for record in self.stored]
        if self.refuses and request.body["registration_number"] in numbers:
            return said(409)
        self.stored.append(request.body)
        self.lost -= 1
        return None if self.lost >= 0 else said(201, {"id": f"b/{len(self.stored) - 1}", **request.body})


RECORD: Record = {"registration_number": "HRB 1", "name": "Acme", "country": "DE"}
OTHER: Record = {**RECORD, "name": "Other"}
DUPLICATE, FINDS = blocks_of("409 for a natural key")


@pytest.mark.parametrize("blocks", [[], [DUPLICATE], [FINDS]])
@pytest.mark.parametrize(("there", "becomes"), [(RECORD, "posted"), (OTHER, "rejected")])
async def test_a_409_with_a_location_is_looked_up(
    adapt: Adapt, blocks: list[Block], there: Record, becomes: str
) -> None:
    def answer(request: Request) -> web.Response:
        found = said(200, {"id": "7", **there})
        return found if request.method == "GET" else said(409, Location="/businesses/7")

    adapted = await adapt(blocks, answer)
    assert (await adapted.post(RECORD)).outcome == becomes
    assert adapted.asked == ["POST /businesses", "GET /businesses/7"]


FILLED_IN = """
class NewBusiness(BaseModel):
    registration_number: str
    source: str | None = None


class Business(NewBusiness):
    id: str
"""


async def test_a_field_that_the_api_fills_in_makes_no_other_record(adapt: Adapt) -> None:
    def answer(request: Request) -> web.Response:
        found = said(200, {"id": "7", "registration_number": "HRB 1", "source": "web"})
        return found if request.method == "GET" else said(409, Location="/businesses/7")

    adapted = await adapt([Block("", "In `shared/business/models.py`", "python", FILLED_IN)], answer)
    assert (await adapted.post(adapted.accept({"registration_number": "HRB 1"}))).outcome == "posted"
    assert (
        await adapted.post(adapted.accept({"registration_number": "HRB 1", "source": "shop"}))
    ).outcome == "rejected"


async def test_a_409_without_location_waits_or_rejects(adapt: Adapt) -> None:
    usual = await (await adapt([], Register(OTHER).answer)).post(RECORD)
    assert (usual.outcome, isinstance(usual, Deferred) and usual.may_be_stored) == ("deferred", True)
    outcome = await (await adapt([DUPLICATE], Register(OTHER).answer)).post(RECORD)
    assert isinstance(outcome, Rejected)
    assert (outcome.status, outcome.may_be_stored) == (409, False)


async def test_after_a_lost_answer_a_rejection_leaves_the_doubt(adapt: Adapt) -> None:
    register = Register(lost=1)
    progress = await (await adapt([DUPLICATE], register.answer)).deliver(RECORD, 2)
    assert isinstance(progress.outcome, Rejected)
    assert progress.may_be_stored
    assert register.stored == [RECORD]


async def test_a_record_that_is_found_by_its_number_ends_the_doubt(adapt: Adapt) -> None:
    register = Register(lost=1)
    adapted = await adapt([FINDS], register.answer)
    progress = await adapted.deliver(RECORD, 2)
    assert progress.outcome == Posted(id="b/0", business={"id": "b/0", **RECORD}, replayed=True)
    assert adapted.asked[2:] == ["GET /businesses?registration_number=HRB%201", "GET /businesses/b%2F0"]
    assert register.stored == [RECORD]


async def test_another_record_that_is_found_by_its_number_rejects(adapt: Adapt) -> None:
    outcome = await (await adapt([FINDS], Register(OTHER).answer)).post(RECORD)
    assert isinstance(outcome, Rejected)
    assert (outcome.status, outcome.may_be_stored) == (409, False)


async def test_a_look_up_by_number_that_fails_defers_in_doubt(adapt: Adapt) -> None:
    outcome = await (await adapt([FINDS], Register(OTHER, find_status=503).answer)).post(RECORD)
    assert isinstance(outcome, Deferred)
    assert outcome.may_be_stored
    assert outcome.reason.startswith("GET /businesses: 503")


async def test_a_look_up_by_number_that_finds_nothing_leaves_what_the_description_says(adapt: Adapt) -> None:
    def answer(request: Request) -> web.Response:
        return said(200, []) if request.method == "GET" else said(409)

    assert (await (await adapt([FINDS], answer)).post(RECORD)).outcome == "rejected"


# No content


@pytest.mark.parametrize("status", [201, 204])
@pytest.mark.parametrize(("headers", "business_id"), [({"Location": "/businesses/b%2D7"}, "b-7"), ({}, None)])
async def test_an_answer_without_content_is_posted_without_a_warning(
    adapt: Adapt, status: int, headers: dict[str, str], business_id: str | None
) -> None:
    adapted = await adapt("No content", lambda _: said(status, **headers))
    assert await adapted.post(example()) == Posted(id=business_id)
    assert adapted.requests[0].body == example()
    assert adapted.requests[0].headers["Idempotency-Key"] == "key-1"


async def test_a_record_now_and_then_is_read_if_it_is_promised_so(adapt: Adapt) -> None:
    (block,) = blocks_of("No content")
    optional = replace(block, text=block.text.replace("ApiResponse[None]", "ApiResponse[Business | None]"))
    stored = {"id": "7", **example()}
    posts = iter([said(201, stored), said(201, Location="/businesses/8")])
    adapted = await adapt([optional], lambda _: next(posts))
    assert await adapted.post(example()) == Posted(id="7", business=stored)
    assert await adapted.post(example()) == Posted(id="8")


async def test_a_refusal_without_content_is_one(adapt: Adapt) -> None:
    adapted = await adapt("No content", lambda _: said(422))
    assert (await adapted.post(example())).outcome == "rejected"


# No idempotency keys


async def test_without_idempotency_keys_a_record_whose_answer_is_lost_is_stored_twice(adapt: Adapt) -> None:
    register = Register(refuses=False, lost=1)
    adapted = await adapt([], register.answer)
    assert (await adapted.deliver(RECORD, 1)).may_be_stored
    assert isinstance((await adapted.deliver(RECORD, 1)).outcome, Posted)
    assert register.stored == [RECORD, RECORD]


async def test_without_idempotency_keys_an_activity_that_runs_again_stores_it_twice(adapt: Adapt) -> None:
    register = Register(refuses=False)
    adapted = await adapt([], register.answer)
    for _ in range(2):  # as the engine does if the worker dies in between
        assert (await adapted.post(RECORD)).outcome == "posted"
    assert register.stored == [RECORD, RECORD]


async def test_an_api_that_is_asked_first_stores_it_once(adapt: Adapt) -> None:
    register = Register(refuses=False, lost=1)
    adapted = await adapt("No idempotency keys", register.answer)
    progress = await adapted.deliver(RECORD, 2)
    assert progress.outcome == Posted(id="b/0", business={"id": "b/0", **RECORD}, replayed=True)
    assert register.stored == [RECORD]
    assert [request.method for request in adapted.requests] == ["GET", "POST", "GET", "GET"]
    assert (await adapted.post(OTHER)).outcome == "rejected"
    assert register.stored == [RECORD]


async def test_an_api_that_cannot_be_asked_first_is_not_posted_to(adapt: Adapt) -> None:
    register = Register(refuses=False, find_status=503)
    assert (await (await adapt("No idempotency keys", register.answer)).post(RECORD)).outcome == "deferred"
    assert register.stored == []


# A second API


@pytest.fixture
def second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    """The modules of the second API, in the packages for which they are written."""
    modules = {}
    for block in blocks_of("A second API"):
        file = tmp_path / block.file
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(block.text, encoding="utf-8")
        name = block.file.removesuffix(".py").replace("/", ".")
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        package, _, member = name.rpartition(".")
        monkeypatch.setattr(sys.modules[package], member, module, raising=False)
        spec.loader.exec_module(module)
        modules[name] = module
    for setting in [setting for setting in os.environ if setting.startswith(("BUSINESS_API_", "REGISTER_API_"))]:
        monkeypatch.delenv(setting)
    return modules


async def entry(modules: dict[str, ModuleType]) -> tuple[int, Any]:
    request = func.HttpRequest("GET", "/api/register/HRB%201", route_params={"number": "HRB 1"}, body=b"")
    response = await modules["shared.functions.register"].GetEntry(request)
    return response.status_code, json.loads(response.get_body())


async def test_a_second_api_is_called_with_settings_and_token_of_its_own(
    second: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    async def token(request: web.Request) -> web.Response:
        form = await request.post()
        seen.append(f"{request.headers['Authorization']} {form.getone('scope')!s}")
        return web.json_response({"access_token": "token-of-the-register", "token_type": "Bearer", "expires_in": 600})

    async def found(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"number": request.match_info["number"], "name": "Acme"})

    app = web.Application()
    app.router.add_post("/auth/token", token)
    app.router.add_get("/entries/{number}", found)
    assert (await entry(second))[0] == 503  # no settings, and none of the first API's
    with serve(app) as url:
        for name, value in {
            "BASE_URL": url,
            "TOKEN_URL": "/auth/token",
            "CLIENT_ID": "register",
            "CLIENT_SECRET": "secret",
            "SCOPE": "entries.read",
        }.items():
            monkeypatch.setenv(f"REGISTER_API_{name}", value)
        assert await entry(second) == (200, {"number": "HRB 1", "name": "Acme"})
        await second["shared.register"].register_api.aclose()
    assert seen == ["Basic cmVnaXN0ZXI6c2VjcmV0 entries.read", "Bearer token-of-the-register"]


@pytest.fixture
def changed(tmp_path: Path) -> Path:
    """A copy of what the diff changes, with the diff applied."""
    if "REGISTER_API_" in (ROOT / "infra/main.bicep").read_text(encoding="utf-8"):
        pytest.skip("the diff is applied already")
    for name in re.findall(r"^--- a/(.+)$", DIFF, re.MULTILINE):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "infra", tmp_path / "infra", dirs_exist_ok=True)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    subprocess.run(["git", "apply", "-"], input=DIFF, cwd=tmp_path, check=True, text=True)
    return tmp_path


SETTINGS = [f"REGISTER_API_{name}" for name in ("BASE_URL", "TOKEN_URL", "CLIENT_ID", "CLIENT_SECRET", "SCOPE")]


def test_the_diff_applies_and_every_setting_goes_all_the_way(changed: Path) -> None:
    main: Any = BicepParser().parse(text=(changed / "infra/main.bicep").read_text(encoding="utf-8"))
    parameters = json.loads((changed / "infra/main.parameters.json").read_text(encoding="utf-8"))["parameters"]
    local = json.loads((changed / "local.settings.json.example").read_text(encoding="utf-8"))["Values"]
    settings: Any = main["variables"]["registerApiSettings"]["value"]
    assert list(settings) == SETTINGS
    assert [name for name in local if name.startswith("REGISTER_API_")] == SETTINGS
    for setting in SETTINGS:
        first, *others = setting.lower().split("_")
        parameter = first + "".join(other.capitalize() for other in others)
        assert parameter in main["parameters"]
        assert parameters[parameter]["value"] == f"${{{setting}}}"
    assert "REGISTER_API_CLIENT_SECRET" in (changed / "dev/preprovision.py").read_text(encoding="utf-8")


def test_the_changed_infrastructure_compiles_and_keeps_the_secret_in_the_vault(changed: Path) -> None:
    compiler = os.environ.get("BICEP") or shutil.which("bicep")
    if compiler is None:
        pytest.skip("needs the Bicep compiler: as `bicep` on the PATH, or named by the variable BICEP")
    command = [compiler, "build", str(changed / "infra/main.bicep"), "--no-restore", "--stdout"]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (built.returncode, built.stderr) == (0, "")
    template = json.loads(built.stdout)
    assert template["parameters"]["registerApiClientSecret"]["type"].lower() == "securestring"
    vault = template["resources"]["vault"]["properties"]
    assert vault["parameters"]["registerSecret"] == {"value": "[parameters('registerApiClientSecret')]"}
    assert vault["template"]["parameters"]["registerSecret"]["type"].lower() == "securestring"
    settings = template["resources"]["settings"]["properties"]["parameters"]["settings"]["value"]
    assert "registerSecretReference" in settings
    assert "registerApiClientSecret" not in settings
