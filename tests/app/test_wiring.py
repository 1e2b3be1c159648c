"""Settings choose how the client signs in and what it trusts."""

import gzip
import os
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from dev.sandbox.api import CLIENT_SECRET, app_environment, create_app
from dev.sandbox.serving import serve
from dev.stand_in import STAND_IN
from shared.access_tokens import (
    BearerAuth,
    ClientCertificate,
    ClientCredentials,
    ClientSecretBasic,
    ClientSecretPost,
    EntraCredential,
    PrivateKeyJwt,
    TlsClientAuthentication,
    shared_cache,
)
from shared.business import BusinessApi, example
from shared.delivery.attempts import Attempt, post_record
from shared.delivery.outcomes import Deferred, Posted
from shared.settings import BusinessApiSettings
from shared.wiring import client_options, token_source

ATTEMPT = Attempt(record=example(), idempotency_key="k")
COMPLETE = {
    "BUSINESS_API_BASE_URL": "https://api.example.com/v1",
    "BUSINESS_API_TOKEN_URL": "https://login.example.com/token",
    "BUSINESS_API_CLIENT_ID": "the-client",
    "BUSINESS_API_CLIENT_SECRET": "the-secret",
}


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings that other tests run the app with must not be mixed with those of these."""
    for name in [name for name in os.environ if name.startswith("BUSINESS_API_")]:
        monkeypatch.delenv(name)


def source(**variables: str) -> ClientCredentials | EntraCredential:
    environment = COMPLETE | {f"BUSINESS_API_{name}": value for name, value in variables.items()}
    chosen = token_source(BusinessApiSettings.from_environment(environment))
    assert isinstance(chosen, ClientCredentials | EntraCredential)
    return chosen


@pytest.mark.parametrize(
    ("variables", "authentication"),
    [
        ({}, ClientSecretBasic("x")),
        ({"CLIENT_SECRET_RAW": "true"}, ClientSecretBasic("x", raw=True)),
        ({"AUTH_METHOD": "client_secret_post"}, ClientSecretPost("x")),
        (
            {
                "AUTH_METHOD": "private_key_jwt",
                "PRIVATE_KEY": "pem",
                "SIGNING_ALGORITHM": "ES256",
                "KEY_ID": "k1",
                "ASSERTION_AUDIENCE": "https://login.example.com",
            },
            PrivateKeyJwt("x", algorithm="ES256", key_id="k1", audience="https://login.example.com"),
        ),
        ({"AUTH_METHOD": "tls_client_auth", "CERTIFICATE_FILE": "client.pem"}, TlsClientAuthentication()),
    ],
)
def test_the_auth_method_chooses_how_the_client_authenticates(
    variables: dict[str, str], authentication: object
) -> None:
    chosen = source(**variables)
    assert isinstance(chosen, ClientCredentials)
    assert chosen.authentication == authentication


def test_what_shapes_a_token_reaches_the_token_request() -> None:
    chosen = source(
        SCOPE="a b",
        AUDIENCE="aud",
        RESOURCE="https://api.example.com",
        TOKEN_PARAMETERS="tenant=7",
        TOKEN_TIMEOUT="3",
        CERTIFICATE_FILE="client.pem",
        CERTIFICATE_KEY_FILE="client.key",
        CA_FILE="ca.pem",
    )
    assert isinstance(chosen, ClientCredentials)
    assert (chosen.scope, chosen.audience, chosen.resource) == ("a b", "aud", "https://api.example.com")
    assert (chosen.parameters, chosen.timeout, chosen.ca_file) == ((("tenant", "7"),), 3.0, Path("ca.pem"))
    assert chosen.certificate == ClientCertificate(Path("client.pem"), Path("client.key"))


def test_entra_is_chosen_by_a_setting() -> None:
    chosen = source(AUTH="entra", SCOPE="api://x/.default", CLIENT_ID="identity")
    assert chosen == EntraCredential("api://x/.default", client_id="identity")


def test_limits_and_time_outs_reach_the_client(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {**COMPLETE, "BUSINESS_API_READ_TIMEOUT": "7", "BUSINESS_API_MAX_CONNECTIONS": "3"}.items():
        monkeypatch.setenv(name, value)
    options = client_options()
    assert options.timeout == httpx.Timeout(connect=5, read=7, write=10, pool=5)
    assert options.limits.max_connections == 3


def test_a_second_api_has_a_prefix_of_its_own_and_shares_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
        monkeypatch.setenv(name.replace("BUSINESS_API_", "PARTNER_API_"), value)
    tokens = [
        shared_cache.of(token_source(BusinessApiSettings.from_environment(prefix=p))) for p in (None, "PARTNER_API_")
    ]
    assert isinstance(client_options("PARTNER_API_").auth, BearerAuth)
    assert tokens[0] is tokens[1]


async def test_an_answer_that_is_far_too_large_for_a_record_is_not_made_objects_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = gzip.compress(b'{"id": "m1", "x": [' + b"[]," * 3_300_000 + b"1]}")

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("/token"):
            return web.json_response({"access_token": "token", "expires_in": 3600})
        headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
        return web.Response(status=201, body=body, headers=headers)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    with serve(app) as url:
        for name, value in app_environment(url).items():
            monkeypatch.setenv(name, value)
        async with BusinessApi(client_options) as api:
            monkeypatch.setattr("shared.business.business_api", api)
            outcome = await post_record(ATTEMPT)
    assert isinstance(outcome, Posted)
    assert (outcome.id, outcome.warning) == ("m1", "201: the body exceeds 1048576 bytes")


async def test_a_secret_rotated_in_its_file_is_found_without_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret_file = tmp_path / "secret"
    secret_file.write_text("expired\n")
    with serve(create_app(STAND_IN)) as url:
        environment = app_environment(url) | {"BUSINESS_API_CLIENT_SECRET": ""}
        for name, value in {**environment, "BUSINESS_API_CLIENT_SECRET_FILE": str(secret_file)}.items():
            monkeypatch.setenv(name, value)
        async with BusinessApi(client_options) as api:
            monkeypatch.setattr("shared.business.business_api", api)
            first = await post_record(ATTEMPT)
            assert isinstance(first, Deferred)
            assert "invalid_client" in first.reason
            assert "expired" not in first.reason
            secret_file.write_text(CLIENT_SECRET)
        # The refusal is remembered for five seconds; another cache stands for later.
        async with BusinessApi(lambda: client_options("LATER_")) as api:
            for name, value in {**environment, "BUSINESS_API_CLIENT_SECRET_FILE": str(secret_file)}.items():
                monkeypatch.setenv(name.replace("BUSINESS_API_", "LATER_"), value)
            monkeypatch.setenv("LATER_AUDIENCE", "another token")
            monkeypatch.setattr("shared.business.business_api", api)
            assert isinstance(await post_record(ATTEMPT), Posted)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"AUTH_METHOD": "private_key_jwt"}, "BUSINESS_API_PRIVATE_KEY"),
        ({"AUTH_METHOD": "tls_client_auth"}, "BUSINESS_API_CERTIFICATE_FILE"),
        ({"AUTH_METHOD": "guess"}, "BUSINESS_API_AUTH_METHOD"),
        ({"AUTH": "guess"}, "BUSINESS_API_AUTH"),
    ],
)
async def test_a_method_without_its_proof_defers_with_the_name_of_the_variable(
    variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in COMPLETE.items():
        monkeypatch.setenv(name, value)
    for name, value in variables.items():
        monkeypatch.setenv(f"BUSINESS_API_{name}", value)
    monkeypatch.setattr("shared.business.business_api", BusinessApi(client_options))
    outcome = await post_record(ATTEMPT)
    assert isinstance(outcome, Deferred)
    assert named in outcome.reason
