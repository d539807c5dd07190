"""TenantBackup: what is decided for each thing that can be seen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tenant_backup.api import Tenant
from tenant_backup.api.references import LABEL_SCHEDULE
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.backup import decide, wants_to_start
from tenant_backup.decisions.observed import BackupSeen, Ended, Platform, Trouble
from tenant_backup.decisions.plan import Announce, Audit, ExpireJob, HoldData, Plan, RemoveJob, Run
from tests.decisions.objects import (
    FACTS,
    NOW,
    PLATFORM,
    VERIFIED,
    at,
    backup,
    backup_seen,
    condition,
    job,
    kinds,
    store,
    succeeded,
    tenant,
)

HEADLINE = "Succeeded"


def actions_of(plan: Plan, kind: type[Any]) -> list[Any]:
    """The plan's actions of one type."""
    return [action for action in plan.actions if isinstance(action, kind)]


def test_a_new_backup_gets_its_job_and_says_that_it_runs() -> None:
    """The finalizer comes first: from then on something may be in the store."""
    plan = decide(backup_seen(), NOW)
    hold, run = plan.actions
    assert hold == HoldData()
    assert isinstance(run, Run)
    assert plan.status
    assert plan.status["state"] == "Running"
    assert plan.status["backupId"] == "acme_2024-01-15_14-30-20"
    assert plan.status["jobRef"] == {"name": run.name}
    assert condition(plan.status, HEADLINE)["status"] == "Unknown"
    assert condition(plan.status, "Reconciling")["reason"] == "Running"
    assert plan.status["observedGeneration"] == 1


def test_the_job_is_told_everything_and_no_secret() -> None:
    """The description names Secrets; their content is mounted."""
    (run,) = actions_of(decide(backup_seen(), NOW), Run)
    told = run.job
    assert isinstance(told, contract.Backup)
    assert told.uid == "uid-acme-1"
    assert told.tenant.cluster_id == PLATFORM.cluster_id
    assert told.store.prefix == "prod"
    assert told.exclude_columns == [contract.Column("public.users", "password", "Null", None)]
    assert (run.secrets.database, run.secrets.store, run.secrets.keys) == (
        "acme-db",
        "s3",
        "acme-keys-0123456789",
    )
    assert (run.secrets.admin, run.secrets.identity) == ("", "")
    assert run.deadline == 6 * 3600


def test_a_volume_store_mounts_its_claim_and_keeps_its_folder() -> None:
    """The folder is part of every name, below the root of the volume."""
    (run,) = actions_of(decide(backup_seen(store=store(volume=True)), NOW), Run)
    assert run.claim == "backups"
    assert run.job.store.prefix == "here"


def test_a_retained_backup_holds_nothing() -> None:
    """Its data stays whatever happens to the object."""
    seen = backup_seen(backup=backup({"deletionPolicy": "Retain"}))
    assert not actions_of(decide(seen, NOW), HoldData)


@pytest.mark.parametrize(
    ("fields", "reason", "kind"),
    [
        ({"tenant": None}, Reason.TENANT_NOT_FOUND, "Reconciling"),
        ({"store": None}, Reason.STORE_NOT_FOUND, "Reconciling"),
        ({"store": store(deletionTimestamp="2024-01-15T14:00:00Z")}, Reason.STORE_NOT_FOUND, "Reconciling"),
        ({"tenant": tenant(keys=False)}, Reason.TENANT_NOT_READY, "Reconciling"),
        ({"tenant": tenant(encryption={})}, Reason.KEY_MISSING, "Stalled"),
        ({"backup": backup({"modules": ["nope"]})}, Reason.INVALID_SPEC, "Stalled"),
    ],
)
def test_what_is_missing_holds_the_start_back(fields: dict[str, Any], reason: Reason, kind: str) -> None:
    """No Job, the reason, and whether a person must act; it starts when the thing appears."""
    plan = decide(backup_seen(**fields), NOW)
    assert not actions_of(plan, Run)
    assert plan.status
    assert plan.status["state"] == "Pending"
    assert condition(plan.status, kind)["reason"] == reason
    assert condition(plan.status, HEADLINE)["reason"] == reason
    assert plan.wait_for


def test_a_missing_key_comes_with_the_command_that_makes_one() -> None:
    """One sentence that says what to do."""
    plan = decide(backup_seen(tenant=tenant(encryption={})), NOW)
    assert plan.status
    assert "age-keygen -o identity.txt" in condition(plan.status, "Stalled")["message"]


def test_a_job_that_runs_is_followed_even_when_its_tenant_is_gone() -> None:
    """It was told everything it needs; its success must not be lost."""
    seen = backup_seen(tenant=None, store=None, jobs=(job(outcome=succeeded()),))
    plan = decide(seen, NOW)
    assert plan.status
    assert plan.status["state"] == "Succeeded"


