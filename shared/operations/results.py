"""What has become of the records of a batch: which of them callers want to see, and how it is written."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any, Literal, Self, get_args

from shared.delivery.batches import PAGE_SIZE
from shared.delivery.outcomes import may_be_stored
from shared.delivery.results import ItemOutcome, ItemResult
from shared.http.media_types import media_type

from .bodies import CSV, JSON, NDJSON
from .model import ResultPage
from .problems import RequestError, bad_parameter
from .requests import read_flag, read_page, read_parameter

type OutcomeName = Literal["posted", "pending", "invalid", "rejected", "deferred", "gave_up", "cancelled"]

OUTCOMES: tuple[OutcomeName, ...] = get_args(OutcomeName.__value__)
"""All outcomes that a record of a batch may have."""

COLUMNS = ("index", "line", "outcome", "id", "status", "reason", "field", "detail", "may_be_stored", "warning")
"""Of the results as CSV."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class ResultQuery:
    """Which results of a batch a caller wants to see, and how.

    Attributes:
        outcomes: Only records with one of these; None for any.
        warning: Only records that the API took with an answer that could not be read.
        may_be_stored: Only records that were not posted, and that the API may have all the same.
        page: From 1; of JSON only.
        kind: Media type: a page of JSON, or all of it as lines of JSON or as CSV.
    """

    outcomes: frozenset[str] | None
    warning: bool
    may_be_stored: bool
    page: int
    kind: str

    @classmethod
    def read(cls, headers: Mapping[str, str], query: Mapping[str, str]) -> Self:
        """Read what a caller asks for.

        Raises:
            RequestError: 400, a parameter is bad.
        """
        names = read_parameter(query, "outcome")
        wanted = None if names is None else frozenset(name.strip() for name in names.split(",") if name.strip())
        if wanted is not None and not (wanted and wanted <= set(OUTCOMES)):
            raise bad_parameter("outcome", f"one or more of {', '.join(OUTCOMES)}")
        return cls(
            outcomes=wanted,
            warning=read_flag(query, "warning"),
            may_be_stored=read_flag(query, "may_be_stored"),
            page=read_page(query),
            kind=_accepted(headers.get("Accept") or ""),
        )

    def found(self, outcomes: Iterable[ItemOutcome]) -> Iterator[ItemResult]:
        """The results that the caller wants to see, of all pages."""
        for index, outcome in enumerate(outcomes):
            if (
                (self.outcomes is None or outcome.outcome in self.outcomes)
                and (getattr(outcome, "warning", None) or not self.warning)
                and (may_be_stored(outcome) or not self.may_be_stored)
            ):
                yield ItemResult(index=index, result=outcome)

    def page_of(self, outcomes: Iterable[ItemOutcome]) -> ResultPage:
        """One page of the results that the caller wants to see.

        Raises:
            RequestError: 404, there is no such page.
        """
        results = list(self.found(outcomes))
        pages = max(1, ceil(len(results) / PAGE_SIZE))
        if not 1 <= self.page <= pages:
            raise RequestError(404, "Not Found", f"there is no page {self.page}: expected 1 to {pages}")
        first = (self.page - 1) * PAGE_SIZE
        return ResultPage(page=self.page, pages=pages, results=results[first : first + PAGE_SIZE])

    def exported(self, outcomes: Iterable[ItemOutcome]) -> str:
        """All results that the caller wants to see, as lines of JSON or as CSV."""
        found = self.found(outcomes)
        return _csv(found) if self.kind == CSV else "".join(f"{_json(result)}\n" for result in found)


def _accepted(accept: str) -> str:
    """The first kind in `Accept` that there is; JSON where none is."""
    for kind in map(media_type, accept.split(",")):
        if kind in {JSON, NDJSON, CSV}:
            return kind
    return JSON


def _json(result: ItemResult) -> str:
    return result.model_dump_json(exclude_none=True)


def _csv(results: Iterable[ItemResult]) -> str:
    written = io.StringIO(newline="")
    writer = csv.DictWriter(written, COLUMNS, restval="", extrasaction="ignore")
    writer.writeheader()
    for one in results:
        told = one.result.model_dump(mode="json", exclude_none=True)
        problem = told.get("problem") or {}
        row: dict[str, Any] = {
            "reason": problem.get("title", ""),
            "detail": problem.get("detail", told.get("excerpt", "")),
            **told,
            "index": one.index,
            "may_be_stored": "true" if may_be_stored(one.result) else "",
        }
        writer.writerow({name: cell(row.get(name, "")) for name in COLUMNS})
    return written.getvalue()


def cell(value: object) -> str:
    """A value as a spreadsheet can show it: a text that would be a formula there begins with an apostrophe."""
    text = value if isinstance(value, str) else json.dumps(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text
