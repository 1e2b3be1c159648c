"""When options are read, when connections open, and when they close."""
# mypy: disable-error-code="empty-body"

import asyncio
import gc
import threading
import weakref

import httpx
import pytest

from shared.rest import ApiClient, ClientOptions, get

from .echo import Told


class EchoApi(ApiClient):
    @get("/")
    async def get_root(self) -> Told: ...


class Transport(httpx.AsyncBaseTransport):
    """Answers with an empty 200 and counts how often it was closed."""

    def __init__(self) -> None:
        self.closed = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        document = {"method": "GET", "target": "/", "headers": [], "body": ""}
        return httpx.Response(200, json=document, request=request)

    async def aclose(self) -> None:
        self.closed += 1


class Transports:
    """Makes transports and keeps them."""

    def __init__(self) -> None:
        self.made: list[Transport] = []

    def __call__(self) -> Transport:
        self.made.append(Transport())
        return self.made[-1]

    def options(self) -> ClientOptions:
        return ClientOptions(base_url="http://api.example", transport=self)


@pytest.fixture
def transports() -> Transports:
    return Transports()


async def test_options_are_asked_for_at_the_first_call_and_only_once(transports: Transports) -> None:
    asked = 0

    def options() -> ClientOptions:
        nonlocal asked
        asked += 1
        return transports.options()

    api = EchoApi(options)
    assert asked == 0
    await api.get_root()
    await api.with_options(timeout=1.0).get_root()
    assert asked == 1


async def test_options_are_asked_for_again_after_they_failed(echo: str) -> None:
    base_urls = [echo, ""]
    api = EchoApi(lambda: ClientOptions(base_url=base_urls.pop()))
    with pytest.raises(ValueError, match="base_url: expected an absolute URL"):
        await api.get_root()
    async with api:
        assert (await api.get_root()).method == "GET"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/v1",
        "example.com",
        "ftp://example.com",
        "http://",
        "http://a:b",
        "https://u:p@a/",
        "https://a/?b",
        "https://a/#b",
    ],
)
def test_a_base_url_that_cannot_work_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="base_url: expected"):
        ClientOptions(base_url=url)


def test_options_do_not_show_secrets() -> None:
    options = ClientOptions(
        base_url="https://a.example",
        auth=httpx.BasicAuth("u", "secret"),
        headers={"Api-Key": "secret"},
        proxy="http://u:secret@p",
    )
    assert "secret" not in repr(options)


def test_two_event_loops_at_once_have_connections_of_their_own(transports: Transports) -> None:
    api = EchoApi(transports.options())
    barrier = threading.Barrier(2)

    async def call() -> None:
        await api.get_root()
        await asyncio.to_thread(barrier.wait)
        await api.get_root()

    threads = [threading.Thread(target=asyncio.run, args=(call(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [transport.closed for transport in transports.made] == [1, 1]


async def test_concurrent_first_calls_open_one_transport(transports: Transports) -> None:
    api = EchoApi(transports.options())
    await asyncio.gather(*(api.get_root() for _ in range(10)))
    assert len(transports.made) == 1
    await api.aclose()


def test_the_end_of_a_loop_closes_its_connections_and_the_next_loop_opens_new_ones(echo: str) -> None:
    api = EchoApi(echo)

    async def call() -> str:
        return (await api.get_root()).method

    assert [asyncio.run(call()) for _ in range(3)] == ["GET"] * 3


def test_no_closed_loop_is_kept_alive(transports: Transports) -> None:
    api = EchoApi(transports.options())

    async def call() -> weakref.ref[asyncio.AbstractEventLoop]:
        await api.get_root()
        return weakref.ref(asyncio.get_running_loop())

    loop = asyncio.run(call())
    gc.collect()
    assert loop() is None


def test_a_loop_that_was_closed_without_a_shutdown_is_dropped_at_the_next_call(transports: Transports) -> None:
    api = EchoApi(transports.options())
    abandoned = asyncio.new_event_loop()
    abandoned.run_until_complete(api.get_root())
    abandoned.close()
    asyncio.run(api.get_root())
    dropped = weakref.ref(abandoned)
    del abandoned
    gc.collect()
    assert dropped() is None


async def test_a_forgotten_client_closes_its_connections(transports: Transports) -> None:
    await EchoApi(transports.options()).get_root()
    gc.collect()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert transports.made[0].closed == 1


async def test_a_closed_client_opens_again(transports: Transports) -> None:
    async with EchoApi(transports.options()) as api:
        await api.get_root()
    await api.aclose()
    assert [transport.closed for transport in transports.made] == [1]
    await api.get_root()
    assert [transport.closed for transport in transports.made] == [1, 0]
    await api.aclose()


async def test_a_client_with_other_options_shares_the_connections(transports: Transports) -> None:
    async with EchoApi(transports.options()) as api:
        await api.get_root()
        await api.with_options(timeout=1.0).get_root()
    assert [transport.closed for transport in transports.made] == [1]