def test_success_is_what_upload_said() -> None:
    """Sizes, checksum and place come from the container that read the manifest back."""
    plan = decide(backup_seen(jobs=(job(outcome=succeeded(), running=False),)), at(4))
    status = plan.status
    assert status
    assert status["state"] == "Succeeded"
    assert condition(status, HEADLINE)["status"] == "True"
    assert kinds(status) == {HEADLINE}
    for field in ("backupId", "checksum", "location", "encryption", "bytes", "consistency", "health"):
        assert status[field] == FACTS[field]
    assert status["contents"] == {"tables": 3, "rows": 12}
    assert (status["size"], status["added"]) == ("2.0Ki", "512B")
    assert status["duration"] == "4s"
    assert "progress" not in status
    assert actions_of(plan, ExpireJob)
    assert actions_of(plan, Audit)
    assert [event.reason for event in actions_of(plan, Announce)] == ["BackupSucceeded"]


def test_the_success_of_a_scheduled_backup_is_no_event() -> None:
    """A thousand a night would hide the others; the audit trail and the metrics have it."""
    seen = backup_seen(jobs=(job(outcome=succeeded(), running=False),))
    metadata = seen.backup.metadata.model_copy(update={"labels": {LABEL_SCHEDULE: "nightly"}})
    backup = seen.backup.model_copy(update={"metadata": metadata})
    plan = decide(replace(seen, backup=backup), at(4))
    assert plan.status
    assert plan.status["state"] == "Succeeded"
    assert actions_of(plan, Audit)
    assert not actions_of(plan, Announce)


def test_success_without_what_was_committed_is_a_failure() -> None:
    """An empty answer is not a backup."""
    plan = decide(backup_seen(jobs=(job(outcome=succeeded({})),)), NOW)
    assert plan.status
    assert plan.status["state"] == "Failed"
    assert condition(plan.status, "Failed")["reason"] == Reason.INTERNAL_ERROR


def test_a_corrupt_backup_says_so() -> None:
    """Committed is Succeeded; what verification found is health."""
    found = {"level": "Checksum", "message": "pack aa/1 differs"}
    facts = FACTS | {"health": "Corrupt", "verification": found}
    plan = decide(backup_seen(jobs=(job(outcome=succeeded(facts)),)), NOW)
    assert plan.status
    assert plan.status["health"] == "Corrupt"
    assert plan.status["verification"] == found
    assert [event.reason for event in actions_of(plan, Announce)] == ["BackupSucceeded", "VerificationFailed"]
    (verification,) = actions_of(decide(backup_seen(status=plan.status), at(1)), Run)
    assert verification.purpose == "verify"
    assert "pack aa/1 differs" in condition(plan.status, HEADLINE)["message"]


PERMANENT = [
    Reason.DATABASE_NOT_FOUND,
    Reason.AUTHENTICATION_FAILED,
    Reason.PERMISSION_DENIED,
    Reason.CLIENT_TOO_OLD,
    Reason.TABLE_NOT_FOUND,
    Reason.COLUMN_NOT_FOUND,
    Reason.UNSUPPORTED_CONTENT,
    Reason.NAME_TAKEN,
    Reason.STORE_PERMISSION_DENIED,
    Reason.STORE_FOREIGN,
    Reason.SECRET_NOT_FOUND,
    Reason.KEY_MISSING,
]
RETRIABLE = [
    Reason.DATABASE_UNREACHABLE,
    Reason.DUMP_FAILED,
    Reason.DUMP_TRUNCATED,
    Reason.STORE_UNAVAILABLE,
    Reason.STORE_FULL,
    Reason.CHECKSUM_MISMATCH,
    Reason.STAGE_KILLED,
    Reason.INTERNAL_ERROR,
]


@pytest.mark.parametrize("reason", PERMANENT)
def test_what_cannot_heal_fails_at_the_first_pod(reason: Reason) -> None:
    """Before the Job controller has even counted it."""
    plan = decide(backup_seen(jobs=(job(ended=1, outcome=Ended(False, reason, "no")),)), NOW)
    assert plan.status
    assert plan.status["state"] == "Failed"
    assert kinds(plan.status) == {HEADLINE, "Failed", "Stalled"}
    assert condition(plan.status, HEADLINE)["status"] == "False"
    assert condition(plan.status, "Failed") | {"type": ""} == condition(plan.status, "Stalled") | {"type": ""}
    assert condition(plan.status, "Failed")["reason"] == reason
    assert [event.reason for event in actions_of(plan, Announce)] == [reason]


