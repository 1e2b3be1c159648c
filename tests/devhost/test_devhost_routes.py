"""Route templates as ASP.NET understands them."""

import pytest

from devhost.routes import Route, RouteError


@pytest.mark.parametrize(
    ("template", "path", "values"),
    [
        ("orders", "/orders", {}),
        ("orders", "/Orders/", {}),
        ("orders", "/orders/1", None),
        ("orders/{id}", "/orders/1", {"id": "1"}),
        ("orders/{id}", "/orders", None),
        ("orders/{id}", "/orders/1/2", None),
        ("orders/{id?}", "/orders", {}),
        ("orders/{id=first}", "/orders", {"id": "first"}),
        ("orders/{id=first}", "/orders/2", {"id": "2"}),
        ("orders/{*rest}", "/orders/a/b", {"rest": "a/b"}),
        ("orders/{*rest}", "/orders", {}),
        ("files/{name}.{extension}", "/files/a.txt", {"name": "a", "extension": "txt"}),
        ("items/{id:int}", "/items/-5", {"id": "-5"}),
        ("items/{id:int}", "/items/five", None),
        ("items/{id:int}", "/items/99999999999", None),
        ("items/{id:long}", "/items/99999999999", {"id": "99999999999"}),
        ("items/{id:int?}", "/items", {}),
        (
            "items/{id:guid}",
            "/items/6f0a7f3e-2f35-4d6b-9d3a-0c1e6a1c9b42",
            {"id": "6f0a7f3e-2f35-4d6b-9d3a-0c1e6a1c9b42"},
        ),
        ("items/{id:guid}", "/items/6f0a7f3e", None),
        ("items/{id:alpha}", "/items/abc", {"id": "abc"}),
        ("items/{id:alpha}", "/items/ab1", None),
        ("items/{id:bool}", "/items/TRUE", {"id": "TRUE"}),
        ("items/{id:int}", f"/items/{'0' * 5000}", None),
        ("items/{id:int:range(1,9)}", "/items/10", None),
        ("items/{id:max(9)}", "/items/-10", {"id": "-10"}),
        ("items/{id:double}", "/items/1.5e3", {"id": "1.5e3"}),
        ("items/{id:datetime}", "/items/2026-01-31", {"id": "2026-01-31"}),
        ("items/{id:datetime}", "/items/2026-02-31", None),
        ("items/{id:length(2)}", "/items/ab", {"id": "ab"}),
        ("items/{id:length(2,3)}", "/items/abcd", None),
        ("items/{id:minlength(3)}", "/items/ab", None),
        ("items/{id:maxlength(3)}", "/items/abc", {"id": "abc"}),
        ("items/{id:int:min(5)}", "/items/4", None),
        ("items/{id:int:range(1,9)}", "/items/9", {"id": "9"}),
        ("items/{id:regex(^[a-c]+$)}", "/items/cab", {"id": "cab"}),
        (r"items/{id:regex(^\d{{3}}$)}", "/items/1234", None),
        (r"items/{id:regex(^\d{{3}}$)}", "/items/123", {"id": "123"}),
    ],
)
def test_a_path_fits_a_template_or_not(template: str, path: str, values: dict[str, str] | None) -> None:
    assert Route(template).match(path) == values


@pytest.mark.parametrize(
    "template",
    ["a/{id", "a/{id:colour}", "a/{id:length(x)}", "a/{id:range(1)}", "a/{id:regex([)}", "a/}b{", "{id}/{id}"],
)
def test_a_bad_template_is_refused_by_name(template: str) -> None:
    with pytest.raises(RouteError, match="route template"):
        Route(template)
