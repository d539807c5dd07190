"""BackupSchedule: one backup per tenant and slot, whatever happens to operator, tenants and clocks."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenant_backup.api.schedule import Schedule
from tenant_backup.api.values import duration_seconds
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.names import scheduled_backup, slot_label, slot_of
from tenant_backup.decisions.plan import Announce, CreateBackup, Plan
from tenant_backup.decisions.schedule import AT_ONCE, decide
from tenant_backup.decisions.slots import offset
from tenant_backup.decisions.summaries import BackupSummary
from tests.decisions.objects import NOW, condition, made, remembered, schedule, schedule_seen
from tests.decisions.schedule_world import Course, World

MIDNIGHT = datetime(2024, 1, 15, tzinfo=UTC)
RAN = {"lastRun": "2024-01-15T02:00:00Z", "settledThrough": "2024-01-15T02:00:00Z"}
RAN_BEFORE = {"lastRun": "2024-01-14T02:00:00Z", "settledThrough": "2024-01-14T02:00:00Z"}
TWO = datetime(2024, 1, 15, 2, 0, 10, tzinfo=UTC)  # ten seconds after the slot


def of_day(day: int, state: str = "Succeeded", tenant: str = "acme", **fields: Any) -> BackupSummary:
    """A backup of that day in January."""
    return made(datetime(2024, 1, day, 2, 0, tzinfo=UTC), state, tenant=tenant, **fields)


def created(plan: Plan) -> list[CreateBackup]:
    """The backups a plan starts."""
    return [action for action in plan.actions if isinstance(action, CreateBackup)]


def tenants_of(plan: Plan) -> list[str]:
    """Whose backups a plan starts."""
    return [action.spec["tenantRef"]["name"] for action in created(plan)]


def announced(plan: Plan) -> list[str]:
    """What a plan says about missed slots."""
    return [
        action.message
        for action in plan.actions
        if isinstance(action, Announce) and action.reason is Reason.SCHEDULE_MISSED
    ]


def status_of(plan: Plan) -> dict[str, Any]:
    """The status a plan wishes for."""
    assert plan.status is not None
    return dict(plan.status)


def test_a_slot_that_is_due_runs_once_for_each_tenant() -> None:
    """With labels by which users and the operator find its backups."""
    plan = decide(schedule_seen(tenants=("acme", "beta"), status=RAN_BEFORE), TWO)
    assert [action.name for action in created(plan)] == [
        "nightly-acme-202401150200",
        "nightly-beta-202401150200",
    ]
    first = created(plan)[0]
    assert first.labels == {
        "tenantbackup.dev/schedule": "nightly",
        "tenantbackup.dev/tenant": "acme",
        "tenantbackup.dev/slot": "202401150200",
    }
    assert first.spec["storeRef"] == {"name": "prod"}
    status = status_of(plan)
    assert status["lastRun"] == "2024-01-15T02:00:00Z"
    assert status["nextRuns"] == ["2024-01-16T02:00:00Z", "2024-01-17T02:00:00Z", "2024-01-18T02:00:00Z"]
    assert plan.retry_in == 3600


def test_a_slot_that_ran_does_not_run_again() -> None:
    """Not even when somebody deleted its backup, as long as there is another one."""
    assert not created(decide(schedule_seen(status=RAN, backups=(of_day(14),)), TWO))


def test_a_new_schedule_does_not_make_up_for_the_time_before_it() -> None:
    """Its first slot is the first after its creation; its tenants are not new tenants until then."""
    new = schedule(creationTimestamp="2024-01-15T03:00:00Z")
    plan = decide(schedule_seen(schedule=new), NOW)
    assert not created(plan)
    assert not announced(plan)


def test_an_unchanged_schedule_is_not_written() -> None:
    """A second look at what the first one left asks for nothing."""
    seen = schedule_seen(status=RAN, backups=(of_day(15),))
    status = status_of(decide(seen, TWO))
    again = decide(schedule_seen(status=status, backups=(of_day(15),)), TWO + timedelta(minutes=7))
    assert not again.actions
    assert again.status == status


def test_a_thousand_tenants_are_started_in_passes_and_the_slot_is_settled_by_the_last() -> None:
    """Each pass is bounded and comes back at once; lastRun is written when nobody is left."""
    names = [f"tenant-{number:04}" for number in range(1000)]
    world = World.of(names, MIDNIGHT)
    now, started = TWO, []
    while "lastRun" not in world.status:
        plan = world.look(now)
        started.append(len(created(plan)))
        if "lastRun" not in world.status:
            assert plan.retry_in == 0.05
    assert started == [AT_ONCE] * (1000 // AT_ONCE)
    assert sorted(backup.tenant for backup in world.made) == names
    assert world.status["tenants"]["selected"] == 1000
    assert not world.told


def test_a_backup_that_is_there_is_not_made_again() -> None:
    """A previous pass may have died before the status was written."""
    seen = schedule_seen(tenants=("acme", "beta"), status=RAN_BEFORE, backups=(of_day(15, ""),))
    plan = decide(seen, TWO)
    assert tenants_of(plan) == ["beta"]
    assert status_of(plan)["lastRun"] == "2024-01-15T02:00:00Z"


def test_a_foreign_backup_with_our_name_is_left_alone_and_named() -> None:
    """It affects that tenant alone, and is said as long as it is so."""
    seen = schedule_seen(
        tenants=("acme", "beta"), status=RAN_BEFORE, taken=frozenset({"nightly-acme-202401150200"})
    )
    plan = decide(seen, TWO)
    assert tenants_of(plan) == ["beta"]
    stalled = condition(plan.status, "Stalled")
    assert stalled["reason"] == Reason.FOREIGN_OBJECT
    assert "nightly-acme-202401150200" in stalled["message"]
    assert "acme" in announced(plan)[0]
    later = decide(
        schedule_seen(
            tenants=("acme", "beta"),
            status=status_of(plan),
            taken=frozenset({"nightly-acme-202401150200"}),
            backups=(of_day(15, tenant="beta"), of_day(13)),
        ),
        NOW,
    )
    assert condition(later.status, "Stalled")["reason"] == Reason.FOREIGN_OBJECT
    assert not announced(later)
    assert status_of(later)["tenants"]["missed"] == 1


# --- suspended, unreadable, nobody there


def test_a_suspended_schedule_starts_and_deletes_nothing() -> None:
    """It says so."""
    seen = schedule_seen(
        schedule=schedule({"suspend": True}), backups=tuple(of_day(day) for day in range(1, 10))
    )
    plan = decide(seen, NOW)
    assert plan.actions == ()
    assert condition(plan.status, "Ready")["reason"] == Reason.SUSPENDED


def test_slots_that_pass_while_it_is_suspended_are_neither_made_up_for_nor_told() -> None:
    """Somebody wanted it so."""
    world = World.of(["acme"], MIDNIGHT - timedelta(days=3), suspend=True)
    world.live(MIDNIGHT, MIDNIGHT + timedelta(hours=3))
    world.spec["suspend"] = False
    world.live(MIDNIGHT + timedelta(hours=3), MIDNIGHT + timedelta(hours=27))
    assert world.slots() == [MIDNIGHT + timedelta(hours=26)]
    assert not world.told


@pytest.mark.parametrize("spec", [{"schedule": "99 * * * *"}, {"timeZone": "Nowhere/City"}])
def test_a_schedule_that_cannot_be_read_says_what_to_write(spec: dict[str, str]) -> None:
    """Stalled until a person corrects it."""
    plan = decide(schedule_seen(schedule=schedule(spec)), NOW)
    assert condition(plan.status, "Stalled")["reason"] == Reason.INVALID_SPEC


def test_a_tenant_that_does_not_exist_is_named_and_the_others_are_backed_up() -> None:
    """One tenant's mistake never stops another's backup."""
    plan = decide(schedule_seen(missing=("gone",), status=RAN_BEFORE), TWO)
    assert tenants_of(plan) == ["acme"]
    assert condition(plan.status, "Stalled")["reason"] == Reason.TENANT_NOT_FOUND
    assert "gone" in condition(plan.status, "Ready")["message"]


def test_a_schedule_that_is_changed_begins_with_its_first_slot_after_the_change() -> None:
    """From two o'clock to ten, at noon: ten o'clock today is nobody's slot, and nobody missed it."""
    seen = schedule_seen(status=status_of(decide(schedule_seen(status=RAN, backups=(of_day(15),)), TWO)))
    changed = schedule_seen(
        schedule=schedule({"schedule": "0 10 * * *"}), status=seen.status, backups=(of_day(15),)
    )
    plan = decide(changed, MIDNIGHT + timedelta(hours=12))
    assert not plan.actions
    later = schedule_seen(schedule=changed.schedule, status=plan.status, backups=(of_day(15),))
    assert len(created(decide(later, MIDNIGHT + timedelta(hours=34)))) == 1


