"""HTTP triggers, administration and durable webhooks of one host that runs a real app through the worker library."""

import asyncio
import base64
import gzip
import json
import re
import time
import uuid
from typing import Any
from urllib.parse import unquote

import httpx
import pytest

from tests.devhost.conftest import StartHost

WEBHOOKS = "/runtime/webhooks/durabletask"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def started(kitchen: httpx.Client, name: str, value: Any = None, instance_id: str | None = None) -> str:
    """Start an orchestration through the webhook, with JSON in a text as its input; returns its id."""
    instance_id = instance_id or uuid.uuid4().hex
    response = kitchen.post(f"{WEBHOOKS}/orchestrators/{name}/{instance_id}", json=json.dumps(value))
    assert response.status_code == 202
    return instance_id


def finished(kitchen: httpx.Client, name: str, value: Any = None, prefix: str = "") -> str:
    """Start an orchestration and wait for its end; returns its id."""
    instance_id = prefix + uuid.uuid4().hex
    kitchen.post(f"{WEBHOOKS}/orchestrators/{name}/{instance_id}?timeout=30&pollingInterval=1", json=json.dumps(value))
    return instance_id


def see(kitchen: httpx.Client, instance_id: str, status: str) -> None:
    """Wait until an orchestration, which may not be there yet, has a status."""
    while f'"runtimeStatus": "{status}"' not in kitchen.get(f"{WEBHOOKS}/instances/{instance_id}").text:
        time.sleep(0.01)


# HTTP triggers


def test_a_request_reaches_its_function_with_route_query_headers_and_body(kitchen: httpx.Client) -> None:
    headers = [("X-Twice", "1"), ("X-Twice", "2")]

    seen = kitchen.post("/api/echo/abc/7?a=1&a=2&b=x%20y", headers=headers, content=b"12345").json()

    assert seen == {
        "method": "POST",
        "route": {"word": "abc", "number": "7"},
        "query": {"a": "1,2", "b": "x y"},
        "header": "1,2",
        "length": 5,
        "url": f"{kitchen.base_url}/api/echo/abc/7?a=1&a=2&b=x%20y".replace("//api", "/api"),
    }


def test_empty_values_of_a_query_do_not_reach_a_function_as_on_azure(kitchen: httpx.Client) -> None:
    assert kitchen.get("/api/echo/abc?a=&b&c=3&d=&d=4&d=&d=5").json()["query"] == {"c": "3", "d": "4,5"}


@pytest.mark.parametrize(
    ("path", "value"), [("50%25", "50%"), ("%C3%BC", "\u00fc"), ("a%2Fb", "a%2Fb"), ("a%252Fb", "a%2Fb")]
)
def test_a_value_of_a_route_is_decoded_but_for_slashes(kitchen: httpx.Client, path: str, value: str) -> None:
    assert kitchen.get(f"/api/told/{path}").text == value


@pytest.mark.parametrize(("text", "status"), [("Mueller", 200), ("M\u00fcller", 500)])
def test_a_header_that_is_not_ascii_fails_the_response(kitchen: httpx.Client, text: str, status: int) -> None:
    assert kitchen.get("/api/told/x", params={"header": text}).status_code == status


def test_an_optional_part_of_a_route_may_be_absent(kitchen: httpx.Client) -> None:
    assert kitchen.get("/api/echo/abc").json()["route"] == {"word": "abc"}


def test_of_two_routes_that_fit_that_of_the_first_name_answers_however_specific_they_are(kitchen: httpx.Client) -> None:
    response = kitchen.get("/api/echo/literal")

    assert (response.text, response.headers["content-type"]) == ("the literal route", "text/plain; charset=utf-8")
    assert kitchen.get("/api/echo/taken").json()["route"] == {"word": "taken"}


@pytest.mark.parametrize(
    "path", ["/api/echo/4711", "/api/echo/abc/x", "/api/nowhere", "/echo/abc", "/admin", "/runtime/x"]
)
def test_a_path_without_a_function_is_not_found(kitchen: httpx.Client, path: str) -> None:
    assert kitchen.get(path).status_code == 404


def test_a_method_that_no_function_takes_is_not_found_as_in_azure(kitchen: httpx.Client) -> None:
    assert kitchen.delete("/api/echo/abc").status_code == 404


