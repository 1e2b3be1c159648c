"""What has become of the records of a batch: each is kept as a line of JSON, and told to callers one by one."""

import json
import operator
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from .bounds import BATCH_LIMIT, bounded, size, stored
from .outcomes import Cancelled, Deferred, GaveUp, Posted, Rejected
from .reading import HIDDEN, UNTOLD

LEAST = 320
"""What the result of a record may always take of the task hub (`bounds.size`)."""

REASON_LIMIT = 200
"""Characters that are kept of why a record was deferred: what the API told matters once it has refused a record."""


class ItemPosted(BaseModel):
    """The API has the record under this id; a `warning` tells what of its answer could not be read."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["posted"] = "posted"
    id: str | None = None
    warning: str | None = None


class ItemPending(BaseModel):
    """No attempt at the record has ended that is known of.

    Attributes:
        may_be_stored: Whether the API may have it all the same: the batch was cut short, or is one started again.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["pending"] = "pending"
    may_be_stored: Annotated[bool, Field(exclude_if=operator.not_)] = False


class ItemInvalid(BaseModel):
    """The record was skipped, since it is not valid; this is the first of its errors.

    Attributes:
        line: The physical line on which the record begins, from 1; None if it was sent in a JSON array.
    """

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    outcome: Literal["invalid"] = "invalid"
    line: int | None = None
    field: str = ""
    detail: str = ""


type ItemOutcome = Annotated[
    ItemPosted | ItemPending | ItemInvalid | Rejected | Deferred | GaveUp | Cancelled, Field(discriminator="outcome")
]

type Settled = ItemPosted | ItemInvalid | Rejected | GaveUp | Cancelled
"""What a record of a batch has come to, and stays at unless the batch is retried."""


class ItemResult(BaseModel):
    """What has become of one record of a batch so far."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    index: int
    result: ItemOutcome


_OUTCOME: TypeAdapter[ItemOutcome] = TypeAdapter(Annotated[ItemOutcome, UNTOLD], config=HIDDEN)


def write_json(value: Any) -> str:
    """JSON on one line, as short as it gets."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def write_line(outcome: Settled) -> str:
    """One line of JSON: of a record that was posted without more ado just its id, since there may be thousands."""
    if isinstance(outcome, ItemPosted) and outcome.warning is None:
        return write_json(outcome.id)
    return write_json({"outcome": outcome.outcome, **stored(outcome)})


def is_posted(line: str) -> bool:
    """Whether a line is that of a record which the API has."""
    return line.startswith(('"', "null", '{"outcome":"posted"'))


def read_line(line: str) -> ItemOutcome:
    """Read what `write_line` has written.

    Raises:
        ValueError: It has not.
    """
    value = json.loads(line)
    return _OUTCOME.validate_python(value) if isinstance(value, dict) else ItemPosted(id=value)


def counted(outcome: ItemOutcome) -> dict[str, int]:
    """How an outcome counts, by the names of `chunks.Counts`."""
    warned, doubted = getattr(outcome, "warning", None) is not None, getattr(outcome, "may_be_stored", False)
    return {outcome.outcome: 1, "warnings": int(warned), "may_be_stored": int(doubted)}


def write_lines(outcomes: Sequence[ItemPosted | Rejected | GaveUp | Cancelled], kept: int) -> list[str]:
    """One line for each outcome; together they take at most `kept` each of the task hub (`bounds.size`).

    What does not take its share is left to those that need more, up to a bound of their own.

    Args:
        outcomes: Of attempts.
        kept: At least `LEAST`.
    """
    lines = [write_line(outcome) for outcome in outcomes]
    sizes = [size(line) for line in lines]
    large = [number for number, length in enumerate(sizes) if length > kept]
    if large:
        room = kept * len(lines) - sum(length for length in sizes if length <= kept)
        share = min(room // len(large), BATCH_LIMIT)
        for number in large:
            lines[number] = _fitting(outcomes[number], share)
    return lines


def _fitting(outcome: ItemPosted | Rejected | GaveUp | Cancelled, share: int) -> str:
    """The line of as much of an outcome as fits."""
    limit = share
    while size(line := write_line(bounded(outcome, limit))) > share and limit > 0:
        limit -= max(limit // 8, 1)  # in a line everything is quoted once more
    return line


def brief(outcome: Posted | Rejected) -> ItemPosted | Rejected:
    """What is kept of an answer: of a record that was posted its id, since the caller has the record."""
    if isinstance(outcome, Posted):
        return ItemPosted(id=outcome.id, warning=outcome.warning)
    return bounded(outcome, BATCH_LIMIT)
