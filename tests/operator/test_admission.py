"""Letting backups in: nobody twice, nobody beyond the budget, and the next one at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from tenant_backup.cluster import BACKUP, SCHEDULE, TENANT, Kind
from tenant_backup.controllers.admission import Admission
from tenant_backup.controllers.roster import Roster
from tenant_backup.decisions.queue import Budget
from tenant_backup.decisions.verdicts import Ref
from tests.decisions.objects import NOW

STARTED = "2026-01-02T04:00:00Z"


def _backup(name: str, version: int = 1, *, schedule: str = "", **status: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "labels": {"tenantbackup.dev/schedule": schedule} if schedule else {},
    }
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}
    return {"metadata": metadata, "spec": spec, "status": status}


def _other(name: str, **spec: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-02T03:04:05Z",
    }
    return {"metadata": metadata, "spec": spec}


class _Jobs:
    """What the API server answers when it is asked for the Jobs of backups."""

    def __init__(self, *owners: str) -> None:
        self._owners = owners

    async def pages(self, _kind: Kind, _namespace: str, *, labels: str) -> AsyncIterator[dict[str, Any]]:
        assert labels == "tenantbackup.dev/purpose=backup"
        for owner in self._owners:
            yield {"metadata": {"labels": {"tenantbackup.dev/uid": f"uid-{owner}"}}}


class Door:
    """An admission with a roster, and who was woken."""

    def __init__(self, *names: str, total: int = 2) -> None:
        self.roster = Roster()
        self.woken: list[str] = []
        self.admission = Admission(self.roster, Budget(total, total), self._wake)
        self.roster.see(TENANT.name, _other("acme", database={"host": "pg", "port": 5432}))
        for name in names:
            self.roster.see(BACKUP.name, _backup(name))

    def _wake(self, ref: Ref) -> None:
        self.woken.append(ref.name)

    def asks(self, name: str) -> int:
        """Return its position; 0: it may start."""
        place = self.admission.ask(f"uid-{name}", NOW)
        return place.position if place else 0

    def sees(self, document: dict[str, Any], *, kind: str = BACKUP.name, deleted: bool = False) -> None:
        """What a watch event does."""
        self.admission.see(kind, document, deleted=deleted)

    def load(self, *jobs: str) -> None:
        """What the start of the operator does."""
        asyncio.run(self.admission.load(_Jobs(*jobs), ()))  # type: ignore[arg-type]


def test_what_was_let_in_counts_before_the_roster_shows_it() -> None:
    """Two workers that decide in the same moment must not both see the last free place."""
    door = Door("a", "b", "c", "d")
    assert [door.asks(name) for name in "abcd"] == [0, 0, 1, 2]


def test_asking_again_changes_nothing() -> None:
    """Each look at a backup asks."""
    door = Door("a", "b", "c", "d")
    for _ in range(3):
        assert [door.asks(name) for name in "abcd"] == [0, 0, 1, 2]
    assert door.woken == []


def test_the_next_one_is_woken_when_a_run_ends() -> None:
    """It need not look by itself; and who is woken has its place for certain."""
    door = Door("a", "b", "c", "d")
    for name in "abcd":
        door.asks(name)
    door.sees(_backup("a", 2, state="Running", startedAt=STARTED))
    assert door.woken == []
    door.sees(_backup("a", 3, state="Succeeded", startedAt=STARTED))
    assert door.woken == ["c"]
    assert [door.asks(name) for name in "dc"] == [1, 0]


def test_a_run_that_was_never_seen_to_start_frees_its_place_too() -> None:
    """A watch may show the end only."""
    door = Door("a", "b", "c")
    for name in "abc":
        door.asks(name)
    door.sees(_backup("b", 2, state="Failed"))
    assert door.woken == ["c"]


def test_a_backup_that_is_deleted_leaves_queue_and_budget() -> None:
    """Whether it ran or waited."""
    door = Door("a", "b", "c", "d")
    for name in "abcd":
        door.asks(name)
    door.sees(_backup("c"), deleted=True)
    door.sees(_backup("a"), deleted=True)
    assert door.woken == ["d"]


def test_who_was_let_in_and_cannot_start_makes_room() -> None:
    """Its Secret, its quota or its Tenant is its own affair."""
    door = Door("a", "b", "c", total=1)
    assert [door.asks(name) for name in "abc"] == [0, 1, 2]
    door.admission.leave("uid-a")
    assert door.woken == ["b"]
    assert door.asks("a") == 1


def test_a_job_that_exists_counts_after_a_restart_though_no_status_names_it() -> None:
    """The process before this one died between the Job and the status."""
    door = Door("a", "b", "c")
    door.load("b")
    assert [door.asks(name) for name in "abc"] == [0, 0, 1]


def test_what_the_status_says_runs_counts_after_a_restart() -> None:
    """Without a Job to be seen, too: it is about to be started again."""
    door = Door("c", "d")
    for name in "ab":
        door.roster.see(BACKUP.name, _backup(name, state="Running", startedAt=STARTED))
    door.load()
    assert [door.asks(name) for name in "cda"] == [1, 2, 0]


def test_the_line_of_before_stands_after_a_restart() -> None:
    """Who happens to be looked at first overtakes nobody."""
    door = Door("new", total=1)
    for name in "ab":
        door.roster.see(BACKUP.name, _backup(name, state="Queued"))
    door.load()
    assert door.asks("new") == 2
    assert door.woken == ["a"]
    assert door.asks("a") == 0


def test_a_backup_being_deleted_counts_while_its_job_is_there_and_no_longer() -> None:
    """Its pods may read the database to the last; deleting its data does not."""
    door = Door("b", total=1)
    removing = _backup("a", state="Running", startedAt=STARTED)
    removing["metadata"]["deletionTimestamp"] = STARTED
    door.roster.see(BACKUP.name, removing)
    door.admission.at_work("uid-a")
    assert door.asks("b") == 1
    door.admission.leave("uid-a")
    assert door.woken == ["b"]


def test_who_has_a_budget_of_its_own_keeps_to_the_smaller_one() -> None:
    """Two is the operator's."""
    door = Door()
    assert [door.admission.at_once(own) for own in (None, 1, 5)] == [2, 1, 2]


def test_a_larger_budget_lets_in_at_once() -> None:
    """The schedule's, which anybody may change at any time."""
    door = Door()
    tight = _other("nightly", budget={"total": 1})
    door.sees(tight, kind=SCHEDULE.name)
    for name in "abc":
        door.sees(_backup(name, schedule="nightly"))
        door.asks(name)
    assert door.woken == []
    roomier = _other("nightly", budget={"total": 5})
    roomier["metadata"]["resourceVersion"] = "2"
    door.sees(roomier, kind=SCHEDULE.name)
    assert door.woken == ["b"]  # two at once is the operator's own budget