def test_head_is_answered_without_a_body(kitchen: httpx.Client) -> None:
    response = kitchen.head("/api/echo/abc")

    assert (response.status_code, response.content) == (200, b"")
    assert int(response.headers["content-length"]) > 0


def test_a_response_keeps_its_status_headers_cookies_and_bytes(kitchen: httpx.Client) -> None:
    response = kitchen.post("/api/answer?status=418", content=bytes(range(256)))

    assert (response.status_code, response.content) == (418, bytes(range(256)))
    assert response.headers["x-custom"] == "yes"
    assert response.headers.get_list("set-cookie") == [
        "first=1; HttpOnly; Max-Age=60; Path=/; SameSite=Strict",
        "second=2; expires=Fri, 01 Jan 2027 00:00:00 GMT; Secure",
        "gone=3; expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; SameSite=None; Secure",
    ]


def test_a_cookie_expires_when_it_says_wherever_the_host_is(start_host: StartHost) -> None:
    response = start_host("kitchen", environment={"TZ": "Asia/Tokyo"}).client.get("/api/answer")

    assert "expires=Fri, 01 Jan 2027 00:00:00 GMT" in response.headers["set-cookie"]


def test_large_headers_reach_their_function(kitchen: httpx.Client) -> None:
    response = kitchen.get("/api/echo/one", headers={"X-Twice": "a" * 30_000})

    assert response.json()["header"] == "a" * 30_000


def test_a_body_that_comes_in_chunks_is_lost_as_in_the_real_host(kitchen: httpx.Client) -> None:
    response = kitchen.post("/api/answer", content=iter([b"one, ", b"two, ", b"three"]))

    assert response.request.headers["transfer-encoding"] == "chunked"
    assert (response.status_code, response.content) == (200, b"")


def test_a_large_body_passes_whole_both_ways(kitchen: httpx.Client) -> None:
    body = bytes(range(256)) * 150_000

    assert kitchen.post("/api/answer", content=body).content == body


def test_a_compressed_body_is_left_to_the_function(kitchen: httpx.Client) -> None:
    compressed = gzip.compress(b"x" * 1000)

    response = kitchen.post("/api/answer", content=compressed, headers={"Content-Encoding": "gzip"})

    assert response.content == compressed


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_100_mebibytes_is_refused(kitchen: httpx.Client, chunked: bool) -> None:
    pieces = (b"x" * 2**20 for _ in range(101))

    response = kitchen.post("/api/echo/abc", content=pieces if chunked else b"".join(pieces))

    assert response.status_code == 413


def test_a_function_that_raises_answers_500_and_tells_nothing(kitchen: httpx.Client) -> None:
    response = kitchen.get("/api/fail")

    assert (response.status_code, response.content) == (500, b"")


def test_an_invocation_belongs_to_the_trace_of_its_request_or_begins_one(kitchen: httpx.Client) -> None:
    assert kitchen.get("/api/trace", headers={"traceparent": TRACE}).text == TRACE
    assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", kitchen.get("/api/trace").text)


# Administration


def test_the_host_status_has_the_shape_of_the_real_one(kitchen: httpx.Client) -> None:
    status = kitchen.get("/admin/host/status").json()

    assert list(status) == [
        "id",
        "state",
        "version",
        "versionDetails",
        "platformVersion",
        "instanceId",
        "computerName",
        "processUptime",
        "functionAppContentEditingState",
        "extensionBundle",
    ]
    assert status["state"] == "Running"
    assert status["extensionBundle"]["id"] == "Microsoft.Azure.Functions.ExtensionBundle"


def test_ping_is_answered(kitchen: httpx.Client) -> None:
    assert kitchen.get("/admin/host/ping").status_code == 200


def test_the_functions_are_listed_with_their_bindings(kitchen: httpx.Client) -> None:
    functions = {one["name"]: one for one in kitchen.get("/admin/functions").json()}

    assert {"echo", "greet", "hello", "nightly"} <= set(functions)
    assert functions["echo"]["invoke_url_template"].endswith("/api/echo/{word:alpha}/{number:int?}")
    assert functions["nightly"]["config"]["bindings"][0]["type"] == "timerTrigger"
    assert functions["hello"] == kitchen.get("/admin/functions/HELLO").json()


