"""Masks the credentials of a request in what the API answers: some echo them, and answers are logged and kept."""

import functools
import re
from html.entities import html5

import httpx

SHORTEST = 8
"""Characters of a credential from which on it is masked: a shorter one is found in innocent text too."""

_FIELDS = frozenset({b"authorization", b"proxy-authorization", b"dpop"})
_MASK = b"***"
_ALPHANUMERIC = re.compile(rb"[A-Za-z0-9]+")
_LONGEST_FORM = 16  # bytes that one character takes in the longest of the forms below


class Credentials:
    """The credentials that requests have carried.

    An API may repeat a credential as it is, or written for JSON (`\\/`, `\\u002b`), for a URL (`%2B`) or for HTML
    (`&#43;`): all these forms are masked. They differ in other characters than letters and digits only, so an answer
    without the longest run of those is let through at the price of one search.
    """

    def __init__(self) -> None:
        self._known: set[bytes] = set()

    def learn(self, request: httpx.Request) -> None:
        """Remember the credentials of a request: what follows the scheme in its fields of authorisation."""
        for name, value in request.headers.raw:
            if name.lower() in _FIELDS:
                credential = value.partition(b" ")[2].strip() or value
                if len(credential) >= SHORTEST:
                    self._known.add(credential)

    def masked(self, text: bytes, *, cut: bool = False) -> bytes:
        """Text of an answer in which `***` stands for each credential.

        Args:
            text: Part of the head, or the body.
            cut: Whether it may end in the middle of a credential. What might begin one at the end is masked too.
        """
        for credential in self._known:
            if _longest_run(credential) in text:
                text = re.sub(_forms(credential), _MASK, text)
            if cut:
                start = max(0, len(text) - _LONGEST_FORM * len(credential))
                begun = re.compile(_forms(credential[:SHORTEST])).search(text, start)
                if begun is not None:
                    text = text[: begun.start()] + _MASK
        return text

    def mask_headers(self, response: httpx.Response) -> None:
        """Mask them in the header fields of a response."""
        fields = response.headers.raw
        together = b"\n".join([part for field in fields for part in field])
        if self.masked(together) != together:
            response.headers = httpx.Headers([(self.masked(name), self.masked(value)) for name, value in fields])


@functools.lru_cache(maxsize=16)
def _longest_run(credential: bytes) -> bytes:
    """The longest run of letters and digits in it; what to look for first, since no form changes those."""
    return max(_ALPHANUMERIC.findall(credential), key=len, default=b"")


def _forms(credential: bytes) -> bytes:
    """A pattern for all forms of a credential; it is bounded everywhere, so that no text makes it slow."""
    return b"".join(_form(character) for character in credential)


def _form(character: int) -> bytes:
    plain = re.escape(bytes([character]))
    if bytes([character]).isalnum():
        return plain
    code = b"".join(b"[%s%s]" % (digit, digit.upper()) for digit in map(str.encode, f"{character:02x}"))
    names = [name.encode() for name, meant in html5.items() if meant == chr(character) and name.endswith(";")]
    numbers = [b"#0{0,4}%d;" % character, b"#[xX]0{0,4}%s;" % code]
    return rb"(?:\\{0,4}%s|\\{1,4}u00%s|%%(?:25){0,2}%s|(?:&|\\{1,4}u0026)(?:%s))" % (
        plain,
        code,
        code,
        b"|".join(numbers + names),
    )
