"""Where access tokens come from: the seam, and the client credentials grant of OAuth 2.0 (RFC 6749, section 4.4)."""

import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol
from urllib.parse import quote_plus, urlencode

import httpx

from shared.http.masking import Secrets
from shared.http.urls import checked_url, is_loopback

from .client_authentication import ClientAuthentication, Credentials
from .errors import TokenError, readable
from .token import AccessToken
from .token_response import parse_token_response

_BODY_LIMIT = 1024 * 1024
_PUBLIC = frozenset({"client_id", "client_assertion_type"})
_OWN_PARAMETERS = frozenset(
    {"grant_type", "client_id", "client_secret", "client_assertion", "client_assertion_type", "scope"}
)


class TokenSource(Protocol):
    """Obtains access tokens. It is its own cache key: sources that would obtain the same token are equal.

    Equality and hash cover everything that shapes the token, and never a secret, since secrets rotate.
    `str()` names the source in logs and metrics.
    """

    def __hash__(self) -> int: ...

    def fetch(self) -> AccessToken:
        """Obtain a new token, never a remembered one. Called on a thread, and may block; tried again by the caller.

        Raises:
            TokenError: There is none.
        """
        ...


@dataclass(frozen=True)
class ClientCertificate:
    """A certificate that the client presents when it connects (mutual TLS).

    Attributes:
        certificate: Path of the PEM file, with the chain.
        key: Path of the unencrypted PEM file of its private key; None if that is in the same file.
    """

    certificate: Path
    key: Path | None = None


@dataclass(frozen=True, kw_only=True)
class ClientCredentials:
    """The client credentials grant at a token endpoint.

    Attributes:
        token_url: The token endpoint: https, or http on the loopback interface.
        client_id: The client's id.
        authentication: How the client authenticates, with its secret or key.
        scope: Space-separated scopes (RFC 6749, section 3.3); empty for the server's default.
        audience: Logical name of the API, for servers that ask for it; empty for none.
        resource: URI of the API (RFC 8707); empty for none.
        parameters: Further parameters of the token request.
        certificate: Presented when connecting, for mutual TLS; None for none.
        ca_file: PEM file of the certification authorities to trust; None for those of httpx.
        timeout: In seconds, for each step of a token request: to connect, to send, to wait for the answer, to read it.

    Raises:
        ValueError: The token URL is not a safe place for credentials, or a parameter is one that is made here.
    """

    token_url: str
    client_id: str
    authentication: ClientAuthentication
    scope: str = ""
    audience: str = ""
    resource: str = ""
    parameters: tuple[tuple[str, str], ...] = ()
    certificate: ClientCertificate | None = None
    ca_file: Path | None = None
    timeout: float = 10.0

    def __post_init__(self) -> None:
        try:
            checked_url(self.token_url, query=True)
        except ValueError as error:
            raise ValueError(f"token_url: {error}") from None
        if taken := sorted(_OWN_PARAMETERS.intersection(name for name, _ in self.parameters)):
            raise ValueError(f"expected no parameter named {', '.join(taken)}: made from the other settings")

    def __str__(self) -> str:
        return f"{self.client_id} at {httpx.URL(self.token_url).host}"

    def fetch(self) -> AccessToken:
        """Ask the token endpoint once; twice if it does not know the secret and there is a newer one.

        Raises:
            TokenError: The endpoint refused, did not answer, or answered nonsense.
        """
        secret = self._read_secret()
        try:
            return self._request(secret)
        except TokenError as error:
            if error.error != "invalid_client" or (rotated := self._read_secret()) == secret:
                raise
        return self._request(rotated)

    def _read_secret(self) -> str:
        try:
            return self.authentication.read_secret()
        except Exception as error:  # whatever the user's own function raises
            raise TokenError(
                description=f"the client's secret could not be read: {type(error).__name__}", retryable=True
            ) from error

    def _credentials(self, secret: str) -> Credentials:
        try:
            return self.authentication.credentials(self.client_id, self.token_url, secret)
        except ValueError as error:
            raise TokenError(description=str(error)) from error

    def _request(self, secret: str) -> AccessToken:
        credentials = self._credentials(secret)
        secrets = _secrets(secret, credentials)
        form = {
            "grant_type": "client_credentials",
            "scope": self.scope,
            "audience": self.audience,
            "resource": self.resource,
            **credentials.form,
        }
        fields = [(name, value) for name, value in form.items() if value]
        try:
            with (
                self._client() as client,
                client.stream(
                    "POST",
                    self.token_url,
                    content=urlencode([*fields, *self.parameters]).encode(),
                    headers={
                        "Accept": "application/json",
                        "Content-Type": "application/x-www-form-urlencoded",
                        **credentials.headers,
                    },
                ) as response,
            ):
                body = b"".join(_bounded(response, time.monotonic() + self.timeout))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            told = f"{type(error).__name__}: {error}".removesuffix(": ")
            reason = secrets.masked_text(told)  # it may quote what the endpoint has sent
            raise TokenError(
                description=f"the token endpoint did not answer: {readable(reason)}", retryable=True
            ) from (error if reason == told else None)
        return parse_token_response(response.status_code, response.headers, body, now=time.time(), secrets=secrets)

    def _client(self) -> httpx.Client:
        # Tokens are asked for once an hour: a client for each request leaves no idle socket to go stale, to be
        # inherited by a forked process or to be closed at exit. What is costly, the TLS context, is kept.
        url = httpx.URL(self.token_url)
        context = _plain() if url.scheme == "http" else _tls(self.ca_file, self.certificate)
        # A proxy must not see credentials that are sent without TLS because they do not leave this machine.
        return httpx.Client(verify=context, timeout=self.timeout, trust_env=not is_loopback(url.host))


def _secrets(secret: str, credentials: Credentials) -> Secrets:
    """What a token endpoint must not be quoted with: the secret, and what the request proves it by."""
    secrets = Secrets()
    sent = [value.partition(" ")[2].rstrip("=") for value in credentials.headers.values()]
    sent += [value for name, value in credentials.form.items() if name not in _PUBLIC]
    for value in (secret, quote_plus(secret), *sent):
        secrets.add(value.encode())
    return secrets


def _bounded(response: httpx.Response, deadline: float) -> Iterator[bytes]:
    size = 0
    for chunk in response.iter_bytes():
        size += len(chunk)
        if size > _BODY_LIMIT:
            raise TokenError(response.status_code, description="the token endpoint's answer is longer than 1 MiB")
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the token endpoint's answer came too slowly", request=response.request)
        yield chunk


@lru_cache(maxsize=1)
def _plain() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _tls(ca_file: Path | None, certificate: ClientCertificate | None) -> ssl.SSLContext:
    files = [ca_file, *((certificate.certificate, certificate.key) if certificate else ())]
    return _tls_of(ca_file, certificate, tuple(file.stat().st_mtime_ns for file in files if file))


@lru_cache(maxsize=16)
def _tls_of(
    ca_file: Path | None,
    certificate: ClientCertificate | None,
    modified: tuple[int, ...],  # noqa: ARG001 - a renewed file makes another context
) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context()
    if certificate:
        context.load_cert_chain(certificate.certificate, certificate.key)
    return context
