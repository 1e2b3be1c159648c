"""The command: what it prints, how it ends, and what survives its sudden end."""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.devhost.conftest import APPS, ROOT, StartHost

WEBHOOKS = "/runtime/webhooks/durabletask"


def test_it_prints_the_routes_and_where_it_listens(start_host: StartHost) -> None:
    host = start_host("kitchen")

    assert f"echo: [GET,HEAD,POST] {host.url}/api/echo/{{word:alpha}}/{{number:int?}}" in host.banner
    assert f"answer: [ALL] {host.url}/api/answer" in host.banner
    assert "greet: orchestrationTrigger" in host.banner
    assert host.banner[-1] == f"Listening on {host.url}"


def test_it_prints_the_schedule_and_the_next_run_of_a_timer(start_host: StartHost) -> None:
    banner = "\n".join(start_host("kitchen").banner)

    assert re.search(r"nightly: timerTrigger 0 0 3 \* \* \*, next at \d{4}-\d\d-\d\d 03:00:00 UTC", banner)
    assert "Not triggered by this host" not in banner


def test_it_names_what_it_does_not_trigger(start_host: StartHost, tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(
        "import azure.functions as func\n"
        "app = func.FunctionApp()\n"
        "@app.queue_trigger('message', 'orders', 'Storage')\n"
        "def order(message: func.QueueMessage) -> None: ...\n"
    )

    hint = "Not triggered by this host, run them with POST /admin/functions/NAME: order"
    assert hint in start_host(tmp_path).banner


@pytest.mark.parametrize(
    ("schedule", "complaint"),
    [
        ("0 0 25 * * *", "the schedule '0 0 25 * * *' of 'sweep' can't be used: its hour must be 0 to 23, not 25"),
        (
            "%SWEEP%",
            "the schedule '%SWEEP%' of 'sweep' can't be used: the setting SWEEP that it names is not set",
        ),
    ],
)
def test_a_schedule_that_can_not_be_read_is_one_line_and_status_1(
    start_host: StartHost, tmp_path: Path, schedule: str, complaint: str
) -> None:
    (tmp_path / "function_app.py").write_text(
        "import azure.functions as func\n"
        "app = func.FunctionApp()\n"
        f"@app.timer_trigger('timer', {schedule!r})\n"
        "def sweep(timer: func.TimerRequest) -> None: ...\n"
    )

    status, errors = start_host(tmp_path).stop()

    assert status == 1
    assert errors.splitlines()[-1] == f"devhost: {complaint}"


def test_a_timer_runs_at_once_when_it_is_asked_to(start_host: StartHost) -> None:
    host = start_host("clockwork", environment={"DEVHOST_TEST_INTERVAL": "00:40:00"})
    host.read_until("at_first ran")

    assert host.client.post("/admin/functions/at_first", json={}).status_code == 202
    assert host.read_until("at_first ran") == ["at_first ran"]


def test_a_disabled_timer_does_not_fire(start_host: StartHost) -> None:
    environment = {"DEVHOST_TEST_INTERVAL": "00:00:00.02", "AzureWebJobs.often.Disabled": "1"}
    host = start_host("clockwork", environment=environment)
    host.read_until("at_first ran")
    _, log = host.stop()

    assert "often: timerTrigger (disabled)" in host.banner
    assert "Executing 'Functions.at_first' (Reason='Timer fired at " in log
    assert "'Functions.often'" not in log


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_well_when_it_is_asked_to(start_host: StartHost, number: signal.Signals) -> None:
    status, errors = start_host("kitchen").stop(number)

    assert (status, errors) == (0, "")


def test_it_does_not_wait_for_functions_that_are_busy(start_host: StartHost, caller: "Caller") -> None:
    host = start_host("kitchen")
    host.client.post(f"{WEBHOOKS}/orchestrators/calling/one", json=str(caller.port))
    with caller.next():
        assert host.stop()[0] == 0


def test_it_logs_each_invocation_and_the_lines_of_the_app_but_no_body(start_host: StartHost) -> None:
    host = start_host("kitchen")
    host.client.get("/api/setting/HOME", headers={"X-Secret": "a-secret-header"})
    host.client.post("/api/fail", content=b"a-secret-body")
    _, log = host.stop()

    assert "Executing 'Functions.setting'" in log
    assert "Executed 'Functions.setting' (Succeeded" in log
    assert "a line of the app's own" in log
    assert "Executed 'Functions.fail' (Failed" in log
    assert "ValueError: the reason is for the log" in log
    assert "a-secret" not in log


def test_a_failed_orchestration_is_logged_without_its_state(start_host: StartHost) -> None:
    host = start_host("kitchen")
    host.client.post(f"{WEBHOOKS}/orchestrators/failing?timeout=30&pollingInterval=1", json='"a-secret-input"')
    _, log = host.stop()

    assert "RuntimeError: it went off" in log
    assert "OutOfProcData" not in log
    assert "a-secret-input" not in log


def test_a_taken_port_is_one_line_and_status_2(start_host: StartHost) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        status, errors = start_host("kitchen", "--port", str(port)).stop()

    assert status == 2
    (line,) = errors.splitlines()
    assert line.startswith(f"devhost: can't listen on port {port} (")
    assert line.endswith("Address already in use): stop what listens there, or choose another with --port")


def test_a_port_that_is_none_is_one_line_and_status_2(start_host: StartHost) -> None:
    status, errors = start_host("kitchen", "--port", "70000").stop()

    assert status == 2
    assert errors.startswith("devhost: can't listen on port 70000 (")


@pytest.mark.parametrize(
    ("options", "number", "status"),
    [
        ([], signal.SIGINT, 130),
        ([], signal.SIGTERM, 130),
        (["--watch"], signal.SIGINT, 0),
        (["--watch"], signal.SIGTERM, 0),
        (["--watch"], signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_signal_ends_it_even_while_it_imports_the_app(
    tmp_path: Path, options: list[str], number: signal.Signals, status: int
) -> None:
    (tmp_path / "function_app.py").write_text(
        "import threading\nprint('importing', flush=True)\nthreading.Event().wait()\n"
    )
    command = [sys.executable, "-m", "devhost", "--app", str(tmp_path), "--state", str(tmp_path / "state.db")]
    with subprocess.Popen(
        [*command, "--port", "0", *options], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"importing\n"
        process.send_signal(number)

        # To the end of what they print: to the end of the process and of its child.
        assert process.communicate(timeout=20)[0] == b""
        assert process.returncode == status


def test_an_app_that_ends_the_process_is_one_line(start_host: StartHost, tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text("import sys\n\nsys.exit(5)\n")

    status, errors = start_host(tmp_path).stop()

    assert status == 1
    assert errors.splitlines()[-1].endswith("ends the process while it is imported: sys.exit(5)")


def test_an_app_that_fails_to_import_shows_its_traceback(start_host: StartHost, tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text('"""Broken."""\n\nimport a_module_that_does_not_exist\n')

    status, errors = start_host(tmp_path).stop()

    assert status == 1
    assert 'function_app.py", line 3' in errors
    assert "No module named 'a_module_that_does_not_exist'" in errors.splitlines()[-1]


@pytest.mark.parametrize("text", [None, "import azure.functions as func\napp = func.FunctionApp()\n"])
def test_an_app_without_functions_is_refused(start_host: StartHost, tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "function_app.py").write_text(text)

    status, errors = start_host(tmp_path).stop()

    assert status == 1
    assert errors.splitlines()[-1].startswith("devhost: no functions found")


def test_a_second_host_on_the_same_state_is_refused(start_host: StartHost) -> None:
    start_host("kitchen")

    status, errors = start_host("kitchen").stop()

    assert status == 1
    assert "is another host running?" in errors


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A copy of the app with a local.settings.json of its own."""
    app = tmp_path / "app"
    shutil.copytree(APPS / "kitchen", app)
    values = {"DEVHOST_TEST_A": "from the file", "DEVHOST_TEST_B": "from the file"}
    host = {"CORS": "http://friend.example"}
    (app / "local.settings.json").write_text(json.dumps({"IsEncrypted": False, "Values": values, "Host": host}))
    return app


def test_local_settings_become_environment_where_it_is_not_set(start_host: StartHost, configured: Path) -> None:
    host = start_host(configured, environment={"DEVHOST_TEST_A": "from outside"})

    assert host.client.get("/api/setting/DEVHOST_TEST_A").text == "from outside"
    assert host.client.get("/api/setting/DEVHOST_TEST_B").text == "from the file"
    assert host.client.get("/api/setting/AZURE_FUNCTIONS_ENVIRONMENT").text == "Development"


def test_the_apps_folder_is_the_working_directory(start_host: StartHost, configured: Path) -> None:
    assert start_host(configured).client.get("/api/folder").text == str(configured)


@pytest.mark.parametrize("path", ["/admin/functions/echo", f"{WEBHOOKS}/orchestrators/waiting"])
def test_a_page_of_somebody_else_cannot_use_the_hosts_own_routes(
    start_host: StartHost, configured: Path, path: str
) -> None:
    client = start_host(configured).client
    host = client.base_url.netloc.decode()

    def post(**headers: str) -> int:
        return client.post(path, json={}, headers=headers).status_code

    assert post(Origin="https://somebody.example") == 403
    assert post(Origin="null") == 403
    assert post(Origin=f"http://rebound.example:{client.base_url.port}", Host="rebound.example") == 403
    assert post(Origin=f"http://{host}") == 202
    assert post(Origin="http://friend.example") == 202  # local.settings.json lets it
    assert post() == 202


def test_only_the_origins_of_local_settings_may_call_from_a_browser(start_host: StartHost, configured: Path) -> None:
    client = start_host(configured).client
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-functions-key"}

    friend = client.options("/api/echo/abc", headers={"Origin": "http://friend.example", **ask})
    stranger = client.options("/api/echo/abc", headers={"Origin": "http://stranger.example", **ask})

    assert friend.headers["access-control-allow-origin"] == "http://friend.example"
    assert friend.headers["access-control-allow-methods"] == "POST"
    assert "access-control-allow-origin" not in stranger.headers


def test_encrypted_local_settings_are_refused_in_one_line(start_host: StartHost, configured: Path) -> None:
    (configured / "local.settings.json").write_text('{"IsEncrypted": true}')

    status, errors = start_host(configured).stop()

    assert status == 1
    assert len(errors.splitlines()) == 1
    assert "local.settings.json is encrypted" in errors


def test_a_disabled_function_is_listed_but_neither_routed_nor_found(start_host: StartHost) -> None:
    disabled = {"AzureWebJobs.A_literal.Disabled": "true", "AzureWebJobs__greet__Disabled": "1"}
    host = start_host("kitchen", environment=disabled)

    assert host.client.get("/api/echo/literal").json()["route"] == {"word": "literal"}
    assert host.client.post(f"{WEBHOOKS}/orchestrators/greet").status_code == 400
    assert host.client.get("/admin/functions/greet").json()["isDisabled"]
    assert not host.client.get("/admin/functions/echo").json()["isDisabled"]
    assert {"A_literal: httpTrigger (disabled)", "greet: orchestrationTrigger (disabled)"} <= set(host.banner)


def test_a_binding_that_is_ignored_is_warned_of(start_host: StartHost, tmp_path: Path) -> None:
    (tmp_path / "function_app.py").write_text(
        "import azure.functions as func\n"
        "app = func.FunctionApp()\n"
        "@app.route('paint')\n"
        "@app.queue_output('wall', 'colours', 'Storage')\n"
        "def paint(req: func.HttpRequest, wall: func.Out[str]) -> str:\n"
        "    return 'painted'\n"
    )

    _, errors = start_host(tmp_path).stop()

    assert "The binding 'wall' (queue) of 'paint' is ignored" in errors


def test_the_sdks_client_hands_the_trace_on_when_the_worker_traces(start_host: StartHost) -> None:
    client = start_host("kitchen", environment={"PYTHON_ENABLE_OPENTELEMETRY": "true"}).client
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    client.post("/api/start/tracing/one", json="parent", headers={"traceparent": parent})
    while client.get(f"{WEBHOOKS}/instances/one").status_code == 202:
        pass

    assert outcome(client, "one") == parent


def test_a_state_file_that_is_not_one_is_refused_in_one_line(start_host: StartHost, tmp_path: Path) -> None:
    (tmp_path / "state.db").write_text("my shopping list\n" * 100)

    status, errors = start_host("kitchen").stop()

    assert status == 1
    assert errors.splitlines()[-1].endswith("can't be used (file is not a database)")


# Watching


def test_a_change_restarts_the_app_on_the_same_port_and_state(start_host: StartHost, configured: Path) -> None:
    host = start_host(configured, "--watch")
    host.client.post(f"{WEBHOOKS}/orchestrators/waiting/one")
    module = configured / "function_app.py"
    module.write_text(module.read_text().replace("the literal route", "another literal"))

    lines = host.read_until("Listening on ")

    assert "Changed: function_app.py" in lines
    assert lines[-1] == f"Listening on {host.url}"
    assert host.client.get("/api/echo/literal").text == "another literal"
    assert host.client.get(f"{WEBHOOKS}/instances/one").status_code == 202


def test_a_change_that_breaks_the_app_is_shown_and_the_next_one_mends_it(
    start_host: StartHost, configured: Path
) -> None:
    host = start_host(configured, "--watch")
    module = configured / "function_app.py"
    working = module.read_text()
    module.write_text(f"import a_module_that_does_not_exist\n{working}")
    errors = host.read_until("devhost: waiting for a change", errors=True)
    module.write_text(working)
    lines = host.read_until("Listening on ")

    assert any("No module named 'a_module_that_does_not_exist'" in line for line in errors)
    assert lines[-1] == f"Listening on {host.url}"
    assert host.client.get("/api/echo/literal").status_code == 200


def test_files_of_settings_are_watched_but_those_of_environments_are_not(
    start_host: StartHost, configured: Path
) -> None:
    for ignored in (".venv/module.py", "environment/module.py", "__pycache__/module.py", "notes.txt"):
        (configured / ignored).parent.mkdir(exist_ok=True)
        (configured / ignored).touch()
    (configured / "environment/pyvenv.cfg").touch()
    host = start_host(configured, "--watch")
    for ignored in (".venv/module.py", "environment/module.py", "__pycache__/module.py", "notes.txt"):
        (configured / ignored).write_text("changed")
    (configured / "local.settings.json").write_text('{"Values": {"DEVHOST_TEST_A": "anew"}}')

    assert "Changed: local.settings.json" in host.read_until("Listening on ")
    assert host.client.get("/api/setting/DEVHOST_TEST_A").text == "anew"


def test_a_watched_app_ends_with_its_watcher(start_host: StartHost, configured: Path) -> None:
    host = start_host(configured, "--watch")

    host.stop(signal.SIGKILL)  # waits until nobody writes to stdout any more
    assert start_host(configured).client.get("/admin/host/ping").status_code == 200


def test_an_interrupted_watch_ends_well(start_host: StartHost, configured: Path) -> None:
    status, errors = start_host(configured, "--watch").stop(signal.SIGINT)

    assert (status, errors) == (0, "")


# Keys


def test_with_auth_every_level_has_its_key(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host("kitchen", "--enable-auth")
    keys = json.loads((tmp_path / "keys.json").read_text())
    function, other = keys["functions"]["echo"], keys["functions"]["answer"]

    def admitted(path: str) -> set[str]:
        given = {
            "none": "",
            "function": function,
            "other": other,
            **{name: keys[name] for name in ("host", "system", "master")},
        }
        answers = {name: host.client.get(path, headers={"x-functions-key": key}) for name, key in given.items()}
        return {name for name, answer in answers.items() if answer.status_code != 401}

    everyone = {"none", "function", "other", "host", "system", "master"}
    assert admitted("/api/setting/HOME") == everyone
    assert admitted("/api/echo/abc") == {"function", "host", "master"}
    assert admitted("/api/folder") == {"master"}
    assert admitted("/admin/host/status") == {"master"}
    assert admitted("/admin/host/ping") == everyone
    assert admitted(f"{WEBHOOKS}/instances") == {"system", "master"}
    assert host.client.get(f"/api/echo/abc?code={function}").status_code == 200


def test_with_auth_the_sdks_client_still_works_and_its_urls_carry_the_key(
    start_host: StartHost, tmp_path: Path
) -> None:
    host = start_host("kitchen", "--enable-auth")
    keys = json.loads((tmp_path / "keys.json").read_text())

    response = host.client.post(f"/api/start/waiting/one?code={keys['host']}", json=1)

    assert response.status_code == 202
    assert host.client.get(response.json()["statusQueryGetUri"]).status_code == 202


def test_keys_are_kept_for_the_owner_alone_and_printed(start_host: StartHost, tmp_path: Path) -> None:
    first = start_host("kitchen", "--enable-auth")
    first.stop()
    kept = (tmp_path / "keys.json").read_text()

    second = start_host("kitchen", "--enable-auth")

    assert (tmp_path / "keys.json").read_text() == kept
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert f"master: {json.loads(kept)['master']}" in second.banner


# The sudden end


class Caller:
    """A server that activities call, so that the test knows when they run and says when they end."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self.port = self._listener.getsockname()[1]

    def next(self) -> socket.socket:
        return self._listener.accept()[0]

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def caller() -> Iterator[Caller]:
    caller = Caller()
    yield caller
    caller.close()


def outcome(client: httpx.Client, instance_id: str) -> object:
    """The output of an orchestration that has ended."""
    return client.get(f"{WEBHOOKS}/instances/{instance_id}").json()["output"]


def test_an_activity_cut_short_by_a_kill_runs_again(start_host: StartHost, caller: Caller) -> None:
    host = start_host("kitchen")
    host.client.post(f"{WEBHOOKS}/orchestrators/calling/one", json=str(caller.port))
    with caller.next():
        host.stop(signal.SIGKILL)

    host = start_host("kitchen")
    with caller.next() as connection:
        connection.sendall(b"the second time\n")
        assert connection.recv(1) == b""
    host.client.post(f"{WEBHOOKS}/orchestrators/greet?timeout=30&pollingInterval=1", json='"flush"')

    assert outcome(host.client, "one") == "the second time"


def test_nothing_that_was_acknowledged_is_lost_by_a_kill(start_host: StartHost) -> None:
    host = start_host("kitchen")
    for number in range(20):
        host.client.post(f"{WEBHOOKS}/orchestrators/waiting/{number}")
        host.client.post(f"{WEBHOOKS}/instances/{number}/raiseEvent/Go", json=number)
    host.stop(signal.SIGKILL)

    host = start_host("kitchen")
    host.client.post(f"{WEBHOOKS}/orchestrators/greet/last?timeout=30&pollingInterval=1", json='"flush"')

    assert [outcome(host.client, str(number)) for number in range(20)] == list(range(20))
