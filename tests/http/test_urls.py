"""A URL is checked before anything is sent there, and before a secret is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.http.urls import checked_url, is_loopback, is_protected, last_segment


@pytest.mark.parametrize(
    "url", ["https://api.example.com/v1", "http://localhost:7072", "http://127.0.0.1", "http://[::1]:80/"]
)
def test_https_anywhere_and_http_on_this_machine_are_safe(url: str) -> None:
    assert str(checked_url(url)).rstrip("/").startswith(url.rstrip("/").removesuffix(":80"))


@pytest.mark.parametrize("url", ["http://api.example.com", "http://127.0.0.1.example.com", "http://localhost.example"])
def test_plain_http_to_another_machine_is_refused_where_a_secret_goes(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        checked_url(url)
    assert checked_url(url, protected=False).scheme == "http"


@pytest.mark.parametrize(
    "url", ["", "/v1", "example.com", "ftp://a", "http://", "https://", "http://a:b", "http://a:1x"]
)
def test_what_is_no_absolute_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="absolute URL"):
        checked_url(url, protected=False)


def test_a_query_is_refused_unless_it_may_be_there() -> None:
    with pytest.raises(ValueError, match="query"):
        checked_url("https://a.example/?policy=1")
    assert checked_url("https://a.example/?policy=1", query=True).query == b"policy=1"


@given(st.text(), st.booleans(), st.booleans())
def test_whatever_the_url_is_the_error_does_not_repeat_it(text: str, protected: bool, query: bool) -> None:
    with pytest.raises(ValueError, match=r"^expected") as caught:
        checked_url(f"https://user:secret{text}@a.example/#", protected=protected, query=query)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "host", "protected"),
    [("https", "a.example", True), ("http", "::1", True), ("http", "a.example", False), ("ftp", "localhost", False)],
)
def test_only_tls_and_the_loopback_interface_protect_what_is_sent(scheme: str, host: str, protected: bool) -> None:
    assert is_protected(scheme, host) is protected
    assert is_loopback("localhost")


@pytest.mark.parametrize(
    ("url", "segment"),
    [
        ("/businesses/b-1", "b-1"),
        ("/businesses/b-1/", "b-1"),
        ("https://elsewhere.example/v1/businesses/b-1?version=2#top", "b-1"),
        ("b-1", "b-1"),
        ("/businesses/b%2F1%20%C3%A9", "b/1 \u00e9"),
        (None, None),
        ("", None),
        ("/", None),
        ("https://api.example", None),
        ("..", None),
        ("/businesses/%2e%2e", None),
        ("http://[", None),
        ("/businesses/%FF", None),
        ("/businesses/a%00b", None),
        ("/businesses/" + "a" * 129, None),
    ],
)
def test_the_last_segment_of_a_path_names_the_resource(url: str | None, segment: str | None) -> None:
    assert last_segment(url) == segment


@given(st.text(st.characters(categories=None)))
def test_whatever_the_url_is_its_last_segment_can_stand_in_a_path(url: str) -> None:
    segment = last_segment(url)
    assert segment is None or (segment.isprintable() and 0 < len(segment) <= 128 and segment not in {".", ".."})
