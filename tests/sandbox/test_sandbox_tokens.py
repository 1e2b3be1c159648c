"""The sandbox's token endpoint: RFC 6749 §2.3.1, §4.4 and §5."""

import base64
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from dev.sandbox.api import CLIENT_ID, CLIENT_SECRET, READ_SCOPE, SCOPE, TOKEN_PATH, SandboxOptions, create_app
from dev.sandbox.serving import serve

CREDENTIALS = (CLIENT_ID, CLIENT_SECRET)
GRANT = {"grant_type": "client_credentials"}


def basic(text: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}


def test_basic_credentials_get_a_token(anonymous: httpx.Client) -> None:
    answer = anonymous.post(TOKEN_PATH, data=GRANT, auth=CREDENTIALS)
    assert answer.status_code == 200
    document = answer.json()
    assert len(document.pop("access_token")) >= 32
    assert document == {"token_type": "Bearer", "expires_in": 3600, "scope": SCOPE}


def test_credentials_in_the_body_get_a_token(anonymous: httpx.Client) -> None:
    answer = anonymous.post(TOKEN_PATH, data=GRANT | {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET})
    assert answer.status_code == 200


def test_no_two_tokens_are_the_same(anonymous: httpx.Client) -> None:
    tokens = {anonymous.post(TOKEN_PATH, data=GRANT, auth=CREDENTIALS).json()["access_token"] for _ in range(20)}
    assert len(tokens) == 20


@pytest.mark.parametrize("auth", [CREDENTIALS, (CLIENT_ID, "wrong")])
def test_no_answer_of_the_token_endpoint_may_be_stored(anonymous: httpx.Client, auth: tuple[str, str]) -> None:
    assert anonymous.post(TOKEN_PATH, data=GRANT, auth=auth).headers["Cache-Control"] == "no-store"


def test_id_and_secret_are_form_decoded_in_basic_credentials() -> None:
    options = SandboxOptions(client_id="s:e c", client_secret="é%/+")
    with serve(create_app(options)) as url:
        answer = httpx.post(url + TOKEN_PATH, data=GRANT, headers=basic("s%3Ae+c:%C3%A9%25%2F%2B"))
    assert answer.status_code == 200


def test_id_and_secret_are_compared_after_form_decoding_only() -> None:
    options = SandboxOptions(client_id="s:e c", client_secret="é%/+")
    with serve(create_app(options)) as url:
        answer = httpx.post(url + TOKEN_PATH, data=GRANT, headers=basic("s:e c:é%/+"))
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        basic(f"{CLIENT_ID}:wrong"),
        basic(f"nobody:{CLIENT_SECRET}"),
        basic("no colon"),
        basic(f"{CLIENT_ID}:%FF"),
        {"Authorization": "Basic ????"},
        {"Authorization": "Bearer some-token"},
        {},
    ],
    ids=["secret", "id", "no colon", "not UTF-8", "not base64", "other scheme", "none"],
)
def test_a_client_that_cannot_be_authenticated_is_an_invalid_client(
    anonymous: httpx.Client, headers: dict[str, str]
) -> None:
    answer = anonymous.post(TOKEN_PATH, data=GRANT, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"] == "invalid_client"
    assert answer.headers["WWW-Authenticate"] == 'Basic realm="sandbox"'


def test_wrong_credentials_in_the_body_are_an_invalid_client(anonymous: httpx.Client) -> None:
    answer = anonymous.post(TOKEN_PATH, data=GRANT | {"client_id": CLIENT_ID, "client_secret": "wrong"})
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": ""}, "invalid_request"),
        (GRANT | {"client_secret": CLIENT_SECRET}, "invalid_request"),
        (GRANT | {"client_id": "another"}, "invalid_request"),
        ({"grant_type": ["client_credentials", "client_credentials"]}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        (GRANT | {"scope": "businesses.read planets.write"}, "invalid_scope"),
        (GRANT | {"scope": " "}, "invalid_scope"),
    ],
    ids=[
        "no grant type", "empty grant type", "two authentications", "two clients", "repeated", "password", "scope",
        "blank scope",
    ],
)  # fmt: skip
def test_a_bad_token_request_is_refused_with_the_code_for_it(
    anonymous: httpx.Client, form: dict[str, Any], error: str
) -> None:
    answer = anonymous.post(TOKEN_PATH, data=form, auth=CREDENTIALS)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b'{"grant_type": "client_credentials"}', "application/json"),
        (b"grant_type=client_credentials\xff", "application/x-www-form-urlencoded"),
        (b"grant_type=client_credentials%FF", "application/x-www-form-urlencoded"),
    ],
)
def test_a_token_request_that_is_no_form_is_an_invalid_request(
    anonymous: httpx.Client, content: bytes, content_type: str
) -> None:
    answer = anonymous.post(TOKEN_PATH, content=content, headers={"Content-Type": content_type}, auth=CREDENTIALS)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


def test_the_id_may_be_repeated_in_the_body_beside_basic_credentials(anonymous: httpx.Client) -> None:
    answer = anonymous.post(TOKEN_PATH, data=GRANT | {"client_id": CLIENT_ID}, auth=CREDENTIALS)
    assert answer.status_code == 200


@pytest.mark.parametrize("scope", [READ_SCOPE, f"{READ_SCOPE} {SCOPE.split()[0]}"])
def test_the_scope_asked_for_is_granted(anonymous: httpx.Client, scope: str) -> None:
    assert anonymous.post(TOKEN_PATH, data=GRANT | {"scope": scope}, auth=CREDENTIALS).json()["scope"] == scope


