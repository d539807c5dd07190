"""Retention: what may go, against a slow and obvious reference, and example by example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_backup.api.backup_schedule import Retention
from tenant_backup.api.values import duration_seconds
from tenant_backup.decisions.retention import indispensable, surplus
from tenant_backup.decisions.summaries import BackupSummary
from tests.decisions.objects import made

ROME = ZoneInfo("Europe/Rome")
START = datetime(2024, 1, 1, 2, 0, tzinfo=UTC)  # a Monday


def daily(count: int, **fields: Any) -> list[BackupSummary]:
    """One good backup each night, oldest first."""
    return [made(START + timedelta(days=day), **fields) for day in range(count)]


def gone(
    backups: Iterable[BackupSummary], zone: ZoneInfo | None = None, **rules: Any
) -> list[datetime | None]:
    """The slots of what retention deletes."""
    return [backup.slot for backup in surplus(backups, Retention(**rules), zone or ZoneInfo("Etc/UTC"))]


def test_the_newest_good_backups_are_kept() -> None:
    """That is keepLast, whenever they were made."""
    backups = daily(5)
    assert surplus(backups, Retention(keep_last=2), UTC) == tuple(backups[:3])


def test_a_day_is_a_day_of_the_zone() -> None:
    """At 23:30 in Rome it is the same day there, whatever UTC says."""
    late = [made(datetime(2024, 1, 10, 22, 30, tzinfo=UTC)), made(datetime(2024, 1, 10, 23, 30, tzinfo=UTC))]
    assert gone(late, keep_daily=2) == [late[0].slot]
    assert gone(late, ROME, keep_daily=2) == []
    assert gone([late[0], made(datetime(2024, 1, 10, 12, 0, tzinfo=UTC))], ROME, keep_daily=7) == [
        datetime(2024, 1, 10, 12, 0, tzinfo=UTC)
    ]


def test_weeks_are_iso_weeks() -> None:
    """30 December 2024 is a Monday, and begins week 1 of 2025."""
    sunday, monday, newyear = (
        made(datetime(2024, 12, 29, 2, tzinfo=UTC)),
        made(datetime(2024, 12, 30, 2, tzinfo=UTC)),
        made(datetime(2025, 1, 5, 2, tzinfo=UTC)),
    )
    assert gone([sunday, monday, newyear], keep_weekly=5) == [monday.slot]


def test_the_hour_that_comes_twice_is_two_hours() -> None:
    """On 27 October 2024 it is half past two twice in Rome."""
    twice = [made(datetime(2024, 10, 27, 0, 30, tzinfo=UTC)), made(datetime(2024, 10, 27, 1, 30, tzinfo=UTC))]
    assert gone(twice, ROME, keep_hourly=2) == []
    assert gone(twice, ROME, keep_daily=2) == [twice[0].slot]


def test_rules_add_up() -> None:
    """Three last, seven days, four weeks, twelve months of a year and a half of nights."""
    left = 500 - len(gone(daily(500), keep_last=3, keep_daily=7, keep_weekly=4, keep_monthly=12))
    # The newest is of Wednesday 14 May 2025. The last days and weeks: 8 to 14 May, and the Sundays 4 May and
    # 27 April; then the ends of the months from April 2025 back to June 2024.
    assert left == 7 + 2 + 11


def test_days_without_a_backup_are_not_counted() -> None:
    """keepDaily: 2 keeps two backups after a month of silence, too."""
    backups = [made(START), made(START + timedelta(days=1)), made(START + timedelta(days=40))]
    assert gone(backups, keep_daily=2) == [START]


def test_within_is_counted_from_the_newest_good_backup() -> None:
    """When backups stop, nothing goes because time passes."""
    backups = daily(5)
    assert gone(backups, keep_within="48h") == [backup.slot for backup in backups[:2]]
    failing = [*backups, *(made(START + timedelta(days=day), "Failed") for day in (5, 6, 7))]
    assert gone(failing, keep_within="48h") == []


def test_within_is_counted_in_elapsed_hours_when_the_clocks_change() -> None:
    """A day in which the clocks go back has 25 hours."""
    before, after = datetime(2024, 10, 26, 1, 0, tzinfo=UTC), datetime(2024, 10, 27, 1, 30, tzinfo=UTC)
    assert gone([made(before), made(after)], ROME, keep_within="24h") == [before]


def test_the_newest_good_one_stays_whatever_the_rules_say() -> None:
    """Even if a person was let through with no rule at all."""
    assert gone(daily(3)) == [START, START + timedelta(days=1)]


def test_one_tenants_backups_do_not_stand_in_for_anothers() -> None:
    """Nor those in another store, nor those of other modules or contents."""
    backups = [
        made(START),
        made(START + timedelta(days=1), tenant="beta"),
        made(START + timedelta(days=2), store="other"),
        made(START + timedelta(days=3), modules=("hr",)),
        made(START + timedelta(days=4), contents="Database"),
        made(START + timedelta(days=5), contents="Files"),
    ]
    assert gone(backups, keep_last=1) == []


def test_the_newest_verified_one_stays() -> None:
    """Newer ones nobody has looked at yet do not replace it."""
    verified, *unknown = [made(START), *daily(4, health="Unknown")[1:]]
    assert gone([verified, *unknown], keep_last=1) == [backup.slot for backup in unknown[:-1]]


def test_nothing_is_deleted_while_the_newest_run_has_failed() -> None:
    """What is there may be all there will be; the next good run lets retention go on."""
    backups = [*daily(5), made(START + timedelta(days=5), "Failed")]
    assert gone(backups, keep_last=1) == []
    again = made(START + timedelta(days=6))
    assert gone([*backups, again], keep_last=1) == [backup.slot for backup in backups[:5]]


def test_one_tenants_failure_does_not_stop_anothers_retention() -> None:
    """Each tenant is looked at alone."""
    failed = made(START + timedelta(days=9), "Failed", tenant="beta")
    assert gone([*daily(2), failed], keep_last=1) == [START]


def test_a_failed_backup_never_pushes_a_good_one_out() -> None:
    """Ten failures in a row take nobody's place."""
    failures = [made(START + timedelta(days=day), "Failed") for day in range(2, 12)]
    newest = made(START + timedelta(days=12))
    assert gone([*daily(2), *failures, newest], keep_last=3, keep_failed=1000) == []


