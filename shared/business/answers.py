"""What the API's answers say, as facts; what they mean for a record is decided in `shared.delivery`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from shared.rest import ApiResponseError, ProblemDetails


def _no_format_of_its_own(_error: ApiResponseError) -> ProblemDetails | None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """How the API answers a post that it does not take, where that differs from the usual.

    Attributes:
        statuses: By status, whether it `"rejects"` a record for what is in it or `"defers"` it, since it says nothing
            about the record. Left alone, only 400, 413, 415, 422 and perhaps 409 reject.
        conflict: What a 409 without a usable `Location` says: `"in_progress"`, an earlier request under the same
            `Idempotency-Key` is being worked on, as the IETF draft has it; or `"duplicate"`, the API has another
            record with the same natural key.
        problem: Reads an error format of the API's own as problem details; None leaves it to RFC 9457. An exception
            counts as None: so let it fail on what has another format, such as a gateway's page. `title` and `type` say
            what kind of error it is, and are logged. `detail` is not: what the API says about the one record belongs
            there, since it may repeat what is private. Of `{"code": "E17", "text": "no VAT id 7"}`::

                def read_problem(error: ApiResponseError) -> ProblemDetails:
                    told = json.loads(error.body)
                    return ProblemDetails(type=f"urn:acme:{told['code']}", title="Refused", detail=told["text"])
    """

    statuses: Mapping[int, Literal["rejects", "defers"]] = field(default_factory=dict)
    conflict: Literal["in_progress", "duplicate"] = "in_progress"
    problem: Callable[[ApiResponseError], ProblemDetails | None] = _no_format_of_its_own
