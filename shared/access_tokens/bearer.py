"""Puts the access token on requests of httpx clients, and renews it once when the API rejects it."""

import re
from collections.abc import AsyncGenerator, Generator

import httpx

from shared.http.urls import checked_url, is_protected

from .cache import TokenCache, shared_cache
from .errors import TokenError
from .sources import TokenSource
from .token import AccessToken

RESEND = "resend_after_401"
"""The request extension that switches resending off: `client.post(url, extensions={"resend_after_401": False})`."""

_INSUFFICIENT_SCOPE = re.compile(r'\berror\s*=\s*"?insufficient_scope\b', re.IGNORECASE)


class BearerAuth(httpx.Auth):
    """Authorises requests of an `httpx.AsyncClient` or `httpx.Client` with a bearer token (RFC 6750).

    A request is never sent without its token: if there is none, `TokenError` is raised. A request that carries an
    `Authorization` header already is left alone. When the API answers 401 the token is renewed and the request is
    sent once more, unless the token was fetched for this very request, the body cannot be replayed, the challenge
    says `insufficient_scope`, or the request's extension `resend_after_401` is False.

    Args:
        source: Where tokens come from.
        cache: Keeps them.
        origin: The API's scheme, host and port, as any URL of it. With it, requests to other origins are sent
            without a token. Without it the caller sees to it that only the API is called.

    Raises:
        ValueError: The origin is not a safe place for a token.
    """

    def __init__(self, source: TokenSource, *, cache: TokenCache = shared_cache, origin: str | None = None) -> None:
        self._token = cache.of(source)
        self._origin = None if origin is None else _origin(checked_url(origin, query=True))

    def sync_auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response]:
        """Authorise one request; as httpx drives it.

        Raises:
            TokenError: There is no token for the request, or none may be sent where the request goes.
        """
        if not self._concerns(request):
            yield request
            return
        token = self._token.ready()
        response = yield _authorized(request, token or self._token.get())
        if token is None or not self._worth_resending(request, response):
            return
        renewed = self._token.renew(token)
        if renewed is not None:
            response = yield _authorized(request, renewed)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                self._token.pause_renewals()

    async def async_auth_flow(self, request: httpx.Request) -> AsyncGenerator[httpx.Request, httpx.Response]:
        """Authorise one request; as httpx, or a client of one's own, drives it on an asyncio event loop.

        Raises:
            TokenError: There is no token for the request, or none may be sent where the request goes.
        """
        if not self._concerns(request):
            yield request
            return
        token = self._token.ready()
        response = yield _authorized(request, token or await self._token.get_async())
        if token is None or not self._worth_resending(request, response):
            return
        renewed = await self._token.renew_async(token)
        if renewed is not None:
            response = yield _authorized(request, renewed)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                self._token.pause_renewals()

    def _concerns(self, request: httpx.Request) -> bool:
        if "Authorization" in request.headers:
            return False
        if self._origin is not None:
            return _origin(request.url) == self._origin
        if not is_protected(request.url.scheme, request.url.host):
            raise TokenError(description="a token is sent over https only, or over http on the loopback interface")
        return True

    def _worth_resending(self, request: httpx.Request, response: httpx.Response) -> bool:
        return (
            response.status_code == httpx.codes.UNAUTHORIZED
            and request.extensions.get(RESEND, True) is not False
            and isinstance(request.stream, httpx.ByteStream)  # another kind of body may be consumed
            # After a redirect to another origin, where no token was sent, its 401 says nothing about the token.
            and (not response.history or _origin(response.url) == _origin(request.url))
            and not _INSUFFICIENT_SCOPE.search(response.headers.get("WWW-Authenticate", ""))
        )


def _authorized(request: httpx.Request, token: AccessToken) -> httpx.Request:
    request.headers["Authorization"] = token.authorization
    return request


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port  # httpx leaves out the port if it is the scheme's own
