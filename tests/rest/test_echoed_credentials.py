"""Credentials that an API echoes do not come out of the client, in whichever form it writes them."""
# mypy: disable-error-code="empty-body"

import asyncio
import html
import json
import time
import traceback
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.rest import ApiClient, ApiResponse, ApiTransportError, ClientOptions, get
from shared.rest.credentials import Credentials

TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJhIjoi/+_~.c2lnbmF0dXJl-ab=="

FORMS: dict[str, Callable[[str], str]] = {
    "raw": str,
    "solidus": lambda token: token.replace("/", "\\/"),
    "twice in JSON": lambda token: token.replace("/", "\\\\/").replace("+", "\\\\u002b"),
    "escaped": lambda token: "".join(c if c.isalnum() else f"\\u{ord(c):04x}" for c in token),
    "ESCAPED": lambda token: "".join(c if c.isalnum() else f"\\u{ord(c):04X}" for c in token),
    "percent": lambda token: quote(token, safe=""),
    "lower percent": lambda token: "".join(c if c.isalnum() else f"%{ord(c):02x}" for c in token),
    "twice percent": lambda token: quote(quote(token, safe=""), safe=""),
    "decimal": lambda token: "".join(c if c.isalnum() else f"&#{ord(c)};" for c in token),
    "hexadecimal": lambda token: "".join(c if c.isalnum() else f"&#x{ord(c):X};" for c in token),
    "decimal in JSON": lambda token: "".join(c if c.isalnum() else f"\\u0026#{ord(c)};" for c in token),
    "letters escaped": lambda token: "".join(f"\\u{ord(c):04x}" for c in token),
    "letters percent": lambda token: "".join(f"%{ord(c):02X}" for c in token),
    "letters twice percent": lambda token: "".join(f"%25{ord(c):02x}" for c in token),
    "letters decimal": lambda token: "".join(f"&#{ord(c)};" for c in token),
    "letters hexadecimal in JSON": lambda token: "".join(f"\\u0026#x{ord(c):x};" for c in token),
    "some letters": lambda token: "".join(f"%{ord(c):02X}" if at % 5 else c for at, c in enumerate(token)),
    "named": lambda token: token.replace("+", "&plus;").replace("/", "&sol;").replace("=", "&equals;"),
}

tokens = st.from_regex(r"[A-Za-z0-9._~+/-]{8,60}={0,2}", fullmatch=True).filter(lambda token: not token.isdigit())
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


class Api(ApiClient):
    @get("/items")
    async def get_items(self) -> ApiResponse[Any]: ...

    @get("/items")
    async def get_text(self) -> ApiResponse[str]: ...

    @get("/items")
    async def get_number(self) -> ApiResponse[int]: ...


class Tokens(httpx.Auth):
    def __init__(self, *tokens: str) -> None:
        self._tokens = tokens

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        for token in self._tokens:
            request.headers["Authorization"] = f"Bearer {token}"
            response = yield request
            if response.status_code != 401:
                return


class Parts(httpx.AsyncByteStream):
    """A body in two pieces, after which it may break off."""

    def __init__(self, body: bytes, at: int, *, breaks: bool = False) -> None:
        self._parts = body[:at], body[at:]
        self._breaks = breaks

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        for part in self._parts:
            yield part
        if self._breaks:
            raise httpx.ReadError("cut")


def api_of(response: httpx.Response, *tokens: str) -> Api:
    transport = httpx.MockTransport(lambda _request: response)
    return Api(ClientOptions(base_url="http://127.0.0.1", auth=Tokens(*tokens), transport=lambda: transport))


def out_of(response: ApiResponse[Any]) -> str:
    """Everything that a caller can see."""
    error = response.error
    seen = [response, response.content, response.headers.raw, response.request_id]
    if error is not None:
        seen += [str(error), vars(error), error.body, error.headers.raw, error.problem, error.request_id]
        seen += traceback.format_exception(error)
    return " ".join(map(repr, seen)) + " ".join(map(str, seen))


@pytest.mark.parametrize("status", [200, 400])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_an_echoed_token_is_masked(form: Callable[[str], str], status: int) -> None:
    echo = form(TOKEN)
    headers = {"Content-Type": "text/plain", "Location": f"/a?b={echo}", "X-Request-Id": echo, f"X-{TOKEN[:20]}": "y"}
    body = f'{{"a": "before {echo} after"}}'
    response = await api_of(httpx.Response(status, headers=headers, text=body), TOKEN).get_text()
    shown = response.content if status == 200 else response.error and response.error.body.decode()
    assert shown == '{"a": "before *** after"}'
    assert (response.headers["Location"], response.request_id) == ("/a?b=***", "***")


@given(tokens, documents, st.sampled_from(sorted(FORMS)), st.sampled_from([200, 201, 400, 401, 500]), st.booleans())
@example("++++++++", {"a": 1}, "escaped", 400, True)
@example("/" * 60, ["\\" * 50], "twice in JSON", 200, False)
def test_no_form_of_any_token_comes_out(token: str, document: object, name: str, status: int, problem: bool) -> None:
    echo = FORMS[name](token)
    inner = json.dumps(document)
    body = f'{{"title": "{token}", "type": "{echo}", "detail": "{echo}{echo}", "x": {inner}, "y": ["{echo}"]}}'
    headers = {
        "Content-Type": "application/problem+json" if problem else "application/json",
        "WWW-Authenticate": f'Bearer error="{echo}"',
        "X-Request-Id": echo,
    }
    for call in (Api.get_items, Api.get_text, Api.get_number):
        response = asyncio.run(call(api_of(httpx.Response(status, headers=headers, text=body), token)))
        seen = out_of(response)
        assert token not in seen
        assert token not in html.unescape(seen)
        assert echo not in seen


