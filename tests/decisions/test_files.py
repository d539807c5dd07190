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
    moments = {
        "database": "2024-01-15T14:30:21Z",
        "filesFrom": "2024-01-15T14:30:22Z",
        "filesTo": "2024-01-15T14:30:23Z",
    }
    facts = {**FACTS, "files": {"count": 7, "changed": 2, "skipped": 1}, "dataAt": moments}
    moved = backups.decide(backup_seen(jobs=(job(outcome=succeeded(facts)),)), at(4))
    assert moved.status
    assert moved.status["contents"] == {
        "tables": 3,
        "rows": 12,
        "files": 7,
        "changedFiles": 2,
        "skippedFiles": 1,
    }
    assert moved.status["dataAt"] == moments
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
        "dataAt": {"filesFrom": "2024-01-10T02:00:05Z", "filesTo": "2024-01-10T02:01:20Z"},
    }
    made = import_of(store(), "acme", found, NOW)
    assert made.spec["contents"] == "Files"
    assert made.status["contents"] == {"tables": 0, "rows": 0, "files": 7, "changedFiles": 1}
    assert made.status["dataAt"] == found["dataAt"]


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


def replacing(database: str | None = None, confirmed: str | None = None, **confirm: Any) -> dict[str, Any]:
    """The spec of a Replace of the files, with the database or without, and somebody's word."""
    return {**approved(at(60), confirmed, **confirm), **filling(database=database)}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (REPLACE, "swap database app for the restored one and leave its files as they are"),
        (
            REPLACE | filling(),
            "replace all files of uploads (claim acme-uploads) and leave database app as it is: stop who uses them",
        ),
        (
            REPLACE | filling(database="app"),
            "swap database app for the restored one and replace all files of up",
        ),
        (
            REPLACE | filling(database="app"),
            'confirm\\":{\\"database\\":\\"app\\",\\"files\\":[\\"uploads\\"],',
        ),
        (replacing("app", "app"), "approval.confirm.files is not set, but files of uploads are replaced"),
        (
            replacing(None, None, files=["others"]),
            "approval.confirm.files is others, but files of uploads are",
        ),
        (replacing("app", files=["uploads"]), "database is not set, but the live database is app"),
        (replacing(None, "app", files=["uploads"]), "database is app, but no database is replaced"),
        (approved(at(60), files=["uploads"]), "files is uploads, but no files are replaced"),
    ],
)
def test_whoever_approves_a_replace_is_told_and_names_all_that_goes(spec: dict[str, Any], says: str) -> None:
    """Nothing is replaced, or left out, in silence."""
    plan = restores.decide(restore_seen(tenant=BOTH, restore=restore(spec)), NOW)
    assert plan.status
    assert reason_of(plan, "Stalled") == Reason.APPROVAL_PENDING
    assert says in condition(plan.status, "Stalled")["message"]


@pytest.mark.parametrize(
    ("spec", "database", "files"),
    [
        (approved(at(60)), "app", []),
        (replacing("app", "app", files=["uploads"]), "app", [TOLD]),
        (replacing(files=["uploads"]), "", [TOLD]),
    ],
)
def test_a_replace_is_of_what_its_target_names(
    spec: dict[str, Any], database: str, files: list[contract.Volume]
) -> None:
    """Without files it is the database; who restores files alone gets no Secret of one."""
    run = run_of(restores.decide(restore_seen(tenant=BOTH, restore=restore(spec)), NOW))
    assert isinstance(run.job, contract.Restore)
    assert (run.job.database.name, run.job.files, run.secrets.admin) == (
        database,
        files,
        "pg-admin" if database else "",
    )


def merging(*patterns: str, confirmed: bool = True) -> dict[str, Any]:
    """The spec of a Merge, with somebody's word or without."""
    word = (
        {"approval": {"confirm": {"files": ["uploads"], "expires": at(60).isoformat()}}} if confirmed else {}
    )
    return {"strategy": "Merge", "select": {"files": list(patterns)}, **filling(), **word}


def test_a_merge_waits_for_a_word_and_tells_each_volume_its_patterns() -> None:
    """Files that have the same name are replaced, so somebody has to mean it; no Secret of a database is mounted."""
    plan = restores.decide(
        restore_seen(tenant=BOTH, restore=restore(merging("uploads:a", confirmed=False))), NOW
    )
    assert plan.status
    assert reason_of(plan, "Stalled") == Reason.APPROVAL_PENDING
    message = condition(plan.status, "Stalled")["message"]
    assert "put what select.files means among the files of uploads (claim acme-uploads)" in message
    run = run_of(
        restores.decide(restore_seen(tenant=BOTH, restore=restore(merging("uploads:a", "uploads:b:c"))), NOW)
    )
    assert isinstance(run.job, contract.Restore)
    assert (run.job.strategy, run.job.database, run.secrets.admin) == ("Merge", contract.NO_DATABASE, "")
    assert [volume.select for volume in run.job.files] == [["a", "b:c"]]
    done = job("restore", outcome=succeeded({"placed": {"uploads": {"files": 1, "bytes": 5, "skipped": []}}}))
    ended = restores.decide(
        restore_seen(tenant=BOTH, restore=restore(merging("uploads:a")), jobs=(done,)), NOW
    )
    assert ended.status
    assert ended.status["previousFiles"] == ["uploads"]
    assert "those of its files that were selected" in condition(ended.status, "Succeeded")["message"]


