"""How arguments become requests, as a server sees them."""
# mypy: disable-error-code="empty-body"

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Literal, TypedDict
from uuid import UUID

import httpx
import pytest
from pydantic import BaseModel, Field

from shared.rest import (
    ApiClient,
    ApiResponse,
    Body,
    ClientOptions,
    Form,
    Header,
    Query,
    delete,
    get,
    head,
    options,
    patch,
    post,
    put,
)

from .echo import Told


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Item(BaseModel):
    name: str
    unit_price: Annotated[Decimal | None, Field(alias="unitPrice")] = None
    note: str | None = None


@dataclass
class Point:
    x: int
    y: int = 0
    on: date | None = None


class Login(TypedDict):
    user: str
    scopes: list[str]
    otp: str | None


class EchoApi(ApiClient, headers={"X-Class": "class", "X-Removed": "class"}):
    @get("/items/{item_id}")
    async def get_item(self, item_id: str) -> Told: ...

    @get("items/{item_id}/parts/{number}.json")
    async def get_part(self, item_id: UUID, number: int) -> Told: ...

    @get("/at/{when}")
    async def get_at(self, when: Colour | Level | date | bool) -> Told: ...

    @get("/")
    async def get_root(self) -> Told: ...

    @get("")
    async def get_base(self) -> Told: ...

    @get("/search?v=2")
    async def search(
        self,
        q: str | None = None,
        *,
        page_size: Annotated[int | None, Query("pageSize")] = None,
        tag: Annotated[list[str] | None, Query()] = None,
        colour: Colour | None = None,
        level: Level | None = None,
        since: datetime | None = None,
        exact: bool | None = None,
        sort: Literal["asc", "desc"] | None = None,
        limit: Annotated[int, Field(le=100)] = 10,
    ) -> Told: ...

    @get("/headers", headers={"X-Removed": None, "X-Method": "method"})
    async def get_headers(
        self,
        *,
        key: Annotated[str | None, Header("Idempotency-Key")] = None,
        x_trace: Annotated[str | None, Header()] = None,
        x_method: Annotated[str | None, Header("x-method")] = "call",
        tags: Annotated[list[int] | None, Header("X-Tags")] = None,
        flag: Annotated[bool | None, Header("X-Flag")] = None,
    ) -> Told: ...

    @post("/items")
    async def post_item(self, item: Annotated[Item, Body()]) -> Told: ...

    @patch("/items")
    async def patch_item(
        self, item: Annotated[Item, Body("application/merge-patch+json", exclude_unset=True)]
    ) -> Told: ...

    @put("/items")
    async def put_item(self, item: Annotated[Item, Body(exclude_none=True)]) -> Told: ...

    @put("/json")
    async def put_json(self, item: Annotated[Item, Body("application/json; charset=utf-8")]) -> Told: ...

    @post("/points")
    async def post_points(self, points: Annotated[list[Point], Body()]) -> Told: ...

    @post("/maybe")
    async def post_maybe(self, item: Annotated[Item | None, Body()] = None) -> Told: ...

    @put("/raw")
    async def put_raw(self, raw: Annotated[bytes, Body()]) -> Told: ...

    @put("/csv")
    async def put_csv(self, text: Annotated[str, Body("text/csv; charset=utf-8")]) -> Told: ...

    @put("/json-text")
    async def put_json_text(self, text: Annotated[str, Body()]) -> Told: ...

    @post("/login")
    async def log_in(self, login: Annotated[Login, Form()]) -> Told: ...

    @post("/login")
    async def log_in_with(self, user: Annotated[str, Form("user_name")], code: Annotated[int, Form()]) -> Told: ...

    @post("/typed")
    async def post_typed(self, login: Annotated[Login, Body()]) -> Told: ...

    @delete("/items/{item_id}")
    async def delete_item(self, item_id: str) -> Told: ...

    @options("/items")
    async def get_options(self) -> Told: ...

    @head("/items")
    async def has_items(self) -> ApiResponse[None]: ...

    @post("/empty")
    async def post_nothing(self) -> Told: ...


@pytest.fixture
async def api(echo: str) -> AsyncIterator[EchoApi]:
    async with EchoApi(ClientOptions(base_url=f"{echo}/v1", headers={"X-Options": "options"})) as api:
        yield api


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("7", "7"),
        ("a/b", "a%2Fb"),
        ("a b?c#d%2F", "a%20b%3Fc%23d%252F"),
        ("é", "%C3%A9"),
        ("../x", "..%2Fx"),
        ("a;b=c&d+e", "a%3Bb%3Dc%26d%2Be"),
    ],
)
async def test_a_path_value_is_percent_encoded(api: EchoApi, value: str, sent: str) -> None:
    assert (await api.get_item(value)).target == f"/v1/items/{sent}"


