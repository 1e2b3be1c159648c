"""Instances are looked up through the durable extension's HTTP API: all of them, and no more of each than is needed."""

import json
from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest
from azure.durable_functions import DurableOrchestrationClient

from shared.delivery.results import write_json
from shared.functions.answers import durable_client
from shared.operations.durable_http import DurableHttpApi, DurableHttpClient, RuntimeStatus, durable_http_api
from shared.operations.problems import TaskHubError, as_request_error
from shared.operations.requests import MAX_BATCH_BYTES
from shared.operations.status import is_operation
from shared.rest import ClientOptions

URL = "http://127.0.0.1:17071/durabletask/"
SDK_CLIENT = DurableOrchestrationClient(
    json.dumps({"taskHubName": "hub", "creationUrls": {}, "managementUrls": {}, "rpcBaseUrl": URL})
)
SINCE, UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
INSTANCE = {
    "name": "PostBusinessOrchestrator",
    "instanceId": "abc",
    "runtimeStatus": "Running",
    "input": None,
    "customStatus": {"attempt": 1},
    "output": None,
    "createdTime": "2026-01-01T00:00:00Z",
    "lastUpdatedTime": "2026-01-01T00:00:01Z",
}


def client_of(answer: Callable[[httpx.Request], httpx.Response]) -> DurableHttpClient:
    """A client of an extension that answers so."""
    options = ClientOptions(base_url=URL, transport=lambda: httpx.MockTransport(answer))
    return DurableHttpClient(SDK_CLIENT, DurableHttpApi(options))


@pytest.mark.parametrize("show_input", [False, True])
async def test_a_look_up_says_whether_it_wants_the_input(show_input: bool) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == f"{URL}instances/abc?showInput={str(show_input).lower()}"
        return httpx.Response(202, json=INSTANCE | {"input": "{}" if show_input else None})

    status = await client_of(answer).get_status("abc", show_input=show_input)
    assert is_operation(status)
    assert (status.instance_id, status.runtime_status.name, status.input_) == (
        "abc",
        "Running",
        "{}" if show_input else None,
    )
    assert (status.created_time, status.custom_status) == (SINCE, {"attempt": 1})


async def test_a_look_up_brings_the_history_with_its_results_if_it_is_wanted() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert dict(request.url.params) == {"showInput": "true", "showHistory": "true", "showHistoryOutput": "true"}
        return httpx.Response(200, json=INSTANCE | {"historyEvents": [{"EventType": "ExecutionStarted"}]})

    shown = {"show_input": True, "show_history": True, "show_history_output": True}
    status = await client_of(answer).get_status("abc", **shown)
    assert status.history == [{"EventType": "ExecutionStarted"}]


@pytest.mark.parametrize("text", ['"', "\\", "\n", "\x7f", "é", "漢", "\N{GRINNING FACE}"])
def test_an_instance_with_the_largest_batch_can_be_looked_up_whatever_is_in_its_records(text: str) -> None:
    """The engine tells an input as JSON in JSON, and in the history as JSON in that once more."""
    share = 100
    record = write_json({"text": text * (MAX_BATCH_BYTES // share // len(write_json(text).encode()[1:-1]))})
    told = json.dumps(json.dumps({"records": record}))
    told_size = (len(told) + len(json.dumps(told)) + len(json.dumps({"results": "r" * (2_000_000 // share)}))) * share
    assert told_size < durable_http_api(URL)._options().max_response_size


async def test_an_instance_that_is_not_there_is_false() -> None:
    assert not await client_of(lambda _: httpx.Response(404)).get_status("abc")


class Paged:
    """An extension whose pages are as short as those of Azure's storage may be, and partly empty."""

    def __init__(self, *pages: int) -> None:
        self.pages = pages
        self.requests: list[httpx.Request] = []

    def answer(self, request: httpx.Request) -> httpx.Response:
        number = len(self.requests)
        assert request.headers.get("x-ms-continuation-token") == (f"t{number}" if number else None)
        self.requests.append(request)
        token = f"t{number + 1} " if number + 1 < len(self.pages) else ""
        instances = [INSTANCE | {"instanceId": f"{number}-{index}"} for index in range(self.pages[number])]
        return httpx.Response(200, json=instances, headers={"x-ms-continuation-token": token})


async def test_all_pages_are_read_though_some_are_empty() -> None:
    extension = Paged(2, 0, 1, 0)
    pages = client_of(extension.answer).pages(1000)
    assert [[status.instance_id for status in page] async for page in pages] == [["0-0", "0-1"], [], ["2-0"], []]
    queries = [dict(request.url.params) for request in extension.requests]
    expected = {
        "showInput": "false",
        "createdTimeFrom": "2000-01-01T00:00:00.000000Z",  # else the engine would send the inputs
    }
    assert [int(query.pop("top")) for query in queries] == [1000, 998, 998, 997]
    assert queries == [expected] * 4


async def test_a_page_is_asked_for_when_it_is_wanted_and_no_larger_than_that() -> None:
    extension = Paged(2, 0, 2, 0, 9)
    statuses = [RuntimeStatus.Running, RuntimeStatus.Pending]
    pages = client_of(extension.answer).pages(4, SINCE, UNTIL, statuses)
    for number, (count, top) in enumerate([(2, 4), (0, 2), (2, 2), (0, 1000)]):
        assert len(await anext(pages)) == count
        assert len(extension.requests) == number + 1
        assert dict(extension.requests[-1].url.params) == {
            "showInput": "false",
            "top": str(top),
            "createdTimeFrom": "2026-01-01T00:00:00.000000Z",
            "createdTimeTo": "2026-01-02T03:04:05.600000Z",
            "runtimeStatus": "Running,Pending",
        }
    await pages.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, json={"Message": "Something went wrong"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"no": "list", "runtimeStatus": 5}),
    ],
)
async def test_an_extension_that_cannot_answer_makes_a_503(answer: httpx.Response) -> None:
    client = client_of(lambda _: answer)
    for asked in (client.get_status("abc"), anext(client.pages(1))):
        with pytest.raises(TaskHubError) as raised:
            await asked
        refusal = as_request_error(raised.value)
        assert (refusal.status, "durable state" in str(refusal)) == (503, True)


def test_the_sdk_still_keeps_the_url_where_it_is_looked_for() -> None:
    assert durable_client(SDK_CLIENT)._api._options().base_url == URL
