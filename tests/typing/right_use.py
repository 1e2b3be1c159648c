"""What mypy and pyright must accept, with the types that they must see."""
# mypy: disable-error-code="empty-body"
# pyright: strict

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, TypedDict, assert_type

import httpx
from pydantic import BaseModel

from shared.rest import (
    ApiClient,
    ApiError,
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


class Article(BaseModel):
    slug: str
    title: str


@dataclass
class Draft:
    title: str


class Changes(TypedDict, total=False):
    title: str


class Order(Enum):
    NEWEST = "newest"


class Articles(ApiClient, headers={"Api-Version": "3"}):
    @get("/articles/{slug}")
    async def get_article(self, slug: str) -> ApiResponse[Article]: ...

    @get("/articles", timeout=60.0)
    async def list_articles(
        self,
        *,
        tags: Annotated[list[str] | None, Query("tag")] = None,
        since: date | None = None,
        order: Order = Order.NEWEST,
    ) -> list[Article]:
        """The articles."""
        ...

    @post("/articles")
    async def post_article(
        self, draft: Annotated[Draft, Body()], *, key: Annotated[str | None, Header("Idempotency-Key")] = None
    ) -> ApiResponse[Article]: ...

    @patch("/articles/{slug}")
    async def patch_article(self, slug: str, changes: Annotated[Changes, Body()]) -> Article: ...

    @put("/articles/{slug}/image")
    async def put_image(self, slug: str, image: Annotated[bytes, Body("image/png")]) -> None: ...

    @delete("/articles/{slug}")
    async def delete_article(self, slug: str) -> None: ...

    @head("/articles/{slug}")
    async def has_article(self, slug: str) -> ApiResponse[None]: ...

    @options("/articles", auth=None)
    async def get_options(self) -> str: ...

    @post("/sign-in")
    async def sign_in(self, user: Annotated[str, Form()], password: Annotated[str, Form()]) -> Article | None: ...


def from_options() -> ClientOptions:
    return ClientOptions(base_url="https://example.com", timeout=httpx.Timeout(5.0))


async def use() -> None:
    async with Articles(from_options) as api:
        assert_type(api, Articles)
        assert_type(await api.get_article("a"), ApiResponse[Article])
        assert_type(await api.get_article(slug="a"), ApiResponse[Article])
        assert_type((await api.get_article("a")).unwrap(), Article)
        assert_type((await api.get_article("a")).content, Article | None)
        assert_type((await api.get_article("a")).error, ApiError | None)
        assert_type(await api.list_articles(), list[Article])
        assert_type(await api.list_articles(tags=["a"], order=Order.NEWEST), list[Article])
        assert_type(await api.post_article(Draft("A"), key="1"), ApiResponse[Article])
        assert_type(await api.patch_article("a", Changes(title="B")), Article)
        assert_type(await api.patch_article("a", {"title": "B"}), Article)
        assert_type(await api.has_article("a"), ApiResponse[None])
        assert_type(await api.get_options(), str)
        assert_type(await api.sign_in(user="u", password="p"), Article | None)
        await api.put_image("a", b"")
        await api.delete_article("a")

        patient = api.with_options(timeout=120.0, deadline=None, auth=None, headers={"Api-Version": None})
        assert_type(patient, Articles)


def construct() -> list[ApiClient]:
    return [Articles("https://example.com"), Articles(from_options()), Articles(from_options)]
