"""What mypy and pyright must refuse: where an ignored error is none, that is an error itself."""
# mypy: disable-error-code="empty-body"
# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from dataclasses import dataclass
from datetime import date
from enum import Enum
from typing import Annotated, TypedDict

from pydantic import BaseModel

from shared.rest import ApiClient, ApiResponse, Body, ClientOptions, Header, delete, get, patch, post, put


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


class Articles(ApiClient):
    @get("/articles/{slug}")
    async def get_article(self, slug: str) -> ApiResponse[Article]: ...

    @get("/articles")
    async def list_articles(self, *, since: date | None = None, order: Order = Order.NEWEST) -> list[Article]: ...

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


async def call(api: Articles) -> None:
    await api.get_article()  # type: ignore[call-arg]
    await api.get_article(7)  # type: ignore[arg-type]
    await api.get_article("a", "b")  # type: ignore[call-arg]
    await api.get_article(name="a")  # type: ignore[call-arg]
    await api.list_articles(["a"])  # type: ignore[arg-type, call-arg]
    await api.list_articles(since="2026-01-01")  # type: ignore[arg-type]
    await api.list_articles(order="newest")  # type: ignore[arg-type]
    await api.post_article(Article(slug="a", title="A"))  # type: ignore[arg-type]
    await api.post_article(Draft("A"), key=7)  # type: ignore[arg-type]
    await api.patch_article("a", {"headline": "B"})  # type: ignore[typeddict-unknown-key]
    await api.put_image("a", "not bytes")  # type: ignore[arg-type]
    await api.get_articles()  # type: ignore[attr-defined]


async def use_results(api: Articles) -> None:
    title: str = (await api.get_article("a")).title  # type: ignore[attr-defined]
    article: Article = await api.get_article("a")  # type: ignore[assignment]
    content: Article = (await api.get_article("a")).content  # type: ignore[assignment]
    number: int = (await api.get_article("a")).unwrap()  # type: ignore[assignment]
    articles: list[Draft] = await api.list_articles()  # type: ignore[assignment]
    slug: str = await api.delete_article("a")  # type: ignore[assignment, func-returns-value]
    awaited: ApiResponse[Article] = api.get_article("a")  # type: ignore[assignment]
    del title, article, content, number, articles, slug, awaited


async def configure(api: Articles) -> None:
    Articles()  # type: ignore[call-arg]
    Articles(7)  # type: ignore[arg-type]
    ClientOptions("https://example.com")  # type: ignore[call-arg]
    api.with_options(retries=3)  # type: ignore[call-arg]
    api.with_options(timeout="1 s")  # type: ignore[arg-type]


class Wrong(ApiClient):
    @get("/a", retries=3)  # type: ignore[call-arg]
    async def unknown_option(self) -> None: ...

    @get(7)  # type: ignore[arg-type]
    async def no_path(self) -> None: ...

    @get("/a")  # type: ignore[type-var]
    def not_async(self) -> str: ...


class WrongHeaders(ApiClient, headers=["Api-Version"]):  # type: ignore[arg-type]
    pass
