"""Whatever is interrupted, lost or edited: each line of the file comes in once, and no company in two forms."""

import json
import tempfile
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dev.importer.app import App
from dev.importer.delivery import Delivery
from dev.importer.journal import Journal
from dev.importer.reading import Source
from shared.business import NATURAL_KEY

from .batches import FATES, Served

pytestmark = pytest.mark.timeout(180)  # each example commits a few dozen times


class CrashError(BaseException):
    """The process has ended here."""


class Crash:
    """Ends the process at a moment: before the request of this number is sent, or before its answer is heard."""

    def __init__(self, moment: int | None) -> None:
        self.left = moment

    def step(self, _: object) -> None:
        if self.left is not None:
            if self.left == 0:
                raise CrashError
            self.left -= 1


def import_once(file: Path, url: str, *, moment: int | None = None, most: int = 3, new: bool = False) -> dict[int, str]:
    """A run that is cut off at a moment, if it comes to that; returns the outcome of each line, as far as known."""
    time, crash = [0.0], Crash(moment)

    def sleep(seconds: float) -> None:
        time[0] += seconds

    app = App(url, "", patience=100, on_trouble=lambda _: None, clock=lambda: time[0], sleep=sleep)
    app._http.event_hooks = {"request": [crash.step], "response": [crash.step]}
    source = Source(file, "ndjson")
    with closing(Journal(file.with_suffix(".journal"), url, most)) as journal, closing(app), suppress(CrashError):
        journal.read(source)
        Delivery(source, journal, app, lambda _: None, new=new, clock=lambda: time[0], sleep=sleep).run()
        if moment is not None and crash.left != 0:
            return {line: outcome for line, outcome, _, _ in journal.rows()}
    with closing(Journal(file.with_suffix(".journal"), url, most)) as journal:
        return {line: outcome for line, outcome, _, _ in journal.rows()}


@dataclass(frozen=True)
class Line:
    """What stands in a line: of which company it is, under which natural key, and what the API does with it."""

    company: int
    key: int
    text: str
    fate: str

    def __str__(self) -> str:
        return json.dumps({"company": self.company, NATURAL_KEY: self.key, "text": self.text, "fate": self.fate})


LINES = st.builds(Line, st.integers(0, 9), st.integers(0, 2), st.sampled_from("ab"), st.sampled_from(sorted(FATES)))
MOMENTS = st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=5)


def texts(stored: dict[str, Any]) -> Counter[str]:
    return Counter(json.dumps(record) for record in stored.values())


@settings(max_examples=25)
@given(lines=st.lists(LINES, min_size=1, max_size=12), room=st.integers(1, 4), moments=MOMENTS)
def test_each_line_comes_in_once_whatever_is_cut_off_and_whether_or_not_the_journal_is_lost(
    there: Served, lines: list[Line], room: int, moments: list[tuple[int, bool]]
) -> None:
    batches = there.anew(room)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "companies.ndjson"
        file.write_text("\n".join(map(str, lines)))
        for moment, lost in moments:
            import_once(file, there.url, moment=moment)
            if lost:
                file.with_suffix(".journal").unlink()
        for _ in range(3):  # what gave up twice is posted by the third run
            outcomes = import_once(file, there.url)
    wanted = {str(line) for line in lines if line.fate not in {"rejected", "refused unseen"}}
    assert texts(batches.stored) == Counter(wanted)
    assert {lines[at - 1].fate for at, outcome in outcomes.items() if outcome != "posted"} <= {
        "rejected",
        "refused unseen",
    }
    assert len(outcomes) == len(lines)


EDITS = st.lists(
    st.tuples(
        st.integers(0, 7),
        st.sampled_from(["text", "key", "fate", "delete", "restore", "copy"]),
        st.integers(10, 99),
        st.none() | st.integers(0, 30),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(fates=st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=8), edits=EDITS)
def test_no_company_is_stored_in_two_forms_whatever_is_edited_between_the_runs(
    there: Served, fates: list[str], edits: list[tuple[int, str, int, int | None]]
) -> None:
    batches = there.anew()
    began = [Line(number, number, "a", fate) for number, fate in enumerate(fates)]
    lines = list(began)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "companies.ndjson"
        file.write_text("\n".join(map(str, lines)))
        import_once(file, there.url)
        for at, edit, value, moment in edits:
            at %= len(lines)
            line = lines[at]
            match edit:
                case "text":
                    lines[at] = replace(line, text=str(value), fate="posted")
                case "key" if [one.company for one in lines].count(line.company) == 1:  # else nobody could tell
                    lines[at] = replace(line, key=value, fate="posted")
                case "fate":
                    lines[at] = replace(line, fate="posted" if value % 2 else "gives up")
                case "delete" if len(lines) > 1:
                    del lines[at]
                case "restore" if line.key == began[line.company].key:  # a natural key that is taken back tells nothing
                    lines[at] = began[line.company]
                case "copy":
                    lines.append(replace(line, text=str(value), fate="posted"))
            file.write_text("\n".join(map(str, lines)))
            import_once(file, there.url, moment=moment)
    companies = Counter(record["company"] for record in batches.stored.values())
    assert set(companies.values()) <= {1}, batches.stored
