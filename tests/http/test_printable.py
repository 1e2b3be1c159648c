"""Text from outside never acts on the terminal of whoever reads a log."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.printable import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("as it is: é 漢", "as it is: é 漢"),
        (" two\r\n\tlines ", "two lines"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("nul\x00", "nul\\x00"),
        ("\u202eturned", "\\u202eturned"),
        ("\ud800", "\\ud800"),
        ("a" * 201, "a" * 199 + "\u2026"),
    ],
)
def test_what_is_not_printable_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


@given(st.text(st.characters(categories=None)), st.integers(1, 300))
def test_whatever_comes_becomes_one_bounded_printable_line(text: str, limit: int) -> None:
    shown = printable(text, limit)
    assert shown.isprintable()
    assert len(shown) <= limit