def test_the_newest_failures_are_kept_for_whoever_wants_to_know_why() -> None:
    """Three, unless told otherwise; also while every run fails, so that they never pile up."""
    failures = [made(START + timedelta(days=day), "Failed") for day in range(5)]
    assert gone(failures, keep_last=1) == [failure.slot for failure in failures[:2]]
    assert gone(failures, keep_last=1, keep_failed=0) == [failure.slot for failure in failures[:4]]


def test_failures_of_the_newest_slot_stay() -> None:
    """By them the schedule knows how often it has tried."""
    tries = [made(START, "Failed", name=f"try-{number}", uid=f"uid-{number}") for number in range(5)]
    assert gone(tries, keep_last=1, keep_failed=0) == []
    assert len(gone([*tries, made(START + timedelta(days=1))], keep_last=1)) == 2


def test_what_is_held_never_goes() -> None:
    """Neither good ones nor failed ones; it takes its place like any other."""
    held = [made(START, held=True), made(START + timedelta(days=1), "Failed", held=True)]
    assert gone([*held, *daily(4)[2:]], keep_last=1, keep_failed=0) == [START + timedelta(days=2)]


@pytest.mark.parametrize("state", ["", "Pending", "Queued", "Running", "Expired"])
def test_only_what_has_ended_goes(state: str) -> None:
    """And only what has ended counts."""
    backups = [made(START, state), *daily(3)[1:], made(START + timedelta(days=3), state)]
    assert gone(backups, keep_last=2) == []


def test_what_is_going_already_is_left_alone() -> None:
    """It does not count any more, either."""
    assert gone([made(START), made(START + timedelta(days=1), removing=True)], keep_last=1) == []


