"""How responses become results: what each return annotation makes of each answer."""
# mypy: disable-error-code="empty-body"

import asyncio
import gzip
import time
import zlib
from collections.abc import Awaitable, Callable

import httpx
import pytest
from pydantic import BaseModel

from shared.rest import ApiClient, ApiDecodeError, ApiResponse, ApiResponseError, ClientOptions, get, head

type AnswerWith = Callable[[bytes], Awaitable[str]]


class Item(BaseModel):
    name: str
    count: int = 0


type ItemResponse = ApiResponse[Item]


class Items(ApiClient):
    @get("/item")
    async def get_response(self) -> ApiResponse[Item]: ...

    @get("/item")
    async def get_item(self) -> Item: ...

    @get("/item")
    async def get_optional(self) -> Item | None: ...

    @get("/item")
    async def get_optional_response(self) -> ApiResponse[Item | None]: ...

    @get("/item")
    async def get_list(self) -> list[Item]: ...

    @get("/item")
    async def get_aliased(self) -> ItemResponse: ...

    @get("/item")
    async def get_nothing(self) -> None: ...

    @get("/item")
    async def get_bytes(self) -> bytes: ...

    @get("/item")
    async def get_text(self) -> str: ...

    @get("/item")
    async def get_text_response(self) -> ApiResponse[str]: ...

    @head("/item")
    async def has_item(self) -> None: ...


def answer(
    body: bytes = b"", *, status: str = "200 OK", content_type: str = "application/json", headers: tuple[str, ...] = ()
) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", "Connection: close", *headers]
    lines += [f"Content-Type: {content_type}"] if content_type else []
    return "\r\n".join([*lines, "", ""]).encode() + body


ITEM = b'{"name": "a", "count": 2}'


async def test_a_response_tells_status_headers_content_and_request_id(answer_with: AnswerWith) -> None:
    headers = ("X-Request-Id: r-1", "Link: <a>", "Link: <b>")
    async with Items(await answer_with(answer(ITEM, status="203 Other", headers=headers))) as api:
        response = await api.get_response()
    assert (response.status, response.content, response.error) == (203, Item(name="a", count=2), None)
    assert response.request_id == "r-1"
    assert response.headers.get_list("link") == ["<a>", "<b>"]
    assert response.unwrap() is response.content


async def test_each_return_type_gets_its_content(answer_with: AnswerWith) -> None:
    async with Items(await answer_with(answer(ITEM))) as api:
        assert await api.get_item() == await api.get_optional() == Item(name="a", count=2)
        assert (await api.get_aliased()).unwrap() == Item(name="a", count=2)
        assert await api.get_bytes() == ITEM
        assert await api.get_text() == ITEM.decode()
        await api.get_nothing()
    async with Items(await answer_with(answer(b"[" + ITEM + b"]"))) as api:
        assert await api.get_list() == [Item(name="a", count=2)]


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "application/vnd.api+json", "TEXT/JSON", "application/hal+json", ""],
)
async def test_all_kinds_of_json_are_json_and_so_is_an_unnamed_one(answer_with: AnswerWith, content_type: str) -> None:
    async with Items(await answer_with(answer(ITEM, content_type=content_type))) as api:
        assert (await api.get_item()).name == "a"


@pytest.mark.parametrize("status", ["200 OK", "204 No Content"])
async def test_an_empty_answer_is_none_where_that_is_allowed(answer_with: AnswerWith, status: str) -> None:
    async with Items(await answer_with(answer(status=status))) as api:
        assert await api.get_optional() is None
        response = await api.get_optional_response()
        assert (response.unwrap(), response.error) == (None, None)
        assert await api.get_bytes() == b""
        with pytest.raises(ApiDecodeError, match="expected JSON, the body is empty"):
            await api.get_item()


async def test_a_byte_order_mark_before_json_is_ignored(answer_with: AnswerWith) -> None:
    async with Items(await answer_with(answer(b"\xef\xbb\xbf" + ITEM))) as api:
        assert (await api.get_item()).name == "a"
    async with Items(await answer_with(answer(b"\xef\xbb\xbf"))) as api:
        assert await api.get_optional() is None