def test_a_function_can_be_run_by_its_name(kitchen: httpx.Client) -> None:
    assert kitchen.post("/admin/functions/nightly", json={"input": ""}).status_code == 202


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("nobody", b"{}", 404), ("nightly", b"{", 400), ("greet", b'{"input": 1}', 400)],
)
def test_a_function_that_can_not_be_run_is_refused(kitchen: httpx.Client, path: str, body: bytes, status: int) -> None:
    assert kitchen.post(f"/admin/functions/{path}", content=body).status_code == status


# Durable webhooks


def test_a_start_answers_202_with_the_urls_to_manage_the_instance(kitchen: httpx.Client) -> None:
    response = kitchen.post(f"{WEBHOOKS}/orchestrators/waiting", json=1)
    urls = response.json()

    assert response.status_code == 202
    assert response.headers["location"] == urls["statusQueryGetUri"]
    assert response.headers["retry-after"] == "10"
    assert {"id", "sendEventPostUri", "terminatePostUri", "rewindPostUri", "purgeHistoryDeleteUri"} <= set(urls)
    assert "taskHub=KitchenHub" in urls["statusQueryGetUri"]
    assert kitchen.get(urls["statusQueryGetUri"]).status_code == 202


def test_a_start_may_wait_for_the_output(kitchen: httpx.Client) -> None:
    response = kitchen.post(f"{WEBHOOKS}/orchestrators/greet?timeout=30&pollingInterval=1", json='"you"')

    assert (response.status_code, response.json()) == (200, "hello you")


def test_the_trace_of_a_start_reaches_activities_through_sub_orchestrations(kitchen: httpx.Client) -> None:
    wait = f"{WEBHOOKS}/orchestrators/tracing?timeout=30&pollingInterval=1"

    assert kitchen.post(wait, headers={"traceparent": TRACE}).json() == TRACE


def test_a_start_that_waits_too_long_answers_202(kitchen: httpx.Client) -> None:
    response = kitchen.post(f"{WEBHOOKS}/orchestrators/waiting?timeout=0.01&pollingInterval=0.01")

    assert response.status_code == 202


def test_a_start_of_an_unknown_orchestrator_is_a_bad_request(kitchen: httpx.Client) -> None:
    response = kitchen.post(f"{WEBHOOKS}/orchestrators/nobody")

    assert response.status_code == 400
    assert "'nobody' doesn't exist" in response.json()["ExceptionMessage"]


def test_a_start_with_malformed_json_is_a_bad_request(kitchen: httpx.Client) -> None:
    assert kitchen.post(f"{WEBHOOKS}/orchestrators/greet", content=b"{").status_code == 400


def test_a_start_under_an_id_that_is_running_is_a_conflict(kitchen: httpx.Client) -> None:
    instance_id = started(kitchen, "waiting")

    assert kitchen.post(f"{WEBHOOKS}/orchestrators/waiting/{instance_id}").status_code == 409


async def test_of_many_starts_under_one_id_exactly_one_wins(kitchen: httpx.Client) -> None:
    url = f"{WEBHOOKS}/orchestrators/waiting/{uuid.uuid4().hex}"
    async with httpx.AsyncClient(base_url=kitchen.base_url, trust_env=False) as client:
        answers = await asyncio.gather(*(client.post(url, json="1") for _ in range(20)))

    assert sorted(answer.status_code for answer in answers) == [202, *[409] * 19]


def test_a_running_status_is_202_and_a_finished_one_200(kitchen: httpx.Client) -> None:
    running = kitchen.get(f"{WEBHOOKS}/instances/{started(kitchen, 'waiting')}")
    done = kitchen.get(f"{WEBHOOKS}/instances/{finished(kitchen, 'greet', 'you')}")

    assert (running.status_code, running.headers["retry-after"]) == (202, "5")
    assert running.headers["location"] == str(running.url)
    assert done.status_code == 200
    status = done.json()
    assert status["createdTime"] <= status["lastUpdatedTime"]
    assert {key: status[key] for key in ("name", "runtimeStatus", "input", "customStatus", "output")} == {
        "name": "greet",
        "runtimeStatus": "Completed",
        "input": '"you"',
        "customStatus": "greeting",
        "output": "hello you",
    }