def test_a_corrupt_backup_stays_as_long_as_a_good_one_would() -> None:
    """And takes nobody's place: half a table may be all that somebody needs."""
    first, second, third, fourth = daily(4)
    corrupt = replace(third, health="Corrupt", verified=None)
    assert gone([first, second, corrupt, fourth], keep_last=2) == [first.slot]
    assert gone([first, replace(second, health="Corrupt"), third, fourth], keep_last=2) == [
        first.slot,
        second.slot,
    ]


def test_nothing_stored_goes_while_the_newest_backup_is_corrupt() -> None:
    """A damaged store is no time to delete from it."""
    assert gone([*daily(3), made(START + timedelta(days=3), health="Corrupt")], keep_last=1) == []


def test_an_edited_slot_does_not_make_an_old_backup_the_newest() -> None:
    """The newest good one is the one whose data is the newest."""
    edited = made(START + timedelta(days=90), started=START)
    newest = made(START + timedelta(days=2))
    assert newest.uid in indispensable([edited, newest])
    assert gone([edited, newest], keep_last=1) == []


RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
FORMATS = {
    "hourly": "%Y-%m-%d %H",
    "daily": "%Y-%m-%d",
    "weekly": "%G-%V",
    "monthly": "%Y-%m",
    "yearly": "%Y",
}


def obviously_goes(
    backup: BackupSummary, backups: list[BackupSummary], retention: Retention, zone: ZoneInfo
) -> bool:
    """The same, said slowly: about one backup at a time, without an order or a set."""
    mates = [
        other
        for other in backups
        if (other.tenant, other.store, other.modules) == (backup.tenant, backup.store, backup.modules)
        and other.state in ("Succeeded", "Failed")
        and not other.removing
    ]
    if backup not in mates or backup.held:
        return False
    if backup.state == "Failed":
        newer = [other for other in mates if other.state == "Failed" and is_newer(other, backup)]
        of_a_later_slot = [other for other in mates if slot_of(other) > slot_of(backup)]
        return len(newer) >= retention.keep_failed and bool(of_a_later_slot)
    newest = [other for other in mates if not any(is_newer(one, other) for one in mates)]
    if not newest[0].good:
        return False
    good = [other for other in mates if other.good]
    verified = [other for other in good if other.verified]
    if any(backup in some and not made_after(backup, some) for some in (good, verified)):
        return False
    rivals = good if backup.good else [other for other in mates if other.state == "Succeeded"]
    newer = [other for other in rivals if is_newer(other, backup)]
    return not any(keeps(rule, backup, newer, retention, zone) for rule in (*RULES, "within"))


def made_after(backup: BackupSummary, others: list[BackupSummary]) -> list[BackupSummary]:
    """Those whose data is newer."""
    return [one for one in others if data_of(one) > data_of(backup)]


def data_of(backup: BackupSummary) -> tuple[datetime, str]:
    """Of when its data is."""
    return (backup.started or backup.created, backup.name)


def slot_of(backup: BackupSummary) -> datetime:
    """When it was to be made."""
    return backup.slot or backup.created


def is_newer(one: BackupSummary, other: BackupSummary) -> bool:
    """Whether its slot is later, or it was made later for the same slot."""
    if slot_of(one) != slot_of(other):
        return slot_of(one) > slot_of(other)
    return data_of(one) > data_of(other)


def keeps(
    rule: str, backup: BackupSummary, newer: list[BackupSummary], retention: Retention, zone: ZoneInfo
) -> bool:
    """Whether one rule keeps it, given the ones that are newer."""
    if rule == "within":
        times = [slot_of(one).timestamp() for one in [*newer, backup]]
        return bool(retention.keep_within) and max(times) - times[-1] <= duration_seconds(
            retention.keep_within or "0s"
        )
    count = getattr(retention, f"keep_{rule}") or 0
    if rule == "last":
        return len(newer) < count
    mine, others = bucket(rule, backup, zone), {bucket(rule, one, zone) for one in newer}
    return mine not in others and len(others) < count


def bucket(rule: str, backup: BackupSummary, zone: ZoneInfo) -> str:
    """The name of its hour, day, week, month or year."""
    local = slot_of(backup).astimezone(zone)
    return local.strftime(FORMATS[rule]) + (" again" if rule == "hourly" and local.fold else "")