@pytest.mark.parametrize("charset", ["undefined", "a\0b", "idna", "rot13", "\x1b"])
async def test_text_in_an_encoding_that_is_none_is_a_decode_error(answer_with: AnswerWith, charset: str) -> None:
    def respond(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"Content-Type": f"text/plain; charset={charset}"}, content=b"\xe9..")

    async with Items(ClientOptions(base_url="http://a", transport=lambda: httpx.MockTransport(respond))) as api:
        assert isinstance((await api.get_text_response()).error, ApiDecodeError)


async def test_null_is_none(answer_with: AnswerWith) -> None:
    async with Items(await answer_with(answer(b"null"))) as api:
        assert await api.get_optional() is None


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        (answer(b"<p>secret</p>", content_type="text/html"), "expected JSON, got text/html"),
        (answer(b'{"name": "secret'), "Invalid JSON"),
        (answer(b'{"name": 1, "count": "secret"}'), "name: Input should be a valid string; count: Input should be"),
        (answer(b"[]"), "Input should be an object"),
    ],
)
async def test_an_answer_that_is_not_what_was_promised_is_a_decode_error(
    answer_with: AnswerWith, response: bytes, reason: str
) -> None:
    async with Items(await answer_with(response)) as api:
        error = (await api.get_response()).error
        with pytest.raises(ApiDecodeError) as caught:
            await api.get_item()
    assert isinstance(error, ApiDecodeError)
    assert str(error) == str(caught.value)
    assert reason in error.reason
    assert (error.status, error.retryable, "secret" in str(error)) == (200, False, False)
    assert caught.value.__cause__ is None


async def test_text_is_read_in_the_encoding_that_it_names(answer_with: AnswerWith) -> None:
    async with Items(await answer_with(answer(b"\xe9", content_type="text/plain; charset=latin-1"))) as api:
        assert await api.get_text() == "é"
    for content_type in ("text/plain", "text/plain; charset=unknown"):
        async with Items(await answer_with(answer(b"\xe9", content_type=content_type))) as api:
            error = (await api.get_text_response()).error
        assert error is not None
        assert error.reason == "the body is not text in the encoding that it names"


@pytest.mark.parametrize(("encoding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body_is_decompressed(
    answer_with: AnswerWith, encoding: str, compress: Callable[[bytes], bytes]
) -> None:
    response = answer(compress(ITEM), headers=(f"Content-Encoding: {encoding}",))
    async with Items(await answer_with(response)) as api:
        assert await api.get_item() == Item(name="a", count=2)


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(ITEM[:5]) + gzip.compress(ITEM[5:]),
        gzip.compress(ITEM + b" " * 5_000_000),
        zlib.compress(ITEM)[2:-4],
        zlib.compress(ITEM, wbits=9),
    ],
    ids=["two members", "large", "without header", "small window"],
)
async def test_all_kinds_of_compressed_bodies_are_decompressed(answer_with: AnswerWith, body: bytes) -> None:
    coding = "gzip" if body[:2] == b"\x1f\x8b" else "Deflate"
    async with Items(await answer_with(answer(body, headers=(f"Content-Encoding: identity, {coding}",)))) as api:
        assert await api.get_item() == Item(name="a", count=2)


async def test_a_body_that_is_not_compressed_as_it_says_is_a_decode_error(answer_with: AnswerWith) -> None:
    async with Items(await answer_with(answer(ITEM, headers=("Content-Encoding: gzip",)))) as api:
        with pytest.raises(ApiDecodeError, match="not compressed as its Content-Encoding says"):
            await api.get_item()


async def test_a_body_of_ten_megabytes_is_read(answer_with: AnswerWith) -> None:
    body = b'{"name": "' + b"a" * 10_000_000 + b'"}'
    async with Items(await answer_with(answer(body))) as api:
        assert len((await api.get_item()).name) == 10_000_000