def test_a_status_shows_the_history_when_asked(kitchen: httpx.Client) -> None:
    instance_id = finished(kitchen, "greet", "you")

    status = kitchen.get(
        f"{WEBHOOKS}/instances/{instance_id}?showHistory=true&showHistoryOutput=true&showInput=false"
    ).json()

    assert status["input"] is None
    assert [event["EventType"] for event in status["historyEvents"]] == [
        "ExecutionStarted",
        "TaskCompleted",
        "ExecutionCompleted",
    ]
    task = status["historyEvents"][1]
    assert (task["FunctionName"], task["Result"]) == ("hello", "hello you")
    assert task["ScheduledTime"] <= task["Timestamp"]
    assert "Input" not in status["historyEvents"][0]


def history_of(kitchen: httpx.Client, instance_id: str) -> list[dict[str, Any]]:
    answer = kitchen.get(f"{WEBHOOKS}/instances/{instance_id}?showHistory=true&showHistoryOutput=true")
    shown: list[dict[str, Any]] = answer.json()["historyEvents"]
    return [
        {name: value for name, value in event.items() if name not in {"Timestamp", "ScheduledTime"}} for event in shown
    ]


def test_a_history_shows_the_beginning_and_the_end_of_a_timer(kitchen: httpx.Client) -> None:
    _, created, fired, _ = history_of(kitchen, finished(kitchen, "napping", 20))

    assert (created["EventType"], fired["EventType"]) == ("TimerCreated", "TimerFired")
    assert created["FireAt"] == fired["FireAt"]


def test_a_sub_orchestration_and_its_parent_name_each_other_and_what_happened_to_them(kitchen: httpx.Client) -> None:
    instance_id = started(kitchen, "sheltering")
    child = f"{instance_id}-child"
    see(kitchen, child, "Running")

    called = {"EventType": "SubOrchestrationInstanceCreated", "Name": "waiting", "InstanceId": child}
    assert history_of(kitchen, instance_id)[1] == called
    assert kitchen.get(f"{WEBHOOKS}/instances/{child}").json()["parentInstanceId"] == instance_id

    kitchen.post(f"{WEBHOOKS}/instances/{child}/raiseEvent/Go", json={"speed": [3, "\u00fc"]})
    see(kitchen, instance_id, "Completed")
    heard = {"EventType": "EventRaised", "Name": "Go", "Input": '{"speed":[3,"\u00fc"]}'}
    assert history_of(kitchen, child)[1] == heard
    ended = {"EventType": "SubOrchestrationInstanceCompleted", "FunctionName": "waiting", "InstanceId": child}
    assert history_of(kitchen, instance_id)[1] == ended | {"Result": {"speed": [3, "\u00fc"]}}


def test_a_parent_hears_why_its_sub_orchestration_was_terminated(kitchen: httpx.Client) -> None:
    instance_id = started(kitchen, "sheltering")
    see(kitchen, f"{instance_id}-child", "Running")
    kitchen.post(f"{WEBHOOKS}/instances/{instance_id}-child/terminate?reason=enough")
    see(kitchen, instance_id, "Failed")

    failed = {"EventType": "SubOrchestrationInstanceFailed", "FunctionName": "waiting", "Reason": "enough"}
    assert history_of(kitchen, instance_id)[1] == failed | {"InstanceId": f"{instance_id}-child"}
    assert {"EventType": "ExecutionTerminated", "Input": "enough"} in history_of(kitchen, f"{instance_id}-child")


def test_a_failed_status_is_500_only_when_asked(kitchen: httpx.Client) -> None:
    url = f"{WEBHOOKS}/instances/{finished(kitchen, 'failing')}"

    assert kitchen.get(url).status_code == 200
    assert kitchen.get(f"{url}?returnInternalServerErrorOnFailure=true").status_code == 500
    assert "RuntimeError: it went off" in kitchen.get(url).json()["output"]


@pytest.mark.parametrize(
    ("how", "error"), [("exit", "SystemExit: 3"), ("cancel", "CancelledError: "), ("interrupt", "KeyboardInterrupt: ")]
)
def test_a_function_that_exits_or_cancels_itself_has_failed(kitchen: httpx.Client, how: str, error: str) -> None:
    status = kitchen.get(f"{WEBHOOKS}/instances/{finished(kitchen, 'leaving', how)}").json()

    assert status["runtimeStatus"] == "Failed"
    assert f"Activity function 'leave' failed: {error}" in status["output"]


