"""When schedules fire: shorthands, time zones, daylight saving, and what cannot be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_backup.api.schedule import Schedule

NOON = datetime(2024, 1, 15, 12, 0, tzinfo=UTC)


def iso(moments: tuple[datetime, ...]) -> list[str]:
    return [f"{moment:%Y-%m-%dT%H:%M}" for moment in moments]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("@hourly", "2024-01-15T13:00"),
        ("@daily", "2024-01-16T00:00"),
        ("@weekly", "2024-01-21T00:00"),
        ("@monthly", "2024-02-01T00:00"),
        ("30 2 * * *", "2024-01-16T02:30"),
        ("0 12 * * *", "2024-01-16T12:00"),
        ("*/15 * * * MON-FRI", "2024-01-15T12:15"),
    ],
)
def test_the_next_run_is_the_first_slot_after_now(schedule: str, expected: str) -> None:
    """A slot that is exactly now has been, so that no slot fires twice."""
    assert [expected] == iso(Schedule.parse(schedule).next_runs(NOON, 1))


def test_a_schedule_is_read_in_its_time_zone() -> None:
    """02:00 in Rome is 01:00 UTC in winter."""
    assert iso(Schedule.parse("0 2 * * *", "Europe/Rome").next_runs(NOON, 1)) == ["2024-01-16T01:00"]


def test_a_slot_that_the_spring_jump_skips_still_fires_once_that_day() -> None:
    """On 31 March 2024 there was no 02:30 in Rome."""
    runs = Schedule.parse("30 2 * * *", "Europe/Rome").next_runs(datetime(2024, 3, 30, 12, tzinfo=UTC), 3)
    assert [moment.day for moment in runs] == [31, 1, 2]


def test_a_slot_in_the_hour_that_autumn_repeats_fires_once() -> None:
    """On 27 October 2024 Rome had 02:30 twice."""
    runs = Schedule.parse("30 2 * * *", "Europe/Rome").next_runs(datetime(2024, 10, 26, 12, tzinfo=UTC), 2)
    assert [moment.day for moment in runs] == [27, 28]


CLOCK_CHANGES = [datetime(2024, 3, 31), datetime(2024, 10, 27), datetime(2024, 11, 3), datetime(2024, 4, 6)]


def _near(day: datetime) -> st.SearchStrategy[datetime]:
    return st.datetimes(day - timedelta(hours=12), day + timedelta(hours=24), timezones=st.just(UTC))


@given(
    moment=st.one_of(_near(datetime(2024, 7, 1)), *map(_near, CLOCK_CHANGES)),
    schedule=st.sampled_from(["@hourly", "30 2 * * *", "*/7 * * * *", "0 3 * * 0", "15 1,2,3 * * *"]),
    zone=st.sampled_from(["Etc/UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe"]),
)
def test_the_last_run_is_a_slot_and_no_other_lies_between_it_and_now(
    moment: datetime, schedule: str, zone: str
) -> None:
    """Looking back agrees with looking forward, near clock changes too, and in every second."""
    parsed = Schedule.parse(schedule, zone)
    last = parsed.last_run(moment)
    assert last <= moment
    (following,) = parsed.next_runs(last - timedelta(seconds=1), 1)
    assert last == following
    (after,) = parsed.next_runs(last, 1)
    assert after > moment


@pytest.mark.parametrize(
    ("schedule", "zone", "words"),
    [
        ("0 2 * *", "Etc/UTC", "is not five fields"),
        ("0 0 2 * * *", "Etc/UTC", "is not five fields"),
        ("@reboot", "Etc/UTC", "@hourly, @daily, @weekly, @monthly"),
        ("61 2 * * *", "Etc/UTC", "Bad minute"),
        ("0 2 * * FUNDAY", "Etc/UTC", "Bad day-of-week"),
        ("0 0 30 2 *", "Etc/UTC", "Bad day-of-month"),
        ("0 2 * * *", "Europe/Atlantis", "Europe/Rome"),
        ("0 2 * * *", "../etc/passwd", "is unknown"),
        ("0 2 * * *", "Europe", "is unknown"),
    ],
)
def test_a_schedule_that_cannot_be_read_says_what_to_write(schedule: str, zone: str, words: str) -> None:
    """One ValueError, whatever is wrong."""
    with pytest.raises(ValueError, match=words):
        Schedule.parse(schedule, zone)


def test_a_moment_without_time_zone_is_refused() -> None:
    """A naive time would silently be read in the machine's own zone."""
    with pytest.raises(ValueError, match="time zone"):
        Schedule.parse("@daily").next_runs(datetime(2024, 1, 1))
