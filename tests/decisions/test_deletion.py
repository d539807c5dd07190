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
