"""Access tokens of Microsoft Entra ID through azure-identity, which is imported when the first one is fetched."""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .errors import TokenError, readable
from .token import AccessToken
from .token_response import is_transient, retry_after_of

if TYPE_CHECKING:
    from azure.core.credentials import AccessTokenInfo, SupportsTokenInfo
    from azure.core.exceptions import AzureError

_ERROR_CODE = re.compile(r"Entra ID error '\((\w{1,100})\)")
_ENTRA_REFUSAL = re.compile(r"\bAADSTS\d+")


class _Kept:
    """The credential in use, and the token that it gave last."""

    credential: "SupportsTokenInfo | None" = None
    last: str = ""


@dataclass(frozen=True)
class EntraCredential:
    """Tokens for one scope from a credential of azure-identity.

    Attributes:
        scope: Of the API, such as `api://<application id>/.default`.
        client_id: Of a user-assigned managed identity or a workload identity; empty for the one of the host. Only for
            the default credential.
        make_credential: Makes the credential; None for a `DefaultAzureCredential`. Called when the first token is
            fetched, and again when a credential has failed or repeats, from its own cache, a token that is to be
            replaced.
        clock: Wall clock, in seconds since the epoch.
    """

    scope: str
    client_id: str = ""
    make_credential: "Callable[[], SupportsTokenInfo] | None" = None
    clock: Callable[[], float] = field(default=time.time, repr=False, compare=False)
    _kept: _Kept = field(default_factory=_Kept, init=False, repr=False, compare=False)

    def __str__(self) -> str:
        return f"Entra ID for {self.scope}"

    def fetch(self) -> AccessToken:
        """Ask the credential for a token that it has not given before.

        Raises:
            TokenError: No credential is available, or Entra ID refused.
        """
        from azure.core.exceptions import AzureError

        asked_at = self.clock()
        kept = self._kept
        try:
            token = self._ask(kept.credential)
            if token.token == kept.last:
                token = self._ask(None)
        except AzureError as error:
            kept.credential = None  # for a while it would answer from memory, without asking again
            raise _token_error(error, asked_at) from error
        kept.last = token.token
        refresh_in = None if token.refresh_on is None else token.refresh_on - asked_at
        return AccessToken(token.token, token.expires_on - asked_at, refresh_in)

    def _ask(self, credential: "SupportsTokenInfo | None") -> "AccessTokenInfo":
        if credential is None:
            credential = (self.make_credential or self._default_credential)()
            self._kept.credential = credential
        return credential.get_token_info(self.scope)

    def _default_credential(self) -> "SupportsTokenInfo":
        from azure.identity import DefaultAzureCredential

        # The cache tries again; tries on both levels would multiply.
        if not self.client_id:
            return DefaultAzureCredential(retry_total=0)
        return DefaultAzureCredential(
            retry_total=0, managed_identity_client_id=self.client_id, workload_identity_client_id=self.client_id
        )


def _token_error(error: "AzureError", now: float) -> TokenError:
    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    retry_after = None if response is None else retry_after_of(response.headers, now=now)
    code = found[1] if (found := _ERROR_CODE.search(error.message)) else None
    refused = code is not None or _ENTRA_REFUSAL.search(error.message) is not None
    retryable = not refused or is_transient(status or 400, code or "refused")
    return TokenError(status, code, readable(error.message), retryable, retry_after)
