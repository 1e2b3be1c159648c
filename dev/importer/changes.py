"""Decides about lines that were changed after they were sent: they go out, take the place of others, or are held.

A record that has come into the file later may be another form of one that was sent before. It is, if it has the same
natural key. Where its natural key is new, it may yet be, as long as a record that was sent is missing from the file.
"""

from .journal import Journal, Part, Sent

_IN_DOUBT = (
    "not sent: the API may have an earlier form of this record; look into it, put the line back as it was and run again"
)
_POSTED = "not sent: the API has an earlier form of this record; say --new if this is a new one"
_IN_DOUBT_SOMEWHERE = (
    "not sent: this may be another form of a record that the API may have, and that has left the file: put that back"
)
_POSTED_SOMEWHERE = (
    "not sent: this may be another form of a record that the API has, and that has left the file; say --new if not"
)
_ANOTHER = "not sent yet: another line with the same natural key goes first; run again"
_WAITS = "not sent yet: the operation of its earlier form has something left to retry; run again"


def decide(journal: Journal, *, new: bool) -> None:
    """Decide on every record that may be another form of what was sent, now that it is known what became of that.

    Args:
        journal: Of the file.
        new: Whether what may be another form of a posted record is a new one, since the user says so.
    """
    missing: dict[int, set[str]] = {}
    corrected = set[str | None]()
    for record in journal.undecided():
        earlier = journal.earlier_forms(record)
        fates = {fate for fate, _ in earlier}
        if not earlier and record.run not in missing:
            missing[record.run] = journal.missing(record.run)
        reason: str | None = None
        if "may be stored" in fates:
            reason = _IN_DOUBT
        elif "posted" in fates:
            reason = None if new else _POSTED
        elif any(journal.left_to_retry(part) for _, part in earlier):
            reason = _WAITS  # it takes its place there, or else a retry would send the earlier form again
        elif earlier and record.natural_key in corrected:
            reason = _ANOTHER
        elif earlier:
            corrected.add(record.natural_key)
        elif "may be stored" in missing[record.run]:
            reason = _IN_DOUBT_SOMEWHERE
        elif "posted" in missing[record.run] and not new:
            reason = _POSTED_SOMEWHERE
        journal.hold(record.digest, reason)


def correctable(journal: Journal, part: Part) -> list[tuple[Sent, bytes]] | None:
    """The records of a part that have been corrected, each with the digest of the corrected one.

    A retry sends everything that was not posted. So there must be none for a part of which a record was sent in another
    form, too, or may have been, or has left the file: the result is None then.
    """
    corrections = []
    for sent in journal.sent(part):
        if sent.outcome == "posted":
            continue
        other = journal.other_form(sent)
        if other is not None and other[1]:
            return None
        if sent.line is not None:
            continue
        if other is not None and not sent.may_be_stored:
            corrections.append((sent, other[0]))
        elif sent.outcome != "invalid":
            return None
    return corrections