def test_a_number_that_is_no_json_is_shown_as_a_text(kitchen: httpx.Client) -> None:
    assert kitchen.get(f"{WEBHOOKS}/instances/{finished(kitchen, 'measuring')}").json()["output"] == "NaN"


def test_a_timer_of_real_time_fires(kitchen: httpx.Client) -> None:
    response = kitchen.post(f"{WEBHOOKS}/orchestrators/napping?timeout=30&pollingInterval=1", json="20")

    assert response.json() == "rested"


def test_an_event_reaches_its_orchestration(kitchen: httpx.Client) -> None:
    url = f"{WEBHOOKS}/instances/{started(kitchen, 'waiting')}"

    assert kitchen.post(f"{url}/raiseEvent/Go", content=b"x").status_code == 400
    assert kitchen.post(f"{url}/raiseEvent/Go", json={"speed": 3}).status_code == 202


@pytest.mark.parametrize("operation", ["raiseEvent/Go", "terminate", "suspend", "resume", "rewind"])
def test_an_operation_on_what_does_not_exist_or_has_ended_is_refused(kitchen: httpx.Client, operation: str) -> None:
    ended = finished(kitchen, "greet", "you")

    assert kitchen.post(f"{WEBHOOKS}/instances/nobody/{operation}", json=1).status_code == 404
    assert kitchen.post(f"{WEBHOOKS}/instances/{ended}/{operation}", json=1).status_code == (
        412 if operation == "rewind" else 410
    )


@pytest.mark.parametrize(("method", "path"), [("GET", "nobody"), ("DELETE", "nobody"), ("POST", "nobody/dance")])
def test_an_unknown_instance_or_operation_is_not_found(kitchen: httpx.Client, method: str, path: str) -> None:
    assert kitchen.request(method, f"{WEBHOOKS}/instances/{path}").status_code == 404


def test_entities_are_said_not_to_be_emulated(kitchen: httpx.Client) -> None:
    response = kitchen.get(f"{WEBHOOKS}/entities/counter/one")

    assert response.status_code == 501
    assert "not emulated" in response.json()["Message"]


def test_instances_are_listed_by_prefix_and_status_in_pages(kitchen: httpx.Client) -> None:
    prefix = uuid.uuid4().hex
    for number in range(5):
        started(kitchen, "waiting", instance_id=f"{prefix}-{number}")
    query = f"{WEBHOOKS}/instances?instanceIdPrefix={prefix}&top=2&runtimeStatus=Pending,Running"
    pages, token = [], ""
    for _ in range(3):
        response = kitchen.get(query, headers={"x-ms-continuation-token": token})
        pages.append([one["instanceId"][-1] for one in response.json()])
        token = response.headers["x-ms-continuation-token"]

    assert (pages, token) == ([["0", "1"], ["2", "3"], ["4"]], "")
    assert kitchen.get(f"{WEBHOOKS}/instances?instanceIdPrefix={prefix}&runtimeStatus=Completed").json() == []
    assert (
        kitchen.get(f"{WEBHOOKS}/instances?instanceIdPrefix={prefix}&createdTimeTo=2020-01-01T00:00:00Z").json() == []
    )


@pytest.mark.parametrize(
    "query",
    [
        "createdTimeFrom=yesterday",
        "createdTimeTo=tomorrow",
        "createdTimeTo=0001-01-01T00:00:00%2B14:00",
        "createdTimeFrom=2999-01-01T00:00:00Z&createdTimeFrom=2999-01-01T00:00:00Z",
        "runtimeStatus=Walking",
        "top=many",
        "top=99999999999",
        "runtimeStatus=pending,RUNNING,Walking",
    ],
)
def test_a_listing_ignores_what_it_cannot_read(kitchen: httpx.Client, query: str) -> None:
    prefix = uuid.uuid4().hex
    started(kitchen, "waiting", instance_id=prefix)

    response = kitchen.get(f"{WEBHOOKS}/instances?instanceIdPrefix={prefix}&{query}")
    assert [one["instanceId"] for one in response.json()] == [prefix]


