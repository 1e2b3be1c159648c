"""A status that has come is the result, whatever is wrong with the rest of the answer; and nothing is sent twice."""
# mypy: disable-error-code="empty-body"

import asyncio
import gzip
import socket
import time
from collections.abc import Awaitable, Callable
from typing import Annotated

import httpx
import pytest

from shared.rest import (
    ApiClient,
    ApiDecodeError,
    ApiResponse,
    ApiResponseError,
    ApiTransportError,
    Body,
    ClientOptions,
    delete,
    get,
    put,
)

from .conftest import Handler

type AnswerWith = Callable[[bytes], Awaitable[str]]
type StartServer = Callable[[Handler], Awaitable[str]]


class Api(ApiClient):
    @get("/items")
    async def get_items(self) -> ApiResponse[list[int]]: ...

    @get("/items")
    async def get_nothing(self) -> ApiResponse[None]: ...

    @put("/items")
    async def put_items(self, items: Annotated[bytes, Body()]) -> ApiResponse[None]: ...

    @delete("/items")
    async def delete_items(self) -> ApiResponse[None]: ...


async def answered(options: ClientOptions) -> ApiResponse[list[int]]:
    async with Api(options) as api:
        return await api.get_items()


BROKEN = {
    "cut body": (b"Content-Length: 100\r\n\r\n[1, 2", True),
    "cut chunk": (b"Transfer-Encoding: chunked\r\n\r\n5\r\n[1, 2", True),
    "no last chunk": (b"Transfer-Encoding: chunked\r\n\r\n5\r\n[1, 2\r\n", True),
    "bad chunk": (b"Transfer-Encoding: chunked\r\n\r\n5\r\n[1, 2\r\nnonsense\r\n", True),
    "unknown coding": (b"Content-Encoding: x-unknown\r\nContent-Length: 5\r\n\r\n[1, 2", False),
    "brotli": (b"Content-Encoding: br\r\nContent-Length: 5\r\n\r\n[1, 2", False),
    "zstandard": (b"Content-Encoding: zstd\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[1, 2\r\n0\r\n\r\n", False),
    "not gzip": (b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n[1, 2", False),
    "half of gzip": (b"Content-Encoding: gzip\r\nContent-Length: 20\r\n\r\n" + gzip.compress(b"[1]" * 99)[:20], False),
    "two lengths": (b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n[1, 2]", True),
    "no length": (b"Content-Length: five\r\n\r\n[1, 2]", True),
    "length and chunks": (b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n[1, 2]", True),
    "endless field": (b"X-Long: " + b"a" * 70_000 + b"\r\n\r\n[1, 2]", True),
    "too many fields": (b"X-Many: a\r\n" * 200 + b"\r\n[1, 2]", True),
    "NUL in a field": (b"X-Bad: a\0b\r\n\r\n[1, 2]", True),
    "space in a name": (b"X Bad: a\r\n\r\n[1, 2]", True),
    "no colon": (b"nonsense\r\n\r\n[1, 2]", True),
}


@pytest.mark.parametrize(("rest", "passing"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("at_once", [True, False])
async def test_the_status_of_an_answer_is_kept_when_the_rest_is_broken(
    start_server: StartServer, rest: bytes, passing: bool, at_once: bool
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = (await reader.readuntil(b"\r\n\r\n")).partition(b"X-Status: ")[2][:3]
        head, _, body = rest.partition(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 " + status + b" Whatever\r\nX-Request-Id: r-1\r\n" + head + b"\r\n\r\n")
        if not at_once:
            await writer.drain()
            await asyncio.sleep(0.005)  # so that the body comes in a piece of its own
        writer.write(body)

    url = await start_server(handler)
    stored = await answered(ClientOptions(base_url=url, headers={"X-Status": "201"}))
    assert (type(stored.error), stored.status, stored.request_id) == (ApiDecodeError, 201, "r-1")
    assert stored.error is not None
    assert (stored.error.retryable, stored.error.sent) == (passing, True)
    refused = await answered(ClientOptions(base_url=url, headers={"X-Status": "409"}))
    assert (type(refused.error), refused.status, refused.request_id) == (ApiResponseError, 409, "r-1")
    assert refused.error is not None
    assert refused.error.reason == "409 Conflict"


@pytest.mark.parametrize("name", ["cut body", "no last chunk", "bad chunk", "unknown coding"])
async def test_an_error_has_the_body_as_far_as_it_came(answer_with: AnswerWith, name: str) -> None:
    for status in (b"200 OK", b"404 Not Found"):
        error = (await answered(ClientOptions(base_url=await answer_with(head(status) + BROKEN[name][0])))).error
        assert error is not None
        assert error.body == b"[1, 2"


def head(status: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\n"


async def test_a_broken_body_that_nobody_wants_is_no_error(answer_with: AnswerWith) -> None:
    for rest, _ in BROKEN.values():
        async with Api(await answer_with(head(b"204 No Content") + rest)) as api:
            assert (await api.get_nothing()).error is None


async def test_more_than_the_body_is_left_alone(answer_with: AnswerWith) -> None:
    url = await answer_with(head(b"200 OK") + b"Content-Length: 3\r\n\r\n[1] and more")
    assert (await answered(ClientOptions(base_url=url))).unwrap() == [1]


async def test_long_fields_are_read(answer_with: AnswerWith) -> None:
    url = await answer_with(head(b"200 OK") + b"X-Long: " + b"a" * 60_000 + b"\r\nContent-Length: 2\r\n\r\n[]")
    response = await answered(ClientOptions(base_url=url))
    assert (response.unwrap(), len(response.headers["X-Long"])) == ([], 60_000)


async def test_interim_answers_are_not_taken_for_the_answer(answer_with: AnswerWith) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    for rest in (b"Content-Length: nonsense\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n"):
        response = await answered(ClientOptions(base_url=await answer_with(hints * 2 + head(b"201 Created") + rest)))
        assert (response.status, type(response.error)) == (201, ApiDecodeError)


async def test_an_answer_after_an_interim_one_that_came_alone_keeps_its_status(start_server: StartServer) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await asyncio.sleep(0.005)
        writer.write(head(b"201 Created") + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n")

    response = await answered(ClientOptions(base_url=await start_server(handler)))
    assert (response.status, type(response.error)) == (201, ApiDecodeError)


async def test_interim_answers_without_an_answer_cost_no_time(answer_with: AnswerWith) -> None:
    async with Api(await answer_with(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 500 + b"HTTP/1.1 20x\r\n\r\n")) as api:
        began = time.process_time()
        with pytest.raises(ApiTransportError):
            await api.get_items()
        assert time.process_time() - began < 2


async def test_fields_of_a_head_that_is_not_http_are_read_as_far_as_they_can_be(answer_with: AnswerWith) -> None:
    fields = b"Retry-After: 7\r\nBad\0: x\r\nno colon\r\nX-Empty:\r\nLast: \xe9 \x1b\r\nLocation: /a\r\n\r\n"
    response = await answered(ClientOptions(base_url=await answer_with(head(b"503 Busy") + fields)))
    assert response.headers.multi_items() == [("retry-after", "7"), ("x-empty", ""), ("location", "/a")]
    assert response.error is not None
    assert response.error.retry_after == 7


CUTS = {
    "after the line": b"",
    "in a name": b"Retry-Af",
    "in a value": b"Retry-After: 7\r\nX-Half: val",
    "before the blank line": b"Retry-After: 7\r\n",
    "in the blank line": b"Retry-After: 7\r\n\r",
}


@pytest.mark.parametrize("end", ["closed", "reset", "silent"])
@pytest.mark.parametrize("interim", [b"", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"], ids=["", "interim"])
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS)
async def test_the_status_of_a_head_that_breaks_off_is_kept(
    start_server: StartServer, cut: bytes, interim: bytes, end: str
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        status = (await reader.readuntil(b"\r\n\r\n")).partition(b"X-Status: ")[2][:3]
        writer.write(interim + head(status + b" Whatever") + cut)
        if end == "silent":
            await reader.read()
        elif end == "reset":
            socket_of = writer.transport.get_extra_info("socket")
            socket_of.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await asyncio.sleep(0)  # the client reads the head
            writer.transport.abort()

    url, timeout = await start_server(handler), httpx.Timeout(5.0, read=0.05 if end == "silent" else 5.0)
    stored = await answered(ClientOptions(base_url=url, headers={"X-Status": "201"}, timeout=timeout))
    assert (type(stored.error), stored.status) == (ApiDecodeError, 201)
    assert stored.error is not None
    assert (stored.error.retryable, stored.error.body) == (True, b"")
    assert stored.error.reason.partition(":")[0] in {"RemoteProtocolError", "ReadError", "ReadTimeout"}
    refused = await answered(ClientOptions(base_url=url, headers={"X-Status": "503"}, timeout=timeout))
    assert (type(refused.error), refused.status) == (ApiResponseError, 503)
    assert (refused.error and refused.error.retry_after) == (7 if b"7\r\n" in cut else None)


async def test_silence_after_an_interim_answer_is_a_read_time_out(start_server: StartServer) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        await reader.read()

    options = ClientOptions(base_url=await start_server(handler), timeout=httpx.Timeout(5.0, read=0.05), deadline=2.0)
    with pytest.raises(ApiTransportError, match="ReadTimeout"):
        await answered(options)


async def test_a_status_line_that_nobody_can_read_is_a_transport_error(answer_with: AnswerWith) -> None:
    for line in (b"HTTP/1.1 20x OK\r\n\r\n", b"HTTP/1.1 200 OK", b"200 OK\r\n\r\n"):
        async with Api(await answer_with(line)) as api:
            with pytest.raises(ApiTransportError) as caught:
                await api.get_items()
        assert caught.value.sent


async def test_a_reset_in_the_body_leaves_the_status(start_server: StartServer) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(b"200 OK") + b"Content-Length: 100\r\n\r\n[1, 2")
        await writer.drain()
        writer.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        writer.transport.abort()

    error = (await answered(ClientOptions(base_url=await start_server(handler)))).error
    assert (type(error), error and error.status, error and error.retryable) == (ApiDecodeError, 200, True)


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"timeout": httpx.Timeout(5.0, read=0.05)}, "ReadTimeout: no data in time"),
        ({"deadline": 0.2}, "no complete answer within 0.2 s"),
    ],
)
async def test_a_body_that_does_not_come_in_time_leaves_the_status(
    start_server: StartServer, status: int, options: dict[str, float], reason: str
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(b"%d Whatever" % status) + b"Content-Length: 100\r\n\r\n[1, 2")
        await reader.read()

    url = await start_server(handler)
    response = await answered(ClientOptions(base_url=url, limits=httpx.Limits(max_connections=1), **options))  # type: ignore[arg-type]
    assert (response.status, response.error and response.error.body) == (status, b"[1, 2")
    assert response.error is not None
    if status == 200:
        assert (type(response.error), response.error.reason, response.error.retryable) == (ApiDecodeError, reason, True)
    else:
        assert (type(response.error), response.error.reason) == (ApiResponseError, "422 Unprocessable Entity")


async def test_data_that_is_no_body_is_noticed_at_once(start_server: StartServer) -> None:
    """aiohttp alone would wait for the rest of the body, without end."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(b"200 OK") + b"Transfer-Encoding: chunked\r\n\r\n1\r\n[\r\n")
        await asyncio.sleep(0.005)
        writer.write(b"nonsense\r\n")
        await reader.read()

    error = (await answered(ClientOptions(base_url=await start_server(handler), deadline=5.0))).error
    assert error is not None
    assert (error.reason, error.body) == ("RemoteProtocolError: the answer is not HTTP", b"[")


async def test_a_head_that_comes_byte_by_byte_is_read(start_server: StartServer) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readuntil(b"\r\n\r\n"):
            for byte in head(b"200 OK") + b"Content-Length: 3\r\n\r\n[1]":
                writer.write(bytes([byte]))
                await asyncio.sleep(0)

    async with Api(await start_server(handler)) as api:
        for _ in range(2):
            assert (await api.get_items()).unwrap() == [1]


async def broken_keeper(start_server: StartServer, requests: list[bytes]) -> str:
    """A server that keeps each connection after its first answer, and breaks it upon the second request."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(head(b"204 No Content") + b"\r\n")
        requests.append(await reader.readuntil(b"\r\n\r\n"))

    return await start_server(handler)


async def test_a_request_that_changes_something_is_sent_once(start_server: StartServer) -> None:
    requests: list[bytes] = []
    for sends_body in (True, False):
        requests.clear()
        async with Api(await broken_keeper(start_server, requests)) as api:
            await api.get_nothing()
            with pytest.raises(ApiTransportError, match="without an answer") as caught:
                await (api.put_items(b"x") if sends_body else api.delete_items())
        assert (len(requests), caught.value.sent, caught.value.retryable) == (2, True, True)


async def test_a_request_that_changes_nothing_is_sent_again_when_a_kept_connection_breaks(
    start_server: StartServer,
) -> None:
    requests: list[bytes] = []
    async with Api(await broken_keeper(start_server, requests)) as api:
        for _ in range(2):
            assert (await api.get_nothing()).status == 204
    assert len(requests) == 3


async def test_error_documents_are_read_to_a_bound_and_the_connection_is_closed(start_server: StartServer) -> None:
    document = b'{"title": "Full", "status": 507, "errors": ["' + b"x" * 1_000_000 + b'"]}'
    finished, cut, all_closed = 0, 0, asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal finished, cut
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head(b"507 Full") + b"Content-Type: application/problem+json\r\nContent-Length: 50000000\r\n\r\n")
        try:
            for _ in range(50):
                writer.write(document)
                await writer.drain()
            finished += 1
        except ConnectionError:
            cut += 1
        if finished + cut == 200:
            all_closed.set()

    async with Api(await start_server(handler)) as api:
        errors = [response.error for response in await asyncio.gather(*(api.get_items() for _ in range(200)))]
    await all_closed.wait()
    assert {len(error.body) for error in errors if error is not None} == {65536}
    assert {error.problem.title for error in errors if error is not None and error.problem is not None} == {"Full"}
    assert (finished, cut) == (0, 200)


async def test_a_problem_that_breaks_off_is_read_as_far_as_it_goes(answer_with: AnswerWith) -> None:
    fields = b"Content-Type: application/problem+json\r\nContent-Length: 500\r\n\r\n"
    url = await answer_with(head(b"422 No") + fields + b'{"title": "Bad", "status": 422, "detail": "name is')
    error = (await answered(ClientOptions(base_url=url))).error
    assert error is not None
    assert error.problem is not None
    assert (error.problem.title, error.problem.detail) == ("Bad", "name is")
