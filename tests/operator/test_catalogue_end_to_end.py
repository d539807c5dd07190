"""An old store in a fresh cluster: its backups become objects once, can be restored, and nothing is backed up.

Only the node is played: it answers for the listing and the inspection as the stages do.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.contract.results import Result, encode
from tests.operator.conftest import Space
from tests.operator.node import Node
from tests.operator.test_end_to_end import STORE, TENANT

IDS = [f"acme_2024-01-{day}_02-00-00" for day in (10, 11, 12)]


def found(backup_id: str) -> dict[str, Any]:
    """What `catalogue.described` says of a backup."""
    return {
        "id": backup_id,
        "location": f"s3://backups/acme/manifests/{backup_id}",
        "sha256": (backup_id[15:17] * 32),
        "name": "nightly",
        "uid": "of-a-lost-cluster",
        "started": "2024-01-10T02:00:00Z",
        "completed": "2024-01-10T02:01:40Z",
        "encryption": "Age",
        "consistency": "Snapshot",
        "bytes": {"logical": 1000, "stored": 2048, "added": 512},
        "tables": 3,
        "rows": 12,
        "modules": [],
        "dataAt": {"database": "2024-01-10T02:00:03Z"},
        "contents": "All",
    }


class OldStore(Node):
    """Has these backups, and lists them two in a page."""

    there: tuple[str, ...] = tuple(IDS)

    def _container(self, purpose: str, container: dict[str, Any]) -> dict[str, Any]:
        ended = super()._container(purpose, container)
        told = {one["name"]: one.get("value", "") for one in container["env"]}
        job = contract.from_json(told[contract.ENVIRONMENT_VARIABLE])
        answer = self._list(job) if isinstance(job, contract.Catalogue) else None
        answer = self._inspect(job) if isinstance(job, contract.Inspect) else answer
        if answer is not None:
            code = 0 if answer.ok else 64
            ended["state"]["terminated"] |= {"exitCode": code, "message": encode(answer).decode()}
        return ended

    def _list(self, job: contract.Catalogue) -> Result:
        after = job.after.partition("/")[2]
        rest = [backup_id for backup_id in self.there if backup_id > after]
        page = rest[:2]
        listed = [found(backup_id) if job.details else backup_id for backup_id in page]
        item = {"slug": "acme", "tenant": "acme", "cluster": "lost-1", "backups": listed}
        upto = f"acme/{page[-1]}" if len(rest) > len(page) else ""
        return Result(True, {"backups": len(page), "next": upto, "items": [item]})

    def _inspect(self, job: contract.Inspect) -> Result:
        if job.backup_id not in self.there:
            return Result(False, {}, Reason.BACKUP_NOT_FOUND, "there is no such backup")
        return Result(True, {key: value for key, value in found(job.backup_id).items() if key != "modules"})


def backups(space: Space) -> dict[str, dict[str, Any]]:
    """The TenantBackups by the id they stand for."""
    items = space.api.items(space.path("TenantBackup"))
    return {item["spec"].get("imported", {}).get("backupId", ""): item for item in items}


def catalogue(space: Space) -> dict[str, Any]:
    """What the store says of its listing."""
    return dict((space.get("BackupStore", "prod") or {}).get("status", {}).get("catalogue", {}))


def ask(space: Space, value: str) -> None:
    """Ask for an import, and wait until it is done."""
    asked = {"metadata": {"annotations": {"tenantbackup.dev/import": value}}}
    space.api.do("PATCH", space.path("BackupStore", "prod"), asked)
    space.until(lambda: catalogue(space).get("requested") == value, f"import {value} is done")


def test_an_old_store_becomes_objects_once_and_can_be_restored(space: Space) -> None:
    """What a person deletes comes back only on request; no database is read for any of it."""
    space.operator()
    space.create("Tenant", "acme", TENANT)
    space.create("BackupStore", "prod", STORE)
    with OldStore(space.api, space.name) as node:
        space.until(lambda: "completedAt" in catalogue(space), "the store is listed")
        made = backups(space)
        assert sorted(made) == IDS
        assert {item["status"]["state"] for item in made.values()} == {"Succeeded"}
        assert {item["spec"]["deletionPolicy"] for item in made.values()} == {"Retain"}
        assert catalogue(space)["imported"] == 3
        assert "tenantbackup.dev/adopt=lost-1" in catalogue(space)["message"]

        name = made[IDS[1]]["metadata"]["name"]
        target = {"tenantRef": {"name": "acme"}, "database": "app_copy"}
        source = {"backupRef": {"name": name}}
        space.create("TenantRestore", "copy", {"source": source, "target": target, "strategy": "NewDatabase"})
        done = space.until_condition("TenantRestore", "copy", "Succeeded")
        assert done["status"]["resolvedBackup"] == {
            "name": name,
            "backupId": IDS[1],
            "checksum": made[IDS[1]]["status"]["checksum"],
        }

        space.api.do("DELETE", space.path("TenantBackup", name))
        space.until(
            lambda: sorted(backups(space)) == [IDS[0], IDS[2]], "it is gone at once: nothing holds it"
        )
        ask(space, "please")
        assert sorted(backups(space)) == IDS
        assert catalogue(space)["imported"] == 1
    purposes = {job.rsplit("-", 2)[1] for job in node.ran}
    assert purposes == {"preflight", "probe", "catalogue", "restore"}


def test_data_that_vanishes_and_comes_back_is_told(space: Space) -> None:
    """By an Event, as health and as the reason of the condition; once each."""
    space.operator()
    space.create("BackupStore", "prod", STORE)
    with OldStore(space.api, space.name) as node:
        space.until(lambda: "completedAt" in catalogue(space), "the store is listed")
        for number in (1, 2):
            node.there = (IDS[0], IDS[2])
            ask(space, f"gone {number}")
            gone = backups(space)[IDS[1]]
            assert gone["status"]["health"] == "Corrupt"
            assert gone["status"]["conditions"][0]["reason"] == "BackupNotFound"
            events = [event["reason"] for event in space.api.items(space.core("events"))]
            assert events.count("BackupNotFound") == 1
        assert backups(space)[IDS[0]]["status"]["health"] == "Unknown"
        node.there = tuple(IDS)
        ask(space, "back")
        back = backups(space)[IDS[1]]
    assert back["status"]["health"] == "Unknown"
    assert back["status"]["conditions"][0]["reason"] == "Succeeded"


def test_an_imported_object_from_git_is_inspected_and_never_backed_up(space: Space) -> None:
    """One that is there gets its status; one that is not has failed, and stays so."""
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}, "deletionPolicy": "Retain"}
    space.operator()
    space.create("BackupStore", "prod", STORE)
    space.create("Tenant", "acme", TENANT)
    with OldStore(space.api, space.name) as node:
        node.there = ()
        space.until(lambda: "completedAt" in catalogue(space), "the store is listed")
        node.there = tuple(IDS)
        space.create(
            "TenantBackup", "kept", {**spec, "imported": {"backupId": IDS[0]}, "verification": "None"}
        )
        absent = {"backupId": "acme_2023-01-01_00-00-00"}
        space.create("TenantBackup", "absent", {**spec, "imported": absent, "verification": "None"})
        kept = space.until_condition("TenantBackup", "kept", "Succeeded")
        failed = space.until_condition("TenantBackup", "absent", "Failed")
    assert kept["status"]["backupId"] == IDS[0]
    assert failed["status"]["conditions"][0]["reason"] == "BackupNotFound"
    assert not [job for job in node.ran if "-backup-" in job]


def life(space: Space, crash_at: str) -> tuple[bool, Counter[str]]:
    """Import an old store with an operator that dies once; return whether it did, and pods by purpose."""
    space.create("BackupStore", "prod", STORE)
    with OldStore(space.api, space.name) as node:
        operator = space.operator(crash_at)

        def over() -> bool:
            nonlocal operator
            if operator.poll() is not None:
                operator = space.operator()
            there = backups(space)
            settled = all(item.get("status", {}).get("state") == "Succeeded" for item in there.values())
            jobs = space.api.items(space.jobs)
            recorded = all("ttlSecondsAfterFinished" in job["spec"] for job in jobs)
            return "completedAt" in catalogue(space) and sorted(there) == IDS and settled and recorded

        space.until(over, f"everything is imported after a crash at {crash_at}", 120)
        for process in space.processes:
            process.kill()  # the end state is there: nobody waits for manners
            process.wait()
    return len(space.processes) > 1, Counter(job.rsplit("-", 2)[1] for job in node.ran.elements())


def end_state(space: Space) -> str:
    """What is left, without what must differ between two lives."""
    objects = {key: [item["spec"], item["status"]] for key, item in backups(space).items()}
    status = (space.get("BackupStore", "prod") or {})["status"]
    status["catalogue"].pop("imported")  # a pass that died did not count what it created
    text = json.dumps([objects, status], sort_keys=True)
    times = ("lastTransitionTime", "startedAt", "completedAt")
    return json.dumps(_without(json.loads(text), times), indent=1, sort_keys=True)


def _without(value: Any, keys: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        return {key: "…" if key in keys else _without(item, keys) for key, item in value.items()}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


@pytest.mark.timeout(1800)
def test_a_crash_at_any_write_of_an_import_changes_nothing(new_space: Callable[[], Space]) -> None:
    """The same objects, each once, none of them a backup of the live database."""
    calm = new_space()
    died, ran = life(calm, "never:0")
    assert not died
    assert ran == Counter({"probe": 1, "catalogue": 2})
    expected = end_state(calm)
    for number in range(1, len(calm.writes) + 1):  # dying after one write is dying before the next
        space = new_space()
        died, ran = life(space, f"after:{number}")
        ran.pop("inspect", None)  # of an object whose status was not written any more
        assert ran == Counter({"probe": 1, "catalogue": 2}), number
        assert end_state(space) == expected, number
        space.close()
        assert died or number == len(calm.writes), number


def test_keys_that_were_brought_back_are_used(space: Space) -> None:
    """Under the name that `recover-keys` prints; a trusted key without its Secret changes nothing else."""
    from tenant_backup.decisions.names import key_secret

    trusted = ["ed25519:" + "cd" * 32, "ab" * 32]
    name = key_secret("acme", "ab" * 32)
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "immutable": True}
    space.api.do("POST", space.core("secrets"), secret)
    encryption = TENANT["encryption"] | {"trustedSigningKeys": trusted}
    space.create("Tenant", "acme", {**TENANT, "encryption": encryption})
    space.create("Tenant", "other", {**TENANT, "encryption": encryption})
    space.operator()
    with Node(space.api, space.name):
        mine = space.until_condition("Tenant", "acme", "Ready")["status"]
        other = space.until_condition("Tenant", "other", "Ready")["status"]
    assert (mine["signingKey"], mine["keySecret"], mine["keysReady"]) == ("ab" * 32, name, True)
    assert other["signingKey"] not in ("ab" * 32, "cd" * 32)
    assert {item["metadata"]["name"] for item in space.api.items(space.core("secrets"))} == {
        name,
        other["keySecret"],
    }
