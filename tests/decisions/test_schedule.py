"""BackupSchedule: one backup per tenant and slot, and retention that cannot lose the last good one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.names import scheduled_backup, slot_label, slot_of
from tenant_backup.decisions.observed import ScheduledBackup
from tenant_backup.decisions.plan import CreateBackup, DeleteBackup, Plan
from tenant_backup.decisions.retention import surplus
from tenant_backup.decisions.schedule import decide
from tests.decisions.objects import NOW, condition, schedule, schedule_seen

SLOT = datetime(2024, 1, 15, 2, 0, tzinfo=UTC)


def made(day: int, state: str = "Succeeded", tenant: str = "acme", **fields: bool) -> ScheduledBackup:
    """A backup of that day in January."""
    slot = datetime(2024, 1, day, 2, 0, tzinfo=UTC)
    name = scheduled_backup("nightly", tenant, slot)
    return ScheduledBackup(name, f"uid-{name}", tenant, slot, state, **fields)


def created(plan: Plan) -> list[CreateBackup]:
    """The backups a plan starts."""
    return [action for action in plan.actions if isinstance(action, CreateBackup)]


def test_the_newest_slot_that_is_due_runs_once_for_each_tenant() -> None:
    """After a week of silence one backup, not seven."""
    plan = decide(schedule_seen(tenants=("acme", "beta"), status={"lastRun": "2024-01-08T02:00:00Z"}), NOW)
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
    assert plan.status
    assert plan.status["lastRun"] == "2024-01-15T02:00:00Z"
    assert plan.status["nextRuns"] == ["2024-01-16T02:00:00Z", "2024-01-17T02:00:00Z", "2024-01-18T02:00:00Z"]
    assert plan.retry_in == 3600


def test_a_slot_that_ran_does_not_run_again() -> None:
    """Not even when somebody deleted its backup."""
    assert not created(decide(schedule_seen(status={"lastRun": "2024-01-15T02:00:00Z"}), NOW))


def test_a_new_schedule_does_not_make_up_for_the_time_before_it() -> None:
    """Its first slot is the first after its creation."""
    new = schedule(creationTimestamp="2024-01-15T03:00:00Z")
    assert not created(decide(schedule_seen(schedule=new), NOW))


def test_a_run_that_is_still_going_is_not_overlapped() -> None:
    """A failed one is no reason to wait."""
    seen = schedule_seen(tenants=("acme", "beta"), backups=(made(14, "Running"), made(14, "Failed", "beta")))
    assert [action.spec["tenantRef"]["name"] for action in created(decide(seen, NOW))] == ["beta"]


def test_a_suspended_schedule_starts_and_deletes_nothing() -> None:
    """It says so."""
    seen = schedule_seen(
        schedule=schedule({"suspend": True}), backups=tuple(made(day) for day in range(1, 10))
    )
    plan = decide(seen, NOW)
    assert plan.actions == ()
    assert plan.status
    assert condition(plan.status, "Ready")["reason"] == Reason.SUSPENDED


@pytest.mark.parametrize("spec", [{"schedule": "99 * * * *"}, {"timeZone": "Nowhere/City"}])
def test_a_schedule_that_cannot_be_read_says_what_to_write(spec: dict[str, str]) -> None:
    """Stalled until a person corrects it."""
    plan = decide(schedule_seen(schedule=schedule(spec)), NOW)
    assert plan.status
    assert condition(plan.status, "Stalled")["reason"] == Reason.INVALID_SPEC


def test_a_tenant_that_does_not_exist_is_named_and_the_others_are_backed_up() -> None:
    """One tenant's mistake never stops another's backup."""
    plan = decide(schedule_seen(missing=("gone",)), NOW)
    assert len(created(plan)) == 1
    assert plan.status
    assert condition(plan.status, "Stalled")["reason"] == Reason.TENANT_NOT_FOUND
    assert "gone" in condition(plan.status, "Ready")["message"]


def test_the_last_run_is_counted() -> None:
    """Its success is recorded when all of it succeeded."""
    status = {"lastRun": "2024-01-15T02:00:00Z"}
    seen = schedule_seen(
        tenants=("acme", "beta"), status=status, backups=(made(15), made(15, "Failed", "beta"))
    )
    plan = decide(seen, NOW)
    assert plan.status
    assert plan.status["tenants"] == {"selected": 2, "succeeded": 1, "failed": 1, "running": 0}
    assert "lastSuccess" not in plan.status
    good = decide(schedule_seen(status=status, backups=(made(15),)), NOW)
    assert good.status
    assert good.status["lastSuccess"] == "2024-01-15T02:00:00Z"


def test_retention_keeps_the_newest_good_ones() -> None:
    """The two newest here; what is older goes."""
    seen = schedule_seen(
        status={"lastRun": "2024-01-15T02:00:00Z"}, backups=tuple(made(day) for day in (12, 13, 14, 15))
    )
    plan = decide(seen, NOW)
    assert plan.actions == tuple(DeleteBackup(made(day).name, made(day).uid) for day in (12, 13))
    assert plan.status
    assert plan.status["retention"] == {"kept": 2, "toDelete": 2}


def test_without_retention_nothing_is_deleted() -> None:
    """The default loses nothing."""
    seen = schedule_seen(
        schedule=schedule({"retention": None}), backups=tuple(made(day) for day in range(1, 16))
    )
    assert not [action for action in decide(seen, NOW).actions if isinstance(action, DeleteBackup)]


def test_a_failed_backup_never_pushes_a_good_one_out() -> None:
    """Ten failures in a row delete nothing good."""
    backups = (made(1), made(2), *(made(day, "Failed") for day in range(3, 13)))
    assert surplus(backups, 2) == ()


STATES = st.sampled_from(["Succeeded", "Failed", "Running", "Pending", ""])
BACKUPS = st.lists(
    st.builds(
        ScheduledBackup,
        name=st.uuids().map(str),
        uid=st.uuids().map(str),
        tenant=st.sampled_from(["a", "b", "c"]),
        slot=st.integers(0, 30).map(lambda day: SLOT + timedelta(days=day)),
        state=STATES,
        corrupt=st.booleans(),
        held=st.booleans(),
        removing=st.booleans(),
    ),
    max_size=40,
)


@given(BACKUPS, st.integers(1, 5))
def test_retention_never_loses_the_newest_good_backups(backups: list[ScheduledBackup], keep: int) -> None:
    """Of each tenant min(keep, all) good ones stay, and they are the newest."""
    gone = surplus(backups, keep)
    for tenant in ("a", "b", "c"):
        good = sorted((b for b in backups if b.tenant == tenant and b.good), key=lambda b: (b.slot, b.name))
        assert not set(good[-keep:]) & set(gone)
        assert len([b for b in good if b not in gone]) >= min(keep, len(good))


@given(BACKUPS, st.integers(1, 5))
def test_retention_touches_only_what_has_ended_and_nobody_holds(
    backups: list[ScheduledBackup], keep: int
) -> None:
    """Neither running, held nor dying ones."""
    gone = surplus(backups, keep)
    assert all(b.state in ("Succeeded", "Failed") and not b.held and not b.removing for b in gone)


@given(BACKUPS, st.integers(1, 5))
def test_carrying_retention_out_leaves_nothing_more_to_do(backups: list[ScheduledBackup], keep: int) -> None:
    """A second pass deletes nothing."""
    gone = set(surplus(backups, keep))
    assert surplus([b for b in backups if b not in gone], keep) == ()


@given(BACKUPS, st.integers(1, 5))
def test_a_new_failure_deletes_nothing(backups: list[ScheduledBackup], keep: int) -> None:
    """Retention never runs because of a failed backup."""
    failed = ScheduledBackup("new", "new", "a", SLOT + timedelta(days=31), "Failed")
    assert set(surplus([*backups, failed], keep)) == set(surplus(backups, keep))


@given(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=52),
    st.text("abcdefghijklmnopqrstuvwxyz0123456789.-", min_size=1, max_size=52),
    st.datetimes(datetime(2024, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
def test_names_of_slots_fit_label_values(name: str, tenant: str, slot: datetime) -> None:
    """At most 63 characters, and a function of the slot."""
    minute = slot.replace(second=0, microsecond=0)
    assert len(scheduled_backup(name, tenant, minute)) <= 63
    assert slot_of(slot_label(minute)) == minute
