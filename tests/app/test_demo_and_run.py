"""What `make run` starts, by the settings that it finds, and the examples that `make demo` posts."""

import json
from pathlib import Path

import pytest

from dev.demo import Delivery
from dev.panel import devhost_panel
from dev.run import settled, try_it
from dev.sandbox.api import SCOPE
from shared.access_tokens import AccessToken, shared_cache
from shared.business import NewBusiness
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
    else:
        assert chosen == environment


def test_the_curl_lines_follow_the_operation_that_the_first_one_starts() -> None:
    text = try_it("key-1")
    assert text.count("curl ") == 3
    assert "Idempotency-Key: key-1" in text
    assert read_operation_id("key-1") in text


def test_the_examples_are_records_that_the_app_accepts_and_cover_what_can_happen() -> None:
    examples = json.loads((ROOT / "dev" / "businesses.json").read_text(encoding="utf-8"))
    for example in examples:
        NewBusiness.model_validate(example["business"])
    faults = [fault for example in examples for fault in example["faults"]]
    assert {"posted", "rejected"} == {example["ends_as"] for example in examples}
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


@pytest.mark.parametrize(("state", "as_expected"), [("posted", True), ("rejected", False), ("gave_up", False)])
def test_the_demo_fails_unless_a_record_ended_as_its_example_says(state: str, as_expected: bool) -> None:
    assert Delivery({"ends_as": "posted"}, operation={"state": state}).as_expected == as_expected
