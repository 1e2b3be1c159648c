"""The pytest plugin, in a pytest of its own, since a process can load one app only."""

import os
import subprocess
import sys
from pathlib import Path

from tests.devhost.conftest import APPS, ROOT

TESTS = """
import asyncio
import httpx
import pytest
from devhost.testing import RunningHost

def test_the_app_answers(devhost: RunningHost) -> None:
    assert httpx.get(f"{devhost.url}/api/echo/literal", trust_env=False).text == "the literal route"

def test_an_orchestration_is_awaited(devhost: RunningHost) -> None:
    status = devhost.wait(devhost.start("greet", "you"))
    assert (status.runtime_status, status.output, status.custom_status) == ("Completed", "hello you", "greeting")

def test_the_state_is_empty_again(devhost: RunningHost) -> None:
    assert "greet" not in devhost.dump()
    assert not devhost.invocations

def test_durable_time_moves_when_told(devhost: RunningHost) -> None:
    hour = devhost.start("napping", 3_600_000)
    devhost.advance(3598)
    assert devhost.status(hour).runtime_status == "Running"
    devhost.advance(1)  # a second early, as on Azure
    assert devhost.status(hour).output == "rested"

def test_timers_are_skipped_on_demand(devhost: RunningHost) -> None:
    before = devhost.now
    devhost.wait(devhost.start("napping", 86_400_000), skip_timers=True)
    assert (devhost.now - before).total_seconds() == 86_399

def test_a_lost_result_runs_the_activity_again(devhost: RunningHost) -> None:
    devhost.lose_result("hello")
    assert devhost.wait(devhost.start("greet", "you")).output == "hello you"
    assert devhost.invocations["hello"] == 2

def test_a_restart_amid_an_activity_loses_nothing(devhost: RunningHost) -> None:
    with devhost.held("hello") as held:
        instance_id = devhost.start("greet", "you")
        held.wait()
        devhost.restart()
        assert devhost.status(instance_id).runtime_status == "Running"
    assert devhost.wait(instance_id).output == "hello you"

def test_time_can_pass_during_an_activity(devhost: RunningHost) -> None:
    with devhost.held("hello") as held:
        instance_id = devhost.start("greet", "you")
        held.wait()
        hour = devhost.start("napping", 3_600_000)
        devhost.advance(3600)
        assert devhost.status(hour).output == "rested"
        assert devhost.status(instance_id).runtime_status == "Running"
    assert devhost.wait(instance_id).output == "hello you"

def test_an_event_is_raised_and_the_history_shows_it(devhost: RunningHost) -> None:
    instance_id = devhost.start("waiting")
    devhost.raise_event(instance_id, "Go", {"speed": 3})
    assert devhost.wait(instance_id).output == {"speed": 3}
    assert [event["Name"] for event in devhost.history(instance_id) if event["EventType"] == 15] == ["Go"]

async def test_a_test_with_a_loop_of_its_own_waits_on_a_thread(devhost: RunningHost) -> None:
    instance_id = devhost.start("greet", "you")
    status = await asyncio.to_thread(devhost.wait, instance_id, lambda one: one.custom_status is not None)
    assert status.custom_status == "greeting"

def test_impatience_says_what_is_awaited(devhost: RunningHost) -> None:
    instance_id = devhost.start("waiting")
    with pytest.raises(TimeoutError, match="events it waits for: Go"):
        devhost.wait(instance_id, skip_timers=True)
    with pytest.raises(TimeoutError, match="is Running"):
        devhost.wait(instance_id, patience=0.01)
"""

TIMER_TESTS = """
from datetime import datetime
import pytest
from devhost.testing import RunningHost
from function_app import seen

HOUR = 3600

@pytest.fixture(autouse=True)
def midnight(devhost: RunningHost) -> None:
    now = devhost.now
    devhost.advance(86_400 - 3600 * now.hour - 60 * now.minute - now.second - now.microsecond / 1e6)
    devhost.invocations.clear()
    seen.clear()

def test_time_that_moves_fires_what_is_due_in_order(devhost: RunningHost) -> None:
    devhost.advance(2 * HOUR)
    due = [datetime.fromisoformat(timer.schedule_status["Next"]) for _, timer in seen]
    assert due == sorted(due)
    assert devhost.invocations == {"hourly": 2, "often": 3}

def test_a_function_reads_its_schedule_and_status(devhost: RunningHost) -> None:
    devhost.advance(HOUR)
    (timer,) = (timer for name, timer in seen if name == "hourly")
    assert timer.past_due is False
    assert timer.schedule == {"AdjustForDST": True}
    assert timer.schedule_status["Next"] == devhost.now.isoformat()

def test_what_was_missed_while_the_host_was_down_is_made_up_for_once(devhost: RunningHost) -> None:
    devhost.restart(seconds_down=5 * HOUR + 60)
    devhost.settle()
    assert [timer.past_due for name, timer in seen if name == "hourly"] == [True]

def test_a_timer_runs_at_every_start(devhost: RunningHost) -> None:
    devhost.restart()
    devhost.settle()
    assert devhost.invocations["at_first"] == 1

def test_what_a_timer_starts_is_waited_for(devhost: RunningHost) -> None:
    devhost.advance(12 * HOUR)
    assert devhost.status("today's").output == "eaten"

def test_a_run_that_lasts_does_not_overlap_with_the_next(devhost: RunningHost) -> None:
    with devhost.held("hourly") as held:
        devhost.advance(5 * HOUR)
        held.wait()
        assert devhost.invocations["hourly"] == 0
        assert devhost.invocations["often"] > 5
    devhost.settle()
    assert devhost.invocations["hourly"] == 2

def test_timers_fire_while_durable_timers_are_skipped(devhost: RunningHost) -> None:
    assert devhost.wait(devhost.start("nap"), skip_timers=True).output == "rested"
    assert devhost.invocations["hourly"] == 2
"""


def run_tests(folder: Path, app: str, tests: str) -> None:
    """Run tests with the plugin for one of the apps; all of them must pass."""
    (folder / "conftest.py").write_text('pytest_plugins = ["devhost.testing"]\n')
    (folder / "test_with_plugin.py").write_text(tests)
    (folder / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {APPS / app} {ROOT}\ndevhost_app = {APPS / app}\nfilterwarnings = error\n"
        "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "DEVHOST_TEST_INTERVAL": "00:40:00"},
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{tests.count('def test_')} passed" in run.stdout


def test_the_plugin_offers_a_host_under_the_tests_control(tmp_path: Path) -> None:
    run_tests(tmp_path, "kitchen", TESTS)


def test_the_plugin_moves_time_over_the_schedules_of_timers(tmp_path: Path) -> None:
    run_tests(tmp_path, "clockwork", TIMER_TESTS)
