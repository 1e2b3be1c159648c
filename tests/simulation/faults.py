"""Faults that are put into the app, one at a time, for the simulation to find: each is a change of its source."""

import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple
from unittest.mock import patch


class Fault(NamedTuple):
    """A change of a function.

    Attributes:
        module: Its module.
        name: Of the function there, after a dot that of a method.
        right: What is in its source.
        wrong: What comes in place of that.
    """

    module: str
    name: str
    right: str
    wrong: str


FAULTS = {
    "a key that changes with the attempt": Fault(
        "shared.delivery.attempts",
        "try_to_post",
        "idempotency_key=attempt.idempotency_key)",
        'idempotency_key=f"{attempt.idempotency_key}{clock() // 1 % 7}")',
    ),
    "a key of a batch that changes with the attempt": Fault(
        "shared.delivery.chunks",
        "Chunk.attempts",
        "revisions.get(index, 0)",
        "revisions.get(index, 0) + (index in self.doubts)",
    ),
    "a cancel lost at continue_as_new": Fault(
        "shared.functions.batches", "posted", "return cancelled", "return cancelled and round_.finished"
    ),
    "a time after a timer compared to the very second": Fault(
        "shared.delivery.rounds", "Round.__init__", "max(now, batch.due_at or now)", "now"
    ),
    "a 2xx that is sent again": Fault(
        "shared.delivery.answers",
        "outcome_of",
        "return _posted(response)",
        'return _posted(response) if error is None else Deferred(reason="unreadable")',
    ),
    "a chunk's result counted twice": Fault(
        "shared.delivery.rounds", "Round.take_in", "+= report.counts", "+= report.counts + report.counts"
    ),
    "a chunk's untouched rest dropped": Fault(
        "shared.delivery.rounds", "Round.returned", "self._queue.extendleft(reversed(untouched))", "pass"
    ),
    "a correction allowed in doubt": Fault(
        "shared.operations.resource", "Operations.retry", "if may_be_stored:\n", "if False:\n"
    ),
    "a correction of a batch allowed in doubt": Fault(
        "shared.operations.resource",
        "Operations._retry_batch",
        "elif outcomes.may_be_stored(known[index]) and not not_stored:",
        "elif False:",
    ),
    "a pacer that forgets to give its place back": Fault(
        "shared.pacing.limits", "Limits.failed", "self._end(call)", "pass"
    ),
    "results paged by a changing order": Fault(
        "shared.operations.results",
        "ResultQuery.page_of",
        "list(self.found(outcomes))",
        "sorted(self.found(outcomes), key=lambda one: one.index * self.page * 71 % 101)",
    ),
    "an activity that failed taken for one that sent nothing": Fault(
        "shared.delivery.rounds", "Round.failed", "FAILED.may_be_stored", "False"
    ),
    "a look-up that compares nothing": Fault("shared.delivery.answers", "_is_same", "bool(same) and all(same)", "True"),
    "a doubt without a reason": Fault("shared.delivery.outcomes", "doubted", "if before and", "if"),
    "a delay that does not grow": Fault("shared.delivery.retries", "retry_delay", "2.0 ** min(attempt - 1, 32)", "1.0"),
    "an event before the end": Fault(
        "shared.operations.events", "End.as_seen", "if not has_ended(status):", "if False:"
    ),
    "an event that is another one each time": Fault(
        "shared.functions.orchestrations", "announce", "run=run or began", "run=now"
    ),
    "a time box that is not kept": Fault("shared.delivery.chunks", "post_records", " or clock() >= work.begin_by", ""),
}
"""By name."""


@contextmanager
def put_in(fault: Fault) -> Iterator[None]:
    """Have a fault in the app."""
    module = importlib.import_module(fault.module)
    *owners, name = fault.name.split(".")
    owner = getattr(module, owners[0]) if owners else module
    right = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(right))
    assert fault.right in source
    changed: dict[str, object] = {}
    exec(compile(source.replace(fault.right, fault.wrong), f"<{fault.name}>", "exec"), vars(module), changed)  # noqa: S102
    with ExitStack() as stack:
        for place in [
            owner,
            *(module for at, module in sys.modules.items() if at.startswith(("function_app", "shared."))),
        ]:
            if vars(place).get(name) is right:
                stack.enter_context(patch.object(place, name, changed[name]))
        yield
