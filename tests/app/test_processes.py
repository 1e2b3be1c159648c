"""The app in a host process of its own: without settings, and beside an app that knows nothing of tokens.

That `/admin` is left alone is held by the app's bindings, in test_bindings.py: a host answers there before it asks any
app. Here the host is tried.
"""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from dev.processes import embedded_host
from shared.business import example

APP = Path(__file__).parents[2]
NO_SETTINGS = dict.fromkeys(["BUSINESS_API_BASE_URL", "BUSINESS_API_TOKEN_URL", "BUSINESS_API_CLIENT_ID"], "")
THREE_LINES = """\
import azure.functions as func, azure.durable_functions as df
app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)
@app.activity_trigger("attempt")
async def PostBusiness(attempt: dict) -> dict: return attempt
"""


class Host:
    """A host process with keys demanded, and what it says about itself."""

    def __init__(self, url: str, folder: Path) -> None:
        (keys,) = (json.loads(path.read_text()) for path in folder.glob("**/*.json") if "master" in path.read_text())
        self.master: str = keys["master"]
        self.client = httpx.Client(base_url=url, timeout=30)

    def answer(self, path: str, **request: Any) -> tuple[int, str, Any]:
        """Status, content type and body of an answer, without what differs between any two host processes."""
        response = self.client.request(request.pop("method", "GET"), path, **request)
        text = re.sub(r"127\.0\.0\.1:\d+", "HOST", response.text)
        body = json.loads(text) if "json" in response.headers.get("Content-Type", "") else text
        if isinstance(body, dict):
            for varying in ("id", "processUptime", "script_root_path_href", "script_href"):
                body.pop(varying, None)
        return response.status_code, response.headers.get("Content-Type", ""), body


@pytest.fixture(scope="module")
def this_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("this")
    with embedded_host(APP, folder / "state.db", NO_SETTINGS, folder / "host.log", ["--enable-auth"]) as url:
        host = Host(url, folder)
        yield host
        host.client.close()


@pytest.fixture(scope="module")
def bare_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    folder = tmp_path_factory.mktemp("bare")
    app = folder / "app"
    app.mkdir()
    (app / "function_app.py").write_text(THREE_LINES)
    (app / "host.json").write_text((APP / "host.json").read_text())
    with embedded_host(app, folder / "state.db", NO_SETTINGS, folder / "host.log", ["--enable-auth"]) as url:
        host = Host(url, folder)
        yield host
        host.client.close()


@pytest.mark.parametrize("with_key", [False, True])
@pytest.mark.parametrize(
    "request_to",
    [
        {"path": "/admin/host/ping"},
        {"path": "/admin/host/status"},
        {"path": "/admin/functions/PostBusiness"},
        {"path": "/admin/functions/PostBusiness", "method": "POST", "json": {"input": "{}"}},
        {"path": "/admin/functions/Unknown"},
    ],
    ids=lambda request: f"{request.get('method', 'GET')} {request['path']}",
)
def test_admin_routes_answer_as_on_an_app_without_token_management(
    this_app: Host, bare_app: Host, request_to: dict[str, Any], with_key: bool
) -> None:
    answers = [
        host.answer(**request_to, headers={"x-functions-key": host.master} if with_key else {})
        for host in (this_app, bare_app)
    ]
    assert answers[0] == answers[1]


def test_the_list_of_functions_is_open_to_the_master_key_only_and_lists_them_alike(
    this_app: Host, bare_app: Host
) -> None:
    listed = []
    for host in (this_app, bare_app):
        assert host.answer("/admin/functions")[0] == 401
        status, content_type, functions = host.answer("/admin/functions", headers={"x-functions-key": host.master})
        listed.append((status, content_type, next(f for f in functions if f["name"] == "PostBusiness").keys()))
    assert listed[0] == listed[1]


def test_without_settings_a_record_is_deferred_with_a_reason_that_names_the_variables(this_app: Host) -> None:
    headers = {"x-functions-key": this_app.master}
    accepted = this_app.client.post("/api/businesses", json=example(), headers=headers)
    assert accepted.status_code == 202
    deadline = time.monotonic() + 30
    while (operation := this_app.client.get(accepted.headers["Location"], headers=headers).json())["attempt"] == 0:
        assert time.monotonic() < deadline
    assert operation["state"] == "deferred"
    for name in NO_SETTINGS:
        assert name in operation["outcome"]["reason"]


def test_every_route_of_the_app_asks_for_a_key(this_app: Host) -> None:
    for method, path in [
        ("POST", "/api/businesses"),
        ("GET", "/api/businesses/1"),
        ("GET", "/api/businesses/operations/1"),
    ]:
        assert this_app.client.request(method, path).status_code == 401
