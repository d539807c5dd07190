"""A real schedule fires once per tenant and slot, also when the operator dies between two tenants."""

from __future__ import annotations

import signal
from typing import Any

from tests.operator.conftest import Space
from tests.operator.node import Node
from tests.operator.test_end_to_end import BACKUP, STORE, TENANT

SCHEDULE: dict[str, Any] = {
    "schedule": "* * * * *",
    "tenants": ["acme", "beta"],
    "template": {"storeRef": {"name": "prod"}},
    "retention": {"keepLast": 1},
}


def two_tenants(space: Space) -> None:
    """Ready, with an operator that is gone again."""
    operator = space.operator()
    space.create("BackupStore", "prod", STORE)
    for name in ("acme", "beta"):
        space.create("Tenant", name, TENANT)
        space.until_condition("Tenant", name, "Ready")
    space.until_condition("BackupStore", "prod", "Ready")
    space.until(
        lambda: all("ttlSecondsAfterFinished" in job["spec"] for job in space.api.items(space.jobs)),
        "nothing is left to write",
    )
    operator.send_signal(signal.SIGTERM)
    operator.wait(20)


def old_backup(space: Space) -> None:
    """A good one that the schedule made long ago."""
    names = {"tenant": "acme", "schedule": "each-minute", "slot": "202401150200"}
    labels = {f"tenantbackup.dev/{key}": value for key, value in names.items()}
    space.create("TenantBackup", "old", {**BACKUP, "deletionPolicy": "Retain"}, labels=labels)
    status = {"state": "Succeeded", "observedGeneration": 1, "completedAt": "2024-01-15T02:00:09Z"}
    space.api.do("PATCH", f"{space.path('TenantBackup', 'old')}/status", {"status": status})


def slots(space: Space) -> dict[str, list[str]]:
    """The slots each tenant was backed up in, but for the old backup."""
    found: dict[str, list[str]] = {"acme": [], "beta": []}
    for item in space.api.items(space.path("TenantBackup")):
        labels = item["metadata"]["labels"]
        if item["metadata"]["name"] != "old":
            found[labels["tenantbackup.dev/tenant"]].append(labels["tenantbackup.dev/slot"])
    return found


def test_a_slot_runs_once_for_each_tenant_whenever_the_operator_dies(space: Space) -> None:
    """It dies right after it created the first tenant's backup."""
    with Node(space.api, space.name) as node:
        old_backup(space)
        two_tenants(space)
        space.create("BackupSchedule", "each-minute", SCHEDULE)
        dying = space.operator("after:1:/tenantbackups")
        space.until(lambda: dying.poll() is not None, "the operator has died in the slot", 90)
        assert sorted(map(len, slots(space).values())) == [0, 1]
        space.operator()
        space.until(
            lambda: space.get("TenantBackup", "old") is None, "retention has made room for the new one"
        )
        schedule = space.get("BackupSchedule", "each-minute")
        made = slots(space)
    assert made["acme"] == made["beta"]
    assert len(made["acme"]) == 1
    assert schedule
    assert len(schedule["status"]["nextRuns"]) == 3
    backups = [count for job, count in node.ran.items() if "-backup-" in job]
    assert backups.count(1) == len(backups) == 2
