"""The activity that posts many records: what it does with each, how long it takes, and what it leaves for later."""

import asyncio
import json
import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest

from shared.business import BusinessApi, assigned, example
from shared.delivery.chunks import Chunk, Report, post_records
from shared.delivery.results import read_line
from shared.pacing import Pacer
from shared.rest import ClientOptions
from tests.virtual_time import run_virtually

type Answer = Callable[[int, int], tuple[float, httpx.Response | Exception]]
"""Of a record by its number, and of an attempt at it from 1: after how many seconds comes what."""

TAKEN = httpx.Response(201, json=assigned(7) | example())
REFUSED = httpx.Response(422, json={"title": "No"}, headers={"Content-Type": "application/problem+json"})
DOWN, EMPTY = httpx.Response(500), httpx.Response(204)


def limited(seconds: int | None) -> httpx.Response:
    return httpx.Response(429, headers={} if seconds is None else {"Retry-After": str(seconds)})


class ScriptedApi(httpx.AsyncBaseTransport):
    """An API that takes its time.

    Attributes:
        keys: The idempotency keys of all posts, in the order in which they came.
        most: How many posts were under way at once.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._attempts: Counter[str] = Counter()
        self._under_way = 0
        self.keys: list[str] = []
        self.most = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer as the script says."""
        key = request.headers["Idempotency-Key"]
        self.keys.append(key)
        self._attempts[key] += 1
        self._under_way += 1
        self.most = max(self.most, self._under_way)
        try:
            seconds, answer = self._answer(int(key.partition("-")[2].partition(".")[0]), self._attempts[key])
            await asyncio.sleep(seconds)
        finally:
            self._under_way -= 1
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def chunk(total: int, **changes: Any) -> Chunk:
    """A chunk of so many records."""
    lines = "\n".join(json.dumps(example(n + 1)) for n in range(total))
    given = {"key": "b", "indexes": range(total), "records": lines, "width": 10, "kept": 2000}
    return Chunk.model_validate(given | changes)


def posted(
    monkeypatch: pytest.MonkeyPatch, given: Chunk, answer: Answer, *, paced: bool = True, max_rate: float = math.inf
) -> tuple[Report, ScriptedApi, float]:
    """What the activity returns; the API; and how many seconds it took, in virtual time."""
    api = ScriptedApi(answer)

    async def run() -> tuple[Report, float]:
        loop = asyncio.get_running_loop()
        pacer = Pacer(max_concurrency=20, clock=loop.time, max_rate=max_rate) if paced else None
        options = ClientOptions(base_url="https://api.example.com", transport=lambda: api, gate=pacer)
        monkeypatch.setattr("shared.business.business_api", BusinessApi(options))
        began = loop.time()
        report = await post_records(given)
        return report, loop.time() - began

    report, seconds = run_virtually(run())
    return report, api, seconds


def outcomes(report: Report) -> Mapping[int, str]:
    """What became of the records of which the report tells, by index."""
    lines = report.results.split("\n") if report.settled else []
    settled = {index: read_line(line).outcome for index, line in zip(report.settled, lines, strict=True)}
    return settled | {index: "deferred" for group in report.deferred for index in group.indexes}


