"""What an answer of the API means for a record: the one table by which this app decides (docs/delivery.md shows it)."""

from collections.abc import Container
from dataclasses import dataclass, replace
from typing import Literal

from shared.business import Answers


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the table.

    Attributes:
        answer: What the API answered, in words.
        outcome: What becomes of the record.
        may_be_stored: Whether the attempt may have brought the record to the API all the same.
        statuses: For which the rule holds.
        of_html: Whether it holds for a page in HTML, too: such a page does not come from what judges records.
    """

    answer: str
    outcome: Literal["posted", "rejected", "deferred"]
    may_be_stored: bool = False
    statuses: Container[int] = ()
    of_html: bool = True


POSTED = Rule("2xx, readable or not", "posted")
ALREADY_THERE = Rule("409 with a `Location` under which the same record is found", "posted")
ANOTHER_IS_THERE = Rule("409 with a `Location` under which another record is found", "rejected")
UNSEEN = Rule("409 with a `Location` whose record cannot be looked up now", "deferred", may_be_stored=True)
IN_PROGRESS = Rule(
    '409 otherwise, `conflict="in_progress"`: an earlier attempt is at work', "deferred", may_be_stored=True
)
DUPLICATE = Rule('409 otherwise, `conflict="duplicate"`, unless the body is `text/html`', "rejected")
REJECTS = Rule('a status for which `BusinessApi.answers` says `"rejects"`', "rejected")
DEFERS = Rule('a status for which `BusinessApi.answers` says `"defers"`; may be stored as below', "deferred")
BY_STATUS = (
    Rule("413, 415", "rejected", statuses={413, 415}),
    Rule("400, 422, unless the body is `text/html`", "rejected", statuses={400, 422}, of_html=False),
    Rule("501, 503, 505", "deferred", statuses={501, 503, 505}),
    Rule("any other 5xx", "deferred", may_be_stored=True, statuses=range(500, 600)),
    Rule("303, which says that the request was worked on", "deferred", may_be_stored=True, statuses={303}),
    Rule("any other status", "deferred", statuses=range(1000)),
)
NO_ANSWER = Rule(
    "none: the connection broke, or the time was up, after the request may have been written",
    "deferred",
    may_be_stored=True,
)
NOT_SENT = Rule("none: no settings, no access token, or no connection", "deferred")
FAILED = Rule("unknown: the activity failed, by a bug or with its worker", "deferred", may_be_stored=True)

TABLE = (
    *(POSTED, REJECTS, DEFERS, *BY_STATUS[:2], ALREADY_THERE, ANOTHER_IS_THERE, UNSEEN, IN_PROGRESS, DUPLICATE),
    *(*BY_STATUS[2:], NO_ANSWER, NOT_SENT, FAILED),
)
"""All rules, in the order in which they are asked."""


def rule_for(status: int, *, html: bool, answers: Answers) -> Rule:
    """The rule for a status other than 2xx; for a 409, the one that holds if there is no record to look up.

    Args:
        status: HTTP status of the answer to a post.
        html: Whether its body is a page in HTML.
        answers: The facts of the API.
    """
    usual = next(rule for rule in BY_STATUS if status in rule.statuses and (rule.of_html or not html))
    if status == 409 and answers.conflict == "in_progress":
        usual = IN_PROGRESS
    elif status == 409 and not html:
        usual = DUPLICATE
    match answers.statuses.get(status):
        case "rejects":
            return REJECTS
        case "defers":
            return replace(DEFERS, may_be_stored=usual.may_be_stored)
        case None:
            return usual