# --- overlap


def test_a_run_that_is_still_going_is_not_overlapped() -> None:
    """A failed one is no reason to wait; who was left out is told, once, and counted."""
    backups = (of_day(14, "Running"), of_day(14, "Failed", "beta"))
    plan = decide(schedule_seen(tenants=("acme", "beta"), status=RAN_BEFORE, backups=backups), TWO)
    assert tenants_of(plan) == ["beta"]
    assert announced(plan) == [
        "no backup in slot 2024-01-15T02:00:00Z for 1 tenants (acme): the previous run has not ended"
    ]
    again = decide(
        schedule_seen(
            tenants=("acme", "beta"),
            status=status_of(plan),
            backups=(*backups, of_day(15, "Running", "beta")),
        ),
        TWO,
    )
    assert not again.actions
    assert status_of(again)["lastMissed"] == "2024-01-15T02:00:00Z"
    assert status_of(again)["tenants"] == {
        "selected": 2,
        "succeeded": 0,
        "failed": 0,
        "running": 1,
        "queued": 0,
        "missed": 1,
    }


@pytest.mark.parametrize(("state", "expected"), [("Running", ["acme"]), ("Pending", []), ("Queued", [])])
def test_with_overlap_queue_one_backup_waits_and_never_two(state: str, expected: list[str]) -> None:
    """So that nothing piles up behind a run that hangs."""
    started = {"started": None} if state != "Running" else {}
    seen = schedule_seen(
        schedule=schedule({"overlap": "Queue"}), status=RAN_BEFORE, backups=(of_day(14, state, **started),)
    )
    assert tenants_of(decide(seen, TWO)) == expected


