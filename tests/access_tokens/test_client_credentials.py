"""What is sent to a token endpoint, how the client authenticates there, and what is not accepted from it."""

import asyncio
import base64
import json
import socket
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, quote_plus

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from dev.sandbox.serving import serve
from shared.access_tokens import (
    ClientAssertion,
    ClientAuthentication,
    ClientCertificate,
    ClientCredentials,
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJwt,
    TlsClientAuthentication,
    TokenCache,
    TokenError,
)
from shared.access_tokens.client_authentication import SigningAlgorithm

from .authority import Authority, TlsRequest, pem, serve_tls
from .scripted import Answer, FakeTime, Server

AWKWARD = "s:e c/+%é"
FORM_ENCODED = "s%3Ae+c%2F%2B%25%C3%A9"
NOW = 1_800_000_000
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def client(server: Server, authentication: ClientAuthentication, client_id: str = "client") -> ClientCredentials:
    return ClientCredentials(token_url=server.token_url, client_id=client_id, authentication=authentication)


def basic_pair(server: Server) -> str:
    scheme, _, value = server.requests[-1].headers["Authorization"].partition(" ")
    assert scheme == "Basic"
    return base64.b64decode(value).decode()


# client_secret_basic and client_secret_post


def test_id_and_secret_are_form_encoded_inside_basic(server: Server) -> None:
    client(server, ClientSecretBasic(AWKWARD), AWKWARD).fetch()
    assert basic_pair(server) == f"{FORM_ENCODED}:{FORM_ENCODED}"
    assert server.requests[0].form == {"grant_type": "client_credentials"}


def test_id_and_secret_stay_raw_inside_basic_on_request(server: Server) -> None:
    client(server, ClientSecretBasic("s/+%é", raw=True), "i d").fetch()
    assert basic_pair(server) == "i d:s/+%é"


def test_id_and_secret_can_be_posted(server: Server) -> None:
    client(server, ClientSecretPost(AWKWARD)).fetch()
    assert server.requests[0].form == {
        "grant_type": "client_credentials",
        "client_id": "client",
        "client_secret": AWKWARD,
    }
    assert "Authorization" not in server.requests[0].headers


def test_a_rotated_secret_is_read_again_and_tried_once_more(server: Server) -> None:
    secrets = iter(["old", "new"])
    server.answers.append(Answer({"error": "invalid_client"}, 401))
    assert client(server, ClientSecretPost(lambda: next(secrets))).fetch().value == "token-2"
    assert [request.form["client_secret"] for request in server.requests] == ["old", "new"]


def test_a_rotated_secret_is_tried_only_once_more(server: Server) -> None:
    secrets = iter(["first", "second", "third"])
    server.answers.extend([Answer({"error": "invalid_client"}, 401)] * 2)
    with pytest.raises(TokenError, match="invalid_client"):
        client(server, ClientSecretPost(lambda: next(secrets))).fetch()
    assert len(server.requests) == 2


def test_an_unchanged_secret_is_not_tried_again(server: Server) -> None:
    server.answers.append(Answer({"error": "invalid_client"}, 401))
    with pytest.raises(TokenError, match="invalid_client"):
        client(server, ClientSecretBasic(lambda: "same")).fetch()
    assert len(server.requests) == 1


def test_a_secret_that_cannot_be_read_is_a_transient_error_without_its_text(server: Server) -> None:
    def read() -> str:
        raise LookupError("vault said: hunter2")

    with pytest.raises(TokenError, match="LookupError") as caught:
        client(server, ClientSecretBasic(read)).fetch()
    assert caught.value.retryable
    assert "hunter2" not in str(caught.value)


