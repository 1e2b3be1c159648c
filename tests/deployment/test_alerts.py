"""The alerts' queries recognize the lines that the code logs."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from shared.access_tokens import AccessToken, Clocks, TokenCache, TokenError
from shared.business import Answers, BusinessApi
from shared.delivery.attempts import Attempt, post_record
from shared.delivery.batches import BatchProgress, Tally
from shared.delivery.outcomes import Cancelled, Deferred, GaveUp, Posted, Rejected
from shared.delivery.records import Progress
from shared.functions.orchestrations import report
from shared.rest import ClientOptions, ProblemDetails
from tests.access_tokens.scripted import until

DUE = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN_REASON = "access token: invalid_client: the secret has expired"

POSTED = Progress(attempt=1, outcome=Posted(id="b-1", business={"id": "b-1", "name": "Acme"}))
DEFERRED = Progress(attempt=2, outcome=Deferred(reason="HTTP 503", may_be_stored=True), next_attempt_at=DUE)
NO_TOKEN = Progress(attempt=3, outcome=Deferred(reason=TOKEN_REASON), next_attempt_at=DUE)
GAVE_UP = Progress(attempt=99, outcome=GaveUp(reason="HTTP 503"))
GAVE_UP_WITHOUT_TOKEN = Progress(attempt=99, outcome=GaveUp(reason=TOKEN_REASON))
REJECTED = Progress(attempt=1, outcome=Rejected(status=422, problem=ProblemDetails(title="Unprocessable")))
CANCELLED = Progress(attempt=2, outcome=Cancelled(reason="HTTP 503"))
BATCH_DEFERRED = BatchProgress(
    tally=Tally(total=500, posted=480, deferred=20),
    warnings=3,
    may_be_stored=2,
    round=1,
    rate=12.5,
    next_round_at=DUE,
    section=None,
)
BATCH_NO_TOKEN = BATCH_DEFERRED.model_copy(update={"reason": TOKEN_REASON})
BATCH_GAVE_UP = BatchProgress(tally=Tally(total=500, posted=498, gave_up=2), round=9, rate=0.1)
BATCH_REJECTED = BatchProgress(tally=Tally(total=500, posted=499, rejected=1), round=1, rate=100.0)
BATCH_POSTED = BatchProgress(tally=Tally(total=500, posted=500), round=1, rate=100.0)

ALL = (
    *(POSTED, DEFERRED, NO_TOKEN, GAVE_UP, GAVE_UP_WITHOUT_TOKEN, REJECTED, CANCELLED),
    *(BATCH_DEFERRED, BATCH_NO_TOKEN, BATCH_GAVE_UP, BATCH_REJECTED, BATCH_POSTED),
)


class Context:
    """What an orchestrator reports to: a durable context that is not replaying."""

    instance_id = "3f2a-00000000"
    is_replaying = False

    def set_custom_status(self, custom_status: Any) -> None:
        self.custom_status = custom_status


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())

    @classmethod
    @contextmanager
    def of(cls, name: str) -> Iterator[Self]:
        """What a logger is told meanwhile, at INFO and above."""
        lines, logger = cls(), logging.getLogger(name)
        level = logger.level
        logger.addHandler(lines)
        logger.setLevel(logging.INFO)
        try:
            yield lines
        finally:
            logger.removeHandler(lines)
            logger.setLevel(level)


def line(progress: Progress | BatchProgress) -> str:
    """What the orchestrators log of it."""
    with Lines.of("post_business") as lines:
        report(Context(), progress)
    (said,) = lines.said
    return said


def patterns(query: str) -> list[str]:
    return re.findall(r'matches regex @"([^"]+)"', query)


@pytest.fixture
def queries(bicep: dict[str, Any]) -> dict[str, str]:
    variables = bicep["modules/alerts.bicep"]["variables"]
    return {name: variables[name]["value"] for name in ("gaveUp", "deferredTooLong", "tokenFailures", "unreadable")}


def matched(pattern: str) -> list[Progress | BatchProgress]:
    return [progress for progress in ALL if re.search(pattern, line(progress))]


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


@pytest.mark.parametrize(
    ("answer", "status"), [(httpx.Response(201), "201"), (httpx.Response(503), "503"), (None, "none")]
)
async def test_the_query_for_the_speed_of_the_api_reads_status_and_time_from_the_line_of_an_attempt(
    answer: httpx.Response | None, status: str, root: Path, queries: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def api(request: httpx.Request) -> httpx.Response:
        if answer is None:
            raise httpx.ConnectError("connection refused")
        return answer

    options = ClientOptions(base_url="https://api.example.com", transport=lambda: httpx.MockTransport(api))
    monkeypatch.setattr(BusinessApi, "answers", Answers())  # an adopter's may have a warning of its own
    monkeypatch.setattr("shared.business.business_api", BusinessApi(options))
    for key in ("3f2a00000000-12", "3f2a00000000.1"):
        with Lines.of("post_business") as lines:
            await post_record(Attempt(record={}, idempotency_key=key), clock=iter([1.0, 1.25]).__next__)
        said, *warnings = lines.said
        assert [re.search(patterns(queries["unreadable"])[0], line) is not None for line in lines.said] == (
            [False, True] if warnings else [False]
        )
        assert bool(warnings) is (status == "201")  # an answer without the record
        query = (root / "docs/operations.md").read_text().partition("6. How fast")[2].partition("```\n\n")[0]
        (pattern,) = patterns(query)
        assert re.search(pattern, said)
        read = [re.search(each, said) for each in re.findall(r'extract\(@"([^"]+)"', query)]
        assert [found and found[1] for found in read] == [status, "250"]


class FailingSource:
    """Gives one token, and none after that."""

    def __init__(self) -> None:
        self.asked = 0

    def __str__(self) -> str:
        return "client at login.example.com"

    def fetch(self) -> AccessToken:
        self.asked += 1
        if self.asked > 1:
            raise TokenError(400, "invalid_client", "the secret has expired")
        return AccessToken("t", 3600)


def test_the_warning_of_a_failed_renewal_is_recognized(queries: dict[str, str]) -> None:
    _, pattern = patterns(queries["tokenFailures"])
    now = 0.0
    token = TokenCache(clocks=Clocks(monotonic=lambda: now, wall=lambda: now)).of(FailingSource())
    with Lines.of("shared.access_tokens") as lines:
        token.get()
        now = 3400.0
        token.get()
        until(lambda: lines.said)
    assert [re.search(pattern, said) is not None for said in lines.said] == [True]


def test_operators_find_every_alert_explained(root: Path) -> None:
    headings = re.findall(r"^#+ (.+)$", (root / "docs/operations.md").read_text(), re.MULTILINE)
    named = re.findall(r'docs/operations\.md, "(.+)"', (root / "infra/modules/alerts.bicep").read_text())
    assert len(named) == 7
    assert set(named) <= set(headings)
