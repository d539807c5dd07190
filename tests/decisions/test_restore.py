"""TenantRestore: what holds it back, what ends it, and what happens to the previous database."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.observed import Ended, RestoreSeen
from tenant_backup.decisions.plan import Plan, Run
from tenant_backup.decisions.restore import decide
from tests.decisions.objects import (
    FACTS,
    NOW,
    REPLACE,
    approved,
    at,
    backup,
    condition,
    job,
    kinds,
    restore,
    restore_seen,
    succeeded,
    tenant,
)

GOOD = {"state": "Succeeded", "health": "Healthy", **FACTS}
LOADED = {
    "restored": {"tables": 3, "rows": 12, "bytes": 99},
    "check": {"rowsMatch": True, "constraintsValid": True},
    "previousDatabase": "app_old_0123abcd",
}


def runs(plan: Plan) -> list[Run]:
    """The Jobs a plan starts."""
    return [action for action in plan.actions if isinstance(action, Run)]


def test_a_restore_into_a_new_database_starts_by_itself() -> None:
    """It replaces nothing, so nobody has to approve it."""
    plan = decide(restore_seen(), NOW)
    (run,) = runs(plan)
    told = run.job
    assert isinstance(told, contract.Restore)
    assert (told.target_database, told.database.name) == ("app_copy", "app")
    assert told.manifest_sha256 == "a" * 64
    assert told.signing_key == "ab" * 32
    assert (run.secrets.admin, run.secrets.identity) == ("pg-admin", "acme-id")
    assert plan.status
    assert plan.status["state"] == "Running"
    assert plan.status["resolvedBackup"]["backupId"] == FACTS["backupId"]


def test_its_own_identity_goes_before_the_tenants() -> None:
    """For whoever keeps identities outside the cluster."""
    (run,) = runs(decide(restore_seen(restore=restore({"identitySecretRef": {"name": "mine"}})), NOW))
    assert run.secrets.identity == "mine"


@pytest.mark.parametrize(
    ("fields", "reason", "kind"),
    [
        ({"backup": None}, Reason.BACKUP_NOT_FOUND, "Stalled"),
        ({"backup": backup({"tenantRef": {"name": "other"}})}, Reason.CROSS_TENANT_ACCESS, "Failed"),
        ({"backup_status": {"state": "Failed"}}, Reason.BACKUP_NOT_FOUND, "Failed"),
        ({"backup_status": {"state": "Running"}}, Reason.PENDING, "Reconciling"),
        ({"backup_status": GOOD | {"health": "Corrupt"}}, Reason.CHECKSUM_MISMATCH, "Failed"),
        ({"tenant": None}, Reason.TENANT_NOT_FOUND, "Reconciling"),
        ({"store": None}, Reason.STORE_NOT_FOUND, "Reconciling"),
        ({"tenant": tenant(keys=False)}, Reason.TENANT_NOT_READY, "Reconciling"),
        ({"tenant": tenant(adminCredentialsSecretRef=None)}, Reason.PERMISSION_DENIED, "Stalled"),
        ({"tenant": tenant(encryption={"recipients": []})}, Reason.KEY_MISSING, "Stalled"),
        ({"restore": restore({"target": {"tenantRef": {"name": "acme"}}})}, Reason.INVALID_SPEC, "Failed"),
        ({"tenant": tenant(name="app_copy")}, Reason.NAME_TAKEN, "Failed"),
        ({"restore": restore(REPLACE)}, Reason.APPROVAL_PENDING, "Stalled"),
        (
            {"restore": restore(REPLACE), "tenant": tenant(engine="MariaDB")},
            Reason.APPROVAL_PENDING,
            "Stalled",
        ),
        (
            {"restore": restore(approved(at(60))), "backup": backup({"modules": ["hr"]})},
            Reason.PARTIAL_BACKUP,
            "Failed",
        ),
        ({"rival": "other"}, Reason.PENDING, "Reconciling"),
        (
            {"status": {"resolvedBackup": {"name": "acme-1", "checksum": "x"}}},
            Reason.BACKUP_NOT_FOUND,
            "Failed",
        ),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_touched(
    fields: dict[str, Any], reason: Reason, kind: str
) -> None:
    """No Job, and the reason."""
    plan = decide(restore_seen(**fields), NOW)
    assert not runs(plan)
    assert plan.status
    assert condition(plan.status, kind)["reason"] == reason
    assert condition(plan.status, "Succeeded")["reason"] == reason
    assert condition(plan.status, "Succeeded")["status"] != "True"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (REPLACE, "will swap database app"),
        (approved(at(60), "other"), "the live database is app"),
        (approved(at(-1)), "ran out"),
        (approved(at(0)), "ran out"),
        (approved(at(24 * 3600 + 1)), "more than 24 hours"),
    ],
)
def test_a_replace_waits_for_a_word_that_names_the_live_database(spec: dict[str, Any], says: str) -> None:
    """The message has the command to give it."""
    plan = decide(restore_seen(restore=restore(spec)), NOW)
    assert not runs(plan)
    assert plan.status
    assert plan.status["state"] == "ApprovalPending"
    message = condition(plan.status, "Stalled")["message"]
    assert says in message
    assert "kubectl -n backups patch tenantrestore back-1 --type merge -p" in message


@pytest.mark.parametrize("seconds", [1, 3600, 24 * 3600])
def test_an_approved_replace_starts(seconds: int) -> None:
    """For as long as the word holds."""
    plan = decide(restore_seen(restore=restore(approved(at(seconds)))), NOW)
    (run,) = runs(plan)
    assert isinstance(run.job, contract.Restore)
    assert (run.job.strategy, run.job.target_database) == ("Replace", "app")


def test_an_approval_that_ran_out_does_not_stop_what_has_started() -> None:
    """Neither a Job that runs, nor one that vanished and starts again."""
    spec = restore(approved(at(-60)))
    running = restore_seen(restore=spec, jobs=(job("restore", running=True),))
    assert decide(running, NOW).status == decide(running, NOW).status
    vanished = restore_seen(restore=spec, status={"startedAt": "2024-01-15T14:20:00Z"})
    assert runs(decide(vanished, NOW))


def test_what_a_job_was_told_is_recorded_even_after_a_crash() -> None:
    """A previous pass may have created it and died before the status patch."""
    first = decide(restore_seen(), NOW)
    (run,) = runs(first)
    later = decide(restore_seen(jobs=(job("restore", running=True, told=run.job),)), NOW)
    assert first.status
    assert later.status
    assert later.status["resolvedBackup"] == first.status["resolvedBackup"]


@pytest.mark.parametrize(
    "reason",
    [
        Reason.PACK_MISSING,
        Reason.SIGNATURE_INVALID,
        Reason.WRONG_KEY,
        Reason.LOAD_FAILED,
        Reason.ROWS_DIFFER,
        Reason.CHECKSUM_MISMATCH,
        Reason.BACKUP_NOT_FOUND,
    ],
)
def test_a_failed_load_is_a_failed_restore(reason: Reason) -> None:
    """With the stage's own words."""
    seen = restore_seen(jobs=(job("restore", ended=1, outcome=Ended(False, reason, "no")),))
    plan = decide(seen, NOW)
    assert plan.status
    assert plan.status["state"] == "Failed"
    assert condition(plan.status, "Failed")["reason"] == reason


