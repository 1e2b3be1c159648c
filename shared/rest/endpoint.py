"""Compiles a method's stub, once, into what turns its arguments into a request and the response into its result."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAliasType, get_args, get_type_hints

from pydantic import PydanticUserError, ValidationError

from shared.http.media_types import is_json

from .headers import checked_name, checked_value
from .options import CallOptions, checked_options
from .parameters import Body, Form, Header, Marker, Query, Shape, adapter_for, header_value, pairs, path_segment
from .responses import Returned
from .validation import summarize

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_WITHOUT_BODY = frozenset({"GET", "HEAD"})
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Content:
    """What of a request depends on the arguments.

    Attributes:
        target: Path and query, without a slash at the beginning.
        headers: By name in lower case; None removes one that the client, class or method sets.
        body: None if there is none.
    """

    target: str
    headers: Mapping[str, tuple[bytes, bytes] | None]
    body: bytes | None


class Endpoint:
    """A method of an API.

    Args:
        verb: HTTP method.
        path: Appended to the base URL, with `{placeholders}` named as parameters, and perhaps with a fixed query.
        options: Of the method.
        stub: The annotated coroutine function, whose body is never run.

    Attributes:
        name: Of the stub, with its class.
        verb: HTTP method.
        template: The path with its placeholders, for telemetry, without a query.
        options: Of the method.
        returned: What it returns.
        content_type: Of the body; None if there never is one.

    Raises:
        TypeError: Stub and path do not fit together, or the stub cannot be understood.
    """

    def __init__(self, verb: str, path: str, options: CallOptions, stub: Callable[..., Any]) -> None:
        self.verb = verb
        self.template = path.partition("?")[0]
        self.options = options
        self.name = stub.__qualname__
        self._query: list[_Parameter] = []
        self._headers: list[_Parameter] = []
        self._form: list[_Parameter] = []
        self._body: _Parameter | None = None
        self.content_type: str | None = None
        try:
            checked_options(options)
            parameters = self._read_stub(stub)
            self._read_path(path, parameters)
            for parameter in parameters.values():
                self._place(parameter)
        except (TypeError, ValueError, NameError, PydanticUserError) as error:
            raise TypeError(f"{self.name}: {error}") from error

    def _read_stub(self, stub: Callable[..., Any]) -> dict[str, "_Parameter"]:
        if not inspect.iscoroutinefunction(stub):
            raise TypeError("expected `async def`")
        self._signature = inspect.signature(stub)
        hints = get_type_hints(stub, include_extras=True)
        if "return" not in hints:
            raise TypeError("expected a return annotation")
        self.returned = Returned.of(hints["return"])
        if self.verb == "HEAD" and not self.returned.empty:
            raise TypeError("a response to HEAD has no content: expected None or ApiResponse[None]")
        parameters = {}
        for name, parameter in list(self._signature.parameters.items())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise TypeError(f"{name}: has nowhere to go")
            if name not in hints:
                raise TypeError(f"{name}: expected an annotation")
            parameters[name] = _Parameter(name, hints[name], parameter.default)
        return parameters

    def _read_path(self, path: str, parameters: dict[str, "_Parameter"]) -> None:
        """Split the path at its placeholders, and take their parameters out of `parameters`."""
        parts = _PLACEHOLDER.split(path)
        names = parts[1::2]
        if any(re.search(r"[{}#\s]", literal) for literal in parts[::2]):
            raise TypeError(f"expected a path with {{placeholders}} and without fragment or spaces, not {path!r}")
        for name in names:
            if name not in parameters:
                raise TypeError(f"the placeholder {{{name}}} has no parameter, or stands there twice")
            parameter = parameters.pop(name)
            if parameter.marker is not None:
                raise TypeError(f"{name}: stands in the path, so expected no {type(parameter.marker).__name__}()")
            if parameter.shape.optional or parameter.shape.repeated or parameter.shape.structured:
                raise TypeError(f"{name}: stands in the path, so expected a single value, never None")
            parts[2 * names.index(name) + 1] = parameter
        parts[0] = parts[0].lstrip("/")
        self._path = parts
        self._separator = "&" if "?" in path else "?"

    def _place(self, parameter: "_Parameter") -> None:
        match parameter.marker:
            case Body() if self._body is None and not self._form:
                self._body = parameter
                self.content_type = parameter.marker.content_type or (
                    "application/octet-stream" if parameter.type is bytes else "application/json"
                )
                checked_value("Content-Type", self.content_type)
                if parameter.type is not bytes and parameter.type is not str and not is_json(self.content_type):
                    raise TypeError(f"{parameter.name}: expected bytes or str for a body of {self.content_type}")
            case Form() if self._body is None:
                self._form.append(parameter)
                self.content_type = _FORM
            case Body() | Form():
                raise TypeError(f"{parameter.name}: there is another body already")
            case Header():
                name = checked_name(parameter.wire_name).lower()
                if any(other.wire_name.lower() == name for other in self._headers):
                    raise TypeError(f"{parameter.name}: there is another parameter for {parameter.wire_name} already")
                self._headers.append(parameter)
            case Query() | None:
                self._query.append(parameter)
        if parameter.shape.structured and not isinstance(parameter.marker, (Body, Form)):
            raise TypeError(f"{parameter.name}: has nowhere to go; mark it with Body() or Form() to make it the body")
        if self.content_type is not None and self.verb in _WITHOUT_BODY:
            raise TypeError(f"{parameter.name}: a {self.verb} request has no body")

    def bind(self, *args: object, **kwargs: object) -> dict[str, Any]:
        """The arguments of a call, `self` first, by name.

        Raises:
            TypeError: They do not fit the signature.
        """
        return self._signature.bind(*args, **kwargs).arguments

    def content(self, arguments: Mapping[str, Any]) -> Content:
        """Write arguments as a request.

        Raises:
            ValueError: One is not valid for its annotation, or cannot be sent. The message does not repeat it.
        """
        try:
            return Content(
                self._target(arguments),
                {
                    parameter.wire_name.lower(): parameter.header(parameter.argument(arguments))
                    for parameter in self._headers
                },
                self._content_body(arguments),
            )
        except ValueError as error:
            raise ValueError(f"{self.name}: {error}") from None

    def _target(self, arguments: Mapping[str, Any]) -> str:
        target = "".join(
            [
                part if isinstance(part, str) else path_segment(part.name, part.simple(arguments[part.name]))
                for part in self._path
            ]
        )
        query = "&".join(
            [
                pair
                for parameter in self._query
                for pair in pairs(parameter.wire_name, parameter.simple(parameter.argument(arguments)))
            ]
        )
        return f"{target}{self._separator}{query}" if query else target

    def _content_body(self, arguments: Mapping[str, Any]) -> bytes | None:
        if self._form:
            fields = [pair for parameter in self._form for pair in parameter.fields(parameter.argument(arguments))]
            return "&".join(fields).encode("ascii")
        if self._body is None:
            return None
        value = self._body.validated(self._body.argument(arguments))
        if value is None or isinstance(value, bytes):
            return value
        if isinstance(value, str) and not is_json(self.content_type or ""):
            return value.encode()
        return self._body.json(value)


class _Parameter:
    """A parameter of a stub: validates its argument as annotated and writes it."""

    def __init__(self, name: str, annotation: Any, default: object) -> None:
        self.name = name
        self._default = default
        metadata = getattr(annotation, "__metadata__", ())
        markers: list[Marker] = [value for value in metadata if isinstance(value, (Query, Header, Body, Form))]
        if len(markers) > 1 or any(value in (Query, Header, Body, Form) for value in metadata):
            raise TypeError(f"{name}: expected one marker, and with parentheses, as in Query()")
        self.marker = markers[0] if markers else None
        self._adapter = adapter_for(annotation)
        self.shape = Shape.of(self._adapter)
        self.type = _bare(annotation)
        match self.marker:
            case Header(given):
                self.wire_name = given or name.replace("_", "-")
            case Query(given) | Form(given):
                self.wire_name = given or name
            case _:
                self.wire_name = name

    def argument(self, arguments: Mapping[str, Any]) -> Any:
        """Its argument, or its default."""
        return arguments.get(self.name, self._default)

    def validated(self, value: Any) -> Any:
        """The argument as annotated.

        Raises:
            ValueError: It is not valid.
        """
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise ValueError(f"{self.name}: {summarize(error, self._adapter)}") from None

    def simple(self, value: Any) -> Any:
        """The argument as JSON would have it."""
        return self._adapter.dump_python(self.validated(value), mode="json", by_alias=True)

    def json(self, value: Any) -> bytes:
        """The validated argument as a JSON document."""
        marker = self.marker
        return self._adapter.dump_json(
            value,
            by_alias=True,
            exclude_none=isinstance(marker, Body) and marker.exclude_none,
            exclude_unset=isinstance(marker, Body) and marker.exclude_unset,
        )

    def header(self, value: Any) -> tuple[bytes, bytes] | None:
        """The argument as a header field."""
        simple = self.simple(value)
        return None if simple is None else (self.wire_name.encode("ascii"), header_value(self.wire_name, simple))

    def fields(self, value: Any) -> Iterator[str]:
        """The argument as fields of a form."""
        simple = self.simple(value)
        if isinstance(simple, dict):
            for name, item in simple.items():
                yield from pairs(name, item)
        else:
            yield from pairs(self.wire_name, simple)


def _bare(annotation: Any) -> Any:
    """The type without aliases, `Annotated` and `None`."""
    while True:
        if isinstance(annotation, TypeAliasType):
            annotation = annotation.__value__
        elif hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        else:
            break
    alternatives = [alternative for alternative in get_args(annotation) if alternative is not type(None)]
    is_optional = len(alternatives) == 1 and type(None) in get_args(annotation)
    return _bare(alternatives[0]) if is_optional else annotation
