"""Reads durable state without telling in an error what was in it: the texts of exceptions reach logs and histories."""

from typing import Any

from pydantic import ConfigDict, ValidationError, ValidatorFunctionWrapHandler, WrapValidator

HIDDEN = ConfigDict(hide_input_in_errors=True)
"""For a `TypeAdapter`, which does not ask the models that it reads."""


def _validate(value: object, handler: ValidatorFunctionWrapHandler) -> Any:
    try:
        return handler(value)
    except ValidationError as error:
        lines = error.errors(include_url=False, include_context=False, include_input=False)
        kinds = ", ".join(sorted({line["type"] for line in lines}))
        raise ValueError(f"expected an outcome of a known kind: {kinds}") from None


UNTOLD = WrapValidator(_validate)
"""Annotates what holds outcomes: of an unknown kind, pydantic's own message would repeat the name."""