def replaced(**fields: Any) -> RestoreSeen:
    """A Replace that has just succeeded, with the status it got."""
    spec = fields.pop("restore", restore(approved(at(60))))
    status = decide(restore_seen(restore=spec, jobs=(job("restore", outcome=succeeded(LOADED)),)), NOW).status
    assert status
    return restore_seen(restore=spec, status=status, **fields)


def undo_wanted() -> Any:
    """The same object after somebody set undo."""
    return restore(approved(at(60)) | {"undo": True}, generation=2)


def test_a_replace_keeps_the_previous_database_for_a_while() -> None:
    """And says for how long."""
    seen = replaced()
    assert seen.status["state"] == "Succeeded"
    assert seen.status["previousDatabase"] == "app_old_0123abcd"
    assert seen.status["undoUntil"] == "2024-01-16T14:30:25Z"
    plan = decide(seen, at(10))
    assert not runs(plan)
    assert plan.retry_in == 24 * 3600 - 10


def test_the_previous_database_is_dropped_when_its_time_is_over() -> None:
    """By a Job with admin credentials only."""
    (run,) = runs(decide(replaced(), at(24 * 3600)))
    assert isinstance(run.job, contract.Swap)
    assert run.job.action == "DropPrevious"
    assert run.secrets.admin == "pg-admin"
    assert (run.secrets.database, run.secrets.store, run.secrets.keys) == ("", "", "")


