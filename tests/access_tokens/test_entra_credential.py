"""Tokens through azure-identity's own credentials, against loopback endpoints that speak their protocols."""

import time as real_time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import pytest
from aiohttp import web
from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential

from dev.sandbox.serving import serve
from shared.access_tokens import (
    ClientAssertion,
    ClientCredentials,
    EntraCredential,
    TokenCache,
    TokenError,
)

from .authority import Authority, TlsRequest, serve_tls
from .scripted import FakeTime, until

SCOPE = "api://business/.default"


@dataclass
class Platform:
    """The managed identity endpoint of App Service, and the token endpoint of Entra ID."""

    lifetime: int = 86_400
    failures: int = 0
    refusal: str = ""
    queries: list[dict[str, str]] = field(default_factory=list)
    forms: list[dict[str, str]] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/msi/token", self._managed_identity)
        return app

    async def _managed_identity(self, request: web.Request) -> web.Response:
        if request.headers.get("X-IDENTITY-HEADER") != "header-secret":
            return web.json_response({"statusCode": 401, "message": "no identity header"}, status=401)
        self.queries.append(dict(request.query))
        if self.failures:
            self.failures -= 1
            return web.json_response({"statusCode": 500, "message": "try later"}, status=500)
        return web.json_response(
            {
                "access_token": f"managed-{len(self.queries)}",
                "expires_on": str(int(real_time.time()) + self.lifetime),
                "resource": request.query["resource"],
                "token_type": "Bearer",
                "client_id": request.query.get("client_id", "system"),
            }
        )

    def entra(self, request: TlsRequest) -> tuple[int, object]:
        self.forms.append(request.form)
        if self.refusal:
            return 400, {"error": self.refusal, "error_description": "AADSTS700016: application not found"}
        return 200, {"access_token": f"entra-{len(self.forms)}", "expires_in": self.lifetime, "token_type": "Bearer"}


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """A platform with a managed identity and nothing else that the default credential would find."""
    platform = Platform()
    for name in ("AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_CLIENT_SECRET", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    with serve(platform.app()) as url:
        monkeypatch.setenv("AZURE_TOKEN_CREDENTIALS", "prod")
        monkeypatch.setenv("IDENTITY_ENDPOINT", f"{url}/msi/token")
        monkeypatch.setenv("IDENTITY_HEADER", "header-secret")
        monkeypatch.setenv("NO_PROXY", "*")
        yield platform


@pytest.fixture
def entra(platform: Platform, authority: Authority, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of Entra ID, over TLS as azure-identity insists, which trusts a federated token."""
    monkeypatch.setenv("NO_PROXY", "*")
    with serve_tls(platform.entra, authority) as url:
        yield url


def test_the_default_credential_finds_the_hosts_managed_identity(platform: Platform) -> None:
    token = EntraCredential(SCOPE).fetch()
    assert token.value == "managed-1"
    assert token.expires_in == pytest.approx(86_400, abs=5)
    assert platform.queries == [{"api-version": "2019-08-01", "resource": "api://business"}]


def test_a_user_assigned_identity_is_named_by_its_client_id(platform: Platform) -> None:
    EntraCredential(SCOPE, client_id="1234").fetch()
    assert platform.queries[0]["client_id"] == "1234"


def test_a_managed_identity_credential_serves_as_it_is(platform: Platform, cache: TokenCache) -> None:
    def make() -> ManagedIdentityCredential:
        return ManagedIdentityCredential(client_id="1234")

    assert cache.of(EntraCredential(SCOPE, make_credential=make)).get().value == "managed-1"
    assert platform.queries[0]["client_id"] == "1234"


def test_the_refresh_on_of_a_managed_identity_is_honoured(
    platform: Platform, cache: TokenCache, time: FakeTime
) -> None:
    token = cache.of(EntraCredential(SCOPE))
    token.get()
    time.advance(43_100)
    assert token.fresh() is not None
    time.advance(200)
    assert token.get().value == "managed-1"
    until(lambda: token.statistics.fetched == 2)
    assert token.get().value == "managed-2"


def test_a_rejected_token_is_not_repeated_from_the_credentials_own_cache(platform: Platform, cache: TokenCache) -> None:
    token = cache.of(EntraCredential(SCOPE))
    renewed = token.renew(token.get())
    assert renewed is not None
    assert renewed.value == "managed-2"


def test_a_failing_identity_endpoint_is_asked_three_times_and_not_more(
    platform: Platform, cache: TokenCache, time: FakeTime
) -> None:
    platform.failures = 9
    with pytest.raises(TokenError) as caught:
        cache.of(EntraCredential(SCOPE)).get()
    assert caught.value.retryable
    assert len(platform.queries) == 3
    assert time.sleeps == [1.0, 2.0]
    assert "header-secret" not in str(caught.value)


def test_a_workload_identity_credential_exchanges_the_federated_token(
    platform: Platform, entra: str, authority: Authority, tmp_path: Path
) -> None:
    federated = tmp_path / "federated"
    federated.write_text("signed-by-the-cluster")

    def make() -> WorkloadIdentityCredential:
        return WorkloadIdentityCredential(
            tenant_id="tenant",
            client_id="client",
            token_file_path=str(federated),
            authority=entra,
            connection_verify=str(authority.file),
        )

    token = EntraCredential(SCOPE, make_credential=make).fetch()
    assert token.value == "entra-1"
    assert token.expires_in == pytest.approx(86_400, abs=5)
    form = platform.forms[0]
    assert form["client_assertion"] == "signed-by-the-cluster"
    assert form["scope"] == SCOPE


def test_a_federated_token_serves_as_client_assertion_without_azure_identity(
    platform: Platform, entra: str, authority: Authority, tmp_path: Path
) -> None:
    federated = tmp_path / "federated"
    federated.write_text("signed-by-the-cluster")
    source = ClientCredentials(
        token_url=f"{entra}/tenant/oauth2/v2.0/token",
        client_id="client",
        authentication=ClientAssertion(federated.read_text),
        scope=SCOPE,
        ca_file=authority.file,
    )
    assert source.fetch().value == "entra-1"
    assert platform.forms[0]["client_assertion"] == "signed-by-the-cluster"


def test_a_managed_identity_can_sign_for_an_application(
    platform: Platform, entra: str, authority: Authority, cache: TokenCache
) -> None:
    identity = cache.of(EntraCredential("api://AzureADTokenExchange/.default"))
    source = ClientCredentials(
        token_url=f"{entra}/tenant/oauth2/v2.0/token",
        client_id="client",
        authentication=ClientAssertion(lambda: identity.get().value),
        scope=SCOPE,
        ca_file=authority.file,
    )
    assert cache.of(source).get().value == "entra-1"
    assert platform.forms[0]["client_assertion"] == "managed-1"


def test_a_refusal_of_entra_is_permanent_and_names_its_code(
    platform: Platform, entra: str, authority: Authority, tmp_path: Path
) -> None:
    federated = tmp_path / "federated"
    federated.write_text("signed-by-the-cluster")
    platform.refusal = "unauthorized_client"

    def make() -> WorkloadIdentityCredential:
        return WorkloadIdentityCredential(
            tenant_id="tenant",
            client_id="client",
            token_file_path=str(federated),
            authority=entra,
            connection_verify=str(authority.file),
        )

    with pytest.raises(TokenError, match="AADSTS700016") as caught:
        EntraCredential(SCOPE, make_credential=make).fetch()
    assert (caught.value.status, caught.value.error, caught.value.retryable) == (400, "unauthorized_client", False)


class AnyCredential:
    """A credential of somebody else's making."""

    def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        return AccessTokenInfo(" ".join(scopes), 5600, refresh_on=3600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def close(self) -> None: ...


def test_any_credential_serves_and_its_instants_become_durations() -> None:
    token = EntraCredential(SCOPE, make_credential=AnyCredential, clock=lambda: 2000.0).fetch()
    assert (token.value, token.expires_in, token.refresh_in) == (SCOPE, 3600, 1600)


def test_credentials_are_equal_by_what_shapes_their_tokens() -> None:
    assert EntraCredential(SCOPE) == EntraCredential(SCOPE)
    assert hash(EntraCredential(SCOPE)) == hash(EntraCredential(SCOPE))
    assert EntraCredential(SCOPE) != EntraCredential(SCOPE, client_id="1234")
    assert EntraCredential(SCOPE) != EntraCredential("api://other/.default")
    assert EntraCredential(SCOPE) != EntraCredential(SCOPE, make_credential=AnyCredential)
