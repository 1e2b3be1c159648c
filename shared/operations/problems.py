"""Every error that a caller can get, as one RFC 9457 problem that says what was expected and what came."""

from pydantic import BaseModel, ConfigDict

from shared.access_tokens import TokenError
from shared.rest import ApiError, ProblemDetails
from shared.settings import SettingsError


class FieldError(BaseModel):
    """What is wrong with a field of a record.

    Attributes:
        index: Of the record in a batch, from 0; None for a single record.
        line: The physical line on which the record begins, from 1; None if the body has no such.
        field: Its path in the record, or `(record)` for the record as a whole. In a header of CSV, the columns, or
            `(header)` for all of it.
        detail: What was expected.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    index: int | None = None
    line: int | None = None
    field: str
    detail: str


class Refusal(ProblemDetails):
    """Why a request is refused, as RFC 9457 describes it.

    Attributes:
        errors: The first hundred errors of a body that is not valid; None if something else is wrong.
        errors_total: How many errors there are, listed or not.
    """

    title: str
    status: int
    detail: str
    errors: list[FieldError] | None = None
    errors_total: int | None = None


class RequestError(Exception):
    """A request that cannot be served.

    Attributes:
        status: HTTP status of the answer.
        problem: Body of the answer.
        retry_after: Seconds after which the same request may succeed; None if it will not, or nobody knows.
    """

    def __init__(
        self, status: int, title: str, detail: str, *, retry_after: float | None = None, **extensions: object
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.problem = Refusal.model_validate({"status": status, "title": title, "detail": detail, **extensions})
        self.retry_after = retry_after


class TaskHubError(Exception):
    """The durable extension does not answer, or in a way that is none of its own; the message says how."""


def bad_parameter(name: str, expected: str) -> RequestError:
    """The refusal of a parameter of the query that is not as expected."""
    return RequestError(400, "Invalid parameter", f"expected {expected} in the query parameter {name}")


ANSWERABLE = (RequestError, SettingsError, TaskHubError, TokenError, ApiError)


def as_request_error(error: RequestError | SettingsError | TaskHubError | TokenError | ApiError) -> RequestError:
    """What a caller is told. Of the app's configuration that is the names of bad settings; its log has the rest."""
    match error:
        case RequestError():
            return error
        case SettingsError():
            names = ", ".join(error.problems)
            return RequestError(503, "Service Unavailable", f"the app is not set up, see its log: {names}")
        case TaskHubError():
            detail = "the durable state of operations cannot be read at the moment"
            return RequestError(503, "Service Unavailable", detail)
        case TokenError():
            detail = "the app cannot sign in to the API at the moment"
            return RequestError(503, "Service Unavailable", detail, retry_after=error.retry_after)
        case ApiError(status=404):
            return RequestError(404, "Not Found", "the API has no such record")
        case ApiError(retryable=True):
            return RequestError(
                503, "Service Unavailable", "the API does not answer at the moment", retry_after=error.retry_after
            )
        case ApiError():
            return RequestError(502, "Bad Gateway", "the API answered in a way that this app cannot use")