# private_key_jwt and other assertions


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA_KEY), ("PS256", RSA_KEY), ("ES256", EC_KEY)])
def test_an_assertion_verifies_with_the_clients_public_key(
    server: Server, algorithm: SigningAlgorithm, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
) -> None:
    authentication = PrivateKeyJwt(pem(key), algorithm, key_id="key-1", clock=lambda: NOW)
    client(server, authentication).fetch()
    form = server.requests[0].form
    assertion = form["client_assertion"]
    assert form["client_assertion_type"] == "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
    assert "Authorization" not in server.requests[0].headers
    assert jwt.get_unverified_header(assertion) == {"alg": algorithm, "kid": "key-1", "typ": "JWT"}
    claims = jwt.decode(
        assertion,
        key.public_key(),
        [algorithm],
        audience=server.token_url,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert claims.pop("jti")
    assert claims == {"iss": "client", "sub": "client", "aud": server.token_url, "iat": NOW, "exp": NOW + 60}


def test_the_audience_of_an_assertion_can_be_chosen(server: Server) -> None:
    client(server, PrivateKeyJwt(pem(EC_KEY), "ES256", audience="https://issuer.example.com")).fetch()
    jwt.decode(
        server.requests[0].form["client_assertion"],
        EC_KEY.public_key(),
        ["ES256"],
        audience="https://issuer.example.com",
        options={"require": ["exp", "iat", "jti"]},
    )


def test_every_try_carries_a_new_jti(server: Server, cache: TokenCache) -> None:
    server.answers.extend([Answer({}, 503), Answer({}, 503)])
    cache.of(client(server, PrivateKeyJwt(pem(EC_KEY), "ES256"))).get()
    assertions = [request.form["client_assertion"] for request in server.requests]
    identifiers = {jwt.decode(assertion, options={"verify_signature": False})["jti"] for assertion in assertions}
    assert len(assertions) == len(identifiers) == 3


def _as_text(_: Path) -> str:
    return pem(EC_KEY)


def _as_text_of_a_setting(_: Path) -> str:
    return pem(EC_KEY).replace("\n", "\\n")


def _as_file(folder: Path) -> Path:
    path = folder / "key.pem"
    path.write_text(pem(EC_KEY))
    return path


def _as_function(_: Path) -> Callable[[], str]:
    return lambda: pem(EC_KEY)


@pytest.mark.parametrize("keep", [_as_text, _as_text_of_a_setting, _as_file, _as_function])
def test_a_key_is_taken_from_text_a_file_or_a_function(
    server: Server, tmp_path: Path, keep: Callable[[Path], str | Path | Callable[[], str]]
) -> None:
    client(server, PrivateKeyJwt(keep(tmp_path), "ES256")).fetch()
    assertion = server.requests[0].form["client_assertion"]
    assert jwt.decode(assertion, EC_KEY.public_key(), ["ES256"], audience=server.token_url)["sub"] == "client"


def test_a_rotated_key_file_is_read_again_and_tried_once_more(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_text(pem(RSA_KEY))
    new_key = rsa.generate_private_key(65537, 2048)

    def read() -> str:
        text = path.read_text()
        path.write_text(pem(new_key))  # somebody rotates it just after it was read
        return text

    server.answers.append(Answer({"error": "invalid_client"}, 401))
    client(server, PrivateKeyJwt(read)).fetch()
    assertion = server.requests[1].form["client_assertion"]
    jwt.decode(assertion, new_key.public_key(), ["RS256"], audience=server.token_url)


@pytest.mark.parametrize(
    "text",
    ["", "not a key", pem(RSA_KEY), pem(ec.generate_private_key(ec.SECP384R1())), pem(X25519PrivateKey.generate())],
    ids=["empty", "no PEM", "RSA for ES256", "another curve", "another kind"],
)
def test_a_key_that_does_not_fit_is_an_error_that_says_what_would(server: Server, text: str) -> None:
    with pytest.raises(TokenError, match="PEM private key for ES256") as caught:
        client(server, PrivateKeyJwt(text, "ES256")).fetch()
    assert not caught.value.retryable
    assert server.requests == []


def test_a_key_file_that_is_missing_is_an_error(server: Server, tmp_path: Path) -> None:
    with pytest.raises(TokenError, match="FileNotFoundError"):
        client(server, PrivateKeyJwt(tmp_path / "absent.pem")).fetch()


def test_a_federated_assertion_is_sent_as_it_is_read(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("signed-by-the-platform\n")
    client(server, ClientAssertion(path.read_text)).fetch()
    assert server.requests[0].form == {
        "grant_type": "client_credentials",
        "client_id": "client",
        "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
        "client_assertion": "signed-by-the-platform",
    }


# The request


def test_everything_that_shapes_the_token_is_sent_on_each_fetch(
    server: Server, cache: TokenCache, time: FakeTime
) -> None:
    source = ClientCredentials(
        token_url=f"{server.token_url}?tenant=7",
        client_id="client",
        authentication=ClientSecretBasic("secret"),
        scope="read write",
        audience="https://api.example.com",
        resource="urn:example:api",
        parameters=(("organization", "acme"),),
    )
    token = cache.of(source)
    token.get()
    time.advance(3600)
    token.get()
    first, second = server.requests
    assert (
        first.form
        == second.form
        == {
            "grant_type": "client_credentials",
            "scope": "read write",
            "audience": "https://api.example.com",
            "resource": "urn:example:api",
            "organization": "acme",
        }
    )
    assert first.headers["Accept"] == "application/json"
    assert first.headers["Content-Type"] == "application/x-www-form-urlencoded"


SOURCE = ClientCredentials(
    token_url="https://login.example.com/token", client_id="client", authentication=ClientSecretBasic("secret")
)


@pytest.mark.parametrize(
    "other",
    [
        replace(SOURCE, token_url="https://login.example.com/other"),
        replace(SOURCE, client_id="other"),
        replace(SOURCE, authentication=ClientSecretPost("secret")),
        replace(SOURCE, scope="x"),
        replace(SOURCE, audience="x"),
        replace(SOURCE, resource="x"),
        replace(SOURCE, parameters=(("organization", "acme"),)),
        replace(SOURCE, certificate=ClientCertificate(Path("client.pem"))),
    ],
    ids=["url", "id", "method", "scope", "audience", "resource", "parameters", "certificate"],
)
def test_sources_that_would_get_different_tokens_differ(other: ClientCredentials, cache: TokenCache) -> None:
    assert other != SOURCE
    assert cache.of(other) is not cache.of(SOURCE)


@pytest.mark.parametrize(
    ("authentication", "other"),
    [
        (ClientSecretBasic("one"), ClientSecretBasic("two")),
        (ClientSecretPost("one"), ClientSecretPost("two")),
        (PrivateKeyJwt("one"), PrivateKeyJwt("two")),
        (ClientAssertion(lambda: "one"), ClientAssertion(lambda: "two")),
    ],
)
def test_a_secret_is_neither_identity_nor_shown(
    authentication: ClientAuthentication, other: ClientAuthentication
) -> None:
    assert authentication == other
    assert hash(authentication) == hash(other)
    assert "one" not in repr(authentication)


@pytest.mark.parametrize(
    "token_url",
    [
        "http://login.example.com/token",
        "ftp://login.example.com/token",
        "login.example.com/token",
        "https://user:password@login.example.com/token",
        "https://login.example.com/token#fragment",
    ],
)
def test_a_token_url_that_is_no_safe_place_for_a_secret_is_refused(token_url: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        ClientCredentials(token_url=token_url, client_id="client", authentication=ClientSecretBasic("secret"))


@pytest.mark.parametrize("name", ["client_secret", "grant_type", "scope"])
def test_a_parameter_that_is_made_from_other_settings_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ClientCredentials(
            token_url="https://login.example.com/token",
            client_id="client",
            authentication=ClientSecretBasic("secret"),
            parameters=((name, "value"),),
        )


ECHOED = "s3cr+t/wd9"
PAIR = base64.b64encode(b"client:" + quote_plus(ECHOED).encode()).decode()
ECHOES = {
    "as it is": ECHOED,
    "basic": f"cannot read Authorization: Basic {PAIR}",
    "basic without padding": f"cannot read {PAIR.rstrip('=')}",
    "form": f"bad client_secret={quote(ECHOED, safe='')}",
    "lower form": f"bad client_secret={quote(ECHOED, safe='').lower()}",
    "twice form": quote(quote(ECHOED, safe=""), safe=""),
    "JSON": json.dumps({"client_secret": ECHOED}).replace("/", "\\/"),
    "JSON escapes": "".join(f"\\u{ord(character):04x}" for character in ECHOED),
    "HTML": "s3cr&#43;t&#x2F;wd9",
    "HTML names": "s3cr&plus;t&sol;wd9",
    "at the cut": "y " * 246 + ECHOED + " is no secret of this client",
    "beyond the cut": "y " * 300 + ECHOED,
}


@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_secret_that_the_token_endpoint_repeats_is_not_in_the_error(server: Server, echo: str) -> None:
    server.answers.append(Answer({"error": "invalid_client", "error_description": echo}, 401))
    with pytest.raises(TokenError) as caught:
        client(server, ClientSecretBasic(ECHOED)).fetch()
    shown = "".join(traceback.format_exception(caught.value))
    for part in (ECHOED, "s3cr", "wd9", PAIR[8:20]):
        assert part not in shown
    assert caught.value.error == "invalid_client"


def test_a_secret_in_the_error_code_is_not_in_the_error(server: Server) -> None:
    server.answers.append(Answer({"error": f"bad {ECHOED}"}, 400))
    with pytest.raises(TokenError) as caught:
        client(server, ClientSecretPost(ECHOED)).fetch()
    assert caught.value.error == "bad ***"


@pytest.mark.parametrize("assertion", ["short.as/ser+tion", "x" * 600])
def test_an_assertion_and_a_token_that_come_with_a_refusal_are_not_in_the_error(server: Server, assertion: str) -> None:
    told = f"{'y ' * 240}{assertion} gets tok/en+1"
    server.answers.append(Answer({"error": "a", "error_description": told, "access_token": "tok/en+1"}, 200))
    with pytest.raises(TokenError) as caught:
        client(server, ClientAssertion(lambda: assertion)).fetch()
    assert caught.value.description.split()[240:] == ["***", "gets", "***"]


def test_a_secret_in_an_answer_that_is_not_http_is_not_in_the_error() -> None:
    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(2**16)
            connection.sendall(f"{ECHOED} is no secret\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/token"
        source = ClientCredentials(token_url=url, client_id="client", authentication=ClientSecretPost(ECHOED))
        with pytest.raises(TokenError, match="did not answer") as caught:
            source.fetch()
        thread.join()
    assert "s3cr" not in "".join(traceback.format_exception(caught.value))


def test_a_redirect_of_the_token_endpoint_is_not_followed(server: Server) -> None:
    server.answers.append(Answer(status=307, headers={"Location": "/api"}))
    with pytest.raises(TokenError) as caught:
        server.source().fetch()
    assert caught.value.status == 307
    assert server.calls == []


def test_an_answer_longer_than_1_mib_is_an_error(server: Server) -> None:
    server.answers.append(Answer(body=b'{"access_token": "t"}' + b" " * 1024 * 1024))
    with pytest.raises(TokenError, match="1 MiB"):
        server.source().fetch()


def test_an_answer_that_trickles_in_is_ended_after_the_time_out() -> None:
    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.01)

    app = web.Application()
    app.router.add_post("/token", trickle)
    with serve(app) as url, pytest.raises(TokenError, match="too slowly") as caught:
        ClientCredentials(
            token_url=f"{url}/token", client_id="client", authentication=ClientSecretBasic("secret"), timeout=0.2
        ).fetch()
    assert caught.value.retryable


def test_an_endpoint_that_does_not_answer_is_a_transient_error(server: Server) -> None:
    server.open.clear()
    with pytest.raises(TokenError, match="ReadTimeout") as caught:
        ClientCredentials(
            token_url=server.token_url, client_id="client", authentication=ClientSecretBasic("secret"), timeout=0.05
        ).fetch()
    assert caught.value.retryable


def test_a_loopback_endpoint_is_not_asked_through_a_proxy(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert server.source().fetch().value == "token-1"


# TLS


@pytest.fixture
def peers(authority: Authority) -> Iterator[tuple[str, list[str | None]]]:
    """The URL of a token endpoint that wants a client's certificate, and the names in those that it has seen."""
    names: list[str | None] = []

    def issue(request: TlsRequest) -> tuple[int, object]:
        assert request.form == {"grant_type": "client_credentials", "client_id": "client"}
        names.append(request.peer)
        return 200, {"access_token": "t"}

    with serve_tls(issue, authority, client_certificates=True) as url:
        yield f"{url}/token", names


def test_the_client_presents_its_certificate(authority: Authority, peers: tuple[str, list[str | None]]) -> None:
    token_url, names = peers
    source = ClientCredentials(
        token_url=token_url,
        client_id="client",
        authentication=TlsClientAuthentication(),
        certificate=authority.issue("first"),
        ca_file=authority.file,
    )
    assert source.fetch().value == "t"
    assert names == ["first"]


def test_a_renewed_certificate_is_presented_from_the_next_fetch_on(
    authority: Authority, peers: tuple[str, list[str | None]]
) -> None:
    token_url, names = peers
    current = authority.issue("current")
    source = ClientCredentials(
        token_url=token_url,
        client_id="client",
        authentication=TlsClientAuthentication(),
        certificate=current,
        ca_file=authority.file,
    )
    source.fetch()
    renewed = authority.issue("renewed")
    assert renewed.key is not None
    assert current.key is not None
    renewed.key.replace(current.key)
    renewed.certificate.replace(current.certificate)
    source.fetch()
    assert names == ["current", "renewed"]


def test_a_server_that_is_not_trusted_gets_no_secret(peers: tuple[str, list[str | None]]) -> None:
    with pytest.raises(TokenError, match="CERTIFICATE_VERIFY_FAILED"):
        ClientCredentials(token_url=peers[0], client_id="client", authentication=ClientSecretBasic("secret")).fetch()
    assert peers[1] == []
