"""Tells what did not validate, and where, without the values: they may be private."""

from collections.abc import Iterator
from typing import Any, get_args

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

_SHOWN = 5
_QUOTING = frozenset(  # types of errors whose messages may hold the value, or what somebody else's code says of it
    {
        "assertion_error",
        "get_attribute_error",
        "iteration_error",
        "mapping_type",
        "union_tag_invalid",
        "uuid_parsing",
        "value_error",
    }
)
_PLAIN = frozenset(get_args(ErrorType)) - _QUOTING


def summarize(error: ValidationError, adapter: TypeAdapter[Any]) -> str:
    """What did not validate and where.

    Only names that the type itself declares are shown; `*` stands for other keys, which may be values themselves.

    Args:
        error: Of a value.
        adapter: What validated it.
    """
    details = error.errors(include_url=False, include_context=False, include_input=False)
    try:
        schema = adapter.json_schema()
    except PydanticUserError:  # the type has no JSON form
        schema = {}
    nodes = list(_nodes(schema))
    names = {name for node in nodes for name in node.get("properties", {})}
    # With mappings about, a number may be a key as well as the position in a list.
    numbered = not any(node.get("additionalProperties") for node in nodes)
    shown = "; ".join(_summary(one, names, numbered=numbered) for one in details[:_SHOWN])
    return f"{shown}; {len(details) - _SHOWN} more" if len(details) > _SHOWN else shown


def _summary(one: ErrorDetails, names: set[str], *, numbered: bool) -> str:
    place = ".".join(str(part) if part in names or (numbered and isinstance(part, int)) else "*" for part in one["loc"])
    message = one["msg"] if one["type"] in _PLAIN else "Value is not valid"
    return f"{place}: {message}" if place else message


def _nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects in a JSON schema, whatever they stand for."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from _nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _nodes(value)
