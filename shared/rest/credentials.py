"""The credentials of a call, which are masked in all that comes out of it."""

import httpx

from shared.http.masking import Secrets

SHORTEST = 8
"""Characters of a credential from which on it is masked: a shorter one is found in innocent text too."""

_FIELDS = frozenset({b"authorization", b"proxy-authorization", b"dpop"})


class Credentials(Secrets):
    """The credentials that the requests of a call have carried."""

    def learn(self, request: httpx.Request) -> None:
        """Remember the credentials of a request: what follows the scheme in its fields of authorisation."""
        for name, value in request.headers.raw:
            if name.lower() in _FIELDS:
                credential = value.partition(b" ")[2].strip() or value
                if len(credential) >= SHORTEST:
                    self.add(credential)

    def mask_headers(self, response: httpx.Response) -> None:
        """Mask them in the header fields of a response."""
        fields = response.headers.raw
        together = b"\n".join([part for field in fields for part in field])
        if self.masked(together) != together:
            response.headers = httpx.Headers([(self.masked(name), self.masked(value)) for name, value in fields])