@pytest.mark.parametrize("value", ["", ".", ".."])
async def test_a_path_value_that_would_name_another_path_is_refused(api: EchoApi, value: str) -> None:
    with pytest.raises(ValueError, match=r"item_id: .* cannot stand in a path"):
        await api.get_item(value)


async def test_a_url_that_is_too_long_is_refused(api: EchoApi) -> None:
    with pytest.raises(ValueError, match=r"EchoApi\.get_item: URL too long"):
        await api.get_item("x" * 70_000)


async def test_path_values_are_written_as_in_json(api: EchoApi) -> None:
    part = await api.get_part(UUID(int=1), 2)
    assert part.target == "/v1/items/00000000-0000-0000-0000-000000000001/parts/2.json"
    targets = [(await api.get_at(value)).target for value in (Colour.RED, Level.HIGH, date(2026, 1, 2), True)]
    assert targets == ["/v1/at/red", "/v1/at/3", "/v1/at/2026-01-02", "/v1/at/true"]


@pytest.mark.parametrize("base_path", ["", "/", "/v1", "/v1/"])
async def test_exactly_one_slash_joins_base_url_and_path(echo: str, base_path: str) -> None:
    async with EchoApi(echo + base_path) as api:
        prefix = base_path.rstrip("/")
        assert (await api.get_item("7")).target == f"{prefix}/items/7"
        assert (await api.get_part(UUID(int=0), 1)).target.startswith(f"{prefix}/items/0000")
        assert (await api.get_root()).target == f"{prefix}/"
        assert (await api.get_base()).target == f"{prefix}/"


async def test_query_values_that_are_none_are_left_out(api: EchoApi) -> None:
    assert (await api.search()).target == "/v1/search?v=2&limit=10"


async def test_query_values_are_encoded_repeated_and_renamed(api: EchoApi) -> None:
    told = await api.search(
        "a&b=c é",
        page_size=5,
        tag=["x", "y z"],
        colour=Colour.RED,
        level=Level.HIGH,
        since=datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
        exact=True,
        sort="asc",
    )
    query = "q=a%26b%3Dc%20%C3%A9&pageSize=5&tag=x&tag=y%20z&colour=red&level=3"
    assert told.target == f"/v1/search?v=2&{query}&since=2026-01-02T03%3A04%3A00Z&exact=true&sort=asc&limit=10"


async def test_false_is_written_as_false_and_an_empty_list_not_at_all(api: EchoApi) -> None:
    assert (await api.search(exact=False, tag=[])).target == "/v1/search?v=2&exact=false&limit=10"


async def test_an_argument_that_is_not_valid_is_refused_without_repeating_it(api: EchoApi) -> None:
    with pytest.raises(
        ValueError, match=r"EchoApi\.search: limit: Input should be less than or equal to 100"
    ) as caught:
        await api.search(limit=54321)
    assert "54321" not in str(caught.value)


async def test_headers_of_class_options_method_and_call_add_up(api: EchoApi) -> None:
    told = await api.get_headers(key="k", x_trace="t", tags=[1, 2], flag=False)
    sent = {name: told.values(name) for name in ("X-Class", "X-Options", "X-Method", "Idempotency-Key", "X-Trace")}
    assert sent == {
        "X-Class": ["class"],
        "X-Options": ["options"],
        "X-Method": ["call"],
        "Idempotency-Key": ["k"],
        "X-Trace": ["t"],
    }
    assert told.values("X-Tags") == ["1, 2"]
    assert told.values("X-Flag") == ["false"]


async def test_none_removes_a_header(api: EchoApi) -> None:
    told = await api.with_options(headers={"X-Class": None, "User-Agent": None}).get_headers(x_method=None)
    assert [told.values(name) for name in ("X-Class", "X-Removed", "X-Method", "User-Agent", "Idempotency-Key")] == [
        [],
        [],
        [],
        [],
        [],
    ]


async def test_of_headers_with_one_name_that_of_the_narrowest_scope_is_sent(echo: str) -> None:
    class Layered(ApiClient, headers={"A": "class", "B": "class", "C": "class", "D": "class"}):
        @get("/", headers={"c": "method", "d": "method"})
        async def get_root(self) -> Told: ...

    async with Layered(ClientOptions(base_url=echo, headers={"b": "options", "c": "options", "d": "options"})) as api:
        told = await api.with_options(headers={"D": "call"}).with_options(deadline=9.0).get_root()
    assert [told.values(name) for name in "ABCD"] == [["class"], ["options"], ["method"], ["call"]]


