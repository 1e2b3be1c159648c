"""What a server tells of its quotas: RateLimit and RateLimit-Policy, and the three fields that came before them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

LONGEST_RESET = 2.0**31
"""Seconds: what a later reset is taken for, as for `Retry-After`."""

_LARGEST = 10**15 - 1  # of an integer in a structured field (RFC 9651, section 3.3.1)
_MAX_LENGTH = 4096

_STRING = r'"(?:[ !#-\[\]-~]|\\["\\])*"'
_WORD = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"
_BARE = rf"{_STRING}|{_WORD}|-?[0-9]{{1,15}}(?:\.[0-9]{{1,3}})?|:[A-Za-z0-9+/=]*:|\?[01]"
_PARAMETER = re.compile(rf";[ ]*([a-z*][a-z0-9_\-.*]*)(?:=({_BARE}))?")
_MEMBER = re.compile(rf"[ \t]*({_STRING}|{_WORD})((?:{_PARAMETER.pattern})*)[ \t]*")
_OLDER_MEMBER = re.compile(r"[ \t]*(limit|remaining|reset)=([0-9]{1,15})[ \t]*")  # drafts 4 to 7
_MEMBERS = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^",])+')  # divided by commas that stand outside of quotes
_INTEGER = re.compile(r"[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What is left of a quota.

    Attributes:
        remaining: Calls that may still be made before the reset, from 0.
        reset: Seconds until the quota is whole again, from 0.
        name: Of the policy; empty in the older fields.
    """

    remaining: int
    reset: float
    name: str = ""


def parse_rate_limits(headers: Mapping[str, str]) -> list[RateLimit]:
    """Read what an answer tells of its quotas.

    `RateLimit: "burst";r=12;t=7` is read (draft-ietf-httpapi-ratelimit-headers-10), with the `w` of the policy of the
    same name in `RateLimit-Policy` where `t` is missing; if it is not there, `RateLimit: limit=…, remaining=…,
    reset=…` (draft 7) and the fields `RateLimit-Remaining` and `RateLimit-Reset`. What is malformed is ignored.

    Args:
        headers: Of the answer; names compare without case.

    Returns:
        A quota for each policy of which it is known how much is left and until when.
    """
    field = headers.get("RateLimit")
    if field is not None:
        return list(_of_policies(field, headers.get("RateLimit-Policy", ""))) or _of_older_field(field)
    remaining, reset = (_first_number(headers.get(f"RateLimit-{name}", "")) for name in ("Remaining", "Reset"))
    return [] if remaining is None or reset is None else [_rate_limit(remaining, reset)]


def _of_policies(field: str, policies: str) -> Iterator[RateLimit]:
    windows = {name: parameters.get("w") for name, parameters in _members(policies)}
    for name, parameters in _members(field):
        remaining, reset = parameters.get("r"), parameters.get("t", windows.get(name))
        if remaining is not None and reset is not None:
            yield _rate_limit(remaining, reset, name)


def _of_older_field(field: str) -> list[RateLimit]:
    found = [_OLDER_MEMBER.fullmatch(member) for member in field[:_MAX_LENGTH].split(",")]
    values = {match[1]: int(match[2]) for match in found if match}
    if "remaining" not in values or "reset" not in values:
        return []
    return [_rate_limit(values["remaining"], values["reset"])]


def _members(field: str) -> Iterator[tuple[str, dict[str, int]]]:
    """The members of a list by name, each with those of its parameters that are integers from 0."""
    for text in _MEMBERS.findall(field[:_MAX_LENGTH]):
        member = _MEMBER.fullmatch(text)
        if member is not None:
            name = re.sub(r"\\(.)", r"\1", member[1][1:-1]) if member[1].startswith('"') else member[1]
            yield (
                name,
                {key: int(value) for key, value in _PARAMETER.findall(member[2]) if _INTEGER.fullmatch(value)},
            )


def _first_number(field: str) -> int | None:
    """The number of an older field, which its policy may follow, as in `100, 100;w=60`."""
    match = _INTEGER.match(field.strip())
    rest = "" if match is None else field.strip()[match.end() :]
    return int(match[0]) if match is not None and (not rest or rest.lstrip()[:1] in {",", ";"}) else None


def _rate_limit(remaining: int, reset: int, name: str = "") -> RateLimit:
    return RateLimit(min(remaining, _LARGEST), min(float(reset), LONGEST_RESET), name)
