"""Schedules of timer triggers: which are read, when they come next, and which are refused."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devhost.schedules import NEVER, ScheduleError, read_schedule

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)  # a Thursday

MONTHS = "January February March April May June July August September October November December"
DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday"

type FieldText = tuple[str, set[int]]


@pytest.mark.parametrize(
    ("text", "occurrence"),
    [
        ("0 30 3 * * *", "2026-01-01T03:30:00"),
        ("* * * * * *", "2026-01-01T00:00:01"),
        ("*/20 * * * * *", "2026-01-01T00:00:20"),
        ("50/5 * * * * *", "2026-01-01T00:00:50"),
        ("*/5 * * * *", "2026-01-01T00:05:00"),
        ("0 0 9-17/4 * * *", "2026-01-01T09:00:00"),
        ("0 0 17-9 * * *", "2026-01-01T09:00:00"),
        ("0 0 0 * * sat,Sunday", "2026-01-03T00:00:00"),
        ("0 0 0 * * FRI-MON", "2026-01-02T00:00:00"),
        ("0 0 0 1 ju *", "2026-06-01T00:00:00"),
        ("0 0 0 13 * 5", "2026-02-13T00:00:00"),
        ("0 0 0 29 Feb *", "2028-02-29T00:00:00"),
        ("  0 0 0   * * *  ", "2026-01-02T00:00:00"),
        ("00:00:30", "2026-01-01T00:00:30"),
        ("02:03:04", "2026-01-01T02:03:04"),
        ("1.02:00:00", "2026-01-02T02:00:00"),
        ("25:01:00", "2026-01-26T01:00:00"),
    ],
)
def test_a_schedule_is_read_as_azure_reads_it(text: str, occurrence: str) -> None:
    assert read_schedule(text).next_after(NEW_YEAR) == datetime.fromisoformat(occurrence).replace(tzinfo=UTC)


@pytest.mark.parametrize("text", ["0 0 0 31 2 *", "99999999.00:00:00"])
def test_a_schedule_that_never_comes_says_so(text: str) -> None:
    assert read_schedule(text).next_after(NEW_YEAR) == NEVER


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected NCRONTAB with six fields (second minute hour day month day-of-week)"),
        ("every day", "expected NCRONTAB with six fields"),
        ("0 0 3 * * * 2026", "expected NCRONTAB with six fields"),
        ("@daily", "or a TimeSpan, such as 00:05:00"),
        ("00:60:00", "or a TimeSpan, such as 00:05:00"),
        ("1.25:00:00", "or a TimeSpan, such as 00:05:00"),
        ("-00:05:00", "or a TimeSpan, such as 00:05:00"),
        ("00:00:00", "a TimeSpan must be longer than zero"),
        ("60 * * * * *", "its second must be 0 to 59, not 60"),
        ("60 * * * *", "its minute must be 0 to 59, not 60"),
        ("0 0 24 * * *", "its hour must be 0 to 23, not 24"),
        ("0 0 0 0 * *", "its day must be 1 to 31, not 0"),
        ("0 0 0 L * *", "its day must be 1 to 31, not L"),
        ("0 0 0 15W * *", "its day must be 1 to 31, not 15W"),
        ("0 0 0 ? * *", "its day must be *, a value, a range or a list, with or without a step"),
        ("0 0 0 * 13 *", "its month must be 1 to 12, or a name such as FEB, not 13"),
        ("0 0 0 * Brumaire *", "its month must be 1 to 12, or a name such as FEB, not Brumaire"),
        ("0 0 0 * * 7", "its day of the week must be 0 to 6, or a name such as MON, not 7"),
        ("0 0 0 * * MON#1", "its day of the week must be *, a value, a range or a list"),
        ("0 0 0 * * 1,", "its day of the week must be *, a value, a range or a list"),
        pytest.param(f"{'9' * 5000} * * * * *", "its second must be *, a value, a range or a list", id="5000 digits"),
        ("*/0 * * * * *", "its second must be *, a value, a range or a list"),
        ("\N{ARABIC-INDIC DIGIT ONE} * * * * *", "its second must be *, a value, a range or a list"),
        ("%DEVHOST_TEST_UNSET%", "the setting DEVHOST_TEST_UNSET that it names is not set"),
    ],
)
def test_what_ncrontab_refuses_is_refused_with_what_was_expected(text: str, complaint: str) -> None:
    with pytest.raises(ScheduleError) as caught:
        read_schedule(text)

    assert complaint in str(caught.value)


def test_settings_stand_for_a_schedule_or_a_part_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVHOST_TEST_HOUR", "4")
    monkeypatch.setenv("DEVHOST_TEST_SCHEDULE", "00:10:00")

    assert read_schedule("%DEVHOST_TEST_SCHEDULE%").text == "00:10:00"
    assert read_schedule("0 0 %DEVHOST_TEST_HOUR% * * *").text == "0 0 4 * * *"


@pytest.mark.parametrize(
    ("text", "frequent"),
    [
        ("*/30 * * * * *", True),
        ("0 * * * * *", False),
        ("* * * * *", False),
        ("*/30 * 3 * * *", False),  # Azure monitors what has times without it
        ("00:00:59", True),
        ("00:01:00", False),
    ],
)
def test_a_schedule_is_frequent_if_it_always_comes_more_often_than_once_a_minute(text: str, frequent: bool) -> None:
    assert read_schedule(text).is_frequent is frequent


@st.composite
def elements(draw: st.DrawFn, low: int, high: int, names: list[str]) -> FieldText:
    """An element of a field's list, and the values that it stands for."""
    first, last = sorted(draw(st.tuples(st.integers(low, high), st.integers(low, high))))
    step = draw(st.integers(1, high + 1))

    def written(value: int) -> str:
        if not names or draw(st.booleans()):
            return str(value)
        return draw(st.sampled_from([names[value - low], names[value - low][:3].upper()]))

    match draw(st.sampled_from(["*", "value", "range", "*/step", "value/step", "range/step"])):
        case "*":
            return "*", set(range(low, high + 1))
        case "value":
            return written(first), {first}
        case "range":
            return f"{written(first)}-{written(last)}", set(range(first, last + 1))
        case "*/step":
            return f"*/{step}", set(range(low, high + 1, step))
        case "value/step":
            return f"{written(first)}/{step}", set(range(first, high + 1, step))
        case _:
            return f"{written(first)}-{written(last)}/{step}", set(range(first, last + 1, step))


