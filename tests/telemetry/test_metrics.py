"""What /metrics says about a fleet, and what it never says."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from hack.lab.kubectl import ROOT
from tenant_backup.contract.reasons import Reason
from tests.telemetry.fleet import backup, exported, schedule, scrape, store, tenant

NIGHTLY = ("ns", "nightly", "acme")  # namespace, schedule, tenant


def at(clock: str, day: int = 2) -> float:
    """The time of that day in January."""
    return datetime.fromisoformat(f"2026-01-{day:02}T{clock}:00").replace(tzinfo=UTC).timestamp()


def test_a_tenants_newest_good_backup_is_told_by_schedule() -> None:
    """Its time, its sizes and how long it took; not an older one's, and not that of a run that failed later."""
    sizes = {"logical": 1000, "stored": 300, "added": 20}
    said = scrape(
        Tenant=[tenant()],
        BackupSchedule=[schedule()],
        TenantBackup=[
            backup("a", state="Succeeded", startedAt="01:00", completedAt="01:10"),
            backup("b", state="Succeeded", startedAt="02:00", completedAt="02:05", bytes=sizes),
            backup("c", state="Failed", startedAt="03:00", completedAt="03:01", reason="DatabaseNotFound"),
        ],
    )
    assert said.of("last_success_timestamp_seconds") == {NIGHTLY: at("02:05")}
    assert said.of("last_success_duration_seconds") == {NIGHTLY: 300}
    assert [said.of(f"last_success_{what}_bytes")[NIGHTLY] for what in sizes] == [1000, 300, 20]
    assert said.of("last_run_succeeded") == {NIGHTLY: 0}
    assert said.of("last_run_timestamp_seconds") == {NIGHTLY: at("03:01")}
    assert said.of("failed_tenants") == {("ns", "DatabaseNotFound", "nightly"): 1}


def test_a_corrupt_backup_is_no_success_and_is_counted() -> None:
    """Nobody can restore it."""
    said = scrape(
        Tenant=[tenant(), tenant("beta")],
        BackupSchedule=[schedule()],
        TenantBackup=[
            backup("a", state="Succeeded", health="Healthy", completedAt="01:00"),
            backup("b", state="Succeeded", health="Corrupt", completedAt="02:00"),
        ],
    )
    assert said.of("last_success_timestamp_seconds") == {NIGHTLY: at("01:00")}
    assert said.of("tenant_corrupt_backups") == {("ns", "acme"): 1, ("ns", "beta"): 0}


def test_a_tenant_without_a_backup_is_told_from_the_moment_a_schedule_chose_it() -> None:
    """So that an alert on age sees what never was, and does not cry at birth."""
    said = scrape(Tenant=[tenant()], BackupSchedule=[schedule()])
    assert said.of("last_success_timestamp_seconds") == {}
    assert said.of("last_success_or_start_timestamp_seconds") == {NIGHTLY: at("00:00", day=1)}
    assert said.of("tenant_schedules") == {("ns", "acme"): 1}


def test_the_newest_verification_counts_whichever_backup_it_was_of() -> None:
    """An older backup may be verified later; one found damaged does not count."""
    healthy = {"state": "Succeeded", "health": "Healthy"}

    def found_good(clock: str) -> dict[str, str]:
        return dict.fromkeys(("completedAt", "healthyAt"), f"2026-01-02T{clock}:00Z")

    said = scrape(
        Tenant=[tenant()],
        BackupSchedule=[schedule()],
        TenantBackup=[
            backup("a", **healthy, verification=found_good("09:00")),
            backup("b", **healthy, verification=found_good("08:00")),
            backup("c", **{**healthy, "health": "Corrupt"}, verification=found_good("10:00")),
        ],
    )
    assert said.of("last_verified_timestamp_seconds") == {NIGHTLY: at("09:00")}


def test_the_queue_is_told_by_state_with_zeros_and_its_oldest() -> None:
    """A backup that nobody has looked at yet is pending."""
    said = scrape(
        Tenant=[tenant()],
        TenantBackup=[backup("a"), backup("b", state="Queued"), backup("c", state="Running")],
    )
    counted = {state: number for (_, _, state), number in said.of("backups").items()}
    assert counted == {"Pending": 1, "Queued": 1, "Running": 1, "Succeeded": 0, "Failed": 0, "Expired": 0}
    assert said.of("oldest_waiting_timestamp_seconds") == {("ns",): at("00:00", day=1)}


def test_backups_of_a_schedule_that_is_gone_count_as_made_by_hand() -> None:
    """They still protect the tenant."""
    said = scrape(Tenant=[tenant()], TenantBackup=[backup("a", state="Succeeded", completedAt="01:00")])
    assert said.of("last_success_timestamp_seconds") == {("ns", "", "acme"): at("01:00")}