def test_unknown_parameters_are_ignored(anonymous: httpx.Client) -> None:
    form = GRANT | {"audience": "https://api.example", "resource": "https://api.example"}
    assert anonymous.post(TOKEN_PATH, data=form, auth=CREDENTIALS).status_code == 200


def test_only_post_gets_a_token(anonymous: httpx.Client) -> None:
    answer = anonymous.get(TOKEN_PATH)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "POST")


def test_the_lifetime_of_tokens_is_an_option() -> None:
    with serve(create_app(SandboxOptions(token_lifetime=50))) as url:
        answer = httpx.post(url + TOKEN_PATH, data=GRANT, auth=CREDENTIALS)
    assert answer.json()["expires_in"] == 50


def test_the_delay_of_the_token_endpoint_is_an_option() -> None:
    with serve(create_app(SandboxOptions(token_delay=0.1))) as url:
        started = time.perf_counter()
        httpx.post(url + TOKEN_PATH, data=GRANT, auth=CREDENTIALS).raise_for_status()
    assert time.perf_counter() - started > 0.09


def test_the_secret_is_not_in_the_representation_of_the_options() -> None:
    assert "hidden" not in repr(SandboxOptions(client_secret="hidden"))


def test_token_requests_and_issued_tokens_are_counted(
    anonymous: httpx.Client, stats: Callable[[], dict[str, Any]]
) -> None:
    anonymous.post(TOKEN_PATH, data=GRANT, auth=CREDENTIALS)
    anonymous.post(TOKEN_PATH, data=GRANT, auth=(CLIENT_ID, "wrong"))
    counted = stats()
    assert (counted["token_requests"], counted["tokens_issued"]) == (2, 1)


class TestBearer:
    """The check of bearer tokens on the API's routes: RFC 6750 §3."""

    def test_a_request_without_a_token_gets_a_challenge_without_error(
        self, anonymous: httpx.Client, book: dict[str, Any]
    ) -> None:
        answer = anonymous.post("/books", json=book)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="sandbox"')

    def test_another_scheme_gets_a_challenge_without_error(self, anonymous: httpx.Client) -> None:
        answer = anonymous.get("/books/1", auth=CREDENTIALS)
        assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="sandbox"')

    @pytest.mark.parametrize("credentials", ["Bearer", "Bearer two words"])
    def test_malformed_bearer_credentials_are_an_invalid_request(
        self, anonymous: httpx.Client, credentials: str
    ) -> None:
        answer = anonymous.get("/books/1", headers={"Authorization": credentials})
        assert answer.status_code == 400
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="sandbox", error="invalid_request"'

    def test_an_unknown_token_is_invalid(self, anonymous: httpx.Client) -> None:
        answer = anonymous.get("/books/1", headers={"Authorization": "Bearer unknown"})
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm="sandbox", error="invalid_token"'

    def test_a_token_is_valid_until_the_end_of_its_lifetime(
        self, client: httpx.Client, advance: Callable[[float], None]
    ) -> None:
        advance(3599)
        assert client.get("/books/1").status_code == 404
        advance(1)
        assert client.get("/books/1").status_code == 401

    def test_an_expired_token_is_still_refused_after_another_was_issued(
        self, client: httpx.Client, token_for: Callable[[str], str], advance: Callable[[float], None]
    ) -> None:
        advance(3600)
        token_for(SCOPE)
        assert client.get("/books/1").status_code == 401

    def test_a_live_token_outlasts_the_expiry_of_an_older_one(
        self, client: httpx.Client, token_for: Callable[[str], str], advance: Callable[[float], None]
    ) -> None:
        advance(1800)
        token = token_for(SCOPE)
        advance(1800)
        token_for(SCOPE)
        assert client.get("/books/1", headers={"Authorization": f"Bearer {token}"}).status_code == 404

    def test_revocation_ends_every_token(self, client: httpx.Client, anonymous: httpx.Client) -> None:
        assert anonymous.post("/auth/revoke").status_code == 204
        answer = client.get("/books/1")
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"]

    def test_tokens_issued_after_a_revocation_are_valid(
        self, anonymous: httpx.Client, token_for: Callable[[str], str]
    ) -> None:
        anonymous.post("/auth/revoke")
        headers = {"Authorization": f"Bearer {token_for(SCOPE)}"}
        assert anonymous.get("/books/1", headers=headers).status_code == 404

    @pytest.mark.parametrize(
        ("method", "granted", "missing"),
        [("POST", "businesses.read", "businesses.write"), ("GET", "businesses.write", "businesses.read")],
    )
    def test_a_token_without_the_scope_is_refused(
        self, anonymous: httpx.Client, token_for: Callable[[str], str], method: str, granted: str, missing: str
    ) -> None:
        answer = anonymous.request(method, "/books", headers={"Authorization": f"Bearer {token_for(granted)}"})
        assert answer.status_code == 403
        assert (
            answer.headers["WWW-Authenticate"]
            == f'Bearer realm="sandbox", error="insufficient_scope", scope="{missing}"'
        )

    def test_the_scheme_is_compared_without_case(
        self, anonymous: httpx.Client, token_for: Callable[[str], str]
    ) -> None:
        headers = {"Authorization": f"bearer {token_for(SCOPE)}"}
        assert anonymous.get("/books/1", headers=headers).status_code == 404
