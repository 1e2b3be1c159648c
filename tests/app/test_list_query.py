"""The parameters of the list are read as documented, or refused by their names; links lead on from where one was."""

import base64
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.operations.list_query import DEFAULT_LIMIT, MAX_LIMIT, RECENT, ListQuery, Place
from shared.operations.problems import RequestError

NOW = datetime(2026, 6, 1, 12, 0, 0, 500_000, tzinfo=UTC)
NOON = datetime(2026, 6, 1, 12, tzinfo=UTC)


def read(**parameters: str) -> ListQuery:
    return ListQuery.read(parameters, NOW)


def cursor(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def test_without_parameters_all_of_the_last_day_is_listed() -> None:
    assert read() == ListQuery(since=NOON - RECENT, limit=DEFAULT_LIMIT)
    assert read(until="2020-02-02T00:00:00Z").since == datetime(2020, 2, 1, tzinfo=UTC)
    assert read(until="0001-01-01T00:00:00Z").since == datetime(2000, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31t12:00:00.5z", datetime(2026, 1, 31, 12, 0, 0, 500_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00+02:00", datetime(2026, 1, 31, 10, tzinfo=UTC)),
        ("2026-01-31T12:00:00-00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60.25+00:00", datetime(2017, 1, 1, 0, 0, 0, 250_000, tzinfo=UTC)),
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("0001-01-01T00:00:00Z", datetime(2000, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_time_is_read_as_rfc_3339_has_it(text: str, moment: datetime) -> None:
    assert read(since=text).since == moment


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("deferred", {"deferred"}),
        ("deferred,rejected", {"deferred", "rejected"}),
        ("deferred,rejected,deferred", {"deferred", "rejected"}),
        (",deferred,", {"deferred"}),
        (",", set()),
    ],
)
def test_states_are_separated_by_commas(text: str, states: set[str]) -> None:
    assert set(read(state=text).states or ()) == states


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("limit", text) for text in ("0", "-1", "201", "1.5", "x", "5,5", "٣", "1" * 5_000)),
        *(("state", text) for text in ("lost", "deferred,lost", "DEFERRED", "deferred, rejected")),
        *(("since", text) for text in ("yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00+23:00")),
        *(
            ("until", text)
            for text in ("tomorrow", "9999-12-31T23:59:60Z", "9999-12-31T23:59:59-01:00", "2026-01-01T00:60Z")
        ),
        *(("warning", text) for text in ("perhaps", "true,true")),
        *(("cursor", text) for text in ("x", "é", "a" * 301, "!!", cursor("{}"), cursor("[]"), cursor("null"))),
        ("cursor", cursor({"at": "2026-01-01T00:00:00Z"})),
        ("cursor", cursor({"at": "2026-01-01T00:00:00Z", "id": 5})),
        ("cursor", cursor({"at": "2026-01-01T00:00:00Z", "id": "x", "more": 1})),
        ("cursor", cursor({"at": "2026-01-01T00:00:00", "id": "x"})),
        ("cursor", cursor({"at": "2026-01-01T00:00:00.5Z", "id": "x"})),
        ("cursor", cursor({"at": "1999-01-01T00:00:00Z", "id": "x"})),
        ("cursor", cursor({"at": "9999-12-31T23:59:59Z", "id": "x"})),
        ("cursor", cursor({"at": "0001-01-01T00:00:00+23:00", "id": "x"})),
        ("cursor", cursor({"at": 5, "id": "x"})),
        ("cursor", base64.urlsafe_b64encode(b'\xff{"at"').decode().rstrip("=")),
    ],
)
def test_a_bad_parameter_is_a_400_that_names_it(name: str, text: str) -> None:
    with pytest.raises(RequestError) as raised:
        read(**{name: text})
    assert raised.value.status == 400
    assert f"the query parameter {name}" in str(raised.value)


@pytest.mark.parametrize("until", ["2026-01-01T00:00:00Z", "2025-01-01T00:00:00Z", "2026-01-01T00:30:00+00:30"])
def test_a_span_that_ends_before_it_begins_is_refused(until: str) -> None:
    with pytest.raises(RequestError, match="a time after since in the query parameter until"):
        read(since="2026-01-01T00:00:00Z", until=until)


@pytest.mark.parametrize("name", ["since", "until", "state", "warning", "may_be_stored", "limit", "cursor"])
def test_an_empty_parameter_is_as_an_absent_one(name: str) -> None:
    assert read(**{name: ""}) == read()


def test_a_link_asks_for_the_same_behind_a_place_and_carries_no_key() -> None:
    query = read(code="secret", until="2026-06-01t12:00:00Z", state="rejected,deferred", warning="TRUE", limit="7")
    link = urlsplit(query.link("/api/businesses/operations", Place(NOON, "abc")))
    assert link.path == "/api/businesses/operations"
    assert "secret" not in link.query
    assert "state=deferred,rejected&" in link.query
    again = ListQuery.read(dict(parse_qsl(link.query)), NOW + timedelta(days=3))
    assert again == ListQuery(
        since=NOON - RECENT,
        until=NOON,
        states=frozenset({"rejected", "deferred"}),
        warning=True,
        limit=7,
        after=Place(NOON, "abc"),
    )


@given(
    seconds=st.integers(int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()), 253_370_764_799),  # to the end of 9998
    operation_id=st.from_regex(r"[A-Za-z0-9_-]{0,100}", fullmatch=True),
    limit=st.integers(1, MAX_LIMIT),
)
def test_every_place_finds_its_way_through_a_link(seconds: int, operation_id: str, limit: int) -> None:
    place = Place(datetime.fromtimestamp(seconds, UTC), operation_id)
    link = ListQuery(since=NOON, limit=limit).link("/path", place)
    read_again = ListQuery.read(dict(parse_qsl(urlsplit(link).query)), NOW)
    assert (read_again.after, read_again.limit, read_again.since) == (place, limit, NOON)
