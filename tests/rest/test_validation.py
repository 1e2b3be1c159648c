"""What does not validate is told by place and rule; no value comes out, neither of an answer nor of an argument."""
# mypy: disable-error-code="empty-body"

import json
import traceback
from typing import Annotated, Any, Literal
from uuid import UUID

import httpx
import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from shared.rest import ApiClient, ApiResponse, Body, ClientOptions, get, post
from shared.rest.validation import summarize

SECRET = "4111111111111111"


def refuse(value: str) -> str:
    raise ValueError(f"{value} is taken")


def refuse_kindly(value: str) -> str:
    raise PydanticCustomError("taken", "{value} is taken", {"value": value})


def assert_not(value: str) -> str:
    assert value != SECRET, f"{value} is taken"
    return value


class Cat(BaseModel):
    kind: Literal["cat"]


class Dog(BaseModel):
    kind: Literal["dog"]
    lives: int = 1


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str = ""


class Whole(BaseModel):
    number: str

    @model_validator(mode="after")
    def refuse(self) -> "Whole":
        raise ValueError(f"{self.number} is taken")


class Renamed(BaseModel):
    number: Annotated[int, Field(alias="the-number")]


TOLD: list[tuple[Any, Any, str]] = [
    (Annotated[str, AfterValidator(refuse)], SECRET, "Value is not valid"),
    (Annotated[str, AfterValidator(refuse_kindly)], SECRET, "Value is not valid"),
    (Annotated[str, AfterValidator(assert_not)], SECRET, "Value is not valid"),
    (Whole, {"number": SECRET}, "Value is not valid"),
    (list[Annotated[Cat | Dog, Field(discriminator="kind")]], [{"kind": SECRET}], "0: Value is not valid"),
    (UUID, SECRET[:-1] + "x", "Value is not valid"),
    (Strict, {SECRET: 1}, "*: Extra inputs are not permitted"),
    (dict[str, int], {SECRET: "x"}, "*: Input should be a valid integer, unable to parse string as an integer"),
    (dict[int, int], {SECRET: "x"}, "*: Input should be a valid integer, unable to parse string as an integer"),
    (dict[int, int], {int(SECRET): "x"}, "*: Input should be a valid integer, unable to parse string as an integer"),
    (dict[int, int], {SECRET + "x": 1}, "*.*: Input should be a valid integer, unable to parse string as an integer"),
    (list[Renamed], [{"the-number": SECRET + "x"}], "0.the-number: Input should be a valid integer, unable to parse"),
    (Cat, {"kind": SECRET}, "kind: Input should be 'cat'"),
    (Dog | Cat, {"kind": "dog", "lives": SECRET + "x"}, "*.lives: Input should be a valid integer"),
    (list[str], [1, 2], "0: Input should be a valid string; 1: Input should be a valid string"),
    (list[str], [1] * 9, "4: Input should be a valid string; 4 more"),
]


@pytest.mark.parametrize(("annotation", "value", "told"), TOLD)
async def test_no_value_comes_out(annotation: Any, value: Any, told: str) -> None:
    class Api(ApiClient):
        @get("/")
        async def get_value(self) -> ApiResponse[annotation]: ...

        @post("/")
        async def post_value(self, value: Annotated[annotation, Body()]) -> None: ...

    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=value))
    api = Api(ClientOptions(base_url="http://a", transport=lambda: transport))
    error = (await api.get_value()).error
    assert error is not None
    assert told in error.reason
    assert SECRET[:-1] not in "".join(traceback.format_exception(error))
    with pytest.raises(ValueError, match="post_value: value: ") as caught:
        await api.post_value(value)
    assert told in str(caught.value)
    assert SECRET[:-1] not in "".join(traceback.format_exception(caught.value))


def test_json_that_breaks_off_is_told_by_its_place() -> None:
    adapter = TypeAdapter(dict[str, str])
    with pytest.raises(ValidationError) as caught:
        adapter.validate_json(json.dumps({"a": SECRET})[:-3])
    assert summarize(caught.value, adapter) == "Invalid JSON: EOF while parsing a string at line 1 column 22"


def test_a_type_without_a_json_form_is_summarized_too() -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(tuple[type[int], int])
    with pytest.raises(ValidationError) as caught:
        adapter.validate_python((str, SECRET + "x"))
    assert SECRET not in summarize(caught.value, adapter)


def stumble(_: object) -> None:
    raise KeyError(SECRET)


async def test_a_validator_that_raises_something_of_its_own_makes_an_error_of_the_call() -> None:
    class Api(ApiClient):
        @get("/value")
        async def get_value(self) -> ApiResponse[Annotated[str, AfterValidator(stumble)]]: ...

    transport = httpx.MockTransport(lambda _: httpx.Response(200, json=SECRET))
    error = (await Api(ClientOptions(base_url="http://a", transport=lambda: transport)).get_value()).error
    assert error is not None
    assert error.reason == "a validator of the type raised KeyError"
    assert SECRET not in "".join(traceback.format_exception(error))
