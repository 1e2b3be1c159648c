"""What is shown while records are posted: a bar on a terminal, now and then a line elsewhere."""

import io
from collections import Counter

from rich.console import Console

from dev.importer.progress import Display

HALF = Counter({"posted": 400, "rejected": 99, "invalid": 1, "deferred": 7, "pending": 493, "total": 1000})


class Watched:
    """A display, what it has printed, and its time."""

    def __init__(self, *, terminal: bool) -> None:
        self.now = 0.0
        self.printed = io.StringIO()
        self.display = Display(Console(file=self.printed, force_terminal=terminal, width=150), lambda: self.now)


def test_where_there_is_no_terminal_a_line_comes_every_five_seconds_and_at_the_end() -> None:
    watched = Watched(terminal=False)
    with watched.display as display:
        for seconds, posted in ((0, 0), (4, 100), (5, 200), (9, 300), (11, 1000)):
            watched.now = seconds
            display.show(Counter({"posted": posted, "pending": 1000 - posted, "total": 1000}))
    assert watched.printed.getvalue().splitlines() == [
        "0 of 1,000 posted, 0 rejected, 0 deferred",
        "200 of 1,000 posted, 0 rejected, 0 deferred, 40/s, about 0:20 left",
        "1,000 of 1,000 posted, 0 rejected, 0 deferred",
    ]


def test_the_rate_is_that_of_this_run() -> None:
    watched = Watched(terminal=False)
    watched.display.show(HALF)
    watched.now = 10
    watched.display.show(HALF + Counter({"posted": 100, "pending": -100}))
    assert watched.printed.getvalue().splitlines()[1] == (
        "500 of 1,000 posted, 100 rejected, 7 deferred, 10/s, about 0:40 left"
    )


def test_on_a_terminal_there_is_a_bar() -> None:
    watched = Watched(terminal=True)
    with watched.display as display:
        display.show(HALF)
        display._bar.refresh()
    assert "\u2501" in watched.printed.getvalue()
    assert "400 of 1,000 posted, 100 rejected, 7 deferred" in watched.printed.getvalue()


def test_trouble_is_told_but_not_again_and_again() -> None:
    watched = Watched(terminal=False)
    for seconds in (0, 1, 4, 6):
        watched.now = seconds
        watched.display.trouble(f"503 at {seconds}")
    assert watched.printed.getvalue().splitlines() == [
        "The app does not answer, and is asked again: 503 at 0",
        "The app does not answer, and is asked again: 503 at 6",
    ]


def test_what_the_api_tells_does_not_act_on_the_terminal() -> None:
    watched = Watched(terminal=True)
    watched.display.say("line 1: \x1b]0;owned\x07 [red]text[/red]")
    assert watched.printed.getvalue() == "line 1: \\x1b]0;owned\\x07 [red]text[/red]\n"
