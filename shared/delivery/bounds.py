"""How much is kept of what an API answers: durable state and custom status are small, answers may be anything."""

import json
import math
from typing import Any

from pydantic import BaseModel

SINGLE_LIMIT = 4096
BATCH_LIMIT = 2048
"""What the outcome of a single record, and of a record of a batch, may take of the task hub (`size`)."""

ID_LIMIT = 150
"""What the id of a record may take."""

STATUS_LIMIT = 8000
"""What a custom status may take: the engine fails an orchestration over 16 KB of UTF-16."""

_NOTHING: Any = object()
_PUNCTUATION = 12  # around a member: its name's quotes, colon, comma and spaces
_SHORTEST_TEXT = 24
_SMALL, _LEAST_SHARE = 256, 64


def size(value: Any) -> int:
    """Characters that a value takes of an input as the durable SDK writes it: as the JSON of a JSON text, in ASCII."""
    return len(json.dumps(json.dumps(value)))


def stored(model: BaseModel) -> dict[str, Any]:
    """A model as durable state holds it: plain JSON, without members that are None."""
    return model.model_dump(mode="json", exclude_none=True)


def bounded[T: BaseModel](outcome: T, limit: int) -> T:
    """An outcome that takes at most `limit` (`size`); `truncated` tells whether it took more.

    The record as the API has it is kept whole or not at all. Problem details, excerpt and long texts are cut.
    """
    members = stored(outcome)
    texts = {name: members[name] for name in ("reason", "warning") if members.get(name)}
    members |= {name: cut(text, limit // 4) for name, text in texts.items()}
    told = {name: _storable(members.pop(name)) for name in ("business", "problem", "excerpt") if members.get(name)}
    room = limit - size(members | {"truncated": True})
    kept: dict[str, Any] = {}
    for name, value in told.items():
        fitted = _fitted(value, room - len(name) - _PUNCTUATION)
        if fitted is not _NOTHING and (name != "business" or fitted == value):
            kept[name] = fitted
            room -= size(fitted) + len(name) + _PUNCTUATION
    if kept != told or not texts.items() <= members.items():
        members["truncated"] = True
    unstored = {name: getattr(outcome, name) for name, field in type(outcome).model_fields.items() if field.exclude}
    return type(outcome).model_validate(members | kept).model_copy(update=unstored)


def _storable(value: Any) -> Any:
    """JSON that every part of the engine can read: without numbers that are none, or that have hundreds of digits."""
    match value:
        case dict():
            return {name: _storable(member) for name, member in value.items()}
        case list():
            return [_storable(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case int() if abs(value) >= 2**63:
            return str(value)
        case _:
            return value


def _fitted(value: Any, room: int) -> Any:
    """As much of a JSON value as fits into `room`, from its beginning; `_NOTHING` if none of it does."""
    if size(value) <= room:
        return value
    match value:
        case str() if room >= _SHORTEST_TEXT:
            return cut(value, room)
        case dict() if room >= 2:
            return _members(value, room - 2)
        case list() if room >= 2:
            return _items(value, room - 2)
        case _:
            return _NOTHING


def cut(text: str, room: int) -> str:
    """As much of a text as fits into `room`, from its beginning."""
    while text and (length := size(text)) > room:
        text = text[: max(len(text) * room // length - 1, 0)]
    return text


def _members(value: dict[str, Any], room: int) -> dict[str, Any]:
    """The members, in their order: small ones as they are, large ones cut to equal shares of what room is left."""
    kept: dict[str, Any] = {}
    names = sorted(value, key=lambda name: size(value[name]) // _SMALL)
    for waiting, name in zip(range(len(names), 0, -1), names, strict=True):
        cost = size(name) + _PUNCTUATION
        fitted = _fitted(value[name], min(max(room // waiting, _LEAST_SHARE), room) - cost)
        if fitted is not _NOTHING:
            kept[name] = fitted
            room -= size(fitted) + cost
    return {name: kept[name] for name in value if name in kept}


def _items(value: list[Any], room: int) -> list[Any]:
    kept: list[Any] = []
    for item in value:
        if (fitted := _fitted(item, room - 2)) is _NOTHING:
            break
        kept.append(fitted)
        room -= size(fitted) + 2
    return kept
