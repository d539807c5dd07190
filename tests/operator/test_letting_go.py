"""Retention, expiry and off-boarding on a real API server: what goes, what stays, and dying in between.

A real process is killed with SIGKILL before and after every single write, started again, and must end where
an undisturbed one ends; each backup's data is deleted by one Job, and nothing else is deleted.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tenant_backup.cluster import BACKUP as KIND
from tenant_backup.cluster.api_server import ApiServer
from tests.operator.conftest import Space
from tests.operator.node import Node
from tests.operator.test_end_to_end import BACKUP, STORE, TENANT, replace

HELD = "tenantbackup.dev/hold"
FINALIZERS = ["tenantbackup.dev/data"]
SCHEDULE: dict[str, Any] = {
    "schedule": "0 0 1 1 *",  # fires in one minute of the year
    "tenants": ["acme"],
    "template": {"storeRef": {"name": "prod"}},
    "retention": {"keepLast": 1},
}
SHOWN = {"rules": "keepLast 1, keepFailed 3 in Etc/UTC", "deletesFrom": "2024-01-01T00:00:00Z"}
PURPOSES = Counter({"preflight": 1, "probe": 1, "catalogue": 1, "delete": 5})


def good(space: Space, name: str, day: int, spec: dict[str, Any] | None = None, **labels: str) -> None:
    """A good backup of that day in January 2024, with data in the store; of the schedule when it has a slot."""
    ours = {f"tenantbackup.dev/{key}": value for key, value in labels.items()}
    space.create("TenantBackup", name, {**BACKUP, **(spec or {})}, labels=ours, finalizers=FINALIZERS)
    time = f"2024-01-{day:02}T02:00:00Z"
    status = {
        "state": "Succeeded",
        "health": "Healthy",
        "backupId": f"acme_2024-01-{day:02}_02-00-00",
        "startedAt": time,
        "completedAt": time,
        "observedGeneration": 1,
        "verification": {"level": "Checksum", "completedAt": time, "healthyAt": time},
        "conditions": [
            {
                "type": "Succeeded",
                "status": "True",
                "reason": "Succeeded",
                "message": "it is committed",
                "lastTransitionTime": time,
            }
        ],
    }
    space.api.do("PATCH", f"{space.path('TenantBackup', name)}/status", {"status": status})


def scheduled(space: Space, name: str, day: int, **labels: str) -> None:
    """One that the schedule made."""
    good(space, name, day, schedule="yearly", slot=f"202401{day:02}0200", tenant="acme", **labels)


def the_objects(space: Space) -> None:
    """Two of four scheduled backups are to go, one that is over, and a Tenant with two that is deleted."""
    space.create("BackupStore", "prod", STORE)
    space.create("Tenant", "acme", TENANT)
    space.create("BackupSchedule", "yearly", SCHEDULE)
    path = f"{space.path('BackupSchedule', 'yearly')}/status"
    space.api.do("PATCH", path, {"status": {"retention": SHOWN}})
    scheduled(space, "old-1", 1)
    scheduled(space, "old-2", 2, hold="audit")
    scheduled(space, "old-3", 3)
    scheduled(space, "newest", 5)
    good(space, "brief", 4, {"expiresAfter": "1m"})
    space.create("Tenant", "beta", {**TENANT, "offboarding": "Delete"}, finalizers=FINALIZERS)
    for day in (1, 2):
        good(space, f"beta-{day}", day, {"tenantRef": {"name": "beta"}})
    space.api.do("DELETE", space.path("Tenant", "beta"))


def status(space: Space, kind: str, name: str) -> dict[str, Any]:
    """What an object says of itself."""
    return dict((space.get(kind, name) or {}).get("status", {}))


def conditions(space: Space, kind: str, name: str) -> dict[str, tuple[str, str]]:
    """Its conditions: status and reason."""
    found = status(space, kind, name).get("conditions", ())
    return {item["type"]: (item["status"], item["reason"]) for item in found}


def settled(space: Space) -> bool:
    """Whether all that was to go is gone, and recorded."""
    gone = [("Tenant", "beta"), *(("TenantBackup", name) for name in ("old-1", "old-3", "beta-1", "beta-2"))]
    if any(space.get(kind, name) for kind, name in gone):
        return False
    brief = conditions(space, "TenantBackup", "brief").get("Expired", ("", ""))
    retention = status(space, "BackupSchedule", "yearly").get("retention", {})
    ready = all(
        conditions(space, kind, name).get("Ready", ("", ""))[0] == "True"
        for kind, name in (("Tenant", "acme"), ("BackupStore", "prod"))
    )
    counted = status(space, "Tenant", "acme").get("backups") == 2 and retention.get("toDelete") == 0
    over = all("ttlSecondsAfterFinished" in job["spec"] for job in space.api.items(space.jobs))
    listed = "completedAt" in status(space, "BackupStore", "prod").get("catalogue", {})
    return ready and counted and over and listed and brief == ("True", "DataDeleted")


def end_state(space: Space) -> dict[str, Any]:
    """What is left, without what must differ between two lives."""
    left = space.api.items(space.path("TenantBackup"))
    events = {event["reason"] for event in space.api.items(space.core("events")) if _is_ours(event)}
    return {
        "backups": {item["metadata"]["name"]: item["metadata"].get("finalizers") for item in left},
        "states": {item["metadata"]["name"]: item["status"]["state"] for item in left},
        "conditions": {
            name: conditions(space, kind, name)
            for kind, name in (("Tenant", "acme"), ("BackupSchedule", "yearly"), ("TenantBackup", "brief"))
        },
        "retention": status(space, "BackupSchedule", "yearly")["retention"],
        "events": sorted(events),
    }


def _is_ours(event: dict[str, Any]) -> bool:
    return bool(event.get("source", {}).get("component") == "tenant-backup-operator")


def life(space: Space, crash_at: str) -> tuple[bool, Counter[str]]:
    """Live through it with an operator that dies once; return whether it did, and pods by purpose."""
    the_objects(space)
    with Node(space.api, space.name) as node:
        operator = space.operator(crash_at)

        def over() -> bool:
            nonlocal operator
            if operator.poll() is not None:
                operator = space.operator()
            return settled(space)

        space.until(over, f"everything is done after a crash at {crash_at}", 240)
        for process in space.processes:
            process.kill()  # the end state is there: nobody waits for manners
            process.wait()
    return len(space.processes) > 1, Counter(job.split("-")[-2] for job in node.ran.elements())


@pytest.mark.timeout(3600)
def test_a_crash_at_any_write_deletes_what_is_to_go_and_nothing_else(new_space: Callable[[], Space]) -> None:
    """The held one and the newest one are left, and no data is deleted twice."""
    calm = new_space()
    died, ran = life(calm, "never:0")
    assert not died
    assert ran == PURPOSES
    expected = end_state(calm)
    assert expected["states"] == {"old-2": "Succeeded", "newest": "Succeeded", "brief": "Expired"}
    assert expected["backups"] == {"old-2": FINALIZERS, "newest": FINALIZERS, "brief": None}
    assert {"Pruned", "DataDeleted"} <= set(expected["events"])
    survived = 0
    for number in itertools.count():  # dying after one write is dying before the next
        space = new_space()
        died, ran = life(space, f"after:{number}" if number else "before:1")
        assert ran == PURPOSES, number
        assert end_state(space) == expected, number
        space.close()
        if not died:
            break
        survived += 1
    assert survived > len(calm.writes) // 2


def test_new_rules_are_shown_before_anything_goes(space: Space) -> None:
    """Nothing is deleted by rules that were not in status for an interval."""
    with Node(space.api, space.name):
        the_objects(space)
        space.api.do(
            "PATCH",
            space.path("BackupSchedule", "yearly"),
            {"spec": {"retention": {"keepLast": None, "keepDaily": 2}}},
        )
        space.operator()
        shown = space.until(
            lambda: (
                (found := status(space, "BackupSchedule", "yearly").get("retention", {})).get("toDelete")
                and found
            ),
            "the list is shown",
        )
        space.until(lambda: space.get("Tenant", "beta") is None, "everything else has been done")
        assert (shown["rules"], shown["kept"]) == ("keepDaily 2, keepFailed 3 in Etc/UTC", 3)
        assert shown["next"] == ["old-1"]
        assert space.get("TenantBackup", "old-1") is not None


def test_a_restore_keeps_what_it_is_to_read(space: Space) -> None:
    """Somebody may take a day to approve it; retention and expiry wait."""
    with Node(space.api, space.name):
        the_objects(space)
        for name in ("old-1", "brief"):
            source = {"source": {"backupRef": {"name": name}}}
            space.create("TenantRestore", f"back-{name}", replace(confirm=False, **source))
        space.operator()
        space.until(lambda: space.get("TenantBackup", "old-3") is None, "retention has deleted the other one")
        held = space.until(
            lambda: conditions(space, "TenantBackup", "brief").get("Expired"), "expiry says why it waits"
        )
        assert held == ("False", "Held")
        assert space.get("TenantBackup", "old-1") is not None


def test_a_tenant_whose_schedule_is_deleted_says_that_nobody_prunes(space: Space) -> None:
    """Its backups stay; a schedule of that name takes them over again."""
    with Node(space.api, space.name):
        the_objects(space)
        space.operator()
        space.until(lambda: settled(space), "retention has done its work")
        space.api.do("DELETE", space.path("BackupSchedule", "yearly"))
        space.until_condition("Tenant", "acme", "Unpruned")
        assert space.get("TenantBackup", "newest") is not None
        space.create("BackupSchedule", "yearly", SCHEDULE)
        space.until(lambda: "Unpruned" not in conditions(space, "Tenant", "acme"), "somebody prunes them")


def test_a_namespace_goes_away_with_all_that_holds_data(space: Space) -> None:
    """Tenants that are to take their backups along, held backups, and a restore with a kept database."""
    the_objects(space)
    space.create("TenantRestore", "back", replace())
    kept = {"state": "Succeeded", "previousDatabase": "app_old_01234567", "undoUntil": "2099-01-01T00:00:00Z"}
    space.api.do("PATCH", f"{space.path('TenantRestore', 'back')}/status", {"status": kept})
    space.operator()  # and no node: no Job can ever end
    path = f"/api/v1/namespaces/{space.name}"
    space.api.do("DELETE", path)
    space.until(lambda: space.api.call("GET", path).status_code == 404, "the namespace is gone", 120)


def test_a_backup_that_changed_since_it_was_read_is_not_deleted(
    space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody may hold it between our look and our deletion."""
    location = "kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when it was imported
    monkeypatch.setattr(location, str(space.api.kubeconfig))
    found = space.create("TenantBackup", "acme-1", BACKUP)["metadata"]
    uid, version = found["uid"], found["resourceVersion"]
    space.api.do("PATCH", space.path("TenantBackup", "acme-1"), {"metadata": {"labels": {HELD: ""}}})

    async def delete(version: str) -> None:
        cluster = await ApiServer.connect()
        try:
            await cluster.delete(KIND, space.name, "acme-1", uid=uid, version=version)
        finally:
            await cluster.close()

    asyncio.run(delete(version))
    held = space.get("TenantBackup", "acme-1")
    assert held is not None
    asyncio.run(delete(held["metadata"]["resourceVersion"]))
    assert space.get("TenantBackup", "acme-1") is None
