"""A real schedule on a real API server: one backup per tenant and slot, whatever is in the way."""

from __future__ import annotations

import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenant_backup.contract.reasons import Reason
from tenant_backup.contract.results import Result
from tenant_backup.decisions.instants import rfc3339
from tenant_backup.decisions.names import scheduled_backup, slot_label
from tenant_backup.decisions.wishes import is_awaited, scheduled_request
from tests.operator.conftest import Space
from tests.operator.node import FACTS, Node, all_is_well
from tests.operator.test_end_to_end import BACKUP, STORE, TENANT

SCHEDULE: dict[str, Any] = {
    "schedule": "* * * * *",
    "tenants": ["acme", "beta"],
    "template": {"storeRef": {"name": "prod"}},
}
ON_REQUEST = {**SCHEDULE, "schedule": "0 0 1 1 *"}  # fires by runNow only, but for one minute of the year


def two_tenants(space: Space) -> None:
    """Ready, with an operator that is gone again."""
    operator = space.operator()
    space.create("BackupStore", "prod", STORE)
    for name in ("acme", "beta"):
        space.create("Tenant", name, TENANT, labels={"tier": "gold"})
        space.until_condition("Tenant", name, "Ready")
    space.until_condition("BackupStore", "prod", "Ready")
    space.until(
        lambda: all("ttlSecondsAfterFinished" in job["spec"] for job in space.api.items(space.jobs)),
        "nothing is left to write",
    )
    operator.send_signal(signal.SIGTERM)
    operator.wait(20)


def made_by(space: Space, schedule: str) -> dict[str, list[dict[str, Any]]]:
    """The schedule's backups by tenant."""
    found: dict[str, list[dict[str, Any]]] = {}
    selector = f"tenantbackup.dev/schedule={schedule}"
    for item in space.api.items(space.path("TenantBackup"), labelSelector=selector):
        found.setdefault(item["spec"]["tenantRef"]["name"], []).append(item)
    return found


def slots(space: Space, schedule: str) -> dict[str, list[str]]:
    """The slots each tenant was backed up in."""
    made = made_by(space, schedule)
    return {
        tenant: [item["metadata"]["labels"]["tenantbackup.dev/slot"] for item in items]
        for tenant, items in made.items()
    }


def status(space: Space, schedule: str) -> dict[str, Any]:
    """What the schedule says of itself."""
    return dict((space.get("BackupSchedule", schedule) or {}).get("status", {}))


def all_succeeded(space: Space, schedule: str, count: int) -> bool:
    """Whether so many tenants are done, and the schedule has counted it."""
    found = status(space, schedule)
    counted = found.get("tenants", {}).get("succeeded") == count
    return counted and "lastSuccess" in found and found["lastSuccess"] == found.get("lastRun")


def test_a_slot_runs_once_for_each_tenant_whenever_the_operator_dies(space: Space) -> None:
    """It dies right after it created the first tenant's backup; lastRun waits for the second."""
    with Node(space.api, space.name) as node:
        two_tenants(space)
        space.create("BackupSchedule", "each-minute", SCHEDULE)
        dying = space.operator("after:1:/tenantbackups")
        space.until(lambda: dying.poll() is not None, "the operator has died in the slot", 90)
        assert len(slots(space, "each-minute")) == 1
        assert "lastRun" not in status(space, "each-minute")
        space.operator()
        space.until(lambda: all_succeeded(space, "each-minute", 2), "both tenants are done")
        made = slots(space, "each-minute")
    assert made["acme"] == made["beta"]
    assert len(status(space, "each-minute")["nextRuns"]) == 3
    ran = {job: count for job, count in node.ran.items() if "-backup-" in job}
    assert set(ran.values()) == {1}
    assert len(ran) == 2 * len(made["acme"])


def test_run_now_and_a_new_tenant_are_backed_up_at_once(space: Space) -> None:
    """The new one by its label, in the slot that ran."""
    selected = {**ON_REQUEST, "tenantSelector": {"matchLabels": {"tier": "gold"}}, "runNow": "please"}
    del selected["tenants"]
    with Node(space.api, space.name):
        two_tenants(space)
        space.create("BackupSchedule", "gold", selected)
        space.operator()
        space.until(lambda: all_succeeded(space, "gold", 2), "both tenants are done")
        space.create("Tenant", "new", TENANT, labels={"tier": "silver"})
        space.until_condition("Tenant", "new", "Ready")
        space.api.do("PATCH", space.path("Tenant", "new"), {"metadata": {"labels": {"tier": "gold"}}})
        space.until(lambda: all_succeeded(space, "gold", 3), "the new tenant is done")
        made = slots(space, "gold")
    assert made["acme"] == made["beta"] == made["new"]
    assert len(made["new"]) == 1
    assert status(space, "gold")["runNow"]["value"] == "please"