def test_a_page_has_a_hundred_instances_unless_the_caller_says_so_and_never_more_than_a_thousand(
    kitchen: httpx.Client,
) -> None:
    prefix = uuid.uuid4().hex
    names = [started(kitchen, "waiting", instance_id=f"{prefix}-{number:04}") for number in range(1_002)]
    url = f"{WEBHOOKS}/instances?instanceIdPrefix={prefix}&top="

    pages = {top: kitchen.get(url + top) for top in ("", "0", "1", "1001", "5000")}
    assert {top: len(page.json()) for top, page in pages.items()} == {
        "": 100,
        "0": 0,
        "1": 1,
        "1001": 1000,
        "5000": 1000,
    }
    following = [base64.b64decode(page.headers["x-ms-continuation-token"]).decode() for page in pages.values()]
    assert following == [names[100], names[0], names[1], names[1_000], names[1_000]]
    assert kitchen.get(url + "-1").status_code == 500
    assert kitchen.get(url + "9", headers={"x-ms-continuation-token": "nonsense"}).json() == []


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", True),
        ("&runtimeStatus=Walking", True),
        ("&createdTimeFrom=yesterday", True),
        ("&createdTimeFrom=2000-01-01T00:00:00Z", False),
        ("&createdTimeTo=2999-01-01T00:00:00Z", False),
        ("&runtimeStatus=Completed", False),
        ("&instanceIdPrefix=", False),
    ],
)
def test_inputs_are_left_out_only_where_a_filter_is_given(kitchen: httpx.Client, query: str, shown: bool) -> None:
    instance_id = finished(kitchen, "greet", "you", prefix="0" * 20)  # on the first page, whatever others left there

    listed = kitchen.get(f"{WEBHOOKS}/instances?showInput=false{query}").json()
    (found,) = [one for one in listed if one["instanceId"] == instance_id]
    assert (found["input"] is not None, found["output"] is not None) == (shown, True)


@pytest.mark.parametrize(("method", "path"), [("POST", "orchestrators/greet?pollingInterval=1&timeout=nan")])
def test_a_parameter_that_can_not_be_read_is_named(kitchen: httpx.Client, method: str, path: str) -> None:
    response = kitchen.request(method, f"{WEBHOOKS}/{path}")

    assert response.status_code == 400
    name, _, value = path.rpartition("?")[2].rpartition("&")[2].partition("=")
    assert response.json()["ExceptionMessage"].startswith(f"{name} must be ")
    assert response.json()["ExceptionMessage"].endswith(f"not '{unquote(value)}'")


@pytest.mark.parametrize("path", ["orchestrators/greet", "instances/{running}/raiseEvent/Go"])
@pytest.mark.parametrize(
    ("body", "charset"),
    [(b"{", "utf-8"), (b"\xff", "utf-8"), (b"[NaN]", "utf-8"), (b"[" * 100_000, "utf-8"), (b"1", "klingon")],
)
def test_a_body_that_can_not_be_read_as_json_is_refused(
    kitchen: httpx.Client, path: str, body: bytes, charset: str
) -> None:
    path = path.format(running=started(kitchen, "waiting"))
    content_type = {"Content-Type": f"application/json; charset={charset}"}

    response = kitchen.post(f"{WEBHOOKS}/{path}", content=body, headers=content_type)

    assert response.status_code == 400
    assert response.json()["Message"] == "Invalid JSON content"


def test_instances_are_listed_in_pages_whatever_their_ids(kitchen: httpx.Client) -> None:
    prefix = uuid.uuid4().hex
    for end in ("€", "日"):
        started(kitchen, "waiting", instance_id=prefix + end)
    url = f"{WEBHOOKS}/instances?top=1&instanceIdPrefix={prefix}"

    first = kitchen.get(url)
    second = kitchen.get(url, headers={"x-ms-continuation-token": first.headers["x-ms-continuation-token"]})

    assert [page.json()[0]["instanceId"] for page in (first, second)] == [prefix + "€", prefix + "日"]


@pytest.mark.parametrize("instance_id", ["@one", "a%5Cb", "a%23b", "a%3Fb", "a%0Ab", "x" * 257])
def test_an_id_that_azure_would_refuse_is_refused(kitchen: httpx.Client, instance_id: str) -> None:
    response = kitchen.post(f"{WEBHOOKS}/orchestrators/greet/{instance_id}")

    assert response.status_code == 400
    assert "an instance id has at most 256 characters" in response.json()["ExceptionMessage"]


