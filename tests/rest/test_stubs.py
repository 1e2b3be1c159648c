"""What is wrong with a description is said when the class is defined; what is right survives."""
# mypy: disable-error-code="empty-body"

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel

from shared.rest import ApiClient, ApiResponse, Body, Form, Header, Query, get, head, post


class Item(BaseModel):
    name: str


async def no_parameter(self: Any) -> None: ...
async def one_parameter(self: Any, a: str) -> None: ...
async def optional_parameter(self: Any, a: str | None) -> None: ...
async def list_parameter(self: Any, a: list[str]) -> None: ...
async def marked_parameter(self: Any, a: Annotated[str, Query()]) -> None: ...
async def unmarked_model(self: Any, item: Item) -> None: ...
async def model_in_query(self: Any, item: Annotated[Item, Query()]) -> None: ...
async def model_in_header(self: Any, item: Annotated[Item, Header()]) -> None: ...
async def mapping_in_query(self: Any, items: dict[str, str]) -> None: ...
async def variable_arguments(self: Any, *a: str) -> None: ...
async def variable_keywords(self: Any, **a: str) -> None: ...
async def two_bodies(self: Any, a: Annotated[Item, Body()], b: Annotated[Item, Body()]) -> None: ...
async def body_and_form(self: Any, a: Annotated[Item, Body()], b: Annotated[str, Form()]) -> None: ...
async def form_and_body(self: Any, b: Annotated[str, Form()], a: Annotated[Item, Body()]) -> None: ...
async def one_body(self: Any, a: Annotated[Item, Body()]) -> None: ...
async def two_markers(self: Any, a: Annotated[str, Query(), Header()]) -> None: ...
async def marker_class(self: Any, a: Annotated[str, Query]) -> None: ...
async def model_as_text(self: Any, a: Annotated[Item, Body("text/csv")]) -> None: ...
async def smuggled_header(self: Any, a: Annotated[str, Header("X\r\nY")]) -> None: ...
async def one_header_twice(self: Any, a: Annotated[str, Header("X-A")], x_a: Annotated[str, Header()]) -> None: ...
async def smuggled_type(self: Any, a: Annotated[bytes, Body("a/b\r\nX: y")]) -> None: ...
async def framing_header(self: Any, a: Annotated[str, Header("Content-Length")]) -> None: ...
async def unresolved(self: Any) -> "Unknown": ...  # type: ignore[name-defined]  # noqa: F821
async def bare_response(self: Any) -> ApiResponse: ...  # type: ignore[type-arg]
async def open_type[T](self: Any, a: Annotated[list[T], Body()]) -> None: ...
async def open_return[T](self: Any) -> ApiResponse[T]: ...
async def returns_model(self: Any) -> Item: ...


@pytest.mark.parametrize(
    ("path", "stub", "message"),
    [
        ("/a/{a}", no_parameter, "{a} has no parameter"),
        ("/a/{a}/{a}", one_parameter, "stands there twice"),
        ("/a/{}", one_parameter, "has no parameter"),
        ("/a/{a", one_parameter, "expected a path"),
        ("/a/a}", one_parameter, "expected a path"),
        ("/a#{a}", one_parameter, "expected a path"),
        ("/a b/{a}", one_parameter, "expected a path"),
        ("/a/{a}", optional_parameter, "never None"),
        ("/a/{a}", list_parameter, "a single value"),
        ("/a/{a}", marked_parameter, r"no Query\(\)"),
        ("/a", unmarked_model, "item: has nowhere to go"),
        ("/a", model_in_query, "item: has nowhere to go"),
        ("/a", model_in_header, "item: has nowhere to go"),
        ("/a", mapping_in_query, "items: has nowhere to go"),
        ("/a", variable_arguments, "a: has nowhere to go"),
        ("/a", variable_keywords, "a: has nowhere to go"),
        ("/a", two_bodies, "b: there is another body"),
        ("/a", body_and_form, "b: there is another body"),
        ("/a", form_and_body, "a: there is another body"),
        ("/a", two_markers, "expected one marker"),
        ("/a", marker_class, "with parentheses"),
        ("/a", model_as_text, "expected bytes or str for a body of text/csv"),
        ("/a", smuggled_header, "expected a header name"),
        ("/a", one_header_twice, "x_a: there is another parameter for x-a already"),
        ("/a", smuggled_type, "header Content-Type: expected visible ASCII"),
        ("/a", framing_header, "follows from the body"),
        ("/a", unresolved, "Unknown"),
        ("/a", bare_response, r"ApiResponse\[Item\]"),
        ("/a", open_type, "expected a concrete type"),
        ("/a", open_return, "expected a concrete type"),
    ],
)
def test_a_stub_that_cannot_work_is_refused_when_it_is_defined(
    path: str, stub: Callable[..., Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        post(path)(stub)
    assert stub.__name__ in str(caught.value)


def test_get_has_no_body() -> None:
    with pytest.raises(TypeError, match="a GET request has no body"):
        get("/a")(one_body)


def test_head_returns_nothing() -> None:
    with pytest.raises(TypeError, match="a response to HEAD has no content"):
        head("/a")(returns_model)


def test_a_stub_is_a_coroutine_function() -> None:
    def synchronous(self: Any) -> None: ...

    with pytest.raises(TypeError, match="async def"):
        get("/a")(synchronous)  # type: ignore[type-var]


def test_a_stub_is_annotated() -> None:
    async def parameter(self, a) -> None: ...  # type: ignore[no-untyped-def]
    async def result(self): ...  # type: ignore[no-untyped-def]

    with pytest.raises(TypeError, match="a: expected an annotation"):
        get("/a")(parameter)
    with pytest.raises(TypeError, match="expected a return annotation"):
        get("/a")(result)


def test_a_header_of_a_method_or_class_that_cannot_be_sent_is_refused_when_it_is_defined() -> None:
    with pytest.raises(TypeError, match="header X-A: expected visible ASCII"):
        get("/a", headers={"X-A": "a\nX-B: b"})(no_parameter)
    with pytest.raises(ValueError, match="header X-A: expected visible ASCII"):

        class _Api(ApiClient, headers={"X-A": "a\r\nX-B: b"}):
            pass


def test_a_method_keeps_its_signature_and_documentation() -> None:
    @dataclass
    class Draft:
        title: str

    class Api(ApiClient):
        @post("/drafts/{name}")
        async def post_draft(self, name: str, draft: Annotated[Draft, Body()], *, dry: bool = False) -> None:
            """Keep a draft."""
            ...

    assert list(inspect.signature(Api.post_draft).parameters) == ["self", "name", "draft", "dry"]
    assert inspect.iscoroutinefunction(Api.post_draft)
    assert (Api.post_draft.__name__, Api.post_draft.__doc__) == ("post_draft", "Keep a draft.")


async def test_a_call_that_does_not_fit_the_signature_is_a_type_error() -> None:
    class Api(ApiClient):
        @get("/a/{a}")
        async def get_a(self, a: str) -> None: ...

    with pytest.raises(TypeError, match="missing a required argument: 'a'"):
        await Api("http://127.0.0.1:9").get_a()  # type: ignore[call-arg]


async def test_an_unknown_option_is_refused() -> None:
    with pytest.raises(TypeError, match="unknown options: retries"):
        get("/a", retries=3)(no_parameter)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unknown options: retries"):
        ApiClient("http://127.0.0.1:9").with_options(retries=3)  # type: ignore[call-arg]
