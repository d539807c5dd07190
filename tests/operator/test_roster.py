"""The roster: what it remembers follows what the watches report, in whatever order that arrives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tenant_backup.cluster import BACKUP, NOTIFIER, RESTORE, SCHEDULE, STORE, TENANT, Kind
from tenant_backup.controllers.roster import Roster


def _backup(name: str, version: int = 1, schedule: str = "nightly", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": f"uid-{name}",
            "resourceVersion": str(version),
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "labels": {"tenantbackup.dev/schedule": schedule, "tenantbackup.dev/slot": "202601020304"},
        },
        "spec": {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}},
        "status": status,
    }


def _tenant(name: str, **labels: str) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": labels,
    }
    return {"metadata": metadata, "spec": {"database": {"host": "pg", "port": 5432}}}


class _Listed:
    """What a list request answers; `meanwhile` happens between two of its items."""

    def __init__(self, documents: list[dict[str, Any]], meanwhile: Any = lambda: None) -> None:
        self._documents, self._meanwhile = documents, meanwhile

    async def pages(self, kind: Kind, _namespace: str) -> AsyncIterator[dict[str, Any]]:
        if kind is BACKUP:
            for document in self._documents:
                yield document
                self._meanwhile()


def test_a_backup_is_found_by_schedule_tenant_and_store_until_it_is_deleted() -> None:
    roster = Roster()
    roster.see(BACKUP.name, _backup("a"))
    for found in (
        roster.of_schedule("ns", "nightly"),
        roster.of_tenant("ns", "acme"),
        roster.of_store("ns", "prod"),
        roster.unfinished(),
    ):
        assert [backup.name for backup in found] == ["a"]
    roster.see(BACKUP.name, _backup("a"), deleted=True)
    assert not roster.backups()
    assert not roster.of_schedule("ns", "nightly")
    assert not roster.unfinished()


def test_a_backup_whose_run_ended_is_not_among_the_unfinished() -> None:
    roster = Roster()
    roster.see(BACKUP.name, _backup("a", 1, state="Running"))
    roster.see(BACKUP.name, _backup("a", 2, state="Succeeded", health="Healthy"))
    assert not roster.unfinished()
    assert roster.of_tenant("ns", "acme")[0].good


def test_an_older_look_at_an_object_does_not_replace_a_newer_one() -> None:
    roster = Roster()
    roster.see(BACKUP.name, _backup("a", 10, state="Succeeded"))
    roster.see(BACKUP.name, _backup("a", 9, state="Running"))
    assert roster.of_tenant("ns", "acme")[0].state == "Succeeded"


def test_a_backup_that_got_another_schedules_label_moves_there() -> None:
    roster = Roster()
    roster.see(BACKUP.name, _backup("a", 1, "nightly"))
    roster.see(BACKUP.name, _backup("a", 2, "weekly"))
    assert not roster.of_schedule("ns", "nightly")
    assert [backup.name for backup in roster.of_schedule("ns", "weekly")] == ["a"]


def test_a_list_forgets_what_was_deleted_while_no_watch_looked() -> None:
    roster = Roster()
    roster.see(BACKUP.name, _backup("a"))
    roster.see(BACKUP.name, _backup("b"))
    asyncio.run(roster.load(_Listed([_backup("b")]), ()))  # type: ignore[arg-type]
    assert [backup.name for backup in roster.backups()] == ["b"]


def test_what_is_deleted_during_a_list_does_not_come_back_with_its_next_page() -> None:
    roster = Roster()
    roster.see(BACKUP.name, _backup("b"))

    def deleted() -> None:
        roster.see(BACKUP.name, _backup("b"), deleted=True)

    asyncio.run(roster.load(_Listed([_backup("a"), _backup("b")], deleted), ()))  # type: ignore[arg-type]
    assert [backup.name for backup in roster.backups()] == ["a"]


def test_what_is_created_during_a_list_stays() -> None:
    roster = Roster()

    def created() -> None:
        roster.see(BACKUP.name, _backup("new"))

    asyncio.run(roster.load(_Listed([_backup("a")], created), ()))  # type: ignore[arg-type]
    assert sorted(backup.name for backup in roster.backups()) == ["a", "new"]


def test_tenants_are_found_by_all_labels_they_must_have() -> None:
    roster = Roster()
    roster.see(TENANT.name, _tenant("gold", tier="gold", region="eu"))
    roster.see(TENANT.name, _tenant("silver", tier="silver", region="eu"))
    assert [tenant.name for tenant in roster.tenants("ns", {"tier": "gold", "region": "eu"})] == ["gold"]
    assert [tenant.name for tenant in roster.tenants("ns")] == ["gold", "silver"]
    assert not roster.tenants("elsewhere")


def _store(version: int, **status: Any) -> dict[str, Any]:
    metadata = {"name": "prod", "namespace": "ns", "uid": "uid-prod", "resourceVersion": str(version)}
    spec = {"volume": {}, "capacity": {"limit": "1Gi", "warnAt": 80}}
    return {"metadata": metadata, "spec": spec, "status": status}


def test_stores_and_schedules_are_remembered_as_they_were_last_seen_until_they_are_deleted() -> None:
    roster = Roster()
    schedule = {**_tenant("nightly"), "spec": {"suspend": True, "tenants": ["acme"]}}
    roster.see(SCHEDULE.name, schedule)
    roster.see(STORE.name, _store(2, usedBytes=7))
    roster.see(STORE.name, _store(1, usedBytes=5))
    assert [(store.used, store.limit) for store in roster.stores()] == [(7, 2**30)]
    assert [(found.suspended, found.tenants) for found in roster.schedules()] == [(True, ("acme",))]
    roster.see(STORE.name, _store(2), deleted=True)
    roster.see(SCHEDULE.name, schedule, deleted=True)
    assert not roster.stores()
    assert not roster.schedules()


def test_notifiers_and_restores_are_known_until_they_are_deleted() -> None:
    roster = Roster()
    spec = {"source": {"backupRef": {"name": "a"}}, "target": {"tenantRef": {"name": "acme"}}}
    restore = {"metadata": _backup("r")["metadata"], "spec": spec, "status": {"state": "Failed"}}
    notifier = {"metadata": _backup("n")["metadata"], "spec": {}}
    roster.see(RESTORE.name, restore)
    roster.see(NOTIFIER.name, notifier)
    assert [(one.name, one.tenant, one.state) for one in roster.restores()] == [("r", "acme", "Failed")]
    assert [one.name for one in roster.notifiers("ns")] == ["n"]
    assert not roster.notifiers("elsewhere")
    roster.see(RESTORE.name, restore, deleted=True)
    roster.see(NOTIFIER.name, notifier, deleted=True)
    assert not roster.restores()
    assert not roster.notifiers("ns")
