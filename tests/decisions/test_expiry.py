"""expiresAfter: the data goes, the object stays as Expired; never what would be missed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.backup import decide
from tenant_backup.decisions.expiry import expires_at, is_going
from tenant_backup.decisions.observed import BackupSeen, Ended
from tenant_backup.decisions.plan import Announce, Audit, Plan, ReleaseData, RemoveJob, Run
from tests.decisions.objects import (
    FACTS,
    NOW,
    VERIFIED,
    at,
    backup,
    backup_seen,
    condition,
    job,
    kinds,
    succeeded,
    summary,
)

COMPLETED = "2024-01-15T14:30:24Z"
AN_HOUR = {"expiresAfter": "1h"}
OVER = datetime(2024, 1, 15, 15, 30, 24, tzinfo=UTC)
SUCCEEDED = {"type": "Succeeded", "status": "True", "reason": "Succeeded", "message": "good"}
STATUS: dict[str, Any] = {
    "state": "Succeeded",
    "health": "Healthy",
    **{key: FACTS[key] for key in ("backupId", "checksum", "bytes")},
    "completedAt": COMPLETED,
    "verification": VERIFIED,
    "conditions": [SUCCEEDED | {"lastTransitionTime": COMPLETED, "observedGeneration": 1}],
}
ME = summary("acme-1")
NEWER = summary("acme-2", started=at(60), completed=at(70), verified=at(70))
FINALIZERS = ("tenantbackup.dev/data",)


def seen(**fields: Any) -> BackupSeen:
    """A good backup that is to expire an hour after its end, and a newer one."""
    known: dict[str, Any] = {
        "backup": backup(AN_HOUR, finalizers=list(FINALIZERS)),
        "status": STATUS,
        "line": (ME, NEWER),
    }
    return backup_seen(**(known | fields))


def expired(**fields: Any) -> BackupSeen:
    """The same, once its status says that its data goes."""
    plan = decide(seen(), OVER)
    assert plan.status
    return seen(**({"status": dict(plan.status), "line": ()} | fields))


def stays(plan: Plan, reason: Reason) -> bool:
    """Whether nothing is deleted, and the condition says why."""
    assert plan.status
    found = condition(plan.status, "Expired")
    return (plan.status["state"], found["status"], found["reason"]) == ("Succeeded", "False", reason)


def test_a_backup_expires_so_long_after_it_was_complete() -> None:
    """Not after it was created: a queue may be long."""
    assert expires_at(AN_HOUR, STATUS) == OVER
    before = decide(seen(line=()), OVER - timedelta(seconds=30))
    assert (before.actions, before.status, before.retry_in) == ((), None, 30.0)


@pytest.mark.parametrize("state", ["", "Pending", "Running", "Failed", "Expired"])
def test_only_what_succeeded_expires(state: str) -> None:
    """There is no data of anything else."""
    assert expires_at(AN_HOUR, {**STATUS, "state": state}) is None
    assert expires_at({}, STATUS) is None


def test_the_state_says_expired_before_anything_is_deleted() -> None:
    """From then on no restore begins, wherever we die."""
    plan = decide(seen(), OVER)
    (line,) = plan.actions
    assert isinstance(line, Audit)
    assert (line.record["event"], line.record["name"]) == ("expiry", "acme-1")
    assert plan.status
    assert plan.status["state"] == "Expired"
    assert "health" not in plan.status
    assert condition(plan.status, "Succeeded")["status"] == "True"
    assert condition(plan.status, "Expired")["reason"] == Reason.EXPIRED
    assert is_going(plan.status)


def test_then_a_job_of_the_store_deletes_the_data() -> None:
    """As when the object is deleted."""
    plan = decide(expired(), OVER)
    (run,) = plan.actions
    assert isinstance(run, Run)
    assert run.purpose == "delete"
    assert run.owner
    assert run.owner.kind == "BackupStore"
    assert plan.status
    assert "Reconciling" in kinds(plan.status)


def test_a_verification_that_runs_is_stopped_first() -> None:
    """It would find the damage that we do."""
    plan = decide(expired(jobs=(job("verify", running=True),)), OVER)
    assert plan.actions == (RemoveJob("x-verify", "uid-job"),)


def test_when_the_data_is_gone_the_object_stays() -> None:
    """As Expired, without a finalizer: so Git does not bring it back to life, and nothing holds it."""
    deleted = job("delete", outcome=succeeded({"deleted": True, "left": False}))
    plan = decide(expired(jobs=(deleted,)), OVER)
    told, release, *_ = plan.actions
    assert isinstance(told, Announce)
    assert told.reason is Reason.DATA_DELETED
    assert isinstance(release, ReleaseData)
    assert plan.status
    assert kinds(plan.status) == {"Succeeded", "Expired"}
    assert condition(plan.status, "Expired")["reason"] == Reason.DATA_DELETED
    assert plan.status["state"] == "Expired"
    assert not is_going(plan.status)
    done = decide(expired(backup=backup(AN_HOUR), status=dict(plan.status)), OVER)
    assert (done.actions, done.status) == ((), None)


def test_dying_between_the_finalizer_and_the_status_changes_nothing() -> None:
    """The Job is found again, or another one finds nothing to delete."""
    deleted = job("delete", outcome=succeeded({"deleted": False, "left": False}))
    plan = decide(expired(backup=backup(AN_HOUR), jobs=(deleted,)), OVER)
    assert not any(isinstance(action, ReleaseData) for action in plan.actions)
    assert plan.status
    assert condition(plan.status, "Expired")["reason"] == Reason.DATA_DELETED


def test_data_that_cannot_be_deleted_yet_says_why_and_is_tried_again() -> None:
    """However long it takes: a store that is away comes back."""
    ended = Ended(False, Reason.STORE_UNAVAILABLE, "no route")
    failing = expired(jobs=(job("delete", created=OVER, ended=1, outcome=ended),))
    plan = decide(failing, OVER + timedelta(minutes=20))
    assert plan.status
    assert condition(plan.status, "Stalled")["reason"] == Reason.STORE_UNAVAILABLE
    assert plan.status["state"] == "Expired"
    assert [action.attempt for action in plan.actions if isinstance(action, Run)] == [2]


def test_the_newest_good_one_never_expires() -> None:
    """An expiresAfter was said when nobody knew what would come."""
    assert stays(decide(seen(line=(ME,)), OVER), Reason.NEWEST_GOOD)
    older = replace(NEWER, started=at(-60))
    assert stays(decide(seen(line=(ME, older)), OVER), Reason.NEWEST_GOOD)


@pytest.mark.parametrize(
    "newer",
    [
        {"state": "Failed"},
        {"health": "Corrupt"},
        {"removing": True},
        {"store": "b"},
        {"modules": ("hr",)},
        {"contents": "Files"},
        {"tenant": "b"},
    ],
)
def test_only_a_good_backup_of_the_same_is_one_to_fall_back_on(newer: dict[str, Any]) -> None:
    """Of the same tenant, contents and modules in the same store."""
    assert stays(decide(seen(line=(ME, replace(NEWER, **newer))), OVER), Reason.NEWEST_GOOD)


def test_the_newest_verified_one_never_expires() -> None:
    """A newer one that nobody has looked at is not one to rely on."""
    verified = replace(ME, verified=NOW)
    unknown = replace(NEWER, verified=None, health="Unknown")
    assert stays(decide(seen(line=(verified, unknown)), OVER), Reason.NEWEST_GOOD)


def test_label_hold_keeps_the_data() -> None:
    """Until somebody removes it; then the data goes at once."""
    held = backup(AN_HOUR, labels={"tenantbackup.dev/hold": ""})
    plan = decide(seen(backup=held), OVER)
    assert stays(plan, Reason.HELD)
    assert plan.retry_in == 3600.0


def test_a_restore_that_is_to_read_it_keeps_the_data() -> None:
    """Somebody may take a day to approve it."""
    assert stays(decide(seen(line=(replace(ME, held=True), NEWER)), OVER), Reason.HELD)


def test_what_stays_is_verified_as_before() -> None:
    """The annotation works, and the condition is written once."""
    first = decide(seen(line=(ME,)), OVER)
    assert first.status
    again = decide(seen(line=(ME,), status=dict(first.status)), OVER + timedelta(hours=1))
    assert again.status == first.status
    asked = backup(AN_HOUR, annotations={"tenantbackup.dev/verify": "now"})
    plan = decide(seen(backup=asked, line=(ME,)), OVER)
    assert [action.purpose for action in plan.actions if isinstance(action, Run)] == ["verify"]


def test_deletion_policy_retain_does_not_keep_what_expires() -> None:
    """It says what happens to the data when the object is deleted, and this one is not."""
    retained = backup({**AN_HOUR, "deletionPolicy": "Retain"})
    plan = decide(seen(backup=retained), OVER)
    assert plan.status
    assert plan.status["state"] == "Expired"


def test_an_expired_object_that_is_deleted_goes_with_its_data() -> None:
    """Also while its data is being deleted: the Job is the same."""
    gone = backup(AN_HOUR, finalizers=list(FINALIZERS), deletionTimestamp="2024-01-15T15:31:00Z")
    (one,) = decide(expired(), OVER).actions
    (other,) = decide(expired(backup=gone), OVER).actions
    assert isinstance(one, Run)
    assert isinstance(other, Run)
    assert one.name == other.name
