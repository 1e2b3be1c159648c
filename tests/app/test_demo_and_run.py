"""What `make run` starts, by the settings that it finds, and the example record that it and `make demo` post."""

import json
import shlex
from pathlib import Path

import pytest

from dev.demo import CASES, Case, Delivery
from dev.panel import devhost_panel
from dev.run import settled, try_it
from dev.sandbox.api import SCOPE
from shared.access_tokens import AccessToken, shared_cache
from shared.business import NATURAL_KEY, Business, NewBusiness, assigned, example
from shared.operations.requests import read_operation_id
from shared.settings import BusinessApiSettings

ROOT = Path(__file__).parents[2]
EXAMPLE_VALUES = json.loads((ROOT / "local.settings.json.example").read_text())["Values"]
REAL = {"BUSINESS_API_BASE_URL": "https://api.example.com"}


@pytest.mark.parametrize(
    ("environment", "on_sandbox"),
    [
        ({}, True),
        ({"PATH": "/usr/bin", "BUSINESS_API_BASE_URL": ""}, True),
        (EXAMPLE_VALUES, True),
        (REAL, False),
        ({"BUSINESS_API_CLIENT_ID": "half-written settings of a real API"}, False),
    ],
)
def test_the_sandbox_is_started_unless_the_settings_name_another_api(
    environment: dict[str, str], on_sandbox: bool
) -> None:
    chosen, started = settled(environment)
    assert started == on_sandbox
    if on_sandbox:
        assert BusinessApiSettings.from_environment(chosen).scope == SCOPE
        assert chosen["OPERATIONS_EVENTS_URL"].endswith(":7072/events")
    else:
        assert chosen == environment


def test_the_curl_lines_follow_the_operation_that_the_first_one_starts() -> None:
    text = try_it(7)
    assert text.count("curl ") == 3
    assert "Idempotency-Key: try-7" in text
    assert read_operation_id("try-7") in text
    words = shlex.split(text.replace("\\\n", ""))
    assert json.loads(words[words.index("-d") + 1]) == example(7)


def test_the_example_is_another_record_for_each_number_that_the_app_accepts() -> None:
    records = [example(number) for number in (1, 2, 1001, 10**15)]
    assert len({str(record[NATURAL_KEY]) for record in records}) == len(records)
    for record in records:
        NewBusiness.model_validate_json(json.dumps(record))
    assert records[0] == example(1)


def test_the_api_assigns_another_id_for_each_number_that_the_app_can_read() -> None:
    stored = [Business.model_validate_json(json.dumps(assigned(number) | example())) for number in (1, 2)]
    assert stored[0] != stored[1]


def test_the_demo_covers_what_can_happen() -> None:
    assert {"posted", "rejected"} == {case.ends_as for case in CASES}
    faults = [case.fault for case in CASES]
    assert {"status": 503} in faults
    assert any(fault.get("status") == 429 and fault["retry_after"] for fault in faults)


class Source:
    """A source that needs no server."""

    def fetch(self) -> AccessToken:
        return AccessToken("the-token-itself", 3600)


def test_the_panel_of_make_run_shows_counters_and_no_token() -> None:
    before = devhost_panel()
    token = shared_cache.of(Source())
    token.get()
    shown = devhost_panel()
    assert int(str(shown["Tokens used"])) == int(str(before["Tokens used"])) + 1
    assert 3000 < int(str(shown["Token usable for (s)"])) <= 3540
    assert "the-token-itself" not in str(shown)


@pytest.mark.parametrize(
    ("problem", "story"), [({"title": "No", "detail": "bad"}, "422 bad"), ({"title": "No"}, "422 No"), ({}, "422 ")]
)
def test_the_demo_shows_a_refusal_in_any_format(problem: dict[str, str], story: str) -> None:
    operation = {"state": "rejected", "outcome": {"status": 422, "problem": problem}}
    assert Delivery(CASES[0], example(), operation=operation).row()[-1] == story


@pytest.mark.parametrize(("state", "as_expected"), [("posted", True), ("rejected", False), ("gave_up", False)])
def test_the_demo_fails_unless_a_record_ended_as_its_case_says(state: str, as_expected: bool) -> None:
    assert Delivery(Case("", {}, "posted"), example(), operation={"state": state}).as_expected == as_expected
