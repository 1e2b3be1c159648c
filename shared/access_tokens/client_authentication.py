"""How a client proves to a token endpoint who it is (RFC 6749, section 2.3; RFC 7523; RFC 8705)."""

import base64
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import quote_plus

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

type Secret = str | Callable[[], str]
"""A secret, or what is called for it on every token request, so that a rotated one is found."""

type SigningAlgorithm = Literal["RS256", "PS256", "ES256"]

_JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What one token request carries to authenticate the client. The representation shows nothing of it."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    form: Mapping[str, str] = field(default_factory=dict, repr=False)


class ClientAuthentication(Protocol):
    """A way to authenticate a client. Equal ones identify the same client, whatever their secrets are."""

    def __hash__(self) -> int: ...

    def read_secret(self) -> str:
        """Read what the client proves its identity with, from where it is kept now."""
        ...

    def credentials(self, client_id: str, token_url: str, secret: str, /) -> Credentials:
        """Make the credentials of one token request.

        Raises:
            ValueError: The secret is of no use with this way to authenticate.
        """
        ...


@dataclass(frozen=True)
class ClientSecretBasic:
    """`client_secret_basic`: id and secret in an `Authorization: Basic` header, form-encoded first.

    Attributes:
        secret: The client's secret, or a function that reads it.
        raw: Leave id and secret as they are, for servers that do not decode them.
    """

    secret: Secret = field(repr=False, compare=False)
    raw: bool = False

    def read_secret(self) -> str:
        """The secret as it is now."""
        return _read(self.secret)

    def credentials(self, client_id: str, _token_url: str, secret: str, /) -> Credentials:
        """Make the header of RFC 6749, section 2.3.1."""
        pair = f"{client_id}:{secret}" if self.raw else f"{quote_plus(client_id)}:{quote_plus(secret)}"
        return Credentials(headers={"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"})


@dataclass(frozen=True)
class ClientSecretPost:
    """`client_secret_post`: id and secret in the body (RFC 6749, section 2.3.1).

    Attributes:
        secret: The client's secret, or a function that reads it.
    """

    secret: Secret = field(repr=False, compare=False)

    def read_secret(self) -> str:
        """The secret as it is now."""
        return _read(self.secret)

    def credentials(self, client_id: str, _token_url: str, secret: str, /) -> Credentials:
        """Make the two form fields."""
        return Credentials(form={"client_id": client_id, "client_secret": secret})


@dataclass(frozen=True)
class PrivateKeyJwt:
    """`private_key_jwt`: an assertion that the client signs itself, a new one for every request (RFC 7523).

    Attributes:
        private_key: Unencrypted PEM text, the path of such a file, or a function that reads it.
        algorithm: Of the signature (RFC 7518, section 3.1).
        key_id: `kid` of the key at the server; empty for none.
        audience: `aud` of the assertion, for servers that want another than the token URL.
        lifetime: Of an assertion, in seconds.
        clock: Wall clock, in seconds since the epoch.
    """

    private_key: str | Path | Callable[[], str] = field(repr=False, compare=False)
    algorithm: SigningAlgorithm = "RS256"
    key_id: str = ""
    audience: str = ""
    lifetime: int = 60
    clock: Callable[[], float] = field(default=time.time, repr=False, compare=False)

    def read_secret(self) -> str:
        """The key's PEM text as it is now."""
        pem = self.private_key.read_text() if isinstance(self.private_key, Path) else _read(self.private_key)
        # In settings that cannot hold line ends these are often written as \n, which occurs nowhere else in PEM.
        return pem.replace("\\n", "\n")

    def credentials(self, client_id: str, token_url: str, secret: str, /) -> Credentials:
        """Sign an assertion (RFC 7523, section 3).

        Raises:
            ValueError: The key is not PEM, or not one for the algorithm.
        """
        import jwt  # here, since most clients do not need it

        now = int(self.clock())
        claims = {
            "iss": client_id,
            "sub": client_id,
            "aud": self.audience or token_url,
            "iat": now,
            "exp": now + self.lifetime,
            "jti": str(uuid.uuid4()),
        }
        headers = {"kid": self.key_id} if self.key_id else None
        try:
            assertion = jwt.encode(claims, _load_private_key(secret), self.algorithm, headers)
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise ValueError(f"expected an unencrypted PEM private key for {self.algorithm}") from error
        return _assertion(client_id, assertion)


@dataclass(frozen=True)
class ClientAssertion:
    """An assertion that somebody else signs, as in workload identity federation (RFC 7523, section 2.2).

    Attributes:
        read: Called on every token request; gives an assertion that the server trusts.
    """

    read: Callable[[], str] = field(repr=False, compare=False)

    def read_secret(self) -> str:
        """The assertion as it is now."""
        return self.read().strip()

    def credentials(self, client_id: str, _token_url: str, secret: str, /) -> Credentials:
        """Make the form fields of RFC 7523, section 2.2."""
        return _assertion(client_id, secret)


@dataclass(frozen=True)
class TlsClientAuthentication:
    """`tls_client_auth` and `self_signed_tls_client_auth`: the client's certificate is the proof (RFC 8705)."""

    def read_secret(self) -> str:
        """Nothing: the certificate is presented by the connection."""
        return ""

    def credentials(self, client_id: str, _token_url: str, _secret: str, /) -> Credentials:
        """Make the form field that names the client (RFC 8705, section 2)."""
        return Credentials(form={"client_id": client_id})


def _read(secret: Secret) -> str:
    return secret if isinstance(secret, str) else secret()


def _assertion(client_id: str, assertion: str) -> Credentials:
    return Credentials(
        form={"client_id": client_id, "client_assertion_type": _JWT_BEARER, "client_assertion": assertion}
    )


def _load_private_key(pem: str) -> "RSAPrivateKey | EllipticCurvePrivateKey":
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    # To check an RSA key takes 30 ms in which no other thread runs. That guards against keys that others have made up;
    # this one is the client's own.
    key = load_pem_private_key(pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey):
        raise TypeError(f"expected an RSA or elliptic curve key, not {type(key).__name__}")
    return key
