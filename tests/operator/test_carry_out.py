"""Creating a schedule's backup on the real API server, when the roster does not know what is there yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tenant_backup.cluster import SCHEDULE, Rejected
from tenant_backup.cluster.api_server import ApiServer
from tenant_backup.controllers.carry_out import CarryOut, ForeignObject
from tenant_backup.controllers.look import Look
from tenant_backup.controllers.roster import Roster
from tenant_backup.decisions.names import scheduled_backup, slot_label
from tenant_backup.decisions.plan import CreateBackup, Plan, RequestVerification
from tenant_backup.jobs.manifest import Runner
from tests.operator.conftest import Space
from tests.operator.test_end_to_end import BACKUP

SLOT = datetime(2024, 1, 15, 2, tzinfo=UTC)
NAME = scheduled_backup("nightly", "acme", SLOT)
LABELS = {
    f"tenantbackup.dev/{key}": value
    for key, value in {"schedule": "nightly", "tenant": "acme", "slot": slot_label(SLOT)}.items()
}
PLAN = Plan((CreateBackup(NAME, LABELS, BACKUP),), status={"lastRun": "2024-01-15T02:00:00Z"})
Carry = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
def carry_out(space: Space, monkeypatch: pytest.MonkeyPatch) -> Carry:
    """Carry a plan out with this roster, about a schedule that is there."""
    location = "kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"  # read when it was imported
    monkeypatch.setattr(location, str(space.api.kubeconfig))
    spec = {"schedule": "0 2 * * *", "tenants": ["acme"], "template": {"storeRef": {"name": "prod"}}}
    schedule = space.create("BackupSchedule", "nightly", spec)

    async def carry(roster: Roster, plan: Plan = PLAN) -> None:
        cluster = await ApiServer.connect()
        try:
            look = cast(Look, SimpleNamespace(courier=None, roster=roster))
            await CarryOut(cluster, Runner(image="runner:test"), look, SCHEDULE, schedule)(plan)
        finally:
            await cluster.close()

    return carry


def test_what_was_created_is_known_before_the_watch_tells(carry_out: Carry) -> None:
    """So that the next pass of a thousand tenants does not ask for the same ones again."""
    roster = Roster()
    asyncio.run(carry_out(roster))
    assert [backup.name for backup in roster.backups()] == [NAME]


def test_a_backup_that_an_earlier_pass_made_is_adopted(space: Space, carry_out: Carry) -> None:
    """It is the same object afterwards, and the slot has run."""
    before = space.create("TenantBackup", NAME, BACKUP, labels=LABELS)
    roster = Roster()
    asyncio.run(carry_out(roster))
    assert [backup.uid for backup in roster.backups()] == [before["metadata"]["uid"]]
    assert (space.get("BackupSchedule", "nightly") or {})["status"]["lastRun"] == "2024-01-15T02:00:00Z"


@pytest.mark.parametrize(
    "labels", [{}, {**LABELS, "tenantbackup.dev/schedule": "weekly"}], ids=["none", "of another schedule"]
)
def test_a_backup_that_others_made_is_refused_and_the_slot_has_not_run(
    space: Space, carry_out: Carry, labels: dict[str, str]
) -> None:
    """The status stays: it would say that the tenant was started."""
    space.create("TenantBackup", NAME, BACKUP, labels=labels)
    with pytest.raises(ForeignObject, match=NAME):
        asyncio.run(carry_out(Roster()))
    assert "lastRun" not in (space.get("BackupSchedule", "nightly") or {}).get("status", {})


def asked_for(space: Space) -> str:
    """What the backup is annotated with."""
    found = space.get("TenantBackup", NAME) or {}
    return str(found["metadata"].get("annotations", {}).get("tenantbackup.dev/verify", ""))


def test_a_verification_that_was_asked_for_is_known_before_the_watch_tells(
    space: Space, carry_out: Carry
) -> None:
    """So that the next pass of a thousand tenants counts it; a backup that is gone stops nothing."""
    space.create("TenantBackup", NAME, BACKUP, labels=LABELS)
    done = {"status": {"state": "Succeeded", "verification": {"completedAt": "2024-01-15T02:01:00Z"}}}
    version = space.api.do("PATCH", f"{space.path('TenantBackup', NAME)}/status", done)["metadata"][
        "resourceVersion"
    ]
    roster = Roster()
    wanted = (
        RequestVerification("gone", "Contents", version),
        RequestVerification(NAME, "Contents", version),
    )
    asyncio.run(carry_out(roster, Plan(wanted, status=PLAN.status)))
    assert asked_for(space) == "Contents"
    assert [(backup.name, backup.awaited) for backup in roster.backups()] == [(NAME, True)]
    assert (space.get("BackupSchedule", "nightly") or {})["status"]["lastRun"] == "2024-01-15T02:00:00Z"


def test_what_a_person_asked_for_meanwhile_is_not_overwritten(space: Space, carry_out: Carry) -> None:
    """The next look waits for it."""
    version = space.create("TenantBackup", NAME, BACKUP, labels=LABELS)["metadata"]["resourceVersion"]
    mine = {"metadata": {"annotations": {"tenantbackup.dev/verify": "mine"}}}
    space.api.do("PATCH", space.path("TenantBackup", NAME), mine)
    plan = Plan((RequestVerification(NAME, "Contents", version),), status=PLAN.status)
    asyncio.run(carry_out(Roster(), plan))
    assert asked_for(space) == "mine"


def test_a_backup_that_the_api_server_refuses_does_not_stop_the_others(
    space: Space, carry_out: Carry
) -> None:
    """One tenant's trouble is not another's; the slot is not settled."""
    refused = CreateBackup("first", LABELS, {**BACKUP, "storeRef": {"name": "NOT A NAME"}})
    with pytest.raises(Rejected):
        asyncio.run(carry_out(Roster(), Plan((refused, *PLAN.actions), status=PLAN.status)))
    assert space.get("TenantBackup", NAME)
    assert "lastRun" not in (space.get("BackupSchedule", "nightly") or {}).get("status", {})
