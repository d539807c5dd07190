"""Files beside a database, or alone: what a backup or restore of them is told, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import backup as backups
from tenant_backup.decisions import restore as restores
from tenant_backup.decisions import tenant as tenants
from tenant_backup.decisions import verification
from tenant_backup.decisions.imported import import_of
from tenant_backup.decisions.plan import Plan, Run
from tenant_backup.decisions.summaries import of_backup, of_tenant
from tests.decisions.objects import (
    FACTS,
    NOW,
    REPLACE,
    approved,
    at,
    backup,
    backup_seen,
    condition,
    document,
    job,
    restore,
    restore_seen,
    store,
    succeeded,
    tenant,
    tenant_seen,
)

UPLOADS = {
    "name": "uploads",
    "persistentVolumeClaim": {"claimName": "acme-uploads"},
    "exclude": ["cache/**"],
    "securityContext": {"runAsUser": 1000, "runAsGroup": 2000, "supplementalGroups": [3000]},
}
TOLD = contract.Volume("uploads", "acme-uploads", 1000, 2000, [3000], ["cache/**"])
BOTH = tenant(more={"files": [UPLOADS]})
ALONE = tenant(more={"database": None, "files": [UPLOADS]})
FILES = {"count": 7, "changed": 0, "skipped": 0}


def run_of(plan: Plan) -> Run:
    """The Job that a plan starts."""
    (run,) = [action for action in plan.actions if isinstance(action, Run)]
    return run


def reason_of(plan: Plan, kind: str) -> str:
    """Why it does not start; there must be no Job."""
    assert plan.status
    assert not [action for action in plan.actions if isinstance(action, Run)]
    return str(condition(plan.status, kind)["reason"])


@pytest.mark.parametrize(
    ("found", "contents", "database", "volumes"),
    [
        (tenant(), "All", "app", []),
        (tenant(), "Database", "app", []),
        (BOTH, "All", "app", [TOLD]),
        (BOTH, "Database", "app", []),
        (BOTH, "Files", "", [TOLD]),
        (ALONE, "All", "", [TOLD]),
        (ALONE, "Files", "", [TOLD]),
    ],
)
def test_a_backup_reads_what_its_contents_say(
    found: Any, contents: str, database: str, volumes: list[contract.Volume]
) -> None:
    """And only who reads the database gets its Secret."""
    run = run_of(backups.decide(backup_seen(tenant=found, backup=backup({"contents": contents})), NOW))
    assert isinstance(run.job, contract.Backup)
    assert (run.job.database.name, run.job.files, run.job.contents) == (database, volumes, contents)
    assert run.secrets.database == ("acme-db" if database else "")
    assert contract.from_json(contract.to_json(run.job)) == run.job


MODULES = [
    {"name": "hr", "tables": ["public.a"], "files": ["uploads:hr/**", "uploads:*.hr"]},
    {"name": "crm", "files": ["scans:**"]},
    {"name": "billing", "tables": ["public.b"]},
]
HR, CRM = contract.Paths("hr", ["hr/**", "*.hr"]), contract.Paths("crm", ["**"])


@pytest.mark.parametrize(
    ("only", "volumes"),
    [
        ([], [("uploads", [HR], []), ("scans", [CRM], [])]),
        (["hr", "billing"], [("uploads", [HR], ["hr"])]),
        (["hr", "crm"], [("uploads", [HR], ["hr"]), ("scans", [CRM], ["crm"])]),
        (["billing"], []),
    ],
)
def test_modules_choose_files(only: list[str], volumes: list[Any]) -> None:
    """A volume of which none of them has anything is not mounted at all."""
    files = [UPLOADS, {**UPLOADS, "name": "scans"}]
    found = tenant(more={"files": files, "modules": MODULES})
    run = run_of(backups.decide(backup_seen(tenant=found, backup=backup({"modules": only})), NOW))
    assert isinstance(run.job, contract.Backup)
    assert [(one.name, one.modules, one.only_modules) for one in run.job.files] == volumes
    assert contract.from_json(contract.to_json(run.job)) == run.job


@pytest.mark.parametrize(
    ("database", "only", "contents", "message"),
    [
        (True, [], "All", "module crm of Tenant acme has files of volume scans, which is not"),
        (True, ["hr"], "Database", "module crm of Tenant acme has files of volume scans, which is not"),
        (True, ["billing"], "Files", "no module of billing has files"),
        (False, ["billing"], "All", "no module of billing has files"),
    ],
)
def test_modules_without_the_files_they_should_have_are_refused(
    database: bool, only: list[str], contents: str, message: str
) -> None:
    """A misspelt volume, or nothing to back up."""
    modules = MODULES if "crm" in message else [MODULES[0], MODULES[2]]
    more = {"files": [UPLOADS], "modules": modules} | ({} if database else {"database": None})
    seen = backup_seen(tenant=tenant(more=more), backup=backup({"modules": only, "contents": contents}))
    plan = backups.decide(seen, NOW)
    assert reason_of(plan, "Stalled") == Reason.INVALID_SPEC
    assert message in str(plan.status)


@pytest.mark.parametrize(("found", "contents"), [(tenant(), "Files"), (ALONE, "Database")])
def test_a_backup_of_what_the_tenant_has_not_does_not_start(found: Any, contents: str) -> None:
    """It would be empty, and look like one."""
    plan = backups.decide(backup_seen(tenant=found, backup=backup({"contents": contents})), NOW)
    assert reason_of(plan, "Stalled") == Reason.INVALID_SPEC


@pytest.mark.parametrize(("found", "database"), [(BOTH, "app"), (ALONE, "")])
def test_a_look_at_a_tenant_walks_its_volumes(found: Any, database: str) -> None:
    """As who would read them, on the node where they are in use; what was found is in the status."""
    run = run_of(tenants.decide(tenant_seen(found, node="n1"), NOW))
    assert isinstance(run.job, contract.Preflight)
    assert (run.job.database.name, run.job.files, run.node) == (database, [TOLD], "n1")
    assert contract.from_json(contract.to_json(run.job)) == run.job
    walked = {"files": 7, "bytes": 42 << 20, "complete": True}
    ended = job("preflight", generation=1, outcome=succeeded({"volumes": {"uploads": walked}}))
    status = tenants.decide(tenant_seen(found, jobs=(ended,)), NOW).status
    assert status
    ready = condition(status, "Ready")
    assert (ready["status"], "its files can be read" in ready["message"]) == ("True", True)
    assert (status["files"], "database" in status) == ([{"name": "uploads", **walked}], False)
    assert status["estimate"] == {"duration": "6s", "basis": "Size"}


def test_tenants_without_a_database_share_no_budget() -> None:
    """They are on no server."""
    spec = {"files": [UPLOADS]}
    one, other = (of_tenant(document("Tenant", name, spec)) for name in ("acme", "globex"))
    assert one.server != other.server


def test_what_upload_counted_of_files_is_in_the_status() -> None:
    """Beside tables and rows; what changed while it was read makes it Degraded, and good all the same."""
    quiet = backups.decide(backup_seen(jobs=(job(outcome=succeeded({**FACTS, "files": FILES})),)), at(4))
    assert quiet.status
    assert quiet.status["contents"] == {"tables": 3, "rows": 12, "files": 7}
    assert quiet.status["health"] == "Healthy"
    facts = {**FACTS, "files": {"count": 7, "changed": 2, "skipped": 1}}
    moved = backups.decide(backup_seen(jobs=(job(outcome=succeeded(facts)),)), at(4))
    assert moved.status
    assert moved.status["contents"] == {
        "tables": 3,
        "rows": 12,
        "files": 7,
        "changedFiles": 2,
        "skippedFiles": 1,
    }
    assert moved.status["health"] == "Degraded"
    assert "2 files changed while they were read" in condition(moved.status, "Succeeded")["message"]
    known = document("TenantBackup", "acme-1", {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}})
    summary = of_backup(known | {"status": dict(moved.status)})
    assert (summary.good, summary.doubted, summary.verified is not None) == (True, None, True)


def test_a_verification_does_not_make_changed_files_whole() -> None:
    """What is stored is as it was written: of two moments."""
    status = {
        **{key: FACTS[key] for key in ("backupId", "checksum", "encryption")},
        "state": "Succeeded",
        "health": "Unknown",
        "contents": {"tables": 3, "rows": 12, "files": 7, "changedFiles": 2},
    }
    seen = backup_seen(status=status)
    run = run_of(verification.decide_verification(seen, NOW))
    facts = {"health": "Healthy", "verification": {"level": "Checksum", "message": "all well"}}
    done = job("verify", name=run.name, outcome=succeeded(facts))
    plan = verification.decide_verification(backup_seen(status=status, jobs=(done,)), at(9))
    assert plan.status
    assert (plan.status["health"], "healthyAt" in plan.status["verification"]) == ("Degraded", True)


def test_an_import_says_what_the_backup_is_of() -> None:
    """So that retention and restores know it."""
    found = {
        "id": "acme_2024-01-10_02-00-00",
        "location": "s3://b/x",
        "sha256": "c" * 64,
        "started": "2024-01-10T02:00:00Z",
        "completed": "2024-01-10T02:01:40Z",
        "encryption": "Age",
        "consistency": "PerFile",
        "bytes": {"logical": 1, "stored": 1, "added": 1},
        "tables": 0,
        "rows": 0,
        "modules": [],
        "contents": "Files",
        "files": 7,
        "changedFiles": 1,
        "skippedFiles": 0,
    }
    made = import_of(store(), "acme", found, NOW)
    assert made.spec["contents"] == "Files"
    assert made.status["contents"] == {"tables": 0, "rows": 0, "files": 7, "changedFiles": 1}


def filling(**changes: Any) -> dict[str, Any]:
    """The spec of a restore into volumes."""
    target: dict[str, Any] = {"tenantRef": {"name": "acme"}, "files": [{"name": "uploads"}], **changes}
    return {"target": target}


def test_a_restore_fills_the_volumes_it_names_and_nothing_else() -> None:
    """The Tenant's own, or another claim; without a database no Secret of one is mounted."""
    run = run_of(restores.decide(restore_seen(tenant=BOTH, restore=restore(filling())), NOW))
    assert isinstance(run.job, contract.Restore)
    assert (run.job.files, run.job.database) == ([TOLD], contract.NO_DATABASE)
    assert (run.secrets.database, run.secrets.admin, run.secrets.identity) == ("", "", "acme-id")
    other = [{"name": "uploads", "persistentVolumeClaim": {"claimName": "copy"}}]
    spec = filling(database="app_copy", files=other)
    both = run_of(restores.decide(restore_seen(tenant=BOTH, restore=restore(spec)), NOW))
    assert isinstance(both.job, contract.Restore)
    assert [volume.claim for volume in both.job.files] == ["copy"]
    assert (both.job.target_database, both.secrets.admin) == ("app_copy", "pg-admin")