def fields(low: int, high: int, names: str = "") -> st.SearchStrategy[FieldText]:
    lists = st.lists(elements(low, high, names.split()), min_size=1, max_size=3)
    return lists.map(lambda parts: (",".join(text for text, _ in parts), set().union(*(values for _, values in parts))))


@settings(deadline=None)  # a busy machine is no mistake
@given(
    given_fields=st.tuples(
        fields(0, 59), fields(0, 59), fields(0, 23), fields(1, 31), fields(1, 12, MONTHS), fields(0, 6, DAYS)
    ),
    now=st.datetimes(datetime(2020, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    where=st.floats(0, 1),
)
def test_the_next_occurrence_is_the_first_moment_after_now_that_matches_every_field(
    given_fields: tuple[FieldText, ...], now: datetime, where: float
) -> None:
    def matches(moment: datetime) -> bool:
        parts = moment.second, moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7
        return all(part in values for part, (_, values) in zip(parts, given_fields, strict=True))

    occurrence = read_schedule(" ".join(text for text, _ in given_fields)).next_after(now)

    assert occurrence > now
    assert occurrence == NEVER or (matches(occurrence) and occurrence.microsecond == 0)
    # Whichever moment between the two is looked at, it does not match.
    until = min(occurrence, now + timedelta(days=50 * 365))
    between = (now + (until - now) * where).replace(microsecond=0)
    assert not matches(between) or between <= now or between == occurrence
