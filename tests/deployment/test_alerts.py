"""The alerts' queries recognize the lines that the code logs."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.business.api import Business, Deferred, Posted, Rejected
from shared.delivery.batches import BatchProgress, Tally
from shared.delivery.records import Cancelled, GaveUp, Progress
from shared.rest import ProblemDetails

DUE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BUSINESS = Business(registration_number="HRB 1", name="Acme", country="DE")
TOKEN_REASON = "access token: invalid_client: the secret has expired"

POSTED = Progress(attempt=1, outcome=Posted(business=BUSINESS))
DEFERRED = Progress(attempt=2, outcome=Deferred(reason="HTTP 503"), next_attempt_at=DUE)
NO_TOKEN = Progress(attempt=3, outcome=Deferred(reason=TOKEN_REASON), next_attempt_at=DUE)
GAVE_UP = Progress(attempt=99, outcome=GaveUp(reason="HTTP 503"))
GAVE_UP_WITHOUT_TOKEN = Progress(attempt=99, outcome=GaveUp(reason=TOKEN_REASON))
REJECTED = Progress(attempt=1, outcome=Rejected(status=422, problem=ProblemDetails(title="Unprocessable")))
CANCELLED = Progress(attempt=2, outcome=Cancelled(reason="HTTP 503"))
BATCH_DEFERRED = BatchProgress(
    tally=Tally(total=500, posted=480, deferred=20), round=1, rate=12.5, next_round_at=DUE, section=None
)
BATCH_NO_TOKEN = BATCH_DEFERRED.model_copy(update={"reason": TOKEN_REASON})
BATCH_GAVE_UP = BatchProgress(tally=Tally(total=500, posted=498, gave_up=2), round=9, rate=0.1)
BATCH_REJECTED = BatchProgress(tally=Tally(total=500, posted=499, rejected=1), round=1, rate=100.0)
BATCH_POSTED = BatchProgress(tally=Tally(total=500, posted=500), round=1, rate=100.0)

ALL = (
    *(POSTED, DEFERRED, NO_TOKEN, GAVE_UP, GAVE_UP_WITHOUT_TOKEN, REJECTED, CANCELLED),
    *(BATCH_DEFERRED, BATCH_NO_TOKEN, BATCH_GAVE_UP, BATCH_REJECTED, BATCH_POSTED),
)


def line(progress: Progress | BatchProgress) -> str:
    """As the orchestrators log it: a test below holds function_app.py to that."""
    return f"Operation 3f2a-{'0' * 8}: {progress}"


def patterns(query: str) -> list[str]:
    return re.findall(r'matches regex @"([^"]+)"', query)


@pytest.fixture
def queries(bicep: dict[str, Any]) -> dict[str, str]:
    variables = bicep["modules/alerts.bicep"]["variables"]
    return {name: variables[name]["value"] for name in ("gaveUp", "deferredTooLong", "tokenFailures")}


def matched(pattern: str) -> list[Progress | BatchProgress]:
    return [progress for progress in ALL if re.search(pattern, line(progress))]


def test_the_line_of_a_transition_is_what_these_tests_take_it_for(root: Path) -> None:
    assert 'log.info("Operation %s: %s", context.instance_id, progress)' in (root / "function_app.py").read_text()


def test_records_and_batches_that_were_given_up_are_recognized(queries: dict[str, str]) -> None:
    (pattern,) = patterns(queries["gaveUp"])
    assert matched(pattern) == [GAVE_UP, GAVE_UP_WITHOUT_TOKEN, BATCH_GAVE_UP]


def test_every_transition_and_the_deferred_ones_among_them_are_recognized(queries: dict[str, str]) -> None:
    transition, deferred = patterns(queries["deferredTooLong"])
    assert matched(transition) == list(ALL)
    assert matched(deferred) == [DEFERRED, NO_TOKEN, BATCH_DEFERRED, BATCH_NO_TOKEN]


def test_records_that_wait_for_a_token_are_recognized(queries: dict[str, str]) -> None:
    waiting, _ = patterns(queries["tokenFailures"])
    assert matched(waiting) == [NO_TOKEN, BATCH_NO_TOKEN]


def test_the_queries_for_operators_recognize_the_same_lines(root: Path) -> None:
    transition, deferred, ended_badly, single, *tokens = patterns((root / "docs/operations.md").read_text())
    assert matched(transition) == list(ALL)
    assert matched(deferred) == [DEFERRED, NO_TOKEN, BATCH_DEFERRED, BATCH_NO_TOKEN]
    assert matched(ended_badly) == [GAVE_UP, GAVE_UP_WITHOUT_TOKEN, REJECTED, BATCH_GAVE_UP, BATCH_REJECTED]
    assert matched(single) == [progress for progress in ALL if isinstance(progress, Progress)]
    assert matched(tokens[0]) == [NO_TOKEN, BATCH_NO_TOKEN]


def test_the_warning_of_a_failed_renewal_is_recognized(queries: dict[str, str], root: Path) -> None:
    _, warning = patterns(queries["tokenFailures"])
    cache = (root / "shared/access_tokens/cache.py").read_text()
    (logged,) = re.findall(r'"(The token of %s could not be refreshed[^"]*)"', cache)
    assert re.search(warning, logged % ("https://login.example.com/token", "503"))


def test_operators_find_every_alert_explained(root: Path) -> None:
    headings = re.findall(r"^#+ (.+)$", (root / "docs/operations.md").read_text(), re.MULTILINE)
    named = re.findall(r'docs/operations\.md, "(.+)"', (root / "infra/modules/alerts.bicep").read_text())
    assert len(named) == 3
    assert set(named) <= set(headings)