@pytest.mark.parametrize("patterns", [("exports:a",), ("uploads:a", "exports:a")])
def test_a_selection_and_its_target_name_the_same_volumes(patterns: tuple[str, ...]) -> None:
    """A pattern without its volume would mean nothing, a volume without a pattern get nothing."""
    for spec in (merging(*patterns), filling() | {"select": {"files": list(patterns)}}):
        assert (
            reason_of(restores.decide(restore_seen(tenant=BOTH, restore=restore(spec)), NOW), "Failed")
            == Reason.INVALID_SPEC
        )


def test_only_a_privileged_volume_has_more_rights_than_its_user() -> None:
    """Said by the Tenant, for backups and restores alike."""
    found = tenant(more={"files": [UPLOADS | {"privileged": True}]})
    run = run_of(backups.decide(backup_seen(tenant=found), NOW))
    again = run_of(restores.decide(restore_seen(tenant=found, restore=restore(filling())), NOW))
    for one in (run, again):
        assert isinstance(one.job, contract.Backup | contract.Restore)
        assert [volume.privileged for volume in one.job.files] == [True]


def test_a_replace_of_another_database_does_not_start() -> None:
    """Its name would be a mistake, or another strategy's."""
    plan = restores.decide(
        restore_seen(tenant=BOTH, restore=restore(replacing("copy", "app", files=["uploads"]))), NOW
    )
    assert reason_of(plan, "Failed") == Reason.INVALID_SPEC


@pytest.mark.parametrize("database", [None, "app"])
def test_files_that_were_replaced_are_kept_put_back_and_dropped_with_the_database(
    database: str | None,
) -> None:
    """By the one Job that does it for both; status names what is kept as long as it is."""
    spec = replacing(database, database, files=["uploads"])
    loaded = (
        {"restored": {"tables": 3, "rows": 12, "bytes": 99}, "previousDatabase": "app_old_1"}
        if database
        else {}
    )
    ended = job(
        "restore",
        outcome=succeeded({**loaded, "placed": {"uploads": {"files": 7, "bytes": 70, "skipped": []}}}),
    )
    plan = restores.decide(restore_seen(tenant=BOTH, restore=restore(spec), jobs=(ended,)), NOW)
    assert plan.status
    assert (plan.status["previousFiles"], plan.status["undoUntil"]) == (["uploads"], "2024-01-16T14:30:25Z")
    kept: dict[str, Any] = {"tenant": BOTH, "status": plan.status}
    undo = restore(spec | {"undo": True}, generation=2)
    for seen, when, action in [
        (restore_seen(**kept, restore=undo), at(60), "Undo"),
        (restore_seen(**kept, restore=restore(spec)), at(24 * 3600), "DropPrevious"),
    ]:
        run = run_of(restores.decide(seen, when))
        assert isinstance(run.job, contract.Swap)
        assert (run.job.action, run.job.files) == (action, [TOLD])
        assert (run.job.database.name, run.secrets.admin) == (("app", "pg-admin") if database else ("", ""))
        assert contract.from_json(contract.to_json(run.job)) == run.job
    done = job("swap", generation=2, outcome=succeeded({}))
    plan = restores.decide(restore_seen(**kept, restore=restore(spec), jobs=(done,)), at(24 * 3600 + 5))
    assert plan.status
    assert not {"previousDatabase", "previousFiles", "undoUntil"} & plan.status.keys()
    late = restores.decide(restore_seen(tenant=BOTH, status=plan.status, restore=undo), at(25 * 3600))
    assert late.status
    reason = Reason.DATABASE_NOT_FOUND if database else Reason.FILES_NOT_FOUND
    assert condition(late.status, "Undone")["reason"] == reason


def test_what_is_kept_waits_for_a_tenant_that_does_not_name_its_volume_any_more() -> None:
    """Nothing is forgotten: it goes on when the volume is named again."""
    status = {"state": "Succeeded", "previousFiles": ["uploads"], "undoUntil": "2024-01-15T14:30:25Z"}
    plan = restores.decide(restore_seen(status=status, restore=restore(replacing(files=["uploads"]))), at(60))
    assert (plan.actions, plan.status, len(plan.wait_for)) == ((), None, 1)


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
