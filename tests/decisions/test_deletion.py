"""Deleting a TenantBackup: Job first, data second, object last; a namespace is never held."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.backup import decide
from tenant_backup.decisions.observed import BackupSeen, Ended
from tenant_backup.decisions.plan import Announce, ReleaseData, RemoveJob, Run
from tests.decisions.objects import NOW, at, backup, backup_seen, condition, job, succeeded

DELETED = {"deletionTimestamp": "2024-01-15T14:30:25Z", "finalizers": ["tenantbackup.dev/data"]}


def deleted(**fields: Any) -> BackupSeen:
    """A backup that somebody deleted at NOW."""
    known: dict[str, Any] = {
        "backup": backup(**DELETED),
        "status": {"backupId": "acme_1", "state": "Succeeded"},
    }
    return backup_seen(**(known | fields))


def reasons(seen: BackupSeen, seconds: float = 1) -> list[str]:
    """The Events a pass would post; and that the object may go."""
    plan = decide(seen, at(seconds))
    assert any(isinstance(action, ReleaseData) for action in plan.actions)
    return [action.reason for action in plan.actions if isinstance(action, Announce)]


def test_a_running_job_is_stopped_before_its_data_is_deleted() -> None:
    """With its pods: the Job is there until the last one is gone."""
    plan = decide(deleted(jobs=(job(running=True),)), NOW)
    assert plan.actions == (RemoveJob("x-backup", "uid-job"),)
    waiting = decide(deleted(jobs=(job(running=True, removing=True),)), NOW)
    assert waiting.actions == ()


def test_a_backup_that_never_ran_goes_at_once() -> None:
    """There is nothing of it in the store; its finalizer is from its creation."""
    plan = decide(deleted(status={"state": "Queued"}), NOW)
    assert (plan.actions, plan.status) == ((ReleaseData(),), None)
    unsure = backup(**DELETED | {"finalizers": ["tenantbackup.dev/data", "foregroundDeletion"]})
    (run,) = decide(deleted(status={"state": "Queued"}, backup=unsure), NOW).actions
    assert isinstance(run, Run)
    assert isinstance(run.job, contract.Delete)


def test_a_job_that_no_status_names_is_recorded_before_it_is_stopped() -> None:
    """We may have died after creating it; once it is gone nobody knows that something may be in the store."""
    running = (job(running=True),)
    first = decide(deleted(status={"state": "Queued"}, jobs=running), NOW)
    assert first.actions == ()
    assert first.status
    assert "startedAt" in first.status
    assert decide(deleted(status=first.status, jobs=running), NOW).actions == (
        RemoveJob("x-backup", "uid-job"),
    )
    (run,) = decide(deleted(status=first.status), NOW).actions
    assert isinstance(run, Run)


def test_then_a_job_of_the_store_deletes_the_data() -> None:
    """The dying backup does not own it: foreground deletion would collect it."""
    (run,) = decide(deleted(), NOW).actions
    assert isinstance(run, Run)
    assert isinstance(run.job, contract.Delete)
    assert run.owner
    assert run.owner.kind == "BackupStore"
    assert (run.job.uid, run.job.backup_id) == ("uid-acme-1", "acme_1")
    assert run.secrets.store == "s3"


def test_the_tenant_may_be_gone_by_then() -> None:
    """Its slug is in the recorded backup id."""
    (run,) = decide(deleted(tenant=None, status={"backupId": "slug-x_2024-01-15_14-30-20"}), NOW).actions
    assert isinstance(run, Run)
    assert isinstance(run.job, contract.Delete)
    assert run.job.tenant.slug == "slug-x"


def test_when_the_data_is_gone_the_object_goes() -> None:
    """And an Event tells."""
    assert reasons(deleted(jobs=(job("delete", outcome=succeeded({})),))) == ["DataDeleted"]


def test_a_failed_deletion_is_tried_again_and_says_why() -> None:
    """The object stays until the data is gone."""
    ended = Ended(False, Reason.STORE_PERMISSION_DENIED, "AccessDenied")
    seen = deleted(jobs=(job("delete", ended=1, outcome=ended),))
    plan = decide(seen, at(5))
    assert plan.status
    assert condition(plan.status, "Stalled")["reason"] == Reason.STORE_PERMISSION_DENIED
    assert plan.status["state"] == "Succeeded"
    (again,) = [action for action in decide(seen, at(21)).actions if isinstance(action, Run)]
    assert again.attempt == 2


@pytest.mark.parametrize(
    "reason",
    [Reason.SECRET_NOT_FOUND, Reason.KEY_MISSING, Reason.STORE_UNAVAILABLE, Reason.VOLUME_UNAVAILABLE],
)
def test_a_store_that_is_gone_lets_the_object_go_after_ten_minutes(reason: Reason) -> None:
    """The data stays, and an Event says so."""
    seen = deleted(jobs=(job("delete", created=at(300), ended=1, outcome=Ended(False, reason, "no")),))
    assert not any(isinstance(action, ReleaseData) for action in decide(seen, at(599)).actions)
    assert reasons(seen, 600) == ["DataRetained"]


def test_a_store_object_that_is_gone_does_the_same() -> None:
    """Until then the status names it."""
    seen = deleted(store=None)
    plan = decide(seen, at(599))
    assert plan.status
    assert condition(plan.status, "Reconciling")["reason"] == Reason.STORE_NOT_FOUND
    assert reasons(seen, 600) == ["DataRetained"]


def test_a_namespace_that_goes_away_is_never_held() -> None:
    """Nor is the kind itself; even while a Job runs."""
    assert reasons(deleted(terminating=True, jobs=(job(running=True),))) == ["DataRetained"]


def test_without_our_finalizer_there_is_nothing_to_do() -> None:
    """Nothing was ever started, or the data stays on purpose."""
    seen = deleted(backup=backup(deletionTimestamp="2024-01-15T14:30:25Z"))
    assert decide(seen, NOW).actions == ()


def test_label_hold_keeps_the_data_of_an_object_that_somebody_deletes() -> None:
    """The object waits and says which label to remove; a running Job is stopped all the same."""
    held = backup(**DELETED, labels={"tenantbackup.dev/hold": "audit"})
    plan = decide(deleted(backup=held), at(1))
    assert plan.actions == ()
    assert plan.status
    assert condition(plan.status, "Stalled")["reason"] == Reason.HELD
    assert "tenantbackup.dev/hold" in condition(plan.status, "Stalled")["message"]
    assert plan.status["state"] == "Succeeded"
    assert len(decide(deleted(backup=held, jobs=(job("verify", running=True),)), at(1)).actions) == 1


def test_label_hold_never_holds_a_namespace() -> None:
    """The data stays anyhow."""
    held = backup(**DELETED, labels={"tenantbackup.dev/hold": ""})
    assert reasons(deleted(backup=held, terminating=True)) == ["DataRetained"]


def test_a_verification_is_stopped_before_the_data_is_deleted() -> None:
    """It would find the damage that we do."""
    plan = decide(deleted(jobs=(job("verify", running=True),)), at(1))
    assert plan.actions == (RemoveJob("x-verify", "uid-job"),)


def test_data_that_is_not_this_backups_is_said_to_stay() -> None:
    """The Job left it alone; nobody may believe that it is gone."""
    facts = {"backupId": "acme_1", "deleted": False, "left": True, "message": "belongs to TenantBackup x"}
    plan = decide(deleted(jobs=(job("delete", outcome=succeeded(facts)),)), at(1))
    told = plan.actions[0]
    assert isinstance(told, Announce)
    assert (told.type, told.reason) == ("Warning", Reason.DATA_RETAINED)
    assert "belongs to TenantBackup x" in told.message


def test_deletion_policy_retain_keeps_the_data() -> None:
    """Whoever set it afterwards, the finalizer goes at once."""
    retained = backup({"deletionPolicy": "Retain"}, **DELETED)
    assert reasons(deleted(backup=retained)) == ["DataRetained"]


def test_a_clean_up_job_survives_the_foreground_deletion_of_the_backup() -> None:
    """It is owned by the BackupStore, and gone by itself some time after its end."""
    (run,) = decide(deleted(), NOW).actions
    assert isinstance(run, Run)
    assert run.owner != run.subject
    assert run.expires == 900