def test_a_failed_backup_is_tried_again_as_a_backup_of_its_own(space: Space) -> None:
    """What failed stays to be looked at; the slot has succeeded."""
    failed: set[str] = set()

    def answer(purpose: str, container: str) -> tuple[int, Result]:
        if purpose == "backup" and container == "dump" and not failed:
            failed.add(container)
            return 64, Result(False, {}, Reason.DUMP_FAILED, "server closed the connection")
        return all_is_well(purpose, container)

    tries = {**ON_REQUEST, "tenants": ["acme"], "retries": {"backoff": "1s"}, "runNow": "x"}
    with Node(space.api, space.name, answer):
        two_tenants(space)
        space.create("BackupSchedule", "tries", tries)
        space.operator()
        space.until(lambda: all_succeeded(space, "tries", 1), "the second try has succeeded")
        items = made_by(space, "tries")["acme"]
    states = {item["metadata"]["name"]: item["status"]["state"] for item in items}
    first = min(states, key=len)
    assert states == {first: "Failed", f"{first}-2": "Succeeded"}


def test_a_foreign_backup_in_the_way_is_named_and_the_others_go_on(space: Space) -> None:
    """It is left as it is."""
    with Node(space.api, space.name):
        two_tenants(space)
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        names = [scheduled_backup("minutely", "acme", now + timedelta(minutes=number)) for number in (1, 2)]
        before = [space.create("TenantBackup", name, BACKUP)["metadata"]["uid"] for name in names]
        space.create("BackupSchedule", "minutely", SCHEDULE)
        space.operator()
        found = space.until(
            lambda: "beta" in made_by(space, "minutely") and space.get("BackupSchedule", "minutely"),
            "the slot has come",
            90,
        )
        space.until_condition("BackupSchedule", "minutely", "Stalled")
        found = space.get("BackupSchedule", "minutely") or found
    said = {item["type"]: item for item in found["status"]["conditions"]}["Stalled"]
    assert said["reason"] == "ForeignObject"
    assert names[0] in said["message"] or names[1] in said["message"]
    after = [space.get("TenantBackup", name) or {} for name in names]
    assert [item["metadata"]["uid"] for item in after] == before
    assert all("tenantbackup.dev/slot" not in item["metadata"].get("labels", {}) for item in after)
    assert "acme" not in made_by(space, "minutely")


def backed_up(space: Space, schedule: str, slot: datetime) -> list[str]:
    """Both tenants have a good backup of that slot, as an operator left it; return their names."""
    names = []
    for tenant in ("acme", "beta"):
        labels = {"schedule": schedule, "tenant": tenant, "slot": slot_label(slot)}
        names.append(scheduled_backup(schedule, tenant, slot))
        space.create(
            "TenantBackup",
            names[-1],
            {**BACKUP, "tenantRef": {"name": tenant}},
            labels={f"tenantbackup.dev/{key}": value for key, value in labels.items()},
        )
        moment = rfc3339(slot)
        done = {"completedAt": moment, "healthyAt": moment, "level": "Checksum", "message": ""}
        status = {"state": "Succeeded", "health": "Healthy", "observedGeneration": 1, "verification": done}
        status |= {key: FACTS["upload"][key] for key in ("backupId", "checksum")}
        status |= {"startedAt": moment, "completedAt": moment}
        space.api.do("PATCH", f"{space.path('TenantBackup', names[-1])}/status", {"status": status})
    return names


