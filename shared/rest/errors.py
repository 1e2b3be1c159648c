"""What a call raises, or an `ApiResponse` holds, when it got no answer or not the one that was asked for."""

from collections.abc import Callable
from typing import Any, Self

import httpx
from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    field_validator,
)

from shared.http.media_types import media_type
from shared.http.request_ids import request_id
from shared.http.retry_after import parse_retry_after

BODY_LIMIT = 4096
"""Bytes of the response body that an error keeps."""

_PROBLEM_MEDIA_TYPE = "application/problem+json"
_RETRYABLE_CLIENT_ERRORS = frozenset(
    {httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_EARLY, httpx.codes.TOO_MANY_REQUESTS}
)


class ProblemDetails(BaseModel):
    """A problem as RFC 9457 describes it; extension members are in `model_extra`.

    Attributes:
        type: URI of the problem type.
        title: What kind of problem this is, the same for each occurrence.
        status: HTTP status.
        detail: What happened this time.
        instance: URI of this occurrence.
    """

    model_config = ConfigDict(extra="allow", frozen=True, hide_input_in_errors=True)

    type: str = "about:blank"
    title: str | None = None
    status: int | None = None
    detail: str | None = None
    instance: str | None = None

    @field_validator("*", mode="wrap")
    @classmethod
    def _ignore_wrong_types(cls, value: object, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> object:
        """RFC 9457 §3.1: a member whose type does not match is ignored."""
        try:
            return handler(value)
        except ValidationError:
            return cls.model_fields[str(info.field_name)].default

    @classmethod
    def of(cls, headers: httpx.Headers, body: bytes) -> Self | None:
        """The problem that a response describes; None if it describes none."""
        if media_type(headers.get("Content-Type")) != _PROBLEM_MEDIA_TYPE:
            return None
        try:
            return cls.model_validate_json(body)
        except ValidationError:
            return None


class ApiError(Exception):
    """A call failed. `str()` names method, URL and reason; it holds no query value, header or body.

    Attributes:
        reason: What went wrong, in words.
        method: HTTP method.
        url: With the values of the query masked.
        status: HTTP status; None without a response.
        headers: Of the response; empty without one.
        body: The first 4096 bytes of the response's body.
        problem: What the response says in the way of RFC 9457.
        retryable: Whether the same request can succeed later. Whether it may be sent twice, only the caller knows.
        retry_after: Seconds to wait before that, if the server named them.
        sent: False if the request certainly did not reach the server.
    """

    def __init__(
        self,
        reason: str,
        *,
        method: str,
        url: str,
        status: int | None = None,
        headers: httpx.Headers | None = None,
        body: bytes = b"",
        problem: ProblemDetails | None = None,
        retryable: bool = False,
        retry_after: float | None = None,
        sent: bool = True,
    ) -> None:
        super().__init__(f"{method} {url}: {reason}")
        self.reason = reason
        self.method = method
        self.url = url
        self.status = status
        self.headers = httpx.Headers() if headers is None else headers
        self.body = body[:BODY_LIMIT]
        self.problem = problem
        self.retryable = retryable
        self.retry_after = retry_after
        self.sent = sent

    @property
    def request_id(self) -> str | None:
        """How the server calls this request; its operators will ask for it."""
        return request_id(self.headers)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, vars(self).copy())


def _restored[Error: ApiError](kind: type[Error], args: tuple[str], state: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    vars(error).update(state)
    return error


class ApiResponseError(ApiError):
    """The API answered with another status than 2xx."""


class ApiDecodeError(ApiError):
    """The API answered with 2xx, but not with what the method promises to return."""


class ApiTransportError(ApiError):
    """There is no complete response: no connection, or one that broke."""


class ApiTimeoutError(ApiTransportError):
    """There is no complete response in time."""


def response_error(
    response: httpx.Response, body: bytes, *, method: str, url: str, now: Callable[[], float]
) -> ApiResponseError:
    """The error for a response whose status is not 2xx; `now` tells seconds since 1970."""
    status, headers = response.status_code, response.headers
    problem = ProblemDetails.of(headers, body)
    return ApiResponseError(
        f"{status} {httpx.codes.get_reason_phrase(status)}".rstrip() + _told(problem),
        method=method,
        url=url,
        status=status,
        headers=headers,
        body=body,
        problem=problem,
        retryable=status in _RETRYABLE_CLIENT_ERRORS or status >= 500,
        retry_after=parse_retry_after(headers.get("Retry-After"), now=now()),
    )


def _told(problem: ProblemDetails | None) -> str:
    text = problem and (problem.detail or problem.title)
    return f": {' '.join(text.split())[:200]}" if text else ""


def summarize(error: ValidationError) -> str:
    """What did not validate and where, without the values: they may be private."""
    details = error.errors(include_url=False, include_context=False, include_input=False)
    shown = "; ".join(": ".join(filter(None, (".".join(map(str, one["loc"])), one["msg"]))) for one in details[:5])
    return f"{shown}; {len(details) - 5} more" if len(details) > 5 else shown
