"""Text from outside, made fit for a log line or the message of an error."""


def printable(text: str, limit: int = 200) -> str:
    """Text on one line, of at most `limit` characters, in which nothing can act on a terminal or turn the line around.

    White space becomes single spaces. Control and format characters, such as ESC, NUL and bidi marks, and lone
    surrogates are written as Python escapes them; what is longer ends with an ellipsis.
    """
    line = " ".join(text[: 4 * limit].split())
    shown = "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in line
    )
    return shown if len(shown) <= limit and len(text) <= 4 * limit else f"{shown[: limit - 1]}\u2026"