@pytest.mark.parametrize("reason", RETRIABLE)
def test_the_first_failed_try_is_shown_while_tries_go_on(reason: Reason) -> None:
    """Its own reason on the headline, Retrying beside it."""
    plan = decide(backup_seen(jobs=(job(ended=1, pods=2, outcome=Ended(False, reason, "no", True)),)), NOW)
    assert plan.status
    assert plan.status["state"] == "Running"
    assert plan.status["attempts"] == 2
    assert condition(plan.status, HEADLINE)["reason"] == reason
    assert condition(plan.status, "Reconciling")["reason"] == Reason.RETRYING
    assert condition(plan.status, "Reconciling")["message"] == "attempt 1 of 3: no"


def test_a_second_failed_try_calls_for_a_person_while_the_last_goes_on() -> None:
    """Tries take longer than half a minute together; by then a human should know."""
    ended = Ended(False, Reason.DATABASE_UNREACHABLE, "refused", True)
    plan = decide(backup_seen(jobs=(job(ended=2, pods=3, running=True, outcome=ended),)), NOW)
    assert plan.status
    assert plan.status["state"] == "Running"
    assert condition(plan.status, "Stalled")["message"] == "attempt 2 of 3: refused"
    assert not plan.actions


def test_the_last_try_is_the_failure() -> None:
    """With its cause, and how often it was tried."""
    ended = Ended(False, Reason.DATABASE_UNREACHABLE, "connection refused", True)
    plan = decide(backup_seen(jobs=(job(finished="Failed", ended=3, outcome=ended),)), NOW)
    assert plan.status
    assert condition(plan.status, "Failed")["message"] == "after 3 attempts: connection refused"
    assert plan.status["attempts"] == 3


def test_a_job_that_is_gone_is_never_success() -> None:
    """It runs again under the same name; `prepare` finds what was committed."""
    seen = backup_seen(status={"startedAt": "2024-01-15T14:30:21Z", "state": "Running"})
    plan = decide(seen, NOW)
    assert actions_of(plan, Run)
    assert plan.status
    assert plan.status["state"] == "Running"


def test_a_complete_job_whose_pods_are_gone_runs_again() -> None:
    """Nobody read what it committed."""
    plan = decide(backup_seen(jobs=(job(finished="Complete"),)), NOW)
    assert actions_of(plan, RemoveJob) == [RemoveJob("x-backup", "uid-job")]
    assert plan.status
    assert plan.status["state"] == "Running"


def test_a_failed_job_whose_pods_are_gone_says_so() -> None:
    """The reason is honest about not knowing more."""
    plan = decide(backup_seen(jobs=(job(finished="Failed", failure="BackoffLimitExceeded"),)), NOW)
    assert plan.status
    assert condition(plan.status, "Failed")["reason"] == Reason.STAGE_KILLED


def test_a_job_that_somebody_deleted_starts_again_when_its_pods_are_gone() -> None:
    """Two pods of one backup never overlap."""
    plan = decide(backup_seen(jobs=(job(removing=True),)), NOW)
    assert not actions_of(plan, Run)
    assert plan.status
    assert condition(plan.status, HEADLINE)["reason"] == Reason.PENDING


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"running": True}, Reason.DEADLINE_EXCEEDED),
        ({"running": True, "node_lost": True}, Reason.NODE_LOST),
        ({"trouble": Trouble(Reason.UNSCHEDULABLE, "no room", NOW)}, Reason.DEADLINE_EXCEEDED),
    ],
)
def test_the_operator_ends_what_the_cluster_cannot(fields: dict[str, Any], reason: Reason) -> None:
    """On a dead node neither pod nor Job ever ends."""
    plan = decide(backup_seen(jobs=(job(**fields),)), at(6 * 3600 + 61))
    assert plan.status
    assert condition(plan.status, "Failed")["reason"] == reason
    assert actions_of(plan, RemoveJob)


def test_the_jobs_own_deadline_is_reported_with_the_last_cause() -> None:
    """What it was doing when time ran out."""
    ended = Ended(False, Reason.STORE_FULL, "no space left", True)
    seen = backup_seen(jobs=(job(finished="Failed", failure="DeadlineExceeded", ended=2, outcome=ended),))
    plan = decide(seen, NOW)
    assert plan.status
    assert condition(plan.status, "Failed")["reason"] == Reason.DEADLINE_EXCEEDED
    assert "no space left" in condition(plan.status, "Failed")["message"]


