"""How a client reaches its API, and what can be changed per method or per call."""

import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypedDict

import httpx

from shared.http.urls import checked_url

from .headers import checked_headers

DEFAULT_TIMEOUT = httpx.Timeout(connect=5.0, read=30.0, write=10.0, pool=5.0)
DEFAULT_LIMITS = httpx.Limits(max_connections=20)


class CallOptions(TypedDict, total=False):
    """What a method, as argument of its verb, and a call, through `with_options`, may set for itself.

    Attributes:
        timeout: Seconds for each of connect, read, write and pool, or one number for all.
        deadline: Seconds for the whole call, waiting for a token included; None for no limit.
        auth: Authorises the request; None sends it as it is.
        headers: Added to those of the client, or in their place; None removes one.
        extensions: Of the `httpx.Request`, for an `auth` that reads them.
    """

    timeout: httpx.Timeout | float
    deadline: float | None
    auth: httpx.Auth | None
    headers: Mapping[str, str | None]
    extensions: Mapping[str, Any]


class Gate(Protocol):
    """Decides when a request may be sent, and learns from what comes of it."""

    def admitted(self, request: httpx.Request) -> AbstractAsyncContextManager[Callable[[httpx.Response], None]]:
        """Wait until the request may be sent.

        The context yields a function that is told the response; an exception that leaves the context is learned from,
        too, unless it is the caller's cancellation. The request's extension `begin_by`, if it has one, is the time by
        which it must have been admitted, in seconds of the gate's clock.

        Raises:
            GateClosedError: On entering: the request may not be sent in time.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientOptions:
    """How a client reaches its API. All times are in seconds.

    Attributes:
        base_url: What the paths of the methods are appended to, with or without a slash at the end.
        auth: Authorises each request. What it raises reaches the caller as it is.
        timeout: How long to wait for a connection, for bytes to come, for bytes to go, for a free connection.
        deadline: How long a whole call may take, waiting for a token included; None for no limit.
        limits: `max_connections` and `keepalive_expiry`; idle connections are not limited on their own.
        headers: Sent with each request, in place of those of the class; None removes one.
        verify: True trusts the usual authorities, and those of `SSL_CERT_FILE` and `SSL_CERT_DIR` if `trust_env`.
            An `SSLContext` brings its own and may hold a client certificate. False trusts anybody.
        proxy: URL of an HTTP proxy.
        trust_env: Whether `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` choose the proxy if none is set.
        max_response_size: Bytes of a body, decompressed, over which it is refused.
        transport: Opens the connections in place of aiohttp; called once for each event loop.
        gate: Holds each request until it may be sent; what it waits there is no part of the deadline.
        on_request: Sees each request before it is authorised and sent, and may add headers. The extension
            `url_template` holds the path as the method's decorator has it, with its placeholders.
        clock: Seconds since 1970; turns a `Retry-After` date into a delay.

    Raises:
        ValueError: The base URL is no absolute http or https URL, or has credentials, a query or a fragment;
            or a header cannot be sent.
    """

    base_url: str
    auth: httpx.Auth | None = field(default=None, repr=False)
    timeout: httpx.Timeout | float = field(default_factory=lambda: DEFAULT_TIMEOUT)
    deadline: float | None = 100.0
    limits: httpx.Limits = field(default_factory=lambda: DEFAULT_LIMITS)
    headers: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    verify: ssl.SSLContext | bool = True
    proxy: httpx.Proxy | str | None = field(default=None, repr=False)
    trust_env: bool = True
    max_response_size: int = 10 * 2**20
    transport: Callable[[], httpx.AsyncBaseTransport] | None = None
    gate: Gate | None = None
    on_request: Callable[[httpx.Request], None] | None = None
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        try:
            checked_url(self.base_url, protected=False)
        except ValueError as error:
            raise ValueError(f"base_url: {error}") from None
        checked_headers(self.headers)


def checked_options(options: CallOptions) -> CallOptions:
    """The options, if they are ones that can be used.

    Raises:
        TypeError: An option is unknown.
        ValueError: A header cannot be sent.
    """
    unknown = options.keys() - CallOptions.__annotations__.keys()
    if unknown:
        raise TypeError(f"unknown options: {', '.join(sorted(unknown))}")
    checked_headers(options.get("headers", {}))
    return options


def layered(below: CallOptions, above: CallOptions) -> CallOptions:
    """Both; what is set above counts, and headers and extensions are merged by name."""
    both: CallOptions = {**below, **above}
    if "headers" in below and "headers" in above:
        both["headers"] = {**below["headers"], **above["headers"]}
    if "extensions" in below and "extensions" in above:
        both["extensions"] = {**below["extensions"], **above["extensions"]}
    return both