def test_a_backup_that_waits_for_what_the_template_no_longer_says_does_not_hold_up_the_next_one() -> None:
    """A misspelt store was corrected: the backup that waits for it may wait for ever."""
    waiting = of_day(14, "Pending", store="pord", started=None)
    assert tenants_of(decide(schedule_seen(status=RAN_BEFORE, backups=(waiting,)), TWO)) == ["acme"]
    same = of_day(14, "Pending", started=None)
    assert not created(decide(schedule_seen(status=RAN_BEFORE, backups=(same,)), TWO))


# --- missed runs


def test_after_a_week_of_silence_the_newest_slot_runs_and_the_others_are_told() -> None:
    """One backup, not seven."""
    status = {"lastRun": "2024-01-08T02:00:00Z", "settledThrough": "2024-01-08T02:00:00Z"}
    plan = decide(schedule_seen(status=status, backups=(of_day(8),)), TWO + timedelta(hours=3))
    assert [action.name for action in created(plan)] == ["nightly-acme-202401150200"]
    assert announced(plan) == [
        "no backups in 6 slots from 2024-01-09T02:00:00Z on: the operator did not run in time"
    ]
    assert status_of(plan)["lastMissed"] == "2024-01-14T02:00:00Z"


@pytest.mark.parametrize(
    ("spec", "late", "runs"),
    [
        ({}, timedelta(hours=4), True),
        ({}, timedelta(hours=4, seconds=1), False),
        ({"startingDeadline": "10m"}, timedelta(minutes=11), False),
        ({"missedRuns": "Skip"}, timedelta(minutes=5), True),
        ({"missedRuns": "Skip"}, timedelta(minutes=6), False),
    ],
)
def test_a_slot_is_made_up_for_within_the_starting_deadline(
    spec: dict[str, str], late: timedelta, runs: bool
) -> None:
    """Later it is told, and the next slot is as usual."""
    seen = schedule_seen(schedule=schedule(spec), status=RAN_BEFORE, backups=(of_day(14),))
    plan = decide(seen, MIDNIGHT + timedelta(hours=2) + late)
    assert len(created(plan)) == runs
    assert len(announced(plan)) == (not runs)
    assert status_of(plan)["settledThrough"] == "2024-01-15T02:00:00Z"
    assert status_of(plan)["lastRun"] == ("2024-01-15T02:00:00Z" if runs else "2024-01-14T02:00:00Z")