def test_backups_of_a_tenant_that_is_gone_are_in_no_series_of_a_tenant() -> None:
    """Nobody could ever end its alerts."""
    said = scrape(
        BackupSchedule=[schedule()], TenantBackup=[backup("a", state="Failed", reason="DatabaseNotFound")]
    )
    assert said.of("last_run_succeeded") == {}
    assert said.of("failed_tenants") == {}


def test_a_suspended_schedule_promises_no_run() -> None:
    """And leaves its tenants without one."""
    slots = {"lastRun": "2026-01-02T02:00:00Z", "nextRuns": ["2026-01-03T02:00:00Z"]}
    said = scrape(Tenant=[tenant()], BackupSchedule=[schedule(suspend=True, **slots)])
    assert said.of("schedule_suspended") == {("ns", "nightly"): 1}
    assert said.of("schedule_next_run_timestamp_seconds") == {}
    assert said.of("schedule_interval_seconds") == {}
    assert said.of("tenant_schedules") == {("ns", "acme"): 0}


def test_a_schedules_interval_is_its_longest_pause() -> None:
    """On workdays only: Friday to Monday, whatever day it is."""
    runs = [f"2026-01-{day:02}T02:00:00Z" for day in (5, 6, 7)]
    counts = {"selected": 2, "succeeded": 1, "failed": 1, "running": 0}
    said = scrape(
        Tenant=[tenant(), tenant("beta")],
        BackupSchedule=[schedule(lastRun="2026-01-02T02:00:00Z", nextRuns=runs, tenants=counts)],
    )
    assert said.of("schedule_interval_seconds") == {("ns", "nightly"): 3 * 86400}
    assert said.of("schedule_next_run_timestamp_seconds") == {("ns", "nightly"): at("02:00", day=5)}
    assert said.of("schedule_selected_tenants") == {("ns", "nightly"): 2}
    assert said.of("schedule_tenants")["ns", "failed", "nightly"] == 1


def test_a_slot_that_is_under_way_is_the_last_one() -> None:
    """`lastRun` moves on when it is settled; until then the pause would be two days."""
    slots = {"lastRun": "2026-01-01T02:00:00Z", "nextRuns": ["2026-01-03T02:00:00Z"]}
    under_way = backup("a", state="Running")
    under_way["metadata"]["labels"]["tenantbackup.dev/slot"] = "202601020200"
    said = scrape(BackupSchedule=[schedule(**slots)], TenantBackup=[under_way])
    assert said.of("schedule_interval_seconds") == {("ns", "nightly"): 86400}


def test_a_tenants_conditions_are_told_only_when_they_are_known() -> None:
    """Unknown is neither 0 nor 1."""
    said = scrape(Tenant=[tenant("a", Ready="True", ObjectivesMet="False"), tenant("b", Ready="Unknown")])
    assert said.of("tenant_ready") == {("ns", "a"): 1}
    assert said.of("tenant_objectives_met") == {("ns", "a"): 0}
    assert said.of("tenant_recovery_point_objective_seconds")["ns", "a"] == 86400


def test_a_stores_use_and_limits_are_told() -> None:
    """In bytes, as far as they are known."""
    said = scrape(BackupStore=[store(usedBytes=850, unlisted=2)])
    assert said.of("store_used_bytes") == {("ns", "prod"): 850}
    assert said.of("store_limit_bytes") == {("ns", "prod"): 1000}
    assert said.of("store_warning_bytes") == {("ns", "prod"): 800}
    assert said.of("store_unlisted_backups") == {("ns", "prod"): 2}
    assert said.of("store_backups") == {}


@pytest.mark.parametrize("reason", ["StoreFull", "Whatever"])
def test_reasons_are_words_of_the_closed_list(reason: str) -> None:
    """Whatever somebody wrote into a status."""
    failed = backup("a", state="Failed", completedAt="01:00", reason=reason)
    said = scrape(Tenant=[tenant()], BackupSchedule=[schedule()], TenantBackup=[failed])
    ((_, told, _),) = said.of("failed_tenants")
    assert told == (reason if reason in set(Reason) else Reason.INTERNAL_ERROR)


def test_no_label_names_a_backup_so_more_backups_make_no_more_series() -> None:
    """The history may be long."""
    few, many = (
        scrape(
            Tenant=[tenant()],
            BackupSchedule=[schedule()],
            TenantBackup=[backup(f"b-{n}", state="Succeeded", completedAt="01:00") for n in range(count)],
        )
        for count in (1, 500)
    )
    assert {name: set(labels) for name, labels in many.samples.items()} == {
        name: set(labels) for name, labels in few.samples.items()
    }


def test_every_metric_is_documented_and_no_other() -> None:
    """docs/metrics.md is what /metrics says."""
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert set(re.findall(r"^\| `(tenant_backup_[a-z_]+)` \|", page, re.MULTILINE)) == exported()
