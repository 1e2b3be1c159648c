"""What callers are shown of the results of a batch: which of them, and in which form."""

import csv
import io
import json
from typing import Any

import pytest

from shared.delivery.outcomes import Cancelled, Deferred, GaveUp, Rejected
from shared.delivery.results import ItemInvalid, ItemOutcome, ItemPending, ItemPosted
from shared.operations.problems import RequestError
from shared.operations.results import COLUMNS, OUTCOMES, ResultQuery
from shared.rest import ProblemDetails

OUTCOMES_OF_ALL_KINDS: list[ItemOutcome] = [
    ItemPosted(id="7"),
    ItemPosted(id="8", warning="200: expected JSON"),
    ItemPending(),
    ItemInvalid(line=5, field="name", detail="Field required"),
    Rejected(status=422, problem=ProblemDetails(title="No", detail="=1+1", status=422), may_be_stored=True),
    Deferred(reason="503"),
    GaveUp(reason="503", excerpt="<html>"),
    Cancelled(reason="not sent"),
]


def query(accept: str | None = None, **parameters: str) -> ResultQuery:
    return ResultQuery.read({} if accept is None else {"Accept": accept}, parameters)


@pytest.mark.parametrize(
    ("parameters", "indexes"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"outcome": "posted"}, [0, 1]),
        ({"outcome": "rejected,gave_up"}, [4, 6]),
        ({"outcome": "rejected, gave_up,"}, [4, 6]),
        ({"outcome": ""}, [0, 1, 2, 3, 4, 5, 6, 7]),
        ({"warning": "true"}, [1]),
        ({"may_be_stored": "true"}, [4]),
        ({"may_be_stored": "true", "outcome": "gave_up"}, []),
    ],
)
def test_a_caller_sees_the_results_that_it_wants(parameters: dict[str, str], indexes: list[int]) -> None:
    page = query(**parameters).page_of(OUTCOMES_OF_ALL_KINDS)
    assert ([one.index for one in page.results], page.page, page.pages) == (indexes, 1, 1)


def test_every_outcome_can_be_asked_for() -> None:
    assert {one.outcome for one in OUTCOMES_OF_ALL_KINDS} == set(OUTCOMES)


@pytest.mark.parametrize("outcome", ["lost", "posted,lost", "POSTED", ","])
def test_an_outcome_that_is_none_is_refused_with_those_that_are(outcome: str) -> None:
    with pytest.raises(RequestError, match="one or more of posted, pending") as raised:
        query(outcome=outcome)
    assert raised.value.status == 400


def test_pages_have_a_hundred_results_and_one_beyond_the_last_is_a_404() -> None:
    outcomes: list[ItemOutcome] = [ItemPosted()] * 201
    assert [one.index for one in query(page="3").page_of(outcomes).results] == [200]
    with pytest.raises(RequestError, match="expected 1 to 3") as raised:
        query(page="4").page_of(outcomes)
    assert raised.value.status == 404
    assert query().page_of([]).results == []


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html, application/json;q=0.9", "application/json"),
        ("application/x-ndjson", "application/x-ndjson"),
        ("text/csv; charset=utf-8", "text/csv"),
        ("TEXT/CSV, application/json", "text/csv"),
    ],
)
def test_accept_chooses_the_form(accept: str | None, kind: str) -> None:
    assert query(accept).kind == kind


def test_lines_are_the_same_as_in_pages() -> None:
    lines = query("application/x-ndjson", page="9").exported(OUTCOMES_OF_ALL_KINDS).splitlines()
    page = query().page_of(OUTCOMES_OF_ALL_KINDS).model_dump(mode="json", exclude_none=True)
    assert [json.loads(line) for line in lines] == page["results"]


def rows(**parameters: str) -> list[dict[str, Any]]:
    """The results as CSV, without empty cells."""
    text = query("text/csv", **parameters).exported(OUTCOMES_OF_ALL_KINDS)
    assert text.startswith(",".join(COLUMNS) + "\r\n")
    return [{name: cell for name, cell in row.items() if cell} for row in csv.DictReader(io.StringIO(text))]


def test_csv_has_a_row_for_each_result() -> None:
    assert rows() == [
        {"index": "0", "outcome": "posted", "id": "7"},
        {"index": "1", "outcome": "posted", "id": "8", "warning": "200: expected JSON"},
        {"index": "2", "outcome": "pending"},
        {"index": "3", "line": "5", "outcome": "invalid", "field": "name", "detail": "Field required"},
        {
            "index": "4",
            "outcome": "rejected",
            "status": "422",
            "reason": "No",
            "detail": "'=1+1",
            "may_be_stored": "true",
        },
        {"index": "5", "outcome": "deferred", "reason": "503"},
        {"index": "6", "outcome": "gave_up", "reason": "503", "detail": "<html>"},
        {"index": "7", "outcome": "cancelled", "reason": "not sent"},
    ]


def test_csv_can_be_filtered() -> None:
    assert [row["index"] for row in rows(outcome="gave_up")] == ["6"]
