"""What a server tells of its quotas is understood, or ignored: no value that it can send is an error."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.rate_limits import LONGEST_RESET, RateLimit, parse_rate_limits


def parsed(limit: str, policy: str | None = None) -> list[RateLimit]:
    return parse_rate_limits({"RateLimit": limit} | ({} if policy is None else {"RateLimit-Policy": policy}))


@pytest.mark.parametrize(
    ("field", "quotas"),
    [
        ('"default";r=50;t=30', [RateLimit(50, 30.0, "default")]),
        ('"default"; r=50; t=30', [RateLimit(50, 30.0, "default")]),
        ("default;r=50;t=30", [RateLimit(50, 30.0, "default")]),
        ('"burst";r=0;t=1, "day";r=999;t=3600', [RateLimit(0, 1.0, "burst"), RateLimit(999, 3600.0, "day")]),
        ('"a,b;r=1";r=2;t=3', [RateLimit(2, 3.0, "a,b;r=1")]),
        (r'"a \"b\"";r=2;t=3', [RateLimit(2, 3.0, 'a "b"')]),
        ('"keyed";r=2;t=3;pk=:cHJpdmF0ZQ==:', [RateLimit(2, 3.0, "keyed")]),
        ('"more";q=100;qu="requests";new;r=2;x=1.5;t=3', [RateLimit(2, 3.0, "more")]),
        ('"twice";r=1;r=2;t=3', [RateLimit(2, 3.0, "twice")]),
        ('"late";r=1;t=999999999999', [RateLimit(1, LONGEST_RESET, "late")]),
        ('"bad;r=1;t=2, "good";r=3;t=4', []),
        ('=;r=1;t=2, "good";r=3;t=4', [RateLimit(3, 4.0, "good")]),
        ('"none";t=2, "negative";r=-1;t=2, "decimal";r=1.5;t=2, "text";r="1";t=2', []),
        ('"no window";r=1', []),
        ('"upper";R=1;T=2', []),
        ("limit=100, remaining=40, reset=9", [RateLimit(40, 9.0)]),
        ("limit=100, remaining=40", []),
        ("", []),
    ],
)
def test_the_field_tells_what_is_left_of_each_policy(field: str, quotas: list[RateLimit]) -> None:
    assert parsed(field) == quotas


def test_a_quota_without_a_reset_lasts_as_long_as_the_window_of_its_policy() -> None:
    policy = '"burst";q=10;w=1;pk=:YQ==:, "day";q=1000;w=86400'
    assert parsed('"day";r=7, "burst";r=3;t=0, "other";r=1', policy) == [
        RateLimit(7, 86400.0, "day"),
        RateLimit(3, 0.0, "burst"),
    ]


@pytest.mark.parametrize(
    ("remaining", "reset", "quotas"),
    [
        ("37", "12", [RateLimit(37, 12.0)]),
        ("0", "60, 60;w=60", [RateLimit(0, 60.0)]),
        ("1 ; comment=x", "2", [RateLimit(1, 2.0)]),
        ("-1", "60", []),
        ("many", "60", []),
        ("5", "Thu, 01 Jan 2026 00:00:00 GMT", []),
        ("5", None, []),
        (None, "60", []),
    ],
)
def test_the_older_fields_are_read(remaining: str | None, reset: str | None, quotas: list[RateLimit]) -> None:
    fields = {"RateLimit-Limit": "100", "RateLimit-Remaining": remaining, "RateLimit-Reset": reset}
    assert parse_rate_limits({name: value for name, value in fields.items() if value is not None}) == quotas


def test_names_of_fields_compare_without_case() -> None:
    assert parse_rate_limits(httpx.Headers({"ratelimit": '"a";r=1;t=2'})) == [RateLimit(1, 2.0, "a")]


NAMES = st.from_regex(r"[ !#-\[\]-~]{0,20}", fullmatch=True)


@given(st.lists(st.tuples(NAMES, st.integers(0, 10**15 - 1), st.integers(0, 10**6)), max_size=5))
def test_what_was_written_is_read(quotas: list[tuple[str, int, int]]) -> None:
    field = ", ".join(f'"{name}";r={remaining};t={reset}' for name, remaining, reset in quotas)
    assert parsed(field) == [RateLimit(remaining, reset, name) for name, remaining, reset in quotas]


FIELDS = st.text() | st.text(st.sampled_from('abrt=;,":\\ 0123456789.-?*'), max_size=80)


@given(
    st.fixed_dictionaries(
        dict.fromkeys(("RateLimit", "RateLimit-Policy", "RateLimit-Remaining", "RateLimit-Reset"), FIELDS)
    )
)
def test_whatever_is_sent_what_is_read_is_within_its_bounds(both: dict[str, str]) -> None:
    older = {name: value for name, value in both.items() if name != "RateLimit"}
    for quota in [*parse_rate_limits(both), *parse_rate_limits(older)]:
        assert quota.remaining >= 0
        assert 0 <= quota.reset <= LONGEST_RESET


@pytest.mark.parametrize("text", ['"' * 10**5, ";" * 10**5, '"a"' + ";r=1" * 10**5, "a" * 10**6, ',"\\' * 10**5])
def test_a_field_that_is_made_to_hurt_is_read_in_a_moment(text: str) -> None:
    parse_rate_limits({"RateLimit": text, "RateLimit-Policy": text})
