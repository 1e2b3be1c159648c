"""The access token: a value that authorises requests, and for how long it may do so."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AccessToken:
    """A bearer token (RFC 6750) as a token source has obtained it. Its representation masks the value.

    Attributes:
        value: The token itself, opaque to clients.
        expires_in: Lifetime in seconds, counted from the sending of the token request. None if the server did not
            say; zero or less for a token that is good for one use only and must not be kept.
        refresh_in: Seconds, counted the same way, after which the issuer wants the token replaced; None if it has
            no wish.
    """

    value: str = field(repr=False)
    expires_in: float | None = None
    refresh_in: float | None = None

    @property
    def authorization(self) -> str:
        """The value of the `Authorization` header (RFC 6750, section 2.1)."""
        return f"Bearer {self.value}"