# --- spread


def test_each_tenant_has_its_own_offset_and_keeps_it() -> None:
    """Created at slot plus offset, in the slot; lastRun waits for the last of them."""
    names = ["acme", "beta", "gamma", "delta"]
    world = World.of(names, MIDNIGHT, spread="30m")
    slot, spread = MIDNIGHT + timedelta(hours=2), timedelta(minutes=30)
    offsets = {name: offset("nightly", name, spread) for name in names}
    assert len(set(offsets.values())) == 4
    world.live(MIDNIGHT, slot + max(offsets.values()) - timedelta(seconds=1))
    assert len(world.made) == 3
    assert "lastRun" not in world.status
    world.live(slot + max(offsets.values()), slot + timedelta(hours=30))
    assert [(one.tenant, one.created - (one.slot or slot)) for one in world.made[:4]] == sorted(
        offsets.items(), key=lambda item: item[1]
    )
    assert [backup.tenant for backup in world.made[:4]] == [backup.tenant for backup in world.made[4:]]
    assert world.status["lastRun"] == "2024-01-16T02:00:00Z"
    assert world.status["lastSuccess"] == "2024-01-16T02:00:00Z"
    assert not world.told


@given(st.integers(1, 86400), st.text("abcdefghij-", min_size=1, max_size=20))
def test_an_offset_is_within_the_spread(seconds: int, tenant: str) -> None:
    """And in whole seconds, as slots in status are."""
    found = offset("nightly", tenant, timedelta(seconds=seconds))
    assert timedelta() <= found < timedelta(seconds=seconds)
    assert not found.microseconds


def test_a_spread_that_is_longer_than_the_interval_misses_nothing() -> None:
    """Slots are under way side by side, and each tenant gets each of them."""
    names = ["acme", "beta", "gamma"]
    world = World.of(names, MIDNIGHT, schedule="@hourly", spread="3h")
    world.live(MIDNIGHT, MIDNIGHT + timedelta(hours=12))
    for name in names:
        assert world.slots(name)[:9] == [MIDNIGHT + timedelta(hours=hour) for hour in range(9)]
    assert not world.told


# --- new tenants


def test_a_new_tenant_is_backed_up_at_once_in_the_slot_that_ran_last() -> None:
    """Once: its name is the slot's."""
    tenants = (remembered("acme"), remembered("new", "2024-01-15T12:00:00Z"))
    seen = schedule_seen(tenants=tenants, status=RAN, backups=(of_day(15),))
    plan = decide(seen, NOW)
    assert [action.name for action in created(plan)] == ["nightly-new-202401150200"]
    after = schedule_seen(
        tenants=tenants, status=plan.status, backups=(of_day(15), of_day(15, "Running", "new"))
    )
    again = decide(after, NOW)
    assert not created(again)
    assert status_of(again)["tenants"]["running"] == 1


def test_a_new_tenant_waits_for_the_next_slot_when_told_so() -> None:
    """It is neither missed nor failing until then."""
    tenants = (remembered("acme"), remembered("new", "2024-01-15T12:00:00Z"))
    seen = schedule_seen(
        schedule=schedule({"onNewTenant": "Wait"}), tenants=tenants, status=RAN, backups=(of_day(15),)
    )
    plan = decide(seen, NOW)
    assert not plan.actions
    assert status_of(plan)["tenants"] | {"selected": 1} == {
        "selected": 1,
        "succeeded": 1,
        "failed": 0,
        "running": 0,
        "queued": 0,
        "missed": 0,
    }
    assert status_of(plan)["lastSuccess"] == "2024-01-15T02:00:00Z"
    after = schedule_seen(schedule=seen.schedule, tenants=tenants, status=plan.status, backups=(of_day(15),))
    assert tenants_of(decide(after, TWO + timedelta(days=1))) == ["acme", "new"]


# --- tries


def failing(times: int, reason: Reason) -> World:
    """A world in which a tenant's first backups of each slot fail after a minute."""

    def course(backup: BackupSummary) -> Course:
        before = [one for one in world.made if one.slot == backup.slot]
        return Course("Failed", reason) if before.index(backup_of(before, backup)) < times else Course()

    def backup_of(them: list[BackupSummary], backup: BackupSummary) -> BackupSummary:
        return next(one for one in them if one.name == backup.name)

    world = World.of(["acme"], MIDNIGHT)
    world.course = course
    return world


