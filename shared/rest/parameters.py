"""Where the arguments of a method go in a request: the markers for `Annotated`, and how values become text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import PydanticUserError, TypeAdapter

from .headers import checked_value


@dataclass(frozen=True, slots=True)
class Query:
    """The argument goes to the query; None leaves it out, each item of a list gets a pair of its own.

    Attributes:
        name: In the URL; the parameter's name unless given.
    """

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Header:
    """The argument goes to a header; None removes the header, items of a list are joined with commas.

    Attributes:
        name: Of the header; the parameter's name with dashes for underscores unless given.
    """

    name: str | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """The argument is the body: bytes as they are, anything else as JSON; None sends no body.

    Attributes:
        content_type: `application/json`, or `application/octet-stream` for bytes, unless given. With one that is not
            JSON, a `str` is sent as it is, in UTF-8.
        exclude_none: Leave out fields that are None.
        exclude_unset: Leave out fields that were not set, as a `PATCH` may want.
    """

    content_type: str | None = None
    exclude_none: bool = False
    exclude_unset: bool = False


@dataclass(frozen=True, slots=True)
class Form:
    """The argument goes to a URL-encoded form: as a field of it, or, if it has fields itself, as all of them.

    Attributes:
        name: Of the field; the parameter's name unless given.
    """

    name: str | None = None


type Marker = Query | Header | Body | Form

_SIMPLE = frozenset({"string", "number", "integer", "boolean"})


def adapter_for(annotation: Any) -> TypeAdapter[Any]:
    """What validates and writes values of a type.

    Raises:
        TypeError: The type is open, so that nothing would be validated.
    """
    if isinstance(annotation, TypeVar) or bool(getattr(annotation, "__parameters__", None)):
        raise TypeError(f"expected a concrete type, not {annotation}")
    return TypeAdapter(annotation)


@dataclass(frozen=True, slots=True)
class Shape:
    """What the values of a type look like in JSON.

    Attributes:
        optional: Null among them.
        repeated: Arrays of simple values among them.
        structured: Anything but null, simple values and arrays of those among them.
    """

    optional: bool
    repeated: bool
    structured: bool

    @classmethod
    def of(cls, adapter: TypeAdapter[Any]) -> "Shape":
        """The shape of the type that an adapter is for."""
        try:
            schema = adapter.json_schema(mode="serialization")
        except PydanticUserError:  # it has no JSON form
            return cls(optional=False, repeated=False, structured=True)
        kinds = set(_kinds(schema, schema.get("$defs", {})))
        return cls("null" in kinds, "array" in kinds, not kinds <= _SIMPLE | {"null", "array"})


def _kinds(schema: Mapping[str, Any], definitions: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The JSON types that a JSON schema allows; "array" for one of simple values, "structure" for any other."""
    if "$ref" in schema:
        yield from _kinds(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    elif alternatives := schema.get("anyOf") or schema.get("oneOf"):
        for alternative in alternatives:
            yield from _kinds(alternative, definitions)
    elif "const" in schema or "enum" in schema:
        for value in schema.get("enum", [schema.get("const")]):
            yield "null" if value is None else "string"
    elif schema.get("type") == "array":
        simple = "items" in schema and set(_kinds(schema["items"], definitions)) <= _SIMPLE
        yield "array" if simple else "structure"
    else:
        yield schema.get("type", "structure")


def as_text(value: Any) -> str:
    """A simple value, as pydantic writes it for JSON, as text."""
    if value is True:
        return "true"
    if value is False:
        return "false"
    return str(value)


def path_segment(name: str, value: Any) -> str:
    """A value percent-encoded for a path, `/` included.

    Raises:
        ValueError: Servers and proxies would take the path for another one: the value is empty, `.` or `..`.
    """
    text = as_text(value)
    if text in {"", ".", ".."}:
        raise ValueError(f"{name}: {text!r} cannot stand in a path")
    return quote(text, safe="")


def pairs(name: str, value: Any) -> Iterator[str]:
    """A value as `name=value`, percent-encoded; none for None, one for each item of a list."""
    if isinstance(value, list):
        for item in value:
            yield from pairs(name, item)
    elif value is not None:
        yield f"{quote(name, safe='')}={quote(as_text(value), safe='')}"


def header_value(name: str, value: Any) -> bytes:
    """A value, or the items of a list, for a header.

    Raises:
        ValueError: It holds what cannot stand in a header, such as CR and LF.
    """
    return checked_value(name, ", ".join(map(as_text, value)) if isinstance(value, list) else as_text(value))