@given(st.integers(1, len(TOKEN)), st.integers(0, 60), st.sampled_from([200, 400]))
def test_a_token_that_is_cut_off_is_masked(kept: int, at: int, status: int) -> None:
    body = b"before " + TOKEN[:kept].encode()
    response = httpx.Response(status, stream=Parts(body, at, breaks=True))
    error = asyncio.run(api_of(response, TOKEN).get_text()).error
    assert error is not None
    assert error.body == (b"before ***" if kept >= 8 else body)


def test_a_token_across_the_limit_of_an_error_is_masked() -> None:
    response = httpx.Response(500, content=b"x" * (65536 - 20) + TOKEN.encode())
    error = asyncio.run(api_of(response, TOKEN).get_text()).error
    assert error is not None
    assert error.body == b"x" * (65536 - 20) + b"***"


@pytest.mark.parametrize("status", [200, 422])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
async def test_a_token_in_wide_characters_is_masked(answer_with: Any, encoding: str, status: int) -> None:
    for form in FORMS.values():
        body = f"before {form(TOKEN)} after".encode(encoding)
        fields = b"Content-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
        options = ClientOptions(base_url=await answer_with(b"HTTP/1.1 %d -\r\n" % status + fields + body))
        async with Api(options).with_options(auth=Tokens(TOKEN)) as api:
            response = await api.get_text()
        body = response.error.body if response.error is not None else str(response.content).encode()
        assert b"before *** after" in body


async def test_wide_characters_without_a_token_stay_as_they_are(answer_with: Any) -> None:
    body = "before %41 after".encode("utf-16")
    fields = b"Content-Type: text/plain; charset=utf-16\r\nContent-Length: %d\r\n\r\n" % len(body)
    options = ClientOptions(base_url=await answer_with(b"HTTP/1.1 200 OK\r\n" + fields + body))
    async with Api(options).with_options(auth=Tokens(TOKEN)) as api:
        assert (await api.get_text()).unwrap() == "before %41 after"


async def test_a_body_that_begins_like_the_token_stays_as_it_is() -> None:
    response = httpx.Response(200, text=f"{TOKEN[:20]} is how it begins")
    assert (await api_of(response, TOKEN).get_text()).unwrap() == f"{TOKEN[:20]} is how it begins"


async def test_both_tokens_are_masked_after_a_renewal() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(401 if "old" in request.headers["Authorization"] else 200, text="old-token-1 new-token-2")

    mock = ClientOptions(
        base_url="http://127.0.0.1",
        auth=Tokens("old-token-1", "new-token-2"),
        transport=lambda: httpx.MockTransport(respond),
    )
    assert (await Api(mock).get_text()).unwrap() == "*** ***"


async def test_a_token_in_the_text_of_a_transports_error_is_masked() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        raise httpx.LocalProtocolError(f"Illegal header value {request.headers['Authorization']!r}")

    mock = ClientOptions(base_url="http://a", auth=Tokens(TOKEN), transport=lambda: httpx.MockTransport(respond))
    with pytest.raises(ApiTransportError) as caught:
        await Api(mock).get_text()
    assert caught.value.reason == "LocalProtocolError: Illegal header value 'Bearer ***'"
    assert TOKEN not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("name", ["Authorization", "Proxy-Authorization", "DPoP"])
@pytest.mark.parametrize(
    ("value", "shown"), [("Basic c2VjcmV0", "***"), ("c2VjcmV0Og==", "***"), ("a 1234567", "1234567")]
)
async def test_any_credential_that_is_not_short_is_masked(name: str, value: str, shown: str) -> None:
    echo = httpx.Response(200, text=value.rpartition(" ")[2])
    options = ClientOptions(
        base_url="http://a", headers={name: value}, transport=lambda: httpx.MockTransport(lambda _: echo)
    )
    assert (await Api(options).get_text()).unwrap() == shown


async def test_the_credentials_for_a_proxy_are_masked(answer_with: Any) -> None:
    proxy = await answer_with(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\ndXNlcjpwYXNzd29y")
    proxy = proxy.replace("http://", "http://user:passwor@")
    async with Api(ClientOptions(base_url="http://api.invalid", proxy=proxy)) as api:
        assert (await api.get_text()).unwrap() == "***"


@pytest.mark.parametrize("text", [b"\\" * 1_000_000, b"%25" * 300_000, b"&plus;" * 200_000, b"&aaaaaaaa" * 100_000])
@pytest.mark.parametrize(
    "token", ["/+/+/+/+", "=" * 60, "a/" * 30, "+" * 59 + "/", "\\" * 5 + "abcdefgh/", "a" + "\\" * 40, "\\a" * 8]
)
def test_no_text_makes_it_slow(text: bytes, token: str) -> None:
    credentials = Credentials()
    credentials.learn(httpx.Request("GET", "http://a", headers={"Authorization": f"Bearer {token}"}))
    ends = b"abcdefgh" if "abcdefgh" in token else b"a"
    began = time.process_time()
    assert credentials.masked(text + ends) == text + ends
    assert time.process_time() - began < 2
