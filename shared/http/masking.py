"""Masks the credentials of a request in what a server answers: some echo them, and answers are logged and kept."""

import functools
import re
from html.entities import html5

_MASK = b"***"
_SHOWN = 8  # characters of a credential that text may end with, when the rest of it is cut off
_ALPHANUMERIC = re.compile(rb"[A-Za-z0-9]+")
_LONGEST_FORM = 32  # bytes that one character takes in the longest of the forms below
_ESCAPE = re.compile(  # of a letter or a digit, which nobody has to escape
    rb"\\{1,4}u00(3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])"
    rb"|%(?:25){0,2}(3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])"
    rb"|(?:&|\\{1,4}u0026)#(?:[xX]0{0,4}(3[0-9]|[46][1-9a-fA-F]|[57][0-9aA])|0{0,4}([0-9]{2,3}));"
)


class Secrets:
    """The credentials that requests have carried.

    A server may repeat a credential as it is, or written for JSON (`\\/`, `\\u002b`), for a URL (`%2B`) or for HTML
    (`&#43;`): all these forms are masked. They differ in other characters than letters and digits only, so an answer
    without the longest run of those is let through at the price of one search. If letters and digits are escaped too,
    or the text has two or four bytes a character (UTF-16, UTF-32), it is masked as it reads without that.
    """

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def add(self, secret: bytes) -> None:
        """Mask this from now on."""
        if secret:
            self._known.add(secret)

    def masked(self, text: bytes, *, cut: bool = False) -> bytes:
        """Text of an answer in which `***` stands for each credential.

        Args:
            text: Part of the head, or the body.
            cut: Whether it may end in the middle of a credential. What might begin one at the end is masked too.
        """
        if not self._known:
            return text
        text = self._masked(text, cut=cut)
        plain = _plain(text)
        return text if plain == text or (shown := self._masked(plain, cut=cut)) == plain else shown

    def masked_text(self, text: str) -> str:
        """The same for a string, of which nothing is cut off; lone surrogates come out escaped."""
        return self.masked(text.encode("utf-8", "backslashreplace")).decode("utf-8", "replace")

    def _masked(self, text: bytes, *, cut: bool) -> bytes:
        # The longest comes first: one may be the beginning of another.
        for credential in sorted(self._known, key=len, reverse=True):
            if _longest_run(credential) in text:
                text = re.sub(_forms(credential), _MASK, text)
            if cut:
                start = max(0, len(text) - _LONGEST_FORM * len(credential))
                begun = re.compile(_forms(credential[:_SHOWN])).search(text, start)
                if begun is not None:
                    text = text[: begun.start()] + _MASK
        return text


def _plain(text: bytes) -> bytes:
    """The text without NULs, and with letters and digits that are not escaped."""
    text = text.replace(b"\0", b"")
    if b"\\u00" in text or b"%" in text or b"#" in text:
        text = _ESCAPE.sub(_unescaped, text)
    return text


def _unescaped(escape: re.Match[bytes]) -> bytes:
    *hexadecimal, decimal = escape.groups()
    code = int(decimal) if decimal else int(next(filter(None, hexadecimal)), 16)
    return bytes([code]) if code < 0x80 and chr(code).isalnum() else escape[0]


@functools.lru_cache(maxsize=16)
def _longest_run(credential: bytes) -> bytes:
    """The longest run of letters and digits in it; what to look for first, since no form changes those."""
    return max(_ALPHANUMERIC.findall(credential), key=len, default=b"")


def _forms(credential: bytes) -> bytes:
    """A pattern for all forms of a credential; it is bounded everywhere, so that no text makes it slow."""
    # Backslashes in a row are taken together, because a row can be divided among them in very many ways.
    return b"".join(_backslashes(len(part)) if part[:1] == b"\\" else _form(part[0]) for part in _parts(credential))


def _parts(credential: bytes) -> list[bytes]:
    return re.findall(rb"\\+|.", credential, re.DOTALL)


def _backslashes(count: int) -> bytes:
    return rb"(?:\\{%d,%d}|(?:%s){%d})" % (count, 4 * count, _escaped(ord("\\")), count)


def _form(character: int) -> bytes:
    plain = re.escape(bytes([character]))
    if bytes([character]).isalnum():
        return plain
    return rb"(?:\\{0,4}%s|%s)" % (plain, _escaped(character))


def _escaped(character: int) -> bytes:
    code = b"".join(b"[%s%s]" % (digit, digit.upper()) for digit in map(str.encode, f"{character:02x}"))
    names = [name.encode() for name, meant in html5.items() if meant == chr(character) and name.endswith(";")]
    numbers = [b"#0{0,4}%d;" % character, b"#[xX]0{0,4}%s;" % code]
    return rb"\\{1,4}u00%s|%%(?:25){0,2}%s|(?:&|\\{1,4}u0026)(?:%s)" % (code, code, b"|".join(numbers + names))