def test_what_may_heal_is_tried_again_with_longer_and_longer_pauses() -> None:
    """Each try is a TenantBackup of its own in the same slot; then the next slot as usual."""
    world = failing(3, Reason.DATABASE_UNREACHABLE)
    world.live(MIDNIGHT, MIDNIGHT + timedelta(hours=27))
    assert [backup.name for backup in world.made[:4]] == [
        "nightly-acme-202401150200",
        "nightly-acme-202401150200-2",
        "nightly-acme-202401150200-3",
        "nightly-acme-202401150200-4",
    ]
    assert [
        (one.created - MIDNIGHT - timedelta(hours=2)) / timedelta(minutes=1) for one in world.made[:4]
    ] == [
        0,
        6,
        17,
        38,
    ]
    assert world.made[4].name == "nightly-acme-202401160200"


def test_tries_end_at_the_limit_and_the_next_slot_is_as_usual() -> None:
    """Four with the default, in every slot."""
    world = failing(99, Reason.STORE_UNAVAILABLE)
    world.live(MIDNIGHT, MIDNIGHT + timedelta(hours=60))
    assert [len([one for one in world.slots() if one == slot]) for slot in sorted(set(world.slots()))] == [
        4
    ] * 3
    assert world.status["failing"] == ["acme"]
    assert "lastSuccess" not in world.status


def test_what_cannot_heal_by_itself_is_not_tried_again_but_the_next_slot_is() -> None:
    """Somebody must change something first."""
    world = failing(99, Reason.DATABASE_NOT_FOUND)
    world.live(MIDNIGHT, MIDNIGHT + timedelta(hours=60))
    assert len(world.made) == 3


def test_there_is_no_further_try_once_the_next_slot_is_due() -> None:
    """The slot's own backup is the next try."""
    world = failing(99, Reason.NODE_LOST)
    world.spec |= {"schedule": "*/10 * * * *", "retries": {"limit": 10, "backoff": "5m"}}
    world.live(MIDNIGHT, MIDNIGHT + timedelta(minutes=59))
    per_slot = [[one for one in world.made if one.slot == slot] for slot in sorted(set(world.slots()))]
    assert [len(them) for them in per_slot] == [2] * len(per_slot)


def test_the_slot_of_a_tenant_counts_its_last_try() -> None:
    """What failed first and succeeded then, succeeded."""
    again = of_day(15, name="nightly-acme-202401150200-2", created=TWO)
    seen = schedule_seen(status=RAN, backups=(of_day(15, "Failed"), again))
    status = status_of(decide(seen, NOW))
    assert status["tenants"]["succeeded"] == 1
    assert status["lastSuccess"] == "2024-01-15T02:00:00Z"
    assert status["failing"] == []


# --- fullEvery


def test_a_full_comes_once_in_each_period_and_each_tenant_has_its_own_day() -> None:
    """Also when retention has deleted the Full by then."""
    names = [f"t{number}" for number in range(20)]
    world = World.of(names, MIDNIGHT, fullEvery="168h")
    for day in range(28):
        world.live(MIDNIGHT + timedelta(days=day), MIDNIGHT + timedelta(days=day + 1))
        world.forget(2)
    days = {
        name: [one.created.day for one in world.made if one.tenant == name and one.mode == "Full"]
        for name in names
    }
    assert {len(found) for found in days.values()} <= {4, 5}  # the first backup of all is one too
    assert len({found[1] for found in days.values()}) > 4
    for name in names:
        fulls = [one.created for one in world.made if one.tenant == name and one.mode == "Full"][1:]
        assert {later - earlier for earlier, later in pairwise(fulls)} == {timedelta(days=7)}


def test_a_full_that_failed_is_followed_by_a_full() -> None:
    """Until one is good."""
    world = failing(1, Reason.DUMP_FAILED)
    world.spec["fullEvery"] = "720h"
    world.live(MIDNIGHT, MIDNIGHT + timedelta(hours=4))
    assert [backup.mode for backup in world.made] == ["Full", "Full"]


# --- runNow