async def test_headers_of_one_call_replace_those_of_the_client(api: EchoApi) -> None:
    told = await api.with_options(headers={"x-class": "call"}).get_headers()
    assert told.values("X-Class") == ["call"]


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\n", "\r", "a\0b", "é"])
async def test_a_header_value_that_would_break_the_message_is_refused(api: EchoApi, value: str) -> None:
    with pytest.raises(ValueError, match="header Idempotency-Key: expected visible ASCII"):
        await api.get_headers(key=value)
    with pytest.raises(ValueError, match="header X-A: expected visible ASCII"):
        await api.with_options(headers={"X-A": value}).get_headers()


async def test_a_model_is_sent_as_json_by_its_aliases(api: EchoApi) -> None:
    told = await api.post_item(Item(name="é", unitPrice=Decimal("1.50")))
    assert told.body.encode("latin-1").decode() == '{"name":"é","unitPrice":"1.50","note":null}'
    assert told.values("Content-Type") == ["application/json"]
    assert told.values("Accept") == ["application/json"]


async def test_fields_that_are_unset_or_none_can_be_left_out(api: EchoApi) -> None:
    patched = await api.patch_item(Item(name="a", note=None))
    assert (patched.body, patched.values("Content-Type")) == (
        '{"name":"a","note":null}',
        ["application/merge-patch+json"],
    )
    assert (await api.put_item(Item(name="a", note=None))).body == '{"name":"a"}'


async def test_the_content_type_of_a_json_body_may_have_parameters(api: EchoApi) -> None:
    assert (await api.put_json(Item(name="a"))).values("Content-Type") == ["application/json; charset=utf-8"]


async def test_dataclasses_and_typed_dicts_are_bodies_too(api: EchoApi) -> None:
    assert (await api.post_points([Point(1), Point(2, 3, date(2026, 1, 2))])).body == (
        '[{"x":1,"y":0,"on":null},{"x":2,"y":3,"on":"2026-01-02"}]'
    )
    assert (await api.post_typed({"user": "u", "scopes": [], "otp": None})).body == (
        '{"user":"u","scopes":[],"otp":null}'
    )


async def test_a_body_that_is_not_valid_is_not_sent(api: EchoApi) -> None:
    with pytest.raises(ValueError, match=r"EchoApi\.post_typed: login: scopes: Field required"):
        await api.post_typed({"user": "u", "otp": None})  # type: ignore[typeddict-item]


async def test_an_optional_body_that_is_none_is_no_body(api: EchoApi) -> None:
    told = await api.post_maybe()
    assert (told.body, told.values("Content-Type"), told.values("Content-Length")) == ("", [], ["0"])


async def test_bytes_and_text_are_sent_as_they_are(api: EchoApi) -> None:
    raw = await api.put_raw(b"\x00\xff")
    assert (raw.body, raw.values("Content-Type")) == ("\x00\xff", ["application/octet-stream"])
    csv = await api.put_csv("a;b")
    assert (csv.body, csv.values("Content-Type")) == ("a;b", ["text/csv; charset=utf-8"])
    assert (await api.put_json_text("a")).body == '"a"'


async def test_a_form_is_url_encoded(api: EchoApi) -> None:
    told = await api.log_in({"user": "a&b", "scopes": ["x", "y z"], "otp": None})
    assert told.body == "user=a%26b&scopes=x&scopes=y%20z"
    assert told.values("Content-Type") == ["application/x-www-form-urlencoded"]
    assert (await api.log_in_with("u", 7)).body == "user_name=u&code=7"


async def test_a_large_body_arrives_complete(api: EchoApi) -> None:
    assert (await api.put_raw(b"0123456789" * 300_000)).body == "0123456789" * 300_000


async def test_each_verb_is_sent(api: EchoApi) -> None:
    told = [await api.delete_item("1"), await api.get_options(), await api.post_nothing(), await api.get_root()]
    assert [one.method for one in told] == ["DELETE", "OPTIONS", "POST", "GET"]
    assert (await api.has_items()).status == 200


async def test_a_request_can_be_changed_before_it_is_authorised(echo: str) -> None:
    def add_trace(request: httpx.Request) -> None:
        request.headers["traceparent"] = "00-1-2-01"

    async with EchoApi(ClientOptions(base_url=echo, on_request=add_trace)) as api:
        assert (await api.get_root()).values("traceparent") == ["00-1-2-01"]
