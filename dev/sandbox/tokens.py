"""The token endpoint's rules (RFC 6749, client credentials) and the check of bearer tokens (RFC 6750)."""

import base64
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote_plus

from dev.sandbox.problems import ProblemError

REALM = "sandbox"
INVALID_TOKEN_CHALLENGE = f'Bearer realm="{REALM}", error="invalid_token"'


class OAuthError(Exception):
    """The token endpoint refuses a request, RFC 6749 §5.2; `status` is 401 for `invalid_client`, else 400."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error, description)
        self.error = error
        self.description = description
        self.status = 401 if error == "invalid_client" else 400


@dataclass(frozen=True, slots=True)
class Client:
    """The one client that the token endpoint knows; `scope` is what it may ask for, divided by spaces."""

    id: str
    secret: str = field(repr=False)
    scope: str

    def granted_scope(self, content_type: str, body: bytes, authorization: str | None) -> str:
        """The scope granted to a token request: the one asked for, or all of the client's.

        Args:
            content_type: The request's media type, without parameters.
            body: Its form.
            authorization: Its `Authorization` header.

        Raises:
            OAuthError: The request is refused.
        """
        if content_type != "application/x-www-form-urlencoded":
            raise OAuthError("invalid_request", "expected a body of the type application/x-www-form-urlencoded")
        form = _parse_form(body)
        if "grant_type" not in form:
            raise OAuthError("invalid_request", "grant_type is missing")
        self._authenticate(form, authorization)
        if form["grant_type"] != "client_credentials":
            raise OAuthError("unsupported_grant_type", "expected client_credentials")
        scope = form.get("scope", self.scope)
        names = set(scope.split())
        if not names or names - set(self.scope.split()):
            raise OAuthError("invalid_scope", f"this client may ask for: {self.scope}")
        return scope

    def _authenticate(self, form: Mapping[str, str], authorization: str | None) -> None:
        if authorization is None:
            client_id, client_secret = form.get("client_id", ""), form.get("client_secret", "")
        else:
            client_id, client_secret = _parse_basic(authorization)
            if "client_secret" in form or form.get("client_id", client_id) != client_id:
                raise OAuthError("invalid_request", "the client authenticates in the header and in the body")
        id_matches = hmac.compare_digest(client_id.encode(), self.id.encode())
        secret_matches = hmac.compare_digest(client_secret.encode(), self.secret.encode())
        if not (id_matches and secret_matches):
            raise OAuthError("invalid_client", "unknown client, wrong secret, or no client authentication")


def _parse_form(body: bytes) -> dict[str, str]:
    """The parameters that have a value: one without counts as left out, and none may come twice (RFC 6749 §3.2)."""
    try:
        pairs = parse_qsl(body.decode(), errors="strict")
    except ValueError:
        raise OAuthError("invalid_request", "the body is no form in UTF-8") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise OAuthError("invalid_request", "a parameter came twice")
    return form


def _parse_basic(authorization: str) -> tuple[str, str]:
    """Id and secret, each form-encoded before they were joined (RFC 6749 §2.3.1)."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        raise OAuthError("invalid_client", "expected the scheme Basic")
    try:
        client_id, _, client_secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
        return unquote_plus(client_id, errors="strict"), unquote_plus(client_secret, errors="strict")
    except ValueError:
        raise OAuthError("invalid_client", "these are no Basic credentials") from None


class _Issued(NamedTuple):
    expires_at: float
    scopes: frozenset[str]


class AccessTokens:
    """The tokens issued by this process: random and opaque, forgotten when it ends.

    Args:
        lifetime: Seconds from issue to expiry.
        clock: Seconds on a clock that never goes back.
    """

    def __init__(self, lifetime: int, clock: Callable[[], float]) -> None:
        self._lifetime = lifetime
        self._clock = clock
        self._issued: dict[str, _Issued] = {}  # all live equally long, so the oldest, which come first, expire first

    def issue(self, scope: str) -> str:
        """A new token for `scope` (names divided by spaces)."""
        now = self._clock()
        while self._issued and self._issued[oldest := next(iter(self._issued))].expires_at <= now:
            del self._issued[oldest]
        token = secrets.token_urlsafe(32)
        self._issued[token] = _Issued(now + self._lifetime, frozenset(scope.split()))
        return token

    def revoke_all(self) -> None:
        """Refuse every token issued so far."""
        self._issued.clear()

    def require(self, scope: str, authorization: str | None) -> None:
        """Let a request pass whose `Authorization` header carries a valid token for `scope`.

        Raises:
            ProblemError: 401, 400 or 403 with the challenge of RFC 6750 §3; no error code in it where the request
                brought no bearer token at all.
        """
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise _challenge(401, "This needs a bearer token.", f'Bearer realm="{REALM}"')
        token = token.strip()
        if not token or " " in token:
            raise _challenge(400, "Expected one bearer token.", f'Bearer realm="{REALM}", error="invalid_request"')
        issued = self._issued.get(token)
        if issued is None or issued.expires_at <= self._clock():
            raise _challenge(401, "The token is unknown, expired or revoked.", INVALID_TOKEN_CHALLENGE)
        if scope not in issued.scopes:
            challenge = f'Bearer realm="{REALM}", error="insufficient_scope", scope="{scope}"'
            raise _challenge(403, f"The token is not for {scope}.", challenge)


def _challenge(status: int, detail: str, challenge: str) -> ProblemError:
    return ProblemError(status, detail, headers={"WWW-Authenticate": challenge})