def test_a_slot_verifies_each_tenant_once_whenever_the_operator_dies(space: Space) -> None:
    """One after the other, by the budget; it was down when the slot came, and dies after the first annotation."""
    at_once: list[int] = []

    def answer(purpose: str, container: str) -> tuple[int, Result]:
        if container != "examine":
            return all_is_well(purpose, container)
        items = space.api.items(space.path("TenantBackup"))
        at_once.append(sum(is_awaited(one["spec"], one["metadata"], one["status"]) for one in items))
        return 0, Result(True, {"health": "Healthy", "verification": {"level": "Contents", "message": ""}})

    slot = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=30)
    verification = {"schedule": f"{slot.minute} * * * *", "level": "Contents"}
    with Node(space.api, space.name, answer) as node:
        two_tenants(space)
        spec = {**ON_REQUEST, "budget": {"total": 1}, "verification": verification}
        space.create("BackupSchedule", "s", spec)
        due = {"status": {"verification": {"nextRun": rfc3339(slot)}}}
        space.api.do("PATCH", f"{space.path('BackupSchedule', 's')}/status", due)
        names = backed_up(space, "s", slot - timedelta(hours=3))
        dying = space.operator(f"after:1:/tenantbackups/{names[0]}")
        space.until(lambda: dying.poll() is not None, "the operator has died in the slot")
        assert "lastRun" not in status(space, "s")["verification"]
        space.operator()
        found = space.until(
            lambda: (
                status(space, "s")["verification"].get("pending") == 0 and status(space, "s")["verification"]
            ),
            "both tenants are verified",
        )
        backups = [space.get("TenantBackup", name) or {} for name in names]
    expected = {"lastRun": rfc3339(slot), "nextRun": rfc3339(slot + timedelta(hours=1))}
    assert found == expected | {"verified": 2, "failed": 0, "pending": 0}
    request = scheduled_request("Contents", "s", slot)
    assert [one["metadata"]["annotations"]["tenantbackup.dev/verify"] for one in backups] == [request] * 2
    assert [one["status"]["verification"]["requested"] for one in backups] == [request] * 2
    assert set(at_once) == {1}
    assert [count for job, count in node.ran.items() if "-verify-" in job] == [1, 1]


def live(space: Space, schedule: str, crash_at: str) -> bool:
    """Have a schedule back up two tenants once, with an operator that dies; return whether it did."""
    space.create("BackupSchedule", schedule, {**ON_REQUEST, "runNow": "once"})
    operator = space.operator(crash_at)
    died = False

    def over() -> bool:
        nonlocal operator, died
        if operator.poll() is not None:
            operator, died = space.operator(), True
        expiring = all("ttlSecondsAfterFinished" in job["spec"] for job in space.api.items(space.jobs))
        return expiring and all_succeeded(space, schedule, 2)

    space.until(over, f"both tenants are done after a crash at {crash_at}", 120)
    operator.kill()  # the end state is there: nobody waits for manners
    operator.wait()
    return died


def end_state(space: Space, schedule: str) -> dict[str, Any]:
    """What a life leaves, without the moment in which it was lived."""
    found, made = status(space, schedule), made_by(space, schedule)
    slot = datetime.fromisoformat(found["runNow"]["slot"])
    expected = {name: [scheduled_backup(schedule, name, slot)] for name in ("acme", "beta")}
    assert {name: [item["metadata"]["name"] for item in items] for name, items in made.items()} == expected
    assert found["lastRun"] == found["settledThrough"] == found["runNow"]["slot"]
    events = space.api.items(space.core("events"), fieldSelector=f"involvedObject.name={schedule}")
    return {
        "tenants": found["tenants"],
        "failing": found.get("failing"),
        "missed": found.get("lastMissed"),
        "conditions": [(item["type"], item["status"], item["reason"]) for item in found["conditions"]],
        "events": [event["reason"] for event in events],
        "modes": [[item["spec"]["mode"] for item in items] for items in made.values()],
    }


@pytest.mark.timeout(1200)
def test_a_crash_at_any_write_neither_loses_nor_doubles_a_backup(new_space: Callable[[], Space]) -> None:
    """SIGKILL of a real process before and after each write, from the first status to the last count."""
    space = new_space()
    with Node(space.api, space.name) as node:
        two_tenants(space)
        start = len(space.writes)
        assert not live(space, "s", "never:0")
        writes = len(space.writes) - start
        expected = end_state(space, "s")
        number = 0
        while live(space, f"s{number}", f"after:{number}" if number else "before:1"):
            assert end_state(space, f"s{number}") == expected, f"after:{number}"
            number += 1  # dying after one write is dying before the next
    assert number > writes // 2
    assert all(count == 1 for count in node.ran.values())