def test_an_ended_instance_can_be_purged_once(kitchen: httpx.Client) -> None:
    url = f"{WEBHOOKS}/instances/{finished(kitchen, 'greet', 'you')}"

    assert kitchen.delete(url).json() == {"instancesDeleted": 1}
    assert kitchen.delete(url).status_code == 404


def test_a_running_instance_is_not_purged_by_its_id(kitchen: httpx.Client) -> None:
    url = f"{WEBHOOKS}/instances/{started(kitchen, 'waiting')}"

    refused = kitchen.delete(url)
    assert refused.status_code == 412
    assert "Only orchestrations in a terminal state can be purged" in refused.json()
    assert kitchen.get(url).status_code == 202


def test_a_purge_by_filter_needs_a_beginning_and_is_refused_where_azure_would_delete_the_running(
    kitchen: httpx.Client,
) -> None:
    running = started(kitchen, "waiting")
    failed = finished(kitchen, "failing")
    base = f"{WEBHOOKS}/instances"

    assert kitchen.delete(base).status_code == 400
    assert kitchen.delete(f"{base}?createdTimeFrom=2999-01-01T00:00:00Z").status_code == 404
    for states in ("", "&runtimeStatus=Running", "&runtimeStatus=Failed,Running"):
        refused = kitchen.delete(f"{base}?createdTimeFrom=2020-01-01T00:00:00Z{states}")
        assert (refused.status_code, "runtimeStatus" in refused.text) == (400, True)
    assert kitchen.delete(f"{base}?createdTimeFrom=yesterday&runtimeStatus=Failed").status_code == 400
    purge = kitchen.delete(f"{base}?createdTimeFrom=2020-01-01T00:00:00Z&runtimeStatus=Failed,Completed")
    assert purge.json()["instancesDeleted"] >= 1
    assert kitchen.get(f"{base}/{failed}").status_code == 404
    assert kitchen.get(f"{base}/{running}").status_code == 202


# The SDK's client, as functions use it


def test_the_sdks_client_starts_and_an_id_that_is_running_is_an_error(kitchen: httpx.Client) -> None:
    instance_id = uuid.uuid4().hex

    assert kitchen.post(f"/api/start/waiting/{instance_id}", json={"a": 1}).status_code == 202
    assert kitchen.post(f"/api/start/waiting/{instance_id}", json={"a": 1}).status_code == 500
    # As in Azure, the SDK's double encoding shows.
    assert kitchen.get(f"{WEBHOOKS}/instances/{instance_id}").json()["input"] == '{"a": 1}'


def test_the_sdks_client_can_do_all_that_it_offers(kitchen: httpx.Client) -> None:
    instance_id = uuid.uuid4().hex
    kitchen.post(f"/api/start/waiting/{instance_id}", json=1)

    for operation in ("suspend", "resume", "terminate"):
        assert kitchen.post(f"/api/client/{operation}/{instance_id}").text == "done"
    wait = f"{WEBHOOKS}/orchestrators/greet?timeout=30&pollingInterval=1"
    kitchen.post(wait, json='"flush"')
    status = kitchen.post(f"/api/client/status/{instance_id}").json()
    assert status == {"found": True, "status": "OrchestrationRuntimeStatus.Terminated"}
    assert kitchen.post(f"/api/client/restart/{instance_id}").text == "done"
    assert kitchen.post(f"/api/client/raise/{instance_id}").text == "done"
    assert kitchen.post(f"/api/client/status/{uuid.uuid4().hex}").json()["found"] is False


def test_the_sdks_client_purges(kitchen: httpx.Client) -> None:
    assert kitchen.post(f"/api/client/purge/{finished(kitchen, 'greet', 'you')}").text == "1"
    assert kitchen.post(f"/api/client/purge/{uuid.uuid4().hex}").text == "0"


def test_the_sdks_client_rewinds_a_failed_orchestration(kitchen: httpx.Client) -> None:
    assert kitchen.post(f"/api/client/rewind/{finished(kitchen, 'failing')}").text == "done"
