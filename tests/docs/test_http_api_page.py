"""docs/http-api.md: every command is sent to a running app, and every answer, state, error and limit is compared."""

import base64
import json
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import httpx
import pytest

from dev.processes import embedded_host, no_settings
from dev.sandbox.api import EVENTS_PATH, app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from shared.access_tokens import TokenError
from shared.business import example
from shared.delivery.batches import MAX_RECORDS, PAGE_SIZE
from shared.operations import requests as intake
from shared.operations.events import signed
from shared.operations.list_query import DEFAULT_LIMIT, MAX_LIMIT, RECENT
from shared.operations.model import Operation, State
from shared.operations.openapi import document
from shared.operations.problems import TaskHubError, as_request_error
from shared.rest import ApiError
from shared.settings import EventsSettings, SettingsError
from tests.docs.curl import Exchange, Request, masked, read_exchanges, told
from tests.docs.markdown import ROOT, read_blocks, read_page, table_rows

PAGE = read_page("http-api.md")
EXCHANGES = [
    (block.heading, exchange)
    for block in read_blocks(PAGE)
    if block.language == "console"
    for exchange in read_exchanges(block.text)
]
ROUTES = [(method.upper(), path) for path, item in document("/api")["paths"].items() for method in item]
BEHIND = "| Status | `title` | `detail` | |"
APP, SANDBOX = "http://127.0.0.1:7071", "http://127.0.0.1:7072"
PATIENCE = 20.0
NO_SETTINGS = no_settings(ROOT) | dict.fromkeys(app_environment(""), "")


class Reader:
    """Somebody who enters the commands; app and sandbox listen elsewhere than the page says.

    Attributes:
        values: What the reader knows of what the page shows as `<placeholders>`.
    """

    def __init__(self, client: httpx.Client, addresses: Mapping[str, str], **values: str) -> None:
        self._client = client
        self._addresses = addresses
        self.values = values

    def enter(self, exchange: Exchange) -> tuple[dict[str, Any], dict[str, Any]]:
        """What came, and what the page shows. A look-up is repeated until it shows that: this is polling."""
        request, shown = exchange.request(self.values), exchange.shown()
        give_up_at = time.monotonic() + PATIENCE
        while True:
            came = masked(told(self.send(request), shown), shown, self.values)
            if came == shown or request.method != "GET" or time.monotonic() > give_up_at:
                return came, shown

    def send(self, request: Request) -> httpx.Response:
        """The answer to a request whose URL is one of the page."""
        url = request.url
        for address, real in self._addresses.items():
            url = url.replace(address, real)
        chunked = request.headers.get("Transfer-Encoding") == "chunked"
        content = iter([request.body]) if chunked else request.body
        return self._client.request(request.method, url, headers=request.headers, content=content)


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=PATIENCE, trust_env=False) as client:
        yield client


@pytest.fixture
def reader(client: httpx.Client, tmp_path: Path) -> Iterator[Reader]:
    """Beside an app and a sandbox that were just started, as by `make run`."""
    with serve(create_app(STAND_IN)) as sandbox:
        settings = NO_SETTINGS | app_environment(sandbox) | {"OPERATIONS_EVENTS_URL": f"{sandbox}{EVENTS_PATH}"}
        with embedded_host(ROOT, tmp_path / "state.db", settings, tmp_path / "host.log") as app:
            yield Reader(client, {APP: app, SANDBOX: sandbox})