def test_any_new_value_of_run_now_runs_once() -> None:
    """It is in status, with its slot, before anything is started."""
    noon = MIDNIGHT + timedelta(hours=12)
    world = World.of(["acme", "beta"], noon, runNow="first")
    plan = world.look(noon)
    assert not created(plan)
    assert world.status["runNow"] == {"value": "first", "slot": "2024-01-15T12:00:01Z"}
    world.live(noon, noon + timedelta(hours=1))
    assert [backup.name for backup in world.made] == [
        "nightly-acme-20240115120001",
        "nightly-beta-20240115120001",
    ]
    assert world.status["tenants"]["succeeded"] == 2
    assert world.status["lastSuccess"] == world.status["lastRun"] == "2024-01-15T12:00:01Z"
    world.spec["runNow"] = "second"
    world.live(noon + timedelta(hours=1), noon + timedelta(hours=2))
    world.spec["runNow"] = ""
    world.live(noon + timedelta(hours=2), noon + timedelta(hours=3))
    assert len(world.made) == 4
    world.live(noon + timedelta(hours=3), noon + timedelta(hours=15))
    assert world.slots()[-1] == MIDNIGHT + timedelta(hours=26)
    assert not world.told


def test_what_was_asked_for_is_tried_again_too() -> None:
    """A slot of runNow is a slot like any other."""
    world = failing(1, Reason.STORE_UNAVAILABLE)
    world.created = MIDNIGHT + timedelta(hours=12)
    world.spec["runNow"] = "x"
    world.live(world.created, world.created + timedelta(hours=1))
    assert [backup.name for backup in world.made] == [
        "nightly-acme-20240115120001",
        "nightly-acme-20240115120001-2",
    ]


def test_a_run_now_survives_a_long_absence_and_the_slot_after_it() -> None:
    """It was asked for just before the slot, and the operator comes back too late for that."""
    world = World.of(["acme"], MIDNIGHT, runNow="x")
    world.look(MIDNIGHT + timedelta(minutes=119))
    world.live(MIDNIGHT + timedelta(hours=8), MIDNIGHT + timedelta(hours=9))
    assert [one.name for one in world.made] == ["nightly-acme-20240115015901"]
    assert len(world.told) == 1


def test_a_run_now_in_the_middle_of_a_spread_slot_stands_for_it() -> None:
    """Nobody is backed up twice within minutes, nobody is left out."""
    names = [f"t{number}" for number in range(10)]
    world = World.of(names, MIDNIGHT, spread="1h")
    world.course = at_once
    half = MIDNIGHT + timedelta(hours=2, minutes=30)
    world.live(MIDNIGHT, half)
    world.spec["runNow"] = "now"
    world.live(half, half + timedelta(hours=3))
    assert all(len(world.slots(name)) in (1, 2) for name in names)
    assert all(world.slots(name)[-1] > half for name in names)
    assert not world.told


# --- a year of slots, and an operator that comes and goes

