"""Links are built from the prefix of the routes, never from the text of a request's path."""

import pytest

from shared.operations.links import Links


@pytest.mark.parametrize(
    ("path", "route", "prefix"),
    [
        ("/api/businesses", "businesses", "/api"),
        ("/api/%62usinesses/", "businesses", "/api"),
        ("/businesses/BATCH?x=/y/z", "businesses/batch", ""),
        ("/my/api/businesses/operations/a%2Fb/cancel#x", "businesses/operations/{id}/cancel", "/my/api"),
        ("/openapi.json", "openapi.json", ""),
    ],
)
def test_the_prefix_is_what_stands_before_the_segments_of_the_route(path: str, route: str, prefix: str) -> None:
    links = Links.of(f"http://127.0.0.1:7071{path}", route)
    assert links == Links(prefix)
    assert links.operation("abc") == f"{prefix}/businesses/operations/abc"


@pytest.mark.parametrize(
    ("business_id", "path"),
    [
        ("7", "/api/businesses/7"),
        ("HRB 7 %", "/api/businesses/HRB%207%20%25"),
        ("\u00fc", "/api/businesses/%C3%BC"),
        ("a/b", None),
        ("Operations", None),
        ("", None),
        (None, None),
    ],
)
def test_a_record_has_a_link_if_a_path_leads_to_it(business_id: str | None, path: str | None) -> None:
    assert Links("/api").business(business_id) == path