@pytest.fixture(scope="module")
def locked(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Beside an app that asks for keys, and whose settings are missing or bad."""
    folder = tmp_path_factory.mktemp("locked")
    settings = NO_SETTINGS | {"DELIVERY_DEADLINE": "soon"}
    with embedded_host(ROOT, folder / "state.db", settings, folder / "host.log", ["--enable-auth"]) as app:
        keys = json.loads((folder / "keys.json").read_text())
        yield Reader(client, {APP: app}, key=keys["functions"]["FindOperations"], host_key=keys["host"])


def test_the_commands_answer_as_shown(reader: Reader) -> None:
    for heading, exchange in EXCHANGES:
        if heading != "Keys":
            came, shown = reader.enter(exchange)
            assert came == shown, exchange.command


def test_the_commands_with_and_without_a_key_answer_as_shown(locked: Reader) -> None:
    with_keys = [exchange for heading, exchange in EXCHANGES if heading == "Keys"]
    assert len(with_keys) == 3
    for exchange in with_keys:
        came, shown = locked.enter(exchange)
        assert came == shown, exchange.command


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_for_a_key_and_takes_that_of_the_host(locked: Reader, method: str, path: str) -> None:
    url = f"{APP}/api{path.format(id='some-id')}"
    assert locked.send(Request(method, url, {}, b"")).status_code == 401
    assert locked.send(Request(method, url, {"x-functions-key": locked.values["host_key"]}, b"")).status_code != 401


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_has_a_command(method: str, path: str) -> None:
    pattern = re.compile(re.sub(r"\\{id\\}", "[^/]+", re.escape(f"{APP}/api{path}")))
    sent = [exchange.request(defaultdict(str, business="some-id")) for _, exchange in EXCHANGES]
    assert [request for request in sent if request.method == method and pattern.fullmatch(request.url.split("?")[0])]


def test_the_receiver_of_the_page_takes_what_is_signed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    (program,) = [block.text for block in read_blocks(PAGE) if block.heading == "Being told of the end"][1:]
    receiver: dict[str, Any] = {}
    exec(program, receiver)  # noqa: S102 (as a reader does)
    secret = "whsec_" + base64.b64encode(bytes(32)).decode()
    monkeypatch.setenv("OPERATIONS_EVENTS_SECRET", secret)
    keys = EventsSettings.from_environment().signing_keys
    body = json.dumps({"id": "e", "subject": "o", "data": {"state": "posted"}}).encode()
    headers = signed("e", body, keys, int(time.time()))
    assert receiver["receive"](headers, body) == 204
    assert receiver["receive"](headers, body.replace(b"posted", b"failed")) == 401
    assert receiver["receive"](signed("e", body, keys, int(time.time()) - 600), body) == 401


def test_every_state_is_told_with_whether_it_is_the_end() -> None:
    rows = table_rows(PAGE, "| `state` | Ended | What it means to you |")
    ended = {state: Operation(id="x", state=state).finished for state in get_args(State.__value__)}
    assert {state.strip("`"): answer for state, answer, _ in rows} == {
        state: "yes" if end else "no" for state, end in ended.items()
    }


def test_every_kind_of_error_that_a_request_can_get_is_shown() -> None:
    sources = "".join(file.read_text() for file in sorted((ROOT / "shared" / "operations").glob("*.py")))
    kinds = set(re.findall(r'\b([45]\d\d),\s+"([^"]+)"', sources))
    bodies = [exchange.shown()["body"] for _, exchange in EXCHANGES]
    shown = {(str(body["status"]), body["title"]) for body in bodies if isinstance(body, dict) and "title" in body}
    assert len(kinds) > 10
    assert kinds - shown == {("502", "Bad Gateway")}
    assert ("502", "Bad Gateway") in {(status, title) for status, title, *_ in table_rows(PAGE, BEHIND)}


def without_names(detail: str | None) -> str:
    """A detail with a placeholder for the settings that it names."""
    return re.sub(r"[A-Z]+(_[A-Z]+)+(, [A-Z]+(_[A-Z]+)+)*", "`<settings>`", detail or "")


def test_what_goes_wrong_behind_the_app_is_answered_as_the_table_says() -> None:
    url = "https://api.example/businesses/1"
    causes: list[TokenError | SettingsError | ApiError | TaskHubError] = [
        TokenError(400, "invalid_client"),
        ApiError("no connection", method="GET", url=url, retryable=True),
        SettingsError({"BUSINESS_API_BASE_URL": "missing"}),
        ApiError("418 I'm a teapot", method="GET", url=url, status=418),
        ApiError("404 Not Found", method="GET", url=url, status=404),
        TaskHubError("no connection"),
    ]
    problems = [as_request_error(cause).problem for cause in causes]
    answers = [[str(problem.status), problem.title, without_names(problem.detail)] for problem in problems]
    assert answers == [row[:3] for row in table_rows(PAGE, BEHIND)]


@pytest.mark.parametrize("path", ["/businesses/some-id", "/businesses"])
def test_an_app_without_its_settings_says_that_it_is_not_set_up(locked: Reader, path: str) -> None:
    record = json.dumps(example()).encode()
    key = {"x-functions-key": locked.values["host_key"], "Content-Type": "application/json"}
    method, body = ("POST", record) if path == "/businesses" else ("GET", b"")
    answer = locked.send(Request(method, f"{APP}/api{path}", key, body))
    told = [str(answer.status_code), answer.json()["title"], without_names(answer.json()["detail"])]
    assert told == table_rows(PAGE, BEHIND)[2][:3]


@pytest.mark.parametrize(("path", "body"), [("/businesses", example()), ("/businesses/batch", [example()])])
def test_a_dry_run_needs_no_settings(locked: Reader, path: str, body: object) -> None:
    headers = {"x-functions-key": locked.values["host_key"], "Content-Type": "application/json"}
    url = f"{APP}/api{path}"
    answer = locked.send(Request("POST", f"{url}?validate_only=true", headers, json.dumps(body).encode()))
    assert (answer.status_code, answer.json()) == (200, {"valid": 1})
    assert locked.send(Request("POST", url, headers, json.dumps(body).encode())).status_code == 503


def test_the_limits_are_those_of_the_code() -> None:
    longest = f"{intake.MAX_WAIT_SECONDS:g}"
    assert table_rows(PAGE, "| | |") == [
        ["body of a record, alone or in a batch", f"{intake.MAX_BODY_BYTES:,} bytes"],
        ["body of a batch", f"{intake.MAX_BATCH_BYTES:,} bytes"],
        ["records of a batch", f"1 to {MAX_RECORDS:,}"],
        [
            "members of a record that its model has not",
            f"about {intake.MAX_UNKNOWN_MEMBERS}: beyond, it is one error for the record",
        ],
        ["errors and skipped records that an answer lists", str(intake.MAX_ERRORS)],
        ["`Idempotency-Key`", f"1 to {intake.MAX_IDEMPOTENCY_KEY_LENGTH} printable ASCII characters"],
        ["`?wait=`", f"0 to {longest} seconds, else `400`"],
        ["`Prefer: wait=`", f"whole seconds; more than {longest} count as {longest}"],
        ["page of results", str(PAGE_SIZE)],
        ["page of operations, `?limit=`", f"1 to {MAX_LIMIT}, by default {DEFAULT_LIMIT}"],
        ["`?since=`", f"by default {RECENT.days} day before `until`, or ago"],
    ]
    assert intake.read_preferred_wait(f"wait={longest}0") == intake.MAX_WAIT_SECONDS
