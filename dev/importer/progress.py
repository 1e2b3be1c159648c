"""Shows how far an import is: a bar on a terminal, a line every few seconds elsewhere."""

import time
from collections import Counter
from collections.abc import Callable
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from shared.http.printable import printable

_EVERY = 5.0
_LONGEST = 1_000
_OPEN = ("", "pending", "deferred")


class Display:
    """What the user sees while records are posted; a context manager.

    Args:
        console: Where it is shown.
        clock: Seconds that go on evenly.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._first: tuple[float, int] | None = None
        self._shown, self._shown_at, self._said_at = "", float("-inf"), float("-inf")
        self._bar = Progress(BarColumn(), TextColumn("{task.description}"), console=console)
        self._task = self._bar.add_task("")

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def show(self, tally: Counter[str]) -> None:
        """Show how many records are where; all of them are `total`."""
        settled, now = tally["total"] - sum(tally[outcome] for outcome in _OPEN), self._clock()
        if self._first is None:
            self._first = now, settled
        began_at, before = self._first
        rate = (settled - before) / max(now - began_at, 0.001)
        text = told(tally, rate, tally["total"] - settled)
        if self._console.is_terminal:
            self._bar.update(self._task, total=tally["total"], completed=settled, description=text)
        elif text != self._shown and (now >= self._shown_at + _EVERY or settled == tally["total"]):
            self._shown, self._shown_at = text, now
            self.say(text)

    def trouble(self, text: str) -> None:
        """Tell, not too often, why a request has to be sent again."""
        if self._clock() >= self._said_at + _EVERY:
            self._said_at = self._clock()
            self.say(f"The app does not answer, and is asked again: {text}")

    def say(self, text: str) -> None:
        """Print a line, in which nothing of what the app or the API tells can act on the terminal."""
        self._console.print(printable(text, _LONGEST), highlight=False, markup=False, soft_wrap=True)


def told(tally: Counter[str], rate: float, left: int) -> str:
    """The counts in words, with the records settled per second, and in how many seconds the last one will be."""
    refused = tally["rejected"] + tally["invalid"]
    text = f"{tally['posted']:,} of {tally['total']:,} posted, {refused:,} rejected, {tally['deferred']:,} deferred"
    if rate > 0 and left:
        minutes, seconds = divmod(round(left / rate), 60)
        text += f", {rate:,.0f}/s, about {minutes}:{seconds:02} left"
    return text