def test_every_record_is_posted_under_its_key_so_many_at_once_and_told_with_its_id(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = chunk(60, width=7, revisions=((3, 2),))
    report, api, _ = posted(monkeypatch, given, lambda n, _: (0.1 + n / 100, TAKEN), paced=False)
    assert (Counter(outcomes(report).values()), report.counts.posted) == ({"posted": 60}, 60)
    assert sorted(api.keys) == sorted("b-3.2" if n == 3 else f"b-{n}" for n in range(60))
    assert api.most == 7
    assert read_line(report.results.split("\n")[0]).model_dump()["id"] == str(next(iter(assigned(7).values())))
    assert (report.deferred, report.paused) == ((), None)


def test_what_becomes_of_each_record_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[httpx.Response | Exception] = [
        TAKEN,
        REFUSED,
        DOWN,
        httpx.ConnectError("no"),
        httpx.ReadError("broken"),
        EMPTY,
    ]
    report, _, _ = posted(monkeypatch, chunk(6), lambda n, _: (0.1, answers[n]))
    assert outcomes(report) == {
        0: "posted",
        1: "rejected",
        2: "deferred",
        3: "deferred",
        4: "deferred",
        5: "posted",
    }
    doubtful = {index for group in report.deferred if group.may_be_stored for index in group.indexes}
    assert doubtful == {2, 4}
    assert (report.counts.posted, report.counts.rejected, report.counts.warnings) == (2, 1, 1)


def test_a_bug_at_one_record_is_logged_and_spoils_no_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(n: int, _: int) -> tuple[float, httpx.Response | Exception]:
        return 0.1, ZeroDivisionError("the record") if n == 1 else TAKEN

    report, _, _ = posted(monkeypatch, chunk(3), answer)
    assert outcomes(report) == {0: "posted", 1: "deferred", 2: "posted"}
    assert (report.deferred[0].reason, report.deferred[0].may_be_stored) == ("a bug: ZeroDivisionError", True)
    assert "Attempt b-1 failed: ZeroDivisionError in " in caplog.text
    assert "the record" not in caplog.text


def test_after_the_time_box_nothing_is_begun_and_what_was_not_comes_back_untouched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report, api, seconds = posted(monkeypatch, chunk(100, width=1), lambda *_: (3.0, TAKEN))
    assert (len(report.settled), len(api.keys), seconds) == (7, 7, 21.0)
    assert report.paused is None


def test_a_call_has_forty_seconds_so_that_the_activity_is_over_within_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report, _, seconds = posted(
        monkeypatch, chunk(2, width=1), lambda n, _: (19.0, TAKEN) if n == 0 else (1000.0, TAKEN), paced=False
    )
    assert seconds == 59.0
    assert outcomes(report) == {0: "posted", 1: "deferred"}
    assert report.deferred[0].may_be_stored


@pytest.mark.parametrize("retry_after", [2, None])
def test_a_record_refused_for_the_apis_limits_is_sent_again_at_once_if_that_fits(
    monkeypatch: pytest.MonkeyPatch, retry_after: int | None
) -> None:
    def answer(n: int, attempt: int) -> tuple[float, httpx.Response]:
        return 0.1, limited(retry_after) if (n, attempt) == (1, 1) else TAKEN

    report, api, seconds = posted(monkeypatch, chunk(3), answer)
    assert Counter(outcomes(report).values()) == {"posted": 3}
    assert Counter(api.keys)["b-1"] == 2
    assert (retry_after or 1) <= seconds < 6


def test_a_record_whose_own_wait_does_not_fit_is_deferred_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    report, api, _ = posted(monkeypatch, chunk(40), lambda n, _: (0.1, limited(3600) if n == 1 else TAKEN))
    assert Counter(outcomes(report).values()) == {"posted": 39, "deferred": 1}
    assert (report.deferred[0].retry_after, report.deferred[0].may_be_stored) == (3600.0, False)
    assert Counter(api.keys)["b-1"] == 1


def test_when_the_api_wants_nothing_for_long_the_work_ends_and_says_for_how_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report, api, seconds = posted(monkeypatch, chunk(100), lambda *_: (0.1, limited(600)))
    assert seconds < 1
    assert len(api.keys) <= 10
    assert set(outcomes(report).values()) == {"deferred"}
    assert len(outcomes(report)) == len(api.keys)
    assert report.paused is not None
    assert 0 < report.paused <= 600


def test_the_doubt_about_a_record_is_kept_whatever_the_api_says_but_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [TAKEN, REFUSED, limited(3600)]
    report, _, _ = posted(monkeypatch, chunk(3, doubts=(0, 1, 2), width=1), lambda n, _: (0.1, answers[n]))
    assert report.counts.may_be_stored == 1
    assert read_line(report.results.split("\n")[1]).model_dump()["may_be_stored"]
    assert report.deferred[0].may_be_stored


def test_an_outage_is_waited_out_within_the_time_box_with_few_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    report, api, seconds = posted(monkeypatch, chunk(200), lambda *_: (0.01, httpx.ConnectError("refused")))
    assert len(api.keys) < 20
    assert len(outcomes(report)) == len(api.keys)
    assert 15 < seconds < 25
    assert report.paused is None  # the next activity is to wait for the next probe


def test_an_api_that_is_merely_slow_is_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    report, api, seconds = posted(monkeypatch, chunk(100), lambda *_: (0.1, TAKEN), max_rate=1.0)
    assert (report.paused, len(report.settled)) == (None, len(api.keys))
    assert 18 <= len(api.keys) <= 22
    assert seconds < 22


def test_records_that_are_posted_are_not_logged_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    posted(monkeypatch, chunk(3), lambda n, _: (0.1, REFUSED if n == 1 else TAKEN))
    lines = [record.getMessage() for record in caplog.records if record.name == "post_business"]
    assert [line.partition(":")[0] for line in lines] == ["Attempt b-1", "Attempt b-1", "Records of b"]
    assert lines[-1].startswith("Records of b: 3 settled, 0 deferred, 0 untouched, ")


def test_very_many_reasons_are_told_as_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(n: int, _: int) -> tuple[float, httpx.Response]:
        headers = {"Content-Type": "application/problem+json"}
        return 0.01, httpx.Response(404, json={"title": f"no {n}"}, headers=headers)

    report, _, _ = posted(monkeypatch, chunk(60), answer)
    assert len(report.deferred) == 21
    assert sorted(outcomes(report)) == list(range(60))
