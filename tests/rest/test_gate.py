"""The client asks its gate before each request, and tells it what came of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from shared.rest import (
    ApiClient,
    ApiPausedError,
    ApiResponse,
    ApiTimeoutError,
    ApiTransportError,
    ClientOptions,
    GateClosedError,
    post,
)


class Things(ApiClient):
    @post("/things")
    async def post_thing(self, *, name: str = "a") -> ApiResponse[None]: ...  # type: ignore[empty-body]


class Recorder:
    """A gate that notes what it is told.

    Args:
        waits: Seconds before a request is admitted.
        closed: Raised in place of that.
    """

    def __init__(self, waits: float = 0.0, closed: GateClosedError | None = None) -> None:
        self.waits = waits
        self.closed = closed
        self.asked: list[httpx.Request] = []
        self.told: list[object] = []

    @asynccontextmanager
    async def admitted(self, request: httpx.Request) -> AsyncIterator[Callable[[httpx.Response], None]]:
        self.asked.append(request)
        if self.closed is not None:
            raise self.closed
        await asyncio.sleep(self.waits)
        try:
            yield lambda response: self.told.append(response.status_code)
        except BaseException as error:
            self.told.append(type(error))
            raise


def things(gate: Recorder, answer: Callable[[httpx.Request], httpx.Response], **options: float) -> Things:
    transport = httpx.MockTransport(answer)
    return Things(ClientOptions(base_url="https://api.example", gate=gate, transport=lambda: transport, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize("status", [201, 404, 429, 503])
async def test_the_gate_is_told_each_answer(status: int) -> None:
    gate = Recorder()
    answer = await things(gate, lambda _: httpx.Response(status)).post_thing()
    assert (answer.status, gate.told) == (status, [status])


async def test_the_gate_learns_of_calls_without_an_answer() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("no")

    gate = Recorder()
    with pytest.raises(ApiTransportError):
        await things(gate, refuse).post_thing()
    assert gate.told == [ApiTransportError]


async def test_a_request_that_the_gate_does_not_admit_is_not_sent() -> None:
    sent = []
    gate = Recorder(closed=GateClosedError(7.5, "the API is down"))
    with pytest.raises(ApiPausedError) as raised:
        await things(gate, lambda request: sent.append(request) or httpx.Response(201)).post_thing(name="secret")  # type: ignore[func-returns-value]
    error = raised.value
    assert (error.sent, error.retryable, error.retry_after, error.status) == (False, True, 7.5, None)
    assert str(error) == "POST https://api.example/things?name=***: the API is down; worth trying again in 8 s"
    assert sent == []


async def test_waiting_at_the_gate_costs_nothing_of_the_deadline() -> None:
    answer = await things(Recorder(waits=0.1), lambda _: httpx.Response(201), deadline=0.05).post_thing()
    assert answer.status == 201


async def test_the_gate_learns_that_the_deadline_has_passed() -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(10)
        return httpx.Response(201)

    gate = Recorder()
    with pytest.raises(ApiTimeoutError):
        await things(gate, hang, deadline=0.05).post_thing()  # type: ignore[arg-type]
    assert gate.told == [ApiTimeoutError]


async def test_extensions_of_a_call_reach_the_gate() -> None:
    gate = Recorder()
    await things(gate, lambda _: httpx.Response(201)).with_options(extensions={"begin_by": 5.0}).post_thing()
    assert gate.asked[0].extensions["begin_by"] == 5.0
