"""Builds HTML in which every text is escaped unless it was built here."""

import html

_VOID = frozenset({"br", "input", "link", "meta"})


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


type Content = str | None


def fragment(*contents: Content) -> Html:
    """Put contents behind one another; plain texts are escaped, None is nothing."""
    return Html("".join(_as_html(content) for content in contents))


def tag(name: str, /, *contents: Content, **attributes: str | float | bool | None) -> Html:
    """Write an element. In names of attributes `_` stands for `-`, at the end for nothing (`class_`).

    Attributes that are None or False are left out; those that are True have no value.
    """
    written = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{written}>" + ("" if name in _VOID else f"{fragment(*contents)}</{name}>"))


def _as_html(content: Content) -> str:
    if content is None:
        return ""
    return content if isinstance(content, Html) else html.escape(content)