def test_once_dropped_nothing_says_that_it_is_kept() -> None:
    """Status names only what exists."""
    done = (job("swap", generation=2, outcome=succeeded({})),)
    plan = decide(replaced(jobs=done), at(24 * 3600 + 5))
    assert plan.status
    assert "previousDatabase" not in plan.status
    assert "undoUntil" not in plan.status
    assert plan.status["state"] == "Succeeded"


def test_a_drop_that_failed_is_tried_again() -> None:
    """For ever, with pauses; meanwhile the database stays."""
    failed = job(
        "swap", generation=2, created=at(24 * 3600), ended=1, outcome=Ended(False, Reason.DUMP_FAILED, "no")
    )
    soon, later = (decide(replaced(jobs=(failed,)), at(24 * 3600 + wait)) for wait in (5, 31))
    assert not runs(soon)
    assert [run.attempt for run in runs(later)] == [2]


def test_undo_switches_back_while_it_can() -> None:
    """The state says so, and the other database is kept as long."""
    (run,) = runs(decide(replaced(restore=undo_wanted()), at(60)))
    assert isinstance(run.job, contract.Swap)
    assert run.job.action == "Undo"
    done = (job("swap", generation=1, outcome=succeeded({})),)
    plan = decide(replaced(restore=undo_wanted(), jobs=done), at(70))
    assert plan.status
    assert plan.status["state"] == "Undone"
    assert condition(plan.status, "Undone")["status"] == "True"
    assert condition(plan.status, "Succeeded")["status"] == "True"
    assert plan.status["undoUntil"] == "2024-01-16T14:31:35Z"


def test_an_undo_under_way_is_not_overtaken_by_the_drop() -> None:
    """Its time ran out while the Job was running."""
    seen = replaced(
        restore=undo_wanted(), jobs=(job("swap", generation=1, created=at(24 * 3600 - 5), running=True),)
    )
    plan = decide(seen, at(24 * 3600 + 5))
    assert not runs(plan)


def test_after_an_undo_the_replaced_database_is_dropped_in_its_turn() -> None:
    """It was kept as long as the previous one."""
    status = {**replaced().status, "state": "Undone", "undoUntil": "2024-01-16T14:31:35Z"}
    seen = restore_seen(restore=undo_wanted(), status=status)
    assert not runs(decide(seen, at(3600)))
    (run,) = runs(decide(seen, at(25 * 3600)))
    assert isinstance(run.job, contract.Swap)
    assert run.job.action == "DropPrevious"


def test_an_undo_that_comes_too_late_is_answered() -> None:
    """Nothing is kept any more, and it says what to do instead."""
    kept = ("previousDatabase", "undoUntil")
    status = {key: value for key, value in replaced().status.items() if key not in kept}
    plan = decide(restore_seen(restore=undo_wanted(), status=status), at(26 * 3600))
    assert plan.status
    assert condition(plan.status, "Undone")["status"] == "False"
    assert condition(plan.status, "Undone")["reason"] == Reason.DATABASE_NOT_FOUND


def test_an_undo_that_failed_says_why() -> None:
    """And the restore itself is still done."""
    failed = (
        job("swap", generation=1, created=at(60), ended=1, outcome=Ended(False, Reason.NAME_TAKEN, "no")),
    )
    plan = decide(replaced(restore=undo_wanted(), jobs=failed), at(65))
    assert plan.status
    assert condition(plan.status, "Undone")["reason"] == Reason.NAME_TAKEN
    assert "Succeeded" in kinds(plan.status)


def test_deleting_a_restore_drops_nothing() -> None:
    """The previous database stays, whoever deletes the object."""
    gone = restore(approved(at(60)), deletionTimestamp="2024-01-15T14:30:20Z")
    assert decide(restore_seen(restore=gone, status=replaced().status), at(48 * 3600)) == Plan()
