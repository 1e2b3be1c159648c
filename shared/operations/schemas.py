"""JSON Schemas of the models as JSON has them: with what is always there, what may be absent, and what it means."""

import inspect
import re
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue, models_json_schema
from pydantic_core import core_schema

from shared.delivery.answers import json_name

_SECTION = re.compile(r"^(Attributes|Args|Returns|Yields|Raises|Examples?|Notes?):\n", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def schemas_of(
    *, sent: list[type[BaseModel]], answered: list[type[BaseModel]], ref_template: str
) -> dict[str, dict[str, Any]]:
    """The schemas of models and of all that they refer to, by name.

    Args:
        sent: Models that are read.
        answered: Models that are written without members that are None.
        ref_template: How a schema refers to another one, with `{model}` for its name.
    """
    modes: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "validation") for model in sent),
        *((model, "serialization") for model in answered),
    ]
    _, definitions = models_json_schema(modes, ref_template=ref_template, schema_generator=_Schemas)
    schemas: dict[str, dict[str, Any]] = definitions["$defs"]
    return schemas


class _Schemas(GenerateJsonSchema):
    """Writes down what pydantic does not know: that None is never written, and where attributes are described."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return (
            self.generate_inner(schema["schema"]) if self.mode == "serialization" else super().nullable_schema(schema)
        )

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Only what is read has defaults: a member that is not written has no value."""
        if self.mode == "serialization" or schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 (as the base class has it)
        """No title is made up: it would only repeat the name."""
        return False

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        written = super().model_schema(schema)
        model: type[BaseModel] = schema["cls"]
        described: dict[str, str] = {}
        for base in reversed(model.__mro__):
            text, attributes = _read_docstring(base)
            described |= attributes
        written.pop("description", None)
        if text:
            written["description"] = text
        names = {name: json_name(model, name) for name in model.model_fields}
        members = written["properties"]
        for name, meaning in described.items():
            if names.get(name) in members:
                members[names[name]].setdefault("description", meaning)
        if self.mode == "serialization":
            always = [names[name] for name, field in model.model_fields.items() if _always_written(field)]
            written["required"] = [name for name in always if name in members]
        return written


def _always_written(field: FieldInfo) -> bool:
    return field.exclude_if is None and type(None) not in get_args(field.annotation)


def _read_docstring(documented: type) -> tuple[str, dict[str, str]]:
    """What a docstring says to callers: the text before its sections, and the entries of `Attributes:` by name."""
    text, *sections = _SECTION.split(inspect.cleandoc(documented.__doc__ or ""))
    entries = dict(zip(sections[::2], sections[1::2], strict=True)).get("Attributes", "")
    paragraphs = [_unwrapped(paragraph) for paragraph in text.split("\n\n")]
    return "\n\n".join(filter(None, paragraphs)), {name: _unwrapped(entry) for name, entry in _ENTRY.findall(entries)}


def _unwrapped(text: str) -> str:
    """One line, in which what Python calls None is absent."""
    return re.sub(r"\bNone\b", "absent", " ".join(text.split()))