def test_nothing_starts_again_after_the_deadline() -> None:
    """A Job that vanished long ago is not made up for."""
    plan = decide(backup_seen(status={"startedAt": "2024-01-15T02:00:00Z"}), NOW)
    assert not actions_of(plan, Run)
    assert plan.status
    assert condition(plan.status, "Failed")["reason"] == Reason.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    "reason", [Reason.UNSCHEDULABLE, Reason.IMAGE_PULL_FAILED, Reason.VOLUME_UNAVAILABLE]
)
def test_a_pod_that_cannot_start_is_told_at_once_and_stalls_when_it_lasts(reason: Reason) -> None:
    """The Job stays: it goes on by itself when a person has helped."""
    seen = backup_seen(jobs=(job(trouble=Trouble(reason, "because", NOW)),))
    early, late = decide(seen, at(3)), decide(seen, at(25))
    assert early.status
    assert late.status
    assert condition(early.status, "Reconciling")["reason"] == reason
    assert condition(late.status, "Stalled")["reason"] == reason
    assert late.status["state"] == "Running"
    assert not late.actions


def test_progress_is_folded_into_status() -> None:
    """What the running container said last."""
    seen = backup_seen(jobs=(job(running=True, progress={"phase": "Dump", "percent": 40, "bytesRead": 7}),))
    plan = decide(seen, NOW)
    assert plan.status
    assert plan.status["progress"] == {"phase": "Dump", "percent": 40, "bytesRead": 7}


def test_a_finished_backup_is_left_alone() -> None:
    """Idle is free of writes; only a Job whose outcome is recorded may go."""
    status = {"state": "Succeeded", "verification": VERIFIED}
    seen = backup_seen(status=status, jobs=(job(finished="Complete", outcome=succeeded()),))
    assert decide(seen, NOW) == Plan((ExpireJob("x-backup", 300),))
    done = backup_seen(status=status, jobs=(job(finished="Complete", expires=True),))
    assert decide(done, NOW) == Plan()


@pytest.mark.parametrize(("trusted", "expected"), [(True, "ann"), (False, None)])
def test_who_asked_is_never_guessed(trusted: bool, expected: str | None) -> None:
    """Only an admission policy makes the annotation worth anything."""
    asked = backup(annotations={"tenantbackup.dev/requested-by": "ann"})
    plan = decide(backup_seen(backup=asked, platform=Platform("c", trusted)), NOW)
    assert plan.status
    assert plan.status.get("requestedBy") == expected


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    """A new message is not a transition."""
    first = decide(backup_seen(), NOW).status
    assert first
    ended = Ended(False, Reason.DUMP_FAILED, "no", True)
    second = decide(backup_seen(status=first, jobs=(job(ended=1, outcome=ended),)), at(30)).status
    assert second
    third = decide(backup_seen(status=second, jobs=(job(outcome=succeeded()),)), at(60)).status
    assert third
    times = [condition(status, HEADLINE)["lastTransitionTime"] for status in (first, second, third)]
    assert times == ["2024-01-15T14:30:25Z", "2024-01-15T14:30:25Z", "2024-01-15T14:31:25Z"]


def test_the_same_look_gives_the_same_status() -> None:
    """So that nothing is written when nothing changed."""
    seen: BackupSeen = backup_seen(jobs=(job(running=True),))
    first = decide(seen, NOW).status
    assert first
    assert first == decide(backup_seen(status=first, jobs=(job(running=True),)), at(10)).status


def test_the_decision_needs_no_ready_condition() -> None:
    """Ready may be stale: what counts is the spec and the keys."""
    unready: Tenant = tenant()
    assert unready.status.condition("Ready") is None
    assert actions_of(decide(backup_seen(tenant=unready), NOW), Run)


def test_the_cause_survives_the_pods_that_showed_it() -> None:
    """At its deadline the Job controller takes the pods away; status still knows why none started."""
    first = decide(
        backup_seen(jobs=(job(trouble=Trouble(Reason.IMAGE_PULL_FAILED, "no such image", NOW)),)), at(25)
    )
    assert first.status
    late = backup_seen(status=first.status, jobs=(job(finished="Failed", failure="DeadlineExceeded"),))
    plan = decide(late, at(30))
    assert plan.status
    assert condition(plan.status, "Failed")["reason"] == Reason.DEADLINE_EXCEEDED
    assert "ImagePullFailed: no such image" in condition(plan.status, "Failed")["message"]


def test_a_backup_waits_until_the_one_before_it_has_ended() -> None:
    """A schedule with overlap Queue made both; it has no Job and no place among those that may start."""
    seen = backup_seen(before="nightly-acme-202401140200")
    plan = decide(seen, NOW)
    assert plan.status
    assert plan.status["state"] == "Queued"
    assert "nightly-acme-202401140200" in condition(plan.status, HEADLINE)["message"]
    assert [ref.name for ref in plan.wait_for] == ["nightly-acme-202401140200"]
    assert not actions_of(plan, Run)
    assert not wants_to_start(seen)
