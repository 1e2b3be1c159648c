"""Settings become what a client needs: time-outs, TLS, and where the access tokens come from."""

import ssl
from collections.abc import Callable
from pathlib import Path

import httpx

from shared.access_tokens import (
    BearerAuth,
    ClientAuthentication,
    ClientCertificate,
    ClientCredentials,
    ClientSecretBasic,
    ClientSecretPost,
    EntraCredential,
    PrivateKeyJwt,
    TlsClientAuthentication,
    TokenSource,
)
from shared.rest import ClientOptions
from shared.settings import BusinessApiSettings
from shared.telemetry import trace_request

MAX_RESPONSE_SIZE = 2**20
"""Bytes: a record has a few thousand. An answer that does not validate takes 40 times its size for each field that it
lacks, since pydantic keeps with each what it looked into, as Python objects."""


def client_options(prefix: str | None = None) -> ClientOptions:
    """How a client reaches its API, from the environment.

    Args:
        prefix: Of the variables' names, for a second API; `BUSINESS_API_` unless given.

    Raises:
        SettingsError: Variables are missing or bad.
    """
    settings = BusinessApiSettings.from_environment(prefix=prefix)
    return ClientOptions(
        base_url=settings.base_url,
        auth=BearerAuth(token_source(settings), origin=settings.base_url),
        timeout=httpx.Timeout(
            connect=settings.connect_timeout,
            read=settings.read_timeout,
            write=settings.write_timeout,
            pool=settings.pool_timeout,
        ),
        limits=httpx.Limits(max_connections=settings.max_connections),
        verify=_tls(settings),
        max_response_size=MAX_RESPONSE_SIZE,
        on_request=trace_request,
    )


def token_source(settings: BusinessApiSettings) -> TokenSource:
    """Where the access tokens of an API come from."""
    if settings.auth == "entra":
        return EntraCredential(settings.scope, client_id=settings.client_id)
    return ClientCredentials(
        token_url=settings.token_url,
        client_id=settings.client_id,
        authentication=_authentication(settings),
        scope=settings.scope,
        audience=settings.audience,
        resource=settings.resource,
        parameters=settings.token_parameters,
        certificate=_certificate(settings),
        ca_file=settings.ca_file,
        timeout=settings.token_timeout,
    )


def _authentication(settings: BusinessApiSettings) -> ClientAuthentication:
    secret = _kept_in(settings.client_secret_file) or settings.client_secret.get_secret_value()
    match settings.auth_method:
        case "client_secret_basic":
            return ClientSecretBasic(secret, raw=settings.client_secret_raw)
        case "client_secret_post":
            return ClientSecretPost(secret)
        case "private_key_jwt":
            return PrivateKeyJwt(
                settings.private_key_file or settings.private_key.get_secret_value(),
                algorithm=settings.signing_algorithm,
                key_id=settings.key_id,
                audience=settings.assertion_audience,
            )
        case "tls_client_auth":
            return TlsClientAuthentication()


def _kept_in(file: Path | None) -> Callable[[], str] | None:
    """A function that reads a secret from a file, so that one rotated there is found without a restart."""
    return None if file is None else lambda: file.read_text(encoding="utf-8").strip()


def _certificate(settings: BusinessApiSettings) -> ClientCertificate | None:
    if settings.certificate_file is None:
        return None
    return ClientCertificate(settings.certificate_file, settings.certificate_key_file)


def _tls(settings: BusinessApiSettings) -> ssl.SSLContext | bool:
    """What the API's certificate is checked against, and the client's own for tokens bound to it (RFC 8705)."""
    if settings.ca_file is None and settings.certificate_file is None:
        return True
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.certificate_file is not None:
        context.load_cert_chain(settings.certificate_file, settings.certificate_key_file)
    return context
