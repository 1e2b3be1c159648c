"""What a method returns: how its annotation is read, and how a response becomes it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAliasType, cast, get_args, get_origin

import httpx
from pydantic import ValidationError

from shared.http.media_types import BYTE_ORDER_MARK, is_json, media_type
from shared.http.printable import printable
from shared.http.request_ids import request_id

from .errors import ApiError
from .parameters import Shape, adapter_for
from .validation import summarize


@dataclass(frozen=True, slots=True)
class ApiResponse[T]:
    """An answer of the API, whatever its status.

    Attributes:
        status: HTTP status.
        headers: Of the response; names match in any case, `get_list` tells repeated ones apart.
        content: What the API answered; None if there is an error.
        error: `ApiResponseError` if the status is not 2xx, `ApiDecodeError` if the content is not a `T`.
    """

    status: int
    headers: httpx.Headers
    content: T | None
    error: ApiError | None = None

    @property
    def request_id(self) -> str | None:
        """How the server calls this request; its operators will ask for it."""
        return request_id(self.headers)

    def unwrap(self) -> T:
        """The content.

        Raises:
            ApiError: There is none; the same as `error`.
        """
        if self.error is not None:
            raise self.error
        return cast("T", self.content)  # without an error it is a T, and None only if T includes None


class UndecodableError(Exception):
    """The body is not what was promised; the message says why, without values."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What a method returns.

    Attributes:
        wrapped: It returns an `ApiResponse` of its content.
        empty: Its content is always None.
        accept: Media types to ask for.
        decode: Makes the content from a response and its body, or raises `UndecodableError`.
    """

    wrapped: bool
    empty: bool
    accept: str
    decode: Callable[[httpx.Response, bytes], Any]

    @classmethod
    def of(cls, annotation: Any) -> "Returned":
        """Read a return annotation.

        Raises:
            TypeError: It is `ApiResponse` without its content.
        """
        annotation = _unaliased(annotation)
        wrapped = get_origin(annotation) is ApiResponse
        if wrapped:
            annotation = _unaliased(get_args(annotation)[0])
        elif annotation is ApiResponse:
            raise TypeError("expected the content of ApiResponse, as in ApiResponse[Item]")
        if annotation in (None, type(None)):
            return cls(wrapped, True, "*/*", _nothing)
        if annotation is bytes:
            return cls(wrapped, False, "*/*", _bytes)
        if annotation is str:
            return cls(wrapped, False, "text/*, */*;q=0.5", _text)
        return cls(wrapped, False, "application/json", _Json(annotation))


def _unaliased(annotation: Any) -> Any:
    while isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    return annotation


def _nothing(_response: httpx.Response, _body: bytes) -> None:
    return None


def _bytes(_response: httpx.Response, body: bytes) -> bytes:
    return body


def _text(response: httpx.Response, body: bytes) -> str:
    try:
        return body.decode(response.charset_encoding or "utf-8")
    except (ValueError, LookupError):  # also of a name that is none, such as one with a NUL in it
        raise UndecodableError("the body is not text in the encoding that it names") from None


class _Json:
    def __init__(self, annotation: Any) -> None:
        self._adapter = adapter_for(annotation)
        self._optional = Shape.of(self._adapter).optional

    def __call__(self, response: httpx.Response, body: bytes) -> Any:
        body = body.removeprefix(BYTE_ORDER_MARK)
        if not body:
            if self._optional:
                return None
            raise UndecodableError("expected JSON, the body is empty")
        received = media_type(response.headers.get("Content-Type"))
        if received and not is_json(received):
            raise UndecodableError(f"expected JSON, got {printable(received, 100)}")
        try:
            return self._adapter.validate_json(body)
        except ValidationError as error:
            raise UndecodableError(summarize(error, self._adapter)) from None
        except Exception as error:  # noqa: BLE001 (a validator may raise anything, with values in its text)
            raise UndecodableError(f"a validator of the type raised {type(error).__name__}") from None
