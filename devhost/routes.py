"""Matches request paths against route templates, by the rules of ASP.NET routing that the real host uses."""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

# A parameter inside braces: `*` for a catch-all, name, constraints, `=default` or `?`.
_PARAMETER = re.compile(r"\{(\*{0,2})(\w+)((?::(?:\w+)(?:\((?:[^()]|\([^()]*\))*\))?)*)(?:=([^{}?]*))?(\?)?\}")
_CONSTRAINT = re.compile(r":(\w+)(?:\(((?:[^()]|\([^()]*\))*)\))?")


class RouteError(ValueError):
    """A route template can't be used; the message says why."""


def _number(test: Callable[[int], bool]) -> Callable[[str], bool]:
    return lambda value: bool(re.fullmatch(r"[+-]?\d+", value)) and test(int(value))


def _pattern(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda value: compiled.fullmatch(value) is not None


def _is_datetime(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


def _length(argument: str) -> Callable[[str], bool]:
    lowest, _, highest = argument.partition(",")
    bounds = range(int(lowest), int(highest or lowest) + 1)
    return lambda value: len(value) in bounds


def _size(argument: str, compare: Callable[[int, int], bool], *, of_text: bool) -> Callable[[str], bool]:
    bound = int(argument)
    if of_text:
        return lambda value: compare(len(value), bound)
    return _number(lambda number: compare(number, bound))


def _range(argument: str) -> Callable[[str], bool]:
    lowest, highest = (int(bound) for bound in argument.split(","))
    return _number(lambda number: lowest <= number <= highest)


def _regex(argument: str) -> Callable[[str], bool]:
    compiled = re.compile(argument.replace("{{", "{").replace("}}", "}"), re.IGNORECASE)
    return lambda value: compiled.search(value) is not None


_GUID = r"\{?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\}?"
_REAL = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?"

CONSTRAINTS: Mapping[str, Callable[[str], Callable[[str], bool]]] = {
    "int": lambda _: _number(lambda number: -(2**31) <= number < 2**31),
    "long": lambda _: _number(lambda number: -(2**63) <= number < 2**63),
    "bool": lambda _: _pattern("true|false"),
    "guid": lambda _: _pattern(_GUID),
    "alpha": lambda _: _pattern("[a-z]*"),
    "decimal": lambda _: _pattern(_REAL),
    "double": lambda _: _pattern(_REAL),
    "float": lambda _: _pattern(_REAL),
    "datetime": lambda _: _is_datetime,
    "required": lambda _: lambda value: value != "",
    "length": _length,
    "minlength": lambda argument: _size(argument, operator.ge, of_text=True),
    "maxlength": lambda argument: _size(argument, operator.le, of_text=True),
    "min": lambda argument: _size(argument, operator.ge, of_text=False),
    "max": lambda argument: _size(argument, operator.le, of_text=False),
    "range": _range,
    "regex": _regex,
}


@dataclass(frozen=True, slots=True)
class Route:
    """A compiled template.

    `precedence` sorts routes, the most specific first: segment by segment, literal text before a constrained parameter
    before a free one before a catch-all.
    """

    template: str
    precedence: tuple[int, ...]
    _pattern: re.Pattern[str]
    _constraints: Sequence[tuple[str, Callable[[str], bool]]]
    _defaults: Mapping[str, str]

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters of a path that fits (optional ones that are absent left out), else None."""
        match = self._pattern.fullmatch(path.strip("/"))
        if match is None:
            return None
        values = {name: value for name, value in match.groupdict().items() if value}
        if any(name in values and not admits(values[name]) for name, admits in self._constraints):
            return None
        return {**self._defaults, **values}


def compile_route(template: str) -> Route:
    """Compile a route template such as `orders/{id:int}/{*rest}`. Raises `RouteError`."""
    pattern, precedence = "", []
    constraints: list[tuple[str, Callable[[str], bool]]] = []
    defaults: dict[str, str] = {}
    for segment in _segments(template.strip("/")):
        text, position, optional, catch_all, constrained = "", 0, False, False, False
        parameters = list(_PARAMETER.finditer(segment))
        for parameter in parameters:
            stars, name, rules, default, question_mark = parameter.groups()
            text += re.escape(segment[position : parameter.start()])
            position = parameter.end()
            text += f"(?P<{name}>{'.*' if stars else '[^/]+?'})"
            catch_all, optional = catch_all or bool(stars), optional or bool(question_mark) or default is not None
            if default is not None:
                defaults[name] = default
            for rule in _CONSTRAINT.finditer(rules):
                constrained = True
                constraints.append((name, _constraint(template, rule[1].lower(), rule[2] or "")))
        rest = segment[position:]
        if "{" in rest or "}" in rest:
            raise RouteError(f"the route template '{template}' is not well formed at '{segment}'")
        text += re.escape(rest)
        slash = "/" if pattern else ""
        pattern += f"(?:{slash}{text})?" if optional or catch_all else slash + text
        precedence.append(_precedence(bool(parameters), bool(rest) or len(parameters) > 1, constrained, catch_all))
    return Route(template, tuple(precedence), re.compile(pattern, re.IGNORECASE), constraints, defaults)


def _segments(template: str) -> list[str]:
    """Split at the slashes outside braces (a regex constraint may hold some)."""
    segments, depth = [""], 0
    for character in template:
        depth += (character == "{") - (character == "}")
        if character == "/" and depth == 0:
            segments.append("")
        else:
            segments[-1] += character
    return [segment for segment in segments if segment]


def _constraint(template: str, name: str, argument: str) -> Callable[[str], bool]:
    try:
        return CONSTRAINTS[name](argument)
    except KeyError:
        raise RouteError(f"the route template '{template}' uses an unknown constraint '{name}'") from None
    except (ValueError, re.error) as error:
        raise RouteError(f"the route template '{template}' has a bad argument for '{name}': {error}") from error


def _precedence(parametrised: bool, complex_segment: bool, constrained: bool, catch_all: bool) -> int:
    if not parametrised:
        return 1
    if catch_all:
        return 4 if constrained else 5
    return 2 if constrained or complex_segment else 3
