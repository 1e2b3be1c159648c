"""A declarative, typed HTTP client: an API is described as a class, one method stub an endpoint."""

from shared.http.gate import GateClosedError

from .client import ApiClient
from .errors import (
    ApiDecodeError,
    ApiError,
    ApiPausedError,
    ApiResponseError,
    ApiTimeoutError,
    ApiTransportError,
    ProblemDetails,
)
from .options import CallOptions, ClientOptions, Gate
from .parameters import Body, Form, Header, Query
from .responses import ApiResponse
from .verbs import delete, get, head, options, patch, post, put

__all__ = [
    "ApiClient",
    "ApiDecodeError",
    "ApiError",
    "ApiPausedError",
    "ApiResponse",
    "ApiResponseError",
    "ApiTimeoutError",
    "ApiTransportError",
    "Body",
    "CallOptions",
    "ClientOptions",
    "Form",
    "Gate",
    "GateClosedError",
    "Header",
    "ProblemDetails",
    "Query",
    "delete",
    "get",
    "head",
    "options",
    "patch",
    "post",
    "put",
]