YEAR = (datetime(2024, 1, 1, tzinfo=UTC), datetime(2025, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("zone", ["Europe/Rome", "America/New_York", "Australia/Lord_Howe"])
def test_a_year_of_nights_has_one_backup_each(zone: str) -> None:
    """In the night that skips half past two, and in the one that has it twice, as well."""
    world = World.of(["acme", "beta"], YEAR[0], schedule="30 2 * * *", timeZone=zone)
    day = YEAR[0]
    while day < YEAR[1]:
        world.live(day, day + timedelta(days=1))
        world.forget(1)
        day += timedelta(days=1)
    for tenant in ("acme", "beta"):
        local = [slot.astimezone(ZoneInfo(zone)) for slot in world.slots(tenant)]
        nights = [moment.date() for moment in local]
        assert nights == [nights[0] + timedelta(days=number) for number in range(366)][: len(nights)]
        assert len(nights) in (365, 366)
        odd = [moment for moment in local if (moment.hour, moment.minute) != (2, 30)]
        assert len(odd) <= 1  # where the jump skips it: right after the jump
    assert not world.told


def test_a_year_of_quarter_hours_follows_the_clock_of_the_world() -> None:
    """Both hours of autumn, and no gap in spring: every 15 minutes is every 15 minutes."""
    start = datetime(2024, 3, 30, tzinfo=UTC)
    for start in (datetime(2024, 3, 30, tzinfo=UTC), datetime(2024, 10, 26, tzinfo=UTC)):
        world = World.of(["acme"], start, schedule="*/15 * * * *", timeZone="Europe/Rome")
        world.live(start, start + timedelta(days=2))
        assert world.slots() == [start + timedelta(minutes=15 * number) for number in range(192)]


@st.composite
def absences(draw: st.DrawFn) -> list[tuple[timedelta, timedelta, int]]:
    """When the operator dies, for how long, and after how many of that look's actions."""
    gaps = st.timedeltas(timedelta(), timedelta(hours=12))
    return draw(st.lists(st.tuples(gaps, gaps, st.integers(0, 4)), max_size=5))


def at_once(_backup: BackupSummary) -> Course:
    """Every backup succeeds before the next look."""
    return Course(lasts=timedelta())


@settings(deadline=None, max_examples=30)
@given(
    absences(),
    st.sampled_from(["0s", "20m", "3h"]),
    st.sampled_from(["@hourly", "30 2 * * *", "*/20 * * * *"]),
    st.sampled_from(["RunOnce", "Skip"]),
)
def test_no_slot_is_missed_or_doubled_however_the_operator_comes_and_goes(
    comings: list[tuple[timedelta, timedelta, int]], spread: str, cron: str, missed: str
) -> None:
    """Doubles fail inside the world. A tenant is without a backup only where nobody was there, and that is told."""
    names = ["acme", "beta", "gamma"]
    start = datetime(2024, 3, 30, 12, tzinfo=UTC)
    world = World.of(names, start, schedule=cron, spread=spread, missedRuns=missed, timeZone="Europe/Rome")
    world.course = at_once
    now, present = start, []
    for alive, away, actions in comings:
        world.live(now, now + alive)
        world.look(now + alive, die_after=actions)
        present.append((now, now + alive))
        now += alive + away
    world.live(now, now + timedelta(hours=31))
    present.append((now, now + timedelta(hours=31)))
    end = now + timedelta(hours=31)

    parsed, allowed = Schedule.parse(cron, "Europe/Rome"), timedelta(hours=4 if missed == "RunOnce" else 0)
    slots = [slot for slot in parsed.next_runs(start - timedelta(seconds=1), 2000) if slot < end]
    for name in names:
        mine = offset("nightly", name, timedelta(seconds=duration_seconds(spread)))
        got = set(world.slots(name))
        for slot, following in pairwise(slots):
            due, until = slot + mine, min(slot + mine + allowed, following + mine)
            if slot in got or until >= end:
                continue
            there = any(begin <= until and due < over for begin, over in present)
            assert not there, f"{name} has no backup in {slot}"
            assert _is_told(world.told, parsed, slot), f"nobody was told that {slot} is missed"


def _is_told(messages: list[str], parsed: Schedule, slot: datetime) -> bool:
    for message in messages:
        moment = re.search(r"\d{4}-\d\d-\d\dT[\d:]+Z", message)
        number = re.search(r"(\d+) slots", message)
        assert moment
        first = datetime.fromisoformat(moment[0])
        covered = parsed.next_runs(first - timedelta(seconds=1), int(number[1]) if number else 1)
        if slot in covered:
            return True
    return False


# --- names


@given(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=52),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=52),
    st.datetimes(datetime(2024, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.integers(1, 11),
)
def test_names_of_slots_fit_label_values(name: str, tenant: str, slot: datetime, attempt: int) -> None:
    """At most 63 characters, and a function of the slot, to the second where there is one."""
    moment = slot.replace(microsecond=0)
    assert len(scheduled_backup(name, tenant, moment, attempt)) <= 63
    assert slot_of(slot_label(moment)) == moment


NAMES = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from(["-", "."]).map(lambda joint: joint.join(parts))
)


@given(NAMES, NAMES, NAMES, NAMES, st.integers(1, 3), st.integers(1, 3))
def test_two_backups_never_have_the_same_name(
    one: str, tenant: str, other: str, neighbour: str, attempt: int, again: int
) -> None:
    """Tenant c of schedule a-b is not tenant b-c of schedule a."""
    one, other = one.replace(".", "-"), other.replace(".", "-")
    names = {(one, tenant, attempt), (other, neighbour, again)}
    slot = datetime(2024, 1, 15, 2, tzinfo=UTC)
    assert len({scheduled_backup(*key[:2], slot, key[2]) for key in names}) == len(names)