@pytest.mark.parametrize(
    ("fields", "reason", "kind"),
    [
        ({"tenant": tenant(), "restore": restore(filling())}, Reason.INVALID_SPEC, "Stalled"),
        ({"tenant": ALONE}, Reason.INVALID_SPEC, "Stalled"),
        ({"tenant": ALONE, "restore": restore(approved(at(60)))}, Reason.INVALID_SPEC, "Stalled"),
        ({"tenant": BOTH, "backup": backup({"contents": "Files"})}, Reason.PARTIAL_BACKUP, "Failed"),
        (
            {"tenant": BOTH, "backup": backup({"contents": "Files"}), "restore": restore(approved(at(60)))},
            Reason.PARTIAL_BACKUP,
            "Failed",
        ),
        (
            {"tenant": BOTH, "backup": backup({"contents": "Database"}), "restore": restore(filling())},
            Reason.PARTIAL_BACKUP,
            "Failed",
        ),
    ],
)
def test_a_restore_of_what_is_not_there_does_not_start(fields: Any, reason: Reason, kind: str) -> None:
    """In the backup, or at the Tenant, which says as whom files are written."""
    assert reason_of(restores.decide(restore_seen(**fields), NOW), kind) == reason


def test_whoever_approves_a_replace_is_told_that_files_stay() -> None:
    """Nothing is left out in silence."""
    plan = restores.decide(restore_seen(tenant=BOTH, restore=restore(REPLACE)), NOW)
    assert plan.status
    assert "leave its files as they are" in condition(plan.status, "Stalled")["message"]


def test_what_came_back_is_counted_over_all_volumes() -> None:
    """With what is not as it was, by volume."""
    placed = {
        "uploads": {"files": 7, "bytes": 70, "skipped": ["2 files have another owner or group"]},
        "exports": {"files": 1, "bytes": 5, "skipped": []},
    }
    loaded = {"restored": {"tables": 3, "rows": 12, "bytes": 99}, "placed": placed}
    for facts, restored in [
        (loaded, {"tables": 3, "rows": 12, "files": 8, "bytes": 174}),
        ({"placed": placed}, {"files": 8, "bytes": 75}),
    ]:
        ended = job("restore", outcome=succeeded(facts))
        plan = restores.decide(restore_seen(tenant=BOTH, restore=restore(filling()), jobs=(ended,)), at(9))
        assert plan.status
        assert plan.status["state"] == "Succeeded"
        assert plan.status["restored"] == restored
        assert plan.status["skipped"] == ["uploads: 2 files have another owner or group"]
