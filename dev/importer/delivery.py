"""Has the records of a file posted: part by part, each one operation of the app, followed to its end."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shared.http.retry_after import parse_retry_after
from shared.operations.bodies import JSON, NDJSON
from shared.operations.model import UNFINISHED

from .app import App, AppError, document
from .changes import correctable, decide
from .dry_run import faults
from .journal import PART_RECORDS, Journal, Part, Result, operation_id
from .reading import Source

MOST_OPEN = PART_RECORDS
"""Another part is started while no more records than this are open: of two parts, or of many that are nearly done."""

_LONGEST_PAUSE = 15.0
_OTHER_SHAPE = "expected an operation, got an answer of another shape: is this the URL of the app?"


@dataclass
class _Following:
    """A part under way: when to look at its operation again, and how many records are where by the last look."""

    part: Part
    due: float
    pause: float = 0.1
    tally: Counter[str] = field(default_factory=Counter)

    @property
    def open(self) -> int:
        """The records of which the end is not known."""
        return self.tally["pending"] + self.tally["deferred"]


class Delivery:
    """An import under way.

    Args:
        source: The file.
        journal: Of the file, as it is now.
        app: That posts the records.
        show: Is told how many records are where; all of them are `total`.
        new: Whether records that may be other forms of those that the API has are new ones.
        clock: Seconds that go on evenly.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        source: Source,
        journal: Journal,
        app: App,
        show: Callable[[Counter[str]], None],
        *,
        new: bool,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._source, self._journal, self._app, self._show, self._new = source, journal, app, show, new
        self._clock, self._sleep = clock, sleep
        self._under_way: dict[int, _Following] = {}
        self._ended = Counter[str]()

    def run(self) -> None:
        """Go on until nothing is left to do: with what was begun, what is new, what ended unposted, what was corrected.

        Raises:
            AppError: The app does not do what it should.
            FileChangedError: The file was changed meanwhile.
        """
        for part in self._journal.parts("planned", "retrying"):
            self._clear_up(part)
        unposted = self._journal.open_parts()
        for part in unposted:
            self._look_again(part)
        for part in self._journal.parts("started"):
            self._follow(part)
        self._deliver()
        for part in unposted:
            self._retry(part.number)
        decide(self._journal, new=self._new)
        self._deliver()

    def _clear_up(self, part: Part) -> None:
        """Find out whether the app has heard what an earlier run was about to ask when it ended."""
        gone = any(sent.line is None for sent in self._journal.sent(part))
        if part.state == "planned" and not gone:
            self._start(part)
            return
        operation = self._operation(part)
        if part.state == "planned" and operation is None:
            self._journal.drop(part)
        elif part.state == "planned" or _began_again(operation, part):
            self._journal.started(part)
        else:
            self._journal.not_retried(part, "")

    def _look_again(self, part: Part) -> None:
        """Look at an operation that had ended, since others may have retried it."""
        operation = self._operation(part)
        if operation is not None and operation["state"] in UNFINISHED:
            self._journal.started(part)
        elif operation is not None:
            self._journal.ended(part, self._results(part), operation.get("created_at") or "")

    def _deliver(self) -> None:
        """Start part after part as there is room, and look at those under way, until all have ended."""
        self._ended = self._journal.tally()
        while True:
            while sum(one.open for one in self._under_way.values()) <= MOST_OPEN:
                part = self._journal.plan(self._source)
                if part is None:
                    break
                self._start(part)
            self._show(sum((one.tally for one in self._under_way.values()), self._ended))
            if not self._under_way:
                return
            following = min(self._under_way.values(), key=lambda one: one.due)
            self._sleep(max(0.0, following.due - self._clock()))
            self._look(following)

    def _start(self, part: Part) -> None:
        """Have the app take a part in; it is the same operation if it has done so before."""
        records = self._journal.sent(part)
        texts = self._source.texts([(sent.digest, sent.place, sent.length) for sent in records])
        answer = self._app.ask(
            "POST",
            "/batch?skip_invalid=true",
            *(200, 202, 400, 413, 422),
            body=self._source.body(texts),
            Content_Type=self._source.media_type,
            Idempotency_Key=part.key,
        )
        if answer.status_code == 413 and len(records) > 1:
            self._journal.drop(part, most=(len(records) + 1) // 2)
        elif answer.status_code in {400, 413}:  # nothing was started, since no record is valid
            found = dict(faults(self._app, self._source, texts)) if answer.status_code == 400 else {}
            refusal = str(document(answer).get("detail"))
            self._journal.ended(
                part, [Result(at, "invalid", reason=found.get(at, refusal)) for at in range(len(texts))], ""
            )
            self._ended = self._journal.tally()
        elif answer.status_code != 422 and document(answer).get("id") != operation_id(part):
            raise AppError(_OTHER_SHAPE)
        else:  # with a 422, the operation was started by an app that judged records otherwise
            self._journal.started(part)
            self._follow(part, after=answer.headers.get("Retry-After"))

    def _follow(self, part: Part, after: str | None = None) -> None:
        wait = parse_retry_after(after, now=time.time()) or 0.0
        tally = Counter(pending=len(self._journal.sent(part)))
        self._under_way[part.number] = _Following(part, self._clock() + wait, tally=tally)

    def _look(self, following: _Following) -> None:
        """Look at an operation, and note what became of its records once it has ended."""
        part, operation = following.part, self._operation(following.part)
        if operation is not None and operation["state"] in UNFINISHED:
            tally = Counter[str]((operation.get("batch") or {}).get("tally") or following.tally)
            del tally["total"]
            wait = operation["retry_after"]
            # What stands still, such as a record that is locked for an hour, need not be looked at every second.
            following.pause = wait if tally != following.tally else min(1.5 * following.pause, _LONGEST_PAUSE)
            following.due, following.tally = self._clock() + max(wait, following.pause), tally
            return
        if operation is None:
            self._journal.forgotten(part)
        else:
            self._journal.ended(part, self._results(part), operation.get("created_at") or "")
        del self._under_way[part.number]
        self._ended = self._journal.tally()

    def _operation(self, part: Part) -> dict[str, Any] | None:
        """What the app says of the operation of a part, with `retry_after` in seconds; None if it knows none."""
        answer = self._app.ask("GET", f"/operations/{operation_id(part)}", 200, 404)
        if answer.status_code == 404:
            return None
        if "state" not in document(answer):
            raise AppError(_OTHER_SHAPE)
        wait = parse_retry_after(answer.headers.get("Retry-After"), now=time.time())
        return document(answer) | {"retry_after": 1.0 if wait is None else wait}

    def _results(self, part: Part) -> list[Result]:
        """What became of each record of an operation that has ended."""
        answer = self._app.ask("GET", f"/operations/{operation_id(part)}/results", 200, Accept=NDJSON)
        return [_result(json.loads(line)) for line in answer.content.splitlines()]

    def _retry(self, number: int) -> None:
        """Have sent again what did not come to the API in an earlier run, and with it what was corrected meanwhile."""
        part = next((one for one in self._journal.parts("ended") if one.number == number), None)
        if part is None or not self._journal.left_to_retry(number):
            return
        corrections = correctable(self._journal, part)
        if corrections is None:
            self._journal.not_retried(
                part, "not retried: a record of its operation has left the file, or may have been sent in another form"
            )
            return
        self._journal.retrying(part, corrections)
        corrected = [new for _, new in self._journal.corrections(part)]
        texts = self._source.texts([(sent.digest, sent.place, sent.length) for sent in corrected])
        if texts and (bad := dict(faults(self._app, self._source, texts))):
            self._journal.not_retried(part, "not retried: a corrected record of its operation is not valid")
            for position, reason in bad.items():
                self._journal.hold(corrected[position].digest, f"not sent: {reason}")
            return
        items = [
            b'{"index":%d,"record":%s}' % (sent.position, text)
            for sent, text in zip(corrected, self._source.as_json(texts), strict=True)
        ]
        sent: dict[str, Any] = {"body": b"[%s]" % b",".join(items), "Content_Type": JSON} if items else {}
        answer = self._app.ask("POST", f"/operations/{operation_id(part)}/retry", 202, 404, 409, 413, **sent)
        # After a lost answer, the second one is a 409: the operation tells whether it has begun again.
        if answer.status_code == 202 or _began_again(self._operation(part), part):
            self._journal.started(part)
            self._follow(part)
        else:
            self._journal.not_retried(part, f"not retried: {document(answer).get('detail')}")


def _began_again(operation: dict[str, Any] | None, part: Part) -> bool:
    """Whether an operation that had ended runs, or has run, since."""
    if operation is None:
        return False
    return operation["state"] in UNFINISHED or operation.get("created_at") != part.began


def _result(item: dict[str, Any]) -> Result:
    """A line of the results, in which `reason` is what tells most of why a record was not posted."""
    told = item["result"]
    problem = told.get("problem") or {}
    errors = (one for one in problem.get("errors") or () if isinstance(one, dict))
    fields = "; ".join(f"{one.get('field')}: {one.get('detail')}" for one in errors)
    said = fields or problem.get("detail") or problem.get("title") or told.get("excerpt")
    if told["outcome"] == "invalid":
        said = f"{told.get('field')}: {told.get('detail')}"
    elif told["outcome"] == "rejected":
        said = f"{told.get('status')} {said or ''}".strip()
    reason = told.get("warning") or said or told.get("reason") or ""
    doubt = bool(told.get("may_be_stored"))
    return Result(
        position=item["index"],
        outcome=told["outcome"],
        id=told.get("id"),
        reason=f"may be stored: {reason}".removesuffix(": ") if doubt else reason,
        may_be_stored=doubt,
    )