ZONES = st.sampled_from(["Etc/UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])
COUNTS = st.none() | st.integers(0, 4)
RETENTIONS = st.builds(
    Retention,
    **{f"keep_{rule}": COUNTS for rule in RULES},
    keep_within=st.none() | st.sampled_from(["1m", "24h", "48h30m", "720h"]),
    keep_failed=st.integers(0, 3),
)


@st.composite
def backups_of_a_schedule(draw: st.DrawFn) -> list[BackupSummary]:
    """Backups of few lines, some hours, days or months apart, in any state."""
    start = draw(st.sampled_from([datetime(2024, 3, 30, tzinfo=UTC), datetime(2024, 10, 26, tzinfo=UTC)]))
    step = draw(st.sampled_from([timedelta(minutes=30), timedelta(hours=7), timedelta(days=3)]))
    found = []
    for number in range(draw(st.integers(0, 30))):
        slot = start + draw(st.integers(0, 60)) * step
        state = draw(st.sampled_from(["Succeeded"] * 6 + ["Failed", "Failed", "Running", "", "Expired"]))
        health = draw(st.sampled_from(["Healthy", "Healthy", "Unknown", "Corrupt"]))
        backup = made(
            slot,
            state,
            name=f"b{number}",
            uid=f"uid-{number}",
            tenant=draw(st.sampled_from(["a", "a", "b"])),
            store=draw(st.sampled_from(["prod", "prod", "other"])),
            modules=draw(st.sampled_from([(), (), ("hr",)])),
            health=health if state == "Succeeded" else "",
            held=draw(st.integers(0, 9)) == 0,
            removing=draw(st.integers(0, 9)) == 0,
        )
        moved = slot + draw(st.sampled_from([0, 0, 0, 5, -5])) * step
        found.append(replace(backup, slot=draw(st.sampled_from([slot, slot, slot, None])), started=moved))
    return found


@settings(max_examples=200)
@given(backups_of_a_schedule(), RETENTIONS, ZONES)
def test_retention_does_what_the_slow_and_obvious_one_does(
    backups: list[BackupSummary], retention: Retention, zone: str
) -> None:
    """For any backups, rules and zone."""
    expected = {one.uid for one in backups if obviously_goes(one, backups, retention, ZoneInfo(zone))}
    assert {one.uid for one in surplus(backups, retention, ZoneInfo(zone))} == expected


@given(backups_of_a_schedule(), RETENTIONS, ZONES)
def test_carrying_retention_out_leaves_nothing_more_to_do(
    backups: list[BackupSummary], retention: Retention, zone: str
) -> None:
    """A second pass deletes nothing, wherever the first one died."""
    first = surplus(backups, retention, ZoneInfo(zone))
    for done in range(len(first) + 1):
        left = [one for one in backups if one not in first[:done]]
        assert set(surplus(left, retention, ZoneInfo(zone))) == set(first[done:])


@given(backups_of_a_schedule(), RETENTIONS, ZONES)
def test_no_line_ever_loses_its_newest_good_or_its_newest_verified_backup(
    backups: list[BackupSummary], retention: Retention, zone: str
) -> None:
    """Neither does anything go that runs, is held or goes already."""
    deleted = surplus(backups, retention, ZoneInfo(zone))
    assert not indispensable(backups) & {one.uid for one in deleted}
    assert all(one.state in ("Succeeded", "Failed") and not one.held and not one.removing for one in deleted)


@given(backups_of_a_schedule(), RETENTIONS, ZONES)
def test_a_failed_run_makes_nothing_go_that_was_stored(
    backups: list[BackupSummary], retention: Retention, zone: str
) -> None:
    """Whenever it was made."""
    failed = made(datetime(2025, 1, 1, tzinfo=UTC), "Failed", name="new", tenant="a")
    before = set(surplus(backups, retention, ZoneInfo(zone)))
    after = set(surplus([*backups, failed], retention, ZoneInfo(zone)))
    assert {one for one in after if one.state == "Succeeded"} <= before
