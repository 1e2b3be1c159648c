"""The smoke test tells what is wrong with an app, in one line a check, and never the key."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from dev.processes import embedded_host, no_settings
from dev.sandbox.api import app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from shared.business import example

APP = Path(__file__).parents[2]
RECORD = example()


def smoke(url: str, *options: str) -> tuple[int, list[str]]:
    """The exit status and the lines of a run."""
    command = [sys.executable, "-I", str(APP / "dev" / "smoke.py"), url, "--wait", "3", *options]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env={})
    assert ended.stderr == ""
    return ended.returncode, ended.stdout.splitlines()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The app on a host that demands keys, and the host key; its settings name a sandbox, with another secret."""
    folder = tmp_path_factory.mktemp("guarded")
    with serve(create_app(STAND_IN)) as api:
        settings = no_settings(APP) | app_environment(api) | {"BUSINESS_API_CLIENT_SECRET": "an expired one"}
        with embedded_host(APP, folder / "state.db", settings, folder / "host.log", ["--enable-auth"]) as url:
            yield url, json.loads((folder / "keys.json").read_text())["host"]


@pytest.fixture
def record(tmp_path: Path) -> str:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(RECORD))
    return str(file)


def test_with_the_key_all_checks_hold_and_the_key_is_not_printed(guarded: tuple[str, str]) -> None:
    url, key = guarded
    status, lines = smoke(url, "--key", key)
    assert (status, [line.split()[0] for line in lines]) == (0, ["ok"] * 5)
    assert key not in "".join(lines)


@pytest.mark.parametrize("options", [(), ("--key", "the-wrong-key"), ("--key", "-the-wrong-key")])
def test_without_the_right_key_the_checks_that_need_it_fail_and_say_so(
    guarded: tuple[str, str], options: tuple[str, ...]
) -> None:
    status, lines = smoke(guarded[0], *options)
    assert status == 1
    assert lines[0] == "ok        the app is up"
    assert "got 401: the app asks for a key" in lines[1]
    assert lines[2].startswith("ok" if options else "left out")
    assert "the-wrong-key" not in "".join(lines)


def test_a_token_that_cannot_be_had_fails_loudly(guarded: tuple[str, str], record: str) -> None:
    url, key = guarded
    status, lines = smoke(url, "--key", key, "--post", record)
    assert status == 1
    assert lines[-1].startswith("FAILED    it posts a record, once: the app is not set up: access token: ")
    assert "an expired one" not in "".join(lines)


def test_missing_settings_fail_loudly_with_their_names(tmp_path: Path, record: str) -> None:
    with embedded_host(APP, tmp_path / "state.db", no_settings(APP), tmp_path / "host.log") as url:
        status, lines = smoke(url, "--post", record)
    assert status == 1
    assert "the app is not set up: settings: BUSINESS_API_BASE_URL" in lines[-1]


def test_nobody_at_the_address_is_one_line() -> None:
    status, lines = smoke("http://127.0.0.1:9", "--wait", "0")
    assert status == 1
    (line,) = lines
    assert line.startswith("FAILED    the app is up: no answer: ")


@pytest.fixture
def other_app() -> Iterator[tuple[str, dict[str, object]]]:
    """A host with other functions than ours: what it answers by path; nothing else is there, not even a ping."""
    answers: dict[str, object] = {}

    async def answer(request: web.Request) -> web.Response:
        if request.path not in answers:
            return web.Response(status=404)
        return web.json_response(answers[request.path])

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    with serve(app) as url:
        yield url, answers


def test_a_package_without_the_code_is_found_out(other_app: tuple[str, dict[str, object]]) -> None:
    url, answers = other_app
    answers["/admin/host/ping"] = {}
    status, lines = smoke(url)
    assert status == 1
    assert lines[0].startswith("ok")
    assert "expected 200, got 404" in lines[1]
    answers["/api/openapi.json"] = {"paths": {"/businesses": {}}}
    assert "missing are /businesses/batch" in smoke(url)[1][1]


def test_a_list_that_another_function_answers_is_found_out(other_app: tuple[str, dict[str, object]]) -> None:
    url, answers = other_app
    answers["/api/openapi.json"] = {"paths": {}}
    answers["/api/businesses/operations"] = {"id": "operations", "name": "Acme"}
    assert "another function answers this route" in smoke(url)[1][-1]


def test_the_key_goes_to_no_other_address(other_app: tuple[str, dict[str, object]]) -> None:
    asked: list[str | None] = []

    async def remember(request: web.Request) -> web.Response:
        asked.append(request.headers.get("x-functions-key"))
        return web.json_response({})

    async def redirect(_: web.Request) -> web.Response:
        raise web.HTTPTemporaryRedirect(elsewhere)

    target, here = web.Application(), web.Application()
    target.router.add_route("*", "/{path:.*}", remember)
    here.router.add_route("*", "/{path:.*}", redirect)
    with serve(target) as elsewhere, serve(here) as url:
        status, _ = smoke(url, "--key", "k", "--wait", "0")
        assert httpx.get(url, follow_redirects=True).status_code == 200
    assert status == 1
    assert asked == [None]


@pytest.mark.parametrize("key", ["schl\u00fc\u00df", "a\nb"])
def test_a_key_that_is_none_is_refused_without_being_printed(key: str) -> None:
    command = [sys.executable, "-I", str(APP / "dev" / "smoke.py"), "http://127.0.0.1:9", "--key", key]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert ended.returncode == 2
    assert "expected visible ASCII" in ended.stderr
    assert key not in ended.stderr + ended.stdout


@pytest.mark.parametrize(
    "arguments",
    [["http://a b"], ["https://["], ["ftp://a.example"], ["a.example"], ["http://127.0.0.1:9", "--post", "/missing"]],
)
def test_bad_arguments_are_one_line(arguments: list[str]) -> None:
    command = [sys.executable, "-I", str(APP / "dev" / "smoke.py"), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, env={})
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr


ODD: list[object] = [None, 5, "text", [], {}, {"paths": None}, {"paths": []}, {"id": 1}, {"operations": None}]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_whatever_another_server_answers_is_a_line_a_check(
    other_app: tuple[str, dict[str, object]], odd: object, record: str
) -> None:
    url, answers = other_app
    answers["/admin/host/ping"] = {}
    for path in ("/api/openapi.json", "/api/businesses", "/api/businesses/operations"):
        answers[path] = odd
    status, lines = smoke(url, "--post", record)
    assert (status, len(lines)) == (1, 6)
    assert [line.split()[0] for line in lines if line.startswith("ok")] == ["ok"]


def test_a_server_that_sends_a_byte_now_and_then_is_not_waited_for() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.2)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", trickle)
    with serve(app) as url:
        status, lines = smoke(url, "--wait", "1")
    assert (status, lines) == (1, ["FAILED    the app is up: no answer within 1 s"])
