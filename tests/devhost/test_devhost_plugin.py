"""The pytest plugin, in a pytest of its own, since a process can load one app only."""

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
    devhost.advance(3599)
    assert devhost.status(hour).runtime_status == "Running"
    devhost.advance(1)
    assert devhost.status(hour).output == "rested"

def test_timers_are_skipped_on_demand(devhost: RunningHost) -> None:
    before = devhost.now
    devhost.wait(devhost.start("napping", 86_400_000), skip_timers=True)
    assert (devhost.now - before).total_seconds() == 86_400

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


def test_the_plugin_offers_a_host_under_the_tests_control(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["devhost.testing"]\n')
    (tmp_path / "test_with_plugin.py").write_text(TESTS)
    (tmp_path / "pytest.ini").write_text(
        f"[pytest]\npythonpath = {ROOT}\ndevhost_app = {APPS / 'kitchen'}\nfilterwarnings = error\n"
        "asyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
    )

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "11 passed" in run.stdout