@pytest.mark.parametrize("compressed", [False, True])
async def test_a_body_over_the_limit_is_refused_before_it_is_read_to_its_end(
    answer_with: AnswerWith, compressed: bool
) -> None:
    body = b'"' + b"a" * 5_000_000 + b'"'
    response = answer(gzip.compress(body), headers=("Content-Encoding: gzip",)) if compressed else answer(body)
    async with Items(ClientOptions(base_url=await answer_with(response), max_response_size=1000)) as api:
        with pytest.raises(ApiDecodeError, match="the body exceeds 1000 bytes") as caught:
            await api.get_item()
        assert caught.value.body == body[:1000]
        await api.get_nothing()


ENDLESS = {
    "empty deflate": ("deflate", b"", b"\3\0" * 2**15),
    "empty members": ("gzip", b"", gzip.compress(b"") * 2**11),
    "empty blocks": ("deflate", b"", b"\0\0\0\xff\xff" * 2**13),
    "empty blocks of gzip": ("gzip", gzip.compress(b"")[:10], b"\0\0\0\xff\xff" * 2**13),
}


@pytest.mark.parametrize(("coding", "beginning", "piece"), ENDLESS.values(), ids=ENDLESS)
async def test_compressed_nothing_without_end_is_refused(
    start_server: Callable[..., Awaitable[str]], coding: str, beginning: bytes, piece: bytes
) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: ")
        writer.write(coding.encode() + b"\r\n\r\n" + beginning)
        while True:
            writer.write(piece)
            await writer.drain()

    began = time.process_time()
    options = ClientOptions(base_url=await start_server(handler), max_response_size=2**20)
    async with Items(options) as api:
        with pytest.raises(ApiDecodeError, match=r"the body exceeds 1048576 bytes before|more than 1000 members"):
            await api.get_item()
    assert time.process_time() - began < 2


async def test_a_body_of_several_members_is_read(answer_with: AnswerWith) -> None:
    body = b'{"name": "' + b"a" * 500_000 + b'"}'
    members = b"".join(gzip.compress(body[start : start + 1000]) for start in range(0, len(body), 1000))
    async with Items(await answer_with(answer(members, headers=("Content-Encoding: gzip",)))) as api:
        assert len((await api.get_item()).name) == 500_000


async def test_a_body_that_compression_makes_longer_may_have_as_many_bytes_as_the_limit(
    answer_with: AnswerWith,
) -> None:
    body = b'{"name":"a"}'
    compressed = answer(gzip.compress(body), headers=("Content-Encoding: gzip",))
    async with Items(ClientOptions(base_url=await answer_with(compressed), max_response_size=len(body))) as api:
        assert (await api.get_item()).name == "a"


async def test_an_error_with_a_body_over_the_limit_is_still_that_error(answer_with: AnswerWith) -> None:
    response = answer(b"x" * 5_000_000, status="500 Broken")
    async with Items(ClientOptions(base_url=await answer_with(response), max_response_size=100)) as api:
        with pytest.raises(ApiResponseError) as caught:
            await api.get_item()
    assert (caught.value.status, caught.value.body) == (500, b"x" * 100)


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
async def test_a_redirect_is_not_followed(answer_with: AnswerWith, status: int) -> None:
    response = answer(status=f"{status} Elsewhere", headers=("Location: /other",))
    async with Items(await answer_with(response)) as api:
        with pytest.raises(ApiResponseError) as caught:
            await api.get_item()
    assert (caught.value.status, caught.value.headers["Location"]) == (status, "/other")


async def test_a_204_with_a_body_does_not_spoil_the_next_call(start_server: Callable[..., Awaitable[str]]) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nHTTP")
        await reader.readuntil(b"\r\n\r\n")

    async with Items(await start_server(handler)) as api:
        assert await api.get_optional() is None
        assert await api.get_optional() is None


async def test_the_length_that_a_response_to_head_names_is_not_waited_for(answer_with: AnswerWith) -> None:
    async with Items(await answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 400\r\n\r\n")) as api:
        await api.has_item()


async def test_cookies_are_not_kept(start_server: Callable[..., Awaitable[str]]) -> None:
    requests = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")

    url = (await start_server(handler)).replace("127.0.0.1", "localhost")  # a jar would not take cookies of addresses
    async with Items(url) as api:
        await api.get_nothing()
        await api.get_nothing()
    assert len(requests) == 2
    assert b"Cookie" not in requests[1]
