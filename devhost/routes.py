"""Matches request paths against route templates, by the rules of ASP.NET routing that the real host uses."""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from math import inf

# A parameter inside braces: `*` for a catch-all, name, constraints, `=default` or `?`.
_PARAMETER = re.compile(r"\{(\*{0,2})(\w+)((?::(?:\w+)(?:\((?:[^()]|\([^()]*\))*\))?)*)(?:=([^{}?]*))?(\?)?\}")
_CONSTRAINT = re.compile(r":(\w+)(?:\(((?:[^()]|\([^()]*\))*)\))?")

# Tells whether a parameter's value is admitted: by something true.
type _Test = Callable[[str], object]


class RouteError(ValueError):
    """A route template can't be used; the message says why."""


def _text(pattern: str) -> _Test:
    return re.compile(pattern, re.IGNORECASE).fullmatch


def _number(lowest: float, highest: float) -> _Test:
    return lambda value: re.fullmatch(r"[+-]?\d{1,19}", value) and lowest <= int(value) <= highest


def _length(lowest: float, highest: float) -> _Test:
    return lambda value: lowest <= len(value) <= highest


def _datetime(value: str) -> bool:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        return False
    return True


_REAL = _text(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?")

_CONSTRAINTS: Mapping[str, _Test] = {
    "int": _number(-(2**31), 2**31 - 1),
    "long": _number(-(2**63), 2**63 - 1),
    "bool": _text("true|false"),
    "guid": _text(r"\{?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\}?"),
    "alpha": _text("[a-z]*"),
    "decimal": _REAL,
    "double": _REAL,
    "float": _REAL,
    "datetime": _datetime,
    "required": bool,
}

# Those with numbers in brackets.
_BOUNDED: Mapping[str, Callable[..., _Test]] = {
    "length": lambda lowest, highest=None: _length(lowest, lowest if highest is None else highest),
    "minlength": lambda lowest: _length(lowest, inf),
    "maxlength": lambda highest: _length(0, highest),
    "min": lambda lowest: _number(lowest, inf),
    "max": lambda highest: _number(-inf, highest),
    "range": _number,
}


def _constraint(name: str, argument: str) -> _Test:
    if name in _CONSTRAINTS:
        return _CONSTRAINTS[name]
    if name == "regex":
        return re.compile(argument.replace("{{", "{").replace("}}", "}"), re.IGNORECASE).search
    if name not in _BOUNDED:
        raise ValueError(f"unknown constraint '{name}'")
    try:
        return _BOUNDED[name](*map(int, argument.split(",")))
    except (TypeError, ValueError):
        raise ValueError(f"bad argument for '{name}': {argument}") from None


class Route:
    """A compiled template such as `orders/{id:int}/{*rest}`. Raises `RouteError`."""

    def __init__(self, template: str) -> None:
        self.template = template
        self._constraints: list[tuple[str, _Test]] = []
        self._defaults: dict[str, str] = {}
        pattern = ""
        try:
            for segment in _segments(template.strip("/")):
                slash = "/" if pattern else ""
                text, may_be_absent = self._compile(segment)
                pattern += f"(?:{slash}{text})?" if may_be_absent else slash + text
            self._pattern = re.compile(pattern, re.IGNORECASE)
        except (ValueError, re.error) as error:
            raise RouteError(f"the route template '{template}' can't be used: {error}") from error

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters of a path that fits (optional ones that are absent left out), else None."""
        match = self._pattern.fullmatch(path.strip("/"))
        if match is None:
            return None
        values = {name: value for name, value in match.groupdict().items() if value}
        if all(admits(values[name]) for name, admits in self._constraints if name in values):
            return {**self._defaults, **values}
        return None

    def _compile(self, segment: str) -> tuple[str, bool]:
        """The pattern of a segment, and whether a path may do without it."""
        text, position = "", 0
        may_be_absent = False
        for parameter in _PARAMETER.finditer(segment):
            stars, name, rules, default, question_mark = parameter.groups()
            text += re.escape(segment[position : parameter.start()])
            text += f"(?P<{name}>{'.*' if stars else '[^/]+?'})"
            position = parameter.end()
            if default is not None:
                self._defaults[name] = default
            self._constraints += [
                (name, _constraint(rule[1].lower(), rule[2] or "")) for rule in _CONSTRAINT.finditer(rules)
            ]
            may_be_absent |= bool(stars or question_mark) or default is not None
        rest = segment[position:]
        if "{" in rest or "}" in rest:
            raise ValueError(f"not well formed at '{segment}'")
        return text + re.escape(rest), may_be_absent


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
