"""Refusals as problem details (RFC 9457), and the reading of JSON bodies that they are about."""

import http
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from aiohttp import web
from pydantic import ValidationError
from pydantic_core import from_json, to_json

PROBLEM_TYPE = "application/problem+json"

type FieldErrors = list[dict[str, str]]
"""One entry a refused field: `field`, its dotted path from the top of the body, and `detail`, what was expected."""


class ProblemError(Exception):
    """A request is refused; `answer_problems` turns it into an `application/problem+json` answer."""

    def __init__(
        self, status: int, detail: str, *, errors: FieldErrors | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = headers

    def response(self) -> web.Response:
        """The answer: `type`, `title`, `status`, `detail`, and `errors` where single fields are refused."""
        document = problem_details(self.status, self.detail)
        if self.errors is not None:
            document["errors"] = self.errors
        return web.Response(status=self.status, body=to_json(document), content_type=PROBLEM_TYPE, headers=self.headers)


def problem_details(status: int, detail: str) -> dict[str, Any]:
    """The members that all problem details here have."""
    return {"type": "about:blank", "title": _title(status), "status": status, "detail": detail}


def _title(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


@web.middleware
async def answer_problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer every refusal, the router's 404 and 405 included, with problem details."""
    try:
        return await handler(request)
    except ProblemError as problem:
        return problem.response()
    except web.HTTPError as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
        return ProblemError(error.status, f"{request.method} {request.path}", headers=headers).response()


async def read_json_object(request: web.Request) -> dict[str, Any]:
    """The JSON object in the body.

    Raises:
        ProblemError: 415 for another media type, 413 for a body over the application's limit (1 MiB), 400 for
            malformed JSON, with its position, and for JSON that is no object.
    """
    if not (request.content_type == "application/json" or request.content_type.endswith("+json")):
        raise ProblemError(415, "Expected a body of the type application/json.", headers={"Accept": "application/json"})
    try:
        document = from_json(await request.read(), allow_inf_nan=False)
    except web.HTTPRequestEntityTooLarge:
        raise ProblemError(413, "The body is too large.") from None
    except ValueError as error:
        raise ProblemError(400, f"The body is not JSON: {error}.") from None
    if not isinstance(document, dict):
        raise ProblemError(400, "Expected a JSON object.")
    return document


def field_errors(error: ValidationError) -> FieldErrors:
    """What a model refused, one entry a field; the refused values themselves are left out."""
    return [
        {"field": _path(detail["loc"]), "detail": detail["msg"]}
        for detail in error.errors(include_url=False, include_context=False, include_input=False)
    ]


def _path(location: Iterable[int | str]) -> str:
    return ".".join(str(part) for part in location)
