"""How answers of token endpoints are read, those that bend the rules included."""

import json
import math
import pickle
from datetime import UTC, datetime
from email.utils import format_datetime

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.access_tokens import AccessToken, TokenError
from shared.access_tokens.token_response import parse_lifetime, parse_token_response, retry_after_of

NOW = 1_800_000_000.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def parse(document: object, status: int = 200) -> AccessToken:
    return parse_token_response(status, {}, json.dumps(document).encode(), now=NOW)


@pytest.mark.parametrize("value", [3600, 3600.9, "3600", "3600.0", " 3600 ", "3.6e3", "+3600"])
def test_a_lifetime_in_any_numeric_form_is_read_in_whole_seconds(value: object) -> None:
    assert parse({"access_token": "t", "expires_in": value}).expires_in == 3600


@pytest.mark.parametrize("document", [{}, {"expires_in": None}])
def test_a_missing_lifetime_is_unknown(document: dict[str, object]) -> None:
    assert parse({"access_token": "t", **document}).expires_in is None


@pytest.mark.parametrize("text", ["0", "-5", "NaN", "1e400", "Infinity", "true", "[]", '"abc"', '"1_0"', '"nan"', '""'])
def test_a_lifetime_that_is_none_is_zero(text: str) -> None:
    body = f'{{"access_token": "t", "expires_in": {text}}}'.encode()
    assert parse_token_response(200, {}, body, now=NOW).expires_in == 0


@pytest.mark.parametrize("value", [2**31, 10**400, 1e300, "99999999999999"])
def test_a_lifetime_is_at_most_a_32_bit_integer(value: object) -> None:
    assert parse_lifetime(value) == 2**31 - 1


@given(JSON)
def test_a_lifetime_is_unknown_or_finite_whatever_the_server_says(value: object) -> None:
    lifetime = parse_lifetime(value)
    assert (lifetime is None) == (value is None)
    assert lifetime is None or (0 <= lifetime < 2**31 and lifetime == int(lifetime))


@given(st.integers(0, 599), st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_answer_is_a_token_or_a_token_error(status: int, body: bytes) -> None:
    try:
        outcome: AccessToken | TokenError = parse_token_response(status, {}, body, now=NOW)
    except TokenError as error:
        outcome = error
    if isinstance(outcome, AccessToken):
        assert 200 <= status < 300
        assert outcome.value
    else:
        assert outcome.status == status
        assert str(outcome).encode()


@pytest.mark.parametrize(
    "body",
    [
        b"<html>SECRET sign in</html>",
        b"[]",
        b"",
        b"null",
        b'"text"',
        b"\xff\xfe\xfd",
        b"[" * 100_000,
        b"1" * 10_000,
        b'{"error": "server_error"}',
        b'{"error": {"message": "no"}}',
        b"{}",
        b'{"access_token": null}',
        b'{"access_token": ""}',
        b'{"access_token": 1}',
        b'{"access_token": "with a\\nline end"}',
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_success_that_holds_no_token_is_an_error_without_the_bodys_text(body: bytes) -> None:
    with pytest.raises(TokenError) as caught:
        parse_token_response(200, {}, body, now=NOW)
    assert caught.value.status == 200
    assert "SECRET" not in str(caught.value)


def test_a_message_of_a_gateway_is_not_a_token() -> None:
    with pytest.raises(TokenError) as caught:
        parse({"message": "Forbidden", "access_token": "t"}, 403)
    assert (caught.value.status, caught.value.error, caught.value.retryable) == (403, None, True)


@pytest.mark.parametrize("token_type", [None, "Bearer", "bearer", "BEARER", " bearer "])
def test_a_token_type_of_bearer_or_none_is_sent_as_bearer(token_type: str | None) -> None:
    assert parse({"access_token": "t", "token_type": token_type}).authorization == "Bearer t"


@pytest.mark.parametrize("token_type", ["DPoP", "mac", "", 1, []])
def test_another_token_type_is_an_error(token_type: object) -> None:
    with pytest.raises(TokenError, match="token_type"):
        parse({"access_token": "t", "token_type": token_type})


def test_invalid_client_is_permanent() -> None:
    with pytest.raises(TokenError) as caught:
        parse({"error": "invalid_client", "error_description": "unknown\r\nclient"}, 401)
    assert repr(caught.value) == (
        "TokenError(status=401, error='invalid_client', description='unknown client', retryable=False, "
        "retry_after=None)"
    )


def test_a_firewalls_page_is_transient() -> None:
    with pytest.raises(TokenError) as caught:
        parse_token_response(403, {}, b"<html>blocked</html>", now=NOW)
    assert (caught.value.status, caught.value.error, caught.value.retryable) == (403, None, True)
    assert "blocked" not in str(caught.value)


def test_a_redirect_is_permanent() -> None:
    with pytest.raises(TokenError) as caught:
        parse_token_response(302, {"Location": "https://login.example.com"}, b"", now=NOW)
    assert not caught.value.retryable


def test_what_looks_like_a_credential_in_a_description_is_masked() -> None:
    with pytest.raises(TokenError) as caught:
        parse({"error": "invalid_client", "error_description": f"assertion {'eyJhbGciOi' * 9} refused"}, 401)
    assert caught.value.description == "assertion *** refused"


def test_what_a_token_endpoint_says_cannot_act_on_a_terminal() -> None:
    with pytest.raises(TokenError) as caught:
        parse({"error": "invalid_client", "error_description": "\x1b]0;a\x07\0\u202e\r\nb" + " c" * 1000}, 401)
    assert caught.value.description.startswith("\\x1b]0;a\\x07\\x00\\u202e b c c")
    assert len(caught.value.description) == 500
    assert str(TokenError(400, "a\x1b\n", "b\x07\u2028c")) == "no access token: 400 a\\x1b: b\\x07 c"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        (format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True), 90.0),
        (format_datetime(datetime.fromtimestamp(NOW - 90, UTC), usegmt=True), 0.0),
        ("-1", None),
        ("abc", None),
        (None, None),
        ("99999", 3600.0),
        ("9" * 400, 3600.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3600.0),
    ],
)
def test_retry_after_is_read_in_seconds_or_as_a_date_up_to_an_hour(value: str | None, seconds: float | None) -> None:
    headers = {} if value is None else {"Retry-After": value}
    assert retry_after_of(headers, now=NOW) == seconds


def test_retry_after_reaches_the_error() -> None:
    with pytest.raises(TokenError) as caught:
        parse_token_response(429, httpx.Headers({"retry-after": "120"}), b"{}", now=NOW)
    assert caught.value.retry_after == 120


@given(st.text() | st.datetimes().map(lambda date: format_datetime(date.replace(tzinfo=UTC), usegmt=True)))
def test_retry_after_is_never_absurd(value: str) -> None:
    seconds = retry_after_of({"Retry-After": value}, now=NOW)
    assert seconds is None or (math.isfinite(seconds) and 0 <= seconds <= 3600)


def test_a_token_error_survives_pickling() -> None:
    error = TokenError(429, "slow_down", "too many", retryable=True, retry_after=3.0)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert repr(copy) == repr(error)
    assert str(copy) == str(error)


def test_a_tokens_representation_masks_its_value() -> None:
    token = AccessToken("very-secret", 3600)
    assert "very-secret" not in f"{token} {token!r}"
