"""OAuth 2.0 access tokens for calling an API as a client: obtained, kept fresh, shared, and renewed when rejected."""

from .bearer import BearerAuth
from .cache import CachedToken, CachePolicy, Clocks, TokenCache, shared_cache
from .client_authentication import (
    ClientAssertion,
    ClientAuthentication,
    ClientSecretBasic,
    ClientSecretPost,
    PrivateKeyJwt,
    TlsClientAuthentication,
)
from .entra import EntraCredential
from .errors import TokenError
from .sources import ClientCertificate, ClientCredentials, TokenSource
from .telemetry import TokenStatistics
from .token import AccessToken

__all__ = [
    "AccessToken",
    "BearerAuth",
    "CachePolicy",
    "CachedToken",
    "ClientAssertion",
    "ClientAuthentication",
    "ClientCertificate",
    "ClientCredentials",
    "ClientSecretBasic",
    "ClientSecretPost",
    "Clocks",
    "EntraCredential",
    "PrivateKeyJwt",
    "TlsClientAuthentication",
    "TokenCache",
    "TokenError",
    "TokenSource",
    "TokenStatistics",
    "shared_cache",
]
