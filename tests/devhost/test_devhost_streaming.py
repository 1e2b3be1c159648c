"""An app that streams: its HTTP functions answer while their requests still come, and their responses come in parts."""

import gzip
import itertools
import json
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.devhost.conftest import APPS, HostProcess, StartHost

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client for one host that runs the app `streaming`, shared by the tests that only ask."""
    state = tmp_path_factory.mktemp("streaming") / "state.db"
    host = HostProcess(APPS / "streaming", state, log=subprocess.DEVNULL)
    yield host.client
    host.stop()


@pytest.fixture
def configured(tmp_path: Path) -> Path:
    """A copy of the app, for a test to change."""
    return Path(shutil.copytree(APPS / "streaming", tmp_path / "app"))


@pytest.fixture
def event() -> str:
    """The name of an event that nothing else waits for."""
    return f"event-{next(_numbers)}"


_numbers = itertools.count()


def raw(client: httpx.Client, request: bytes) -> socket.socket:
    """Send a request, or the beginning of one, as it is."""
    connection = socket.create_connection((client.base_url.host, client.base_url.port or 0), timeout=30)
    connection.sendall(request)
    return connection


# Requests


def test_a_request_reaches_its_function_with_route_query_headers_body_and_trace(client: httpx.Client) -> None:
    headers = [("X-Twice", "1"), ("X-Twice", "2"), ("traceparent", TRACE), ("x-ms-invocation-id", "forged")]
    headers += [("Connection", "X-Of-The-Connection"), ("X-Of-The-Connection", "yes"), ("TE", "trailers")]

    seen = client.post("/api/describe/abc/7?a=1&a=%20&b=", headers=headers, content=b"12345").json()

    received = [tuple(header) for header in seen.pop("headers")]
    assert seen == {
        "method": "POST",
        "url": str(client.base_url.join("/api/describe/abc/7?a=1&a=%20&b=")),
        "route": {"word": "abc", "number": "7"},
        "query": [["a", "1"], ["a", " "], ["b", ""]],
        "body": "12345",
        "trace": TRACE,
    }
    assert [value for name, value in received if name == "x-twice"] == ["1", "2"]
    assert {"x-of-the-connection", "te"}.isdisjoint(name for name, _ in received)
    assert ("x-ms-invocation-id", "forged") not in received


def test_an_optional_part_of_a_route_may_be_absent(client: httpx.Client) -> None:
    assert client.get("/api/describe/abc").json()["route"] == {"word": "abc"}


def test_a_function_reads_the_body_while_it_comes(client: httpx.Client, event: str) -> None:
    head = f"POST /api/upload/{event} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    with raw(client, head.encode() + b"3\r\nabc\r\n") as connection:
        assert client.get(f"/api/hear/{event}").status_code == 200  # the function has got the first chunk
        connection.sendall(b"2\r\nde\r\n0\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(4096), b""))

    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.endswith(b"\r\n\r\n5")


def test_a_function_may_answer_without_reading_the_body(client: httpx.Client) -> None:
    response = client.post("/api/refuse", content=b"x" * 5_000_000)

    assert (response.status_code, response.text) == (403, "the body was not read")


def test_a_compressed_body_is_left_to_the_function(client: httpx.Client, event: str) -> None:
    compressed = gzip.compress(b"x" * 1000)

    response = client.post(f"/api/upload/{event}", content=iter([compressed]), headers={"Content-Encoding": "gzip"})

    assert response.text == str(len(compressed))


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(client: httpx.Client) -> None:
    head = b"POST /api/describe/a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
    with raw(client, head) as connection:
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"go")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")


# Responses


def test_a_response_keeps_its_status_headers_and_cookies(client: httpx.Client) -> None:
    response = client.get("/api/describe/abc?status=418")

    assert (response.status_code, response.headers["x-custom"]) == (418, "y" * 20_000)
    assert response.headers.get_list("set-cookie") == [
        "first=1; Path=/; SameSite=lax",
        "second=2; Path=/; SameSite=lax",
    ]
    assert "x-of-the-connection" not in response.headers


def test_a_compressed_response_is_left_as_it_is(client: httpx.Client) -> None:
    with client.stream("GET", "/api/compressed") as response:
        assert b"".join(response.iter_raw()) == gzip.compress(b"x" * 1000, mtime=0)


def test_head_is_answered_without_a_body(client: httpx.Client) -> None:
    response = client.head("/api/describe/abc")

    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 0


def test_a_part_of_a_response_arrives_before_the_next_is_made(client: httpx.Client, event: str) -> None:
    with client.stream("GET", f"/api/parts/{event}") as response:
        content = response.iter_text()
        first = next(content)
        client.post(f"/api/tell/{event}")
        rest = "".join(content)

    assert (first, rest) == ("the first part", ", the second part")


def test_large_bodies_pass_without_being_held_in_memory(client: httpx.Client, event: str) -> None:
    before = int(client.get("/api/memory").text)
    sent = client.post(f"/api/upload/{event}", content=(b"x" * 2**20 for _ in range(150)))
    with client.stream("GET", "/api/download/150") as response:
        received = sum(len(chunk) for chunk in response.iter_raw())
    after = int(client.get("/api/memory").text)

    assert (int(sent.text), received) == (150 * 2**20, 150 * 2**20)
    assert after < before * 1.5


def test_a_function_that_raises_answers_500_and_tells_nothing(client: httpx.Client) -> None:
    response = client.get("/api/fail")

    assert (response.status_code, response.content) == (500, b"")


def test_a_response_that_breaks_off_does_not_look_complete(client: httpx.Client) -> None:
    with client.stream("GET", "/api/break") as response:
        content = response.iter_text()
        first = next(content)
        with pytest.raises(httpx.RemoteProtocolError):
            next(content)

    assert first == "the first part"


def test_a_caller_that_leaves_ends_its_response(client: httpx.Client, event: str) -> None:
    with client.stream("GET", f"/api/endless/{event}") as response:
        next(response.iter_text())

    assert client.get(f"/api/hear/{event}").status_code == 200  # the generator was closed


def test_a_method_that_the_servers_framework_does_not_know_is_answered(client: httpx.Client) -> None:
    assert client.request("PROPFIND", "/api/memory").status_code == 405


def test_no_more_requests_run_at_once_than_host_json_lets(client: httpx.Client, event: str) -> None:
    with (
        client.stream("GET", f"/api/endless/{event}"),
        client.stream("GET", f"/api/endless/{event}"),
        client.stream("GET", f"/api/endless/{event}"),
        client.stream("GET", f"/api/endless/{event}"),
    ):
        assert client.get("/api/memory").status_code == 429


# The host around it


def test_a_failure_is_logged_once(start_host: StartHost) -> None:
    host = start_host("streaming")
    host.client.get("/api/fail")
    _, log = host.stop()

    assert "Executed 'Functions.fail' (Failed" in log
    assert log.count("ValueError: the reason is for the log") == 1
    assert "uvicorn" not in log


def test_a_response_that_breaks_off_is_logged_as_a_failure(start_host: StartHost) -> None:
    host = start_host("streaming")
    with pytest.raises(httpx.RemoteProtocolError):
        host.client.get("/api/break")
    _, log = host.stop()

    assert "Executed 'Functions.break_off' (Failed" in log
    assert log.count("ValueError: the reason is for the log") == 1


def test_an_invocation_is_over_when_its_response_is(start_host: StartHost, event: str) -> None:
    host = start_host("streaming")
    with host.client.stream("GET", f"/api/parts/{event}") as response:
        host.client.post(f"/api/tell/{event}")
        response.read()
    _, log = host.stop()

    assert log.index("Executing 'Functions.tell'") < log.index("Executed 'Functions.parts' (Succeeded")


def test_a_function_that_takes_too_long_answers_500_and_a_response_that_does_breaks_off(
    start_host: StartHost, configured: Path
) -> None:
    (configured / "host.json").write_text(json.dumps({"functionTimeout": "00:00:01"}))
    host = start_host(configured)

    assert host.client.get("/api/sleep").status_code == 500
    with pytest.raises(httpx.RemoteProtocolError):
        host.client.get("/api/endless/event")
    _, log = host.stop()
    assert log.count("took longer than the 1 s of host.json's functionTimeout") == 2


def test_with_auth_a_key_is_demanded(start_host: StartHost, tmp_path: Path) -> None:
    host = start_host("streaming", "--enable-auth")
    key = json.loads((tmp_path / "keys.json").read_text())["functions"]["memory"]

    assert host.client.get("/api/memory").status_code == 401
    assert host.client.get(f"/api/memory?code={key}").status_code == 200


def test_origins_of_local_settings_may_read_a_streamed_response(start_host: StartHost, configured: Path) -> None:
    (configured / "local.settings.json").write_text('{"Host": {"CORS": "http://friend.example"}}')

    response = start_host(configured).client.get("/api/memory", headers={"Origin": "http://friend.example"})

    assert response.headers["access-control-allow-origin"] == "http://friend.example"


def test_other_triggers_run_by_name_and_http_functions_by_their_route_only(start_host: StartHost) -> None:
    host = start_host("streaming")
    for name in ("nightly", "memory"):
        assert host.client.post(f"/admin/functions/{name}", json={}).status_code == 202
    host.client.get("/api/memory")
    _, log = host.stop()

    assert "Executed 'Functions.nightly' (Succeeded" in log
    assert "ValueError: No http request found" in log


@pytest.mark.parametrize("arguments", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, "--watch")])
def test_it_ends_well_when_it_is_asked_to(
    start_host: StartHost, configured: Path, arguments: tuple[signal.Signals, *tuple[str, ...]]
) -> None:
    number, *options = arguments
    status, errors = start_host(configured, *options).stop(number)

    assert (status, errors) == (0, "")


def test_it_does_not_wait_for_functions_and_responses_that_are_not_at_their_end(
    start_host: StartHost, event: str
) -> None:
    host = start_host("streaming")
    sleep, endless, stuck = (
        raw(host.client, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for path in ("/api/sleep", f"/api/endless/{event}", "/api/stuck")
    )
    with sleep, endless, stuck:
        assert endless.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        assert stuck.recv(4096).startswith(b"HTTP/1.1 200 OK\r\n")
        status, log = host.stop()

    assert status == 0
    assert "ERROR" not in log, log
    assert "Traceback" not in log


def test_a_caller_that_leaves_is_no_failure(start_host: StartHost, event: str) -> None:
    host = start_host("streaming")
    with host.client.stream("GET", f"/api/endless/{event}") as response:
        next(response.iter_text())
    host.client.get(f"/api/hear/{event}")
    _, log = host.stop()

    assert "Executed 'Functions.endless' (Succeeded" in log
    assert "ERROR" not in log


def test_a_change_restarts_it(start_host: StartHost, configured: Path) -> None:
    host = start_host(configured, "--watch")
    module = configured / "function_app.py"
    module.write_text(module.read_text().replace("the body was not read", "the body was left alone"))
    host.read_until("Listening on ")

    assert host.client.post("/api/refuse").text == "the body was left alone"
