"""Verifying a committed backup: when a Job runs, what its end means, and what is never repeated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.controllers.watching import is_settled
from tenant_backup.decisions.backup import decide
from tenant_backup.decisions.observed import BackupSeen, Ended, JobSeen, Sibling, Trouble
from tenant_backup.decisions.plan import Announce, Audit, Condemn, ExpireJob, Plan, RemoveJob, Run
from tenant_backup.decisions.verification import TRIES
from tenant_backup.decisions.wishes import scheduled_request
from tests.decisions.objects import (
    FACTS,
    NOW,
    VERIFIED,
    at,
    backup,
    backup_seen,
    condition,
    document,
    job,
    store,
    succeeded,
    tenant,
)

MESSAGE = "packs/aa/1 is damaged; tables hit: public.t; make a new backup"
COMMITTED: dict[str, Any] = {
    "state": "Succeeded",
    "health": "Unknown",
    "observedGeneration": 1,
    "backupId": FACTS["backupId"],
    "checksum": FACTS["checksum"],
}
HEALTHY = COMMITTED | {"health": "Healthy", "verification": VERIFIED}


def facts(health: str = "Healthy", message: str = "3 objects were read back", **more: Any) -> Ended:
    """What `examine` answers."""
    return succeeded({"health": health, "verification": {"level": "Checksum", "message": message}, **more})


def seen_with(
    status: dict[str, Any] = COMMITTED, asked: str = "", spec: dict[str, Any] | None = None, **fields: Any
) -> BackupSeen:
    """A backup that was committed, with a request in its annotation if there is one."""
    annotations = {"tenantbackup.dev/verify": asked} if asked else {}
    return backup_seen(backup=backup(spec, annotations=annotations), status=status, **fields)


def run_of(seen: BackupSeen) -> Run:
    """The Job that a look starts."""
    (run,) = [action for action in decide(seen, NOW).actions if isinstance(action, Run)]
    return run


def actions_of(plan: Plan, kind: type[Any]) -> list[Any]:
    """The plan's actions of one type."""
    return [action for action in plan.actions if isinstance(action, kind)]


def with_job(seen: BackupSeen, **fields: Any) -> BackupSeen:
    """The same look once its Job is there."""
    run = run_of(seen)
    return replace(seen, jobs=(job("verify", name=run.name, attempt=run.attempt, **fields),))


def status_of(plan: Plan) -> dict[str, Any]:
    """The status a plan writes."""
    assert plan.status is not None
    return dict(plan.status)


def settled(status: Any, asked: str = "", spec: dict[str, Any] | None = None) -> bool:
    """Whether a starting operator leaves such an object alone."""
    annotations = {"tenantbackup.dev/verify": asked} if asked else {}
    known = document("TenantBackup", "acme-1", spec or {}, annotations=annotations)
    return is_settled("TenantBackup", {**known, "status": status})


def test_a_backup_that_upload_did_not_verify_gets_a_job() -> None:
    """A large one: it succeeded at once, and its health is Unknown until the Job has ended."""
    seen = seen_with()
    plan, run = decide(seen, NOW), run_of(seen)
    told = run.job
    assert isinstance(told, contract.Verify)
    assert (told.level, told.everything, told.backup_id) == ("Checksum", False, FACTS["backupId"])
    assert told.manifest_sha256 == "a" * 64
    assert told.signing_key == "ab" * 32
    assert (run.secrets.store, run.secrets.keys) == ("s3", "acme-keys-0123456789")
    assert (run.secrets.identity, run.secrets.database, run.secrets.admin) == ("", "", "")
    assert (run.subject.kind, run.owner) == ("TenantBackup", None)
    status = status_of(plan)
    assert (status["state"], status["health"]) == ("Succeeded", "Unknown")
    assert status["verification"] == {"message": "under way"}


def test_what_upload_verified_is_left_alone() -> None:
    """No further Job after a small backup: its API writes are counted."""
    assert decide(seen_with(HEALTHY), NOW) == Plan()
    assert settled(HEALTHY)


def test_contents_always_gets_a_job_with_the_identity() -> None:
    """Upload has no key."""
    run = run_of(seen_with(spec={"verification": "Contents"}))
    assert isinstance(run.job, contract.Verify)
    assert (run.job.level, run.job.identity_secret) == ("Contents", "acme-id")
    assert run.secrets.identity == "acme-id"
    first = decide(backup_seen(backup=backup({"verification": "Contents"})), NOW)
    (upload,) = actions_of(first, Run)
    assert upload.job.verify is False


def test_verification_none_runs_nothing_until_somebody_asks() -> None:
    """Then at the cheaper level."""
    spec = {"verification": "None"}
    assert decide(seen_with(spec=spec), NOW) == Plan()
    assert settled(COMMITTED, spec=spec)
    run = run_of(seen_with(asked="now", spec=spec))
    assert isinstance(run.job, contract.Verify)
    assert (run.job.level, run.job.everything) == ("Checksum", True)


@pytest.mark.parametrize(
    ("asked", "spec", "level"),
    [
        ("2024-05-01", "Checksum", "Checksum"),
        ("2024-05-01", "Contents", "Contents"),
        ("Contents", "Checksum", "Contents"),
        ("Contents-2", "None", "Contents"),
        ("Checksum of May", "Contents", "Checksum"),
    ],
)
def test_the_annotation_may_name_the_level(asked: str, spec: str, level: str) -> None:
    """Anything else means the level of the spec; and what is asked for reads everything."""
    run = run_of(seen_with(HEALTHY, asked, {"verification": spec}))
    assert isinstance(run.job, contract.Verify)
    assert (run.job.level, run.job.everything) == (level, True)


def test_a_request_that_was_handled_is_not_handled_again() -> None:
    """Also by an operator that was restarted: what was done is in the object."""
    handled = HEALTHY | {"verification": VERIFIED | {"requested": "one"}}
    assert decide(seen_with(handled, "one"), NOW) == Plan()
    assert settled(handled, "one")
    assert not settled(handled, "two")
    assert decide(seen_with(handled), NOW) == Plan()


def test_the_same_word_again_after_another_is_a_new_request() -> None:
    """With a Job of its own: the old one's result may still be there to be read."""
    first, again = HEALTHY, HEALTHY | {"verification": VERIFIED | {"requested": "b", "completedAt": "later"}}
    assert run_of(seen_with(first, "a")).name != run_of(seen_with(again, "a")).name


def test_a_long_request_fits_into_status() -> None:
    """And is told from another one that begins alike."""
    seen = with_job(seen_with(HEALTHY, "x" * 5000), outcome=facts())
    requested = status_of(decide(seen, NOW))["verification"]["requested"]
    assert len(requested) == 128
    handled = HEALTHY | {"verification": VERIFIED | {"requested": requested}}
    assert decide(seen_with(handled, "x" * 5000), NOW) == Plan()
    assert actions_of(decide(seen_with(handled, "x" * 5001), NOW), Run)


def test_a_good_end_is_recorded_once_with_an_event() -> None:
    """Then the Job may go, and nothing is left to do."""
    asked = with_job(seen_with(COMMITTED, "one"), finished="Complete", outcome=facts())
    plan = decide(asked, at(9))
    status = status_of(plan)
    assert status["health"] == "Healthy"
    assert status["verification"] == {
        "level": "Checksum",
        "completedAt": "2024-01-15T14:30:34Z",
        "healthyAt": "2024-01-15T14:30:34Z",
        "message": "3 objects were read back",
        "requested": "one",
    }
    assert "progress" not in status
    assert [(event.type, event.reason) for event in actions_of(plan, Announce)] == [
        ("Normal", Reason.BACKUP_VERIFIED)
    ]
    assert len(actions_of(plan, Audit)) == 1
    assert actions_of(plan, ExpireJob)
    after = replace(asked, status=status, jobs=(replace(asked.jobs[0], expires=True),))
    assert decide(after, at(10)) == Plan()
    assert settled(status, "one")


@pytest.mark.parametrize("health", ["Healthy", "Corrupt"])
def test_what_a_schedule_asked_for_is_an_event_only_when_it_found_something(health: str) -> None:
    """A thousand Events a week of what went well would hide the others."""
    asked = scheduled_request("Checksum", "nightly", NOW)
    labels = {"tenantbackup.dev/schedule": "nightly"}
    annotations = {"tenantbackup.dev/verify": asked}
    seen = backup_seen(backup=backup(labels=labels, annotations=annotations), status=HEALTHY)
    plan = decide(with_job(seen, outcome=facts(health, MESSAGE)), at(9))
    assert [event.type for event in actions_of(plan, Announce)] == ["Warning"] * (health == "Corrupt")
    assert len(actions_of(plan, Audit)) == 1
    assert status_of(plan)["verification"]["requested"] == asked


def test_damage_makes_a_backup_corrupt_and_it_stays_succeeded() -> None:
    """Committed is Succeeded; the condition says what is wrong with it."""
    seen = with_job(
        seen_with(), outcome=facts("Corrupt", MESSAGE, backups=[], damaged="packs/aa/1 is damaged")
    )
    plan = decide(seen, NOW)
    status = status_of(plan)
    assert (status["state"], status["health"]) == ("Succeeded", "Corrupt")
    assert condition(status, "Succeeded")["status"] == "True"
    assert MESSAGE in condition(status, "Succeeded")["message"]
    assert status["verification"]["message"] == MESSAGE
    (event,) = actions_of(plan, Announce)
    assert (event.type, event.reason) == ("Warning", Reason.VERIFICATION_FAILED)
    assert "public.t" in event.message


def test_a_warning_makes_a_backup_degraded_and_is_told() -> None:
    """It can be restored, and something is missing for the worst day."""
    plan = decide(with_job(seen_with(), outcome=facts("Degraded", "without this cluster …")), NOW)
    status = status_of(plan)
    assert status["health"] == "Degraded"
    assert "without this cluster" in condition(status, "Succeeded")["message"]
    assert [event.type for event in actions_of(plan, Announce)] == ["Warning"]


def test_what_was_damaged_and_is_whole_again_is_healthy() -> None:
    """Somebody brought the object back from a copy and asked again."""
    corrupt = COMMITTED | {"health": "Corrupt", "verification": VERIFIED | {"message": MESSAGE}}
    status = status_of(decide(with_job(seen_with(corrupt, "again"), outcome=facts()), NOW))
    assert status["health"] == "Healthy"
    assert condition(status, "Succeeded")["message"].endswith("is committed to BackupStore prod")


@pytest.mark.parametrize("health", ["Corrupt", "Degraded"])
def test_checksum_does_not_lift_what_contents_found(health: str) -> None:
    """A SHA-256 that matches was taken of what is wrong; only another look at the contents can tell."""
    found = COMMITTED | {"health": health, "verification": VERIFIED | {"level": "Contents"}}
    status = status_of(decide(with_job(seen_with(found, "Checksum"), outcome=facts()), NOW))
    assert status["health"] == health
    assert status["verification"]["requested"] == "Checksum"
    again = status_of(decide(with_job(seen_with(status, "more"), outcome=facts()), NOW))
    assert again["health"] == health
    deeper = status_of(decide(with_job(seen_with(again, "Contents"), outcome=facts()), NOW))
    assert deeper["health"] == "Healthy"


def test_a_job_whose_pod_has_answered_is_kept_for_its_log() -> None:
    """The Job controller counts it a moment later; until then it must not look abandoned."""
    seen = with_job(seen_with(COMMITTED, "one"), ended=1, outcome=Ended(False, Reason.KEY_MISSING, "no"))
    after = replace(seen, status=status_of(decide(seen, NOW)))
    assert not actions_of(decide(after, at(1)), RemoveJob)


def test_the_others_that_need_the_damaged_object_are_condemned() -> None:
    """Before our own status: a pass that died in between does it again."""
    siblings = (
        Sibling("b", "uid-b", "acme_b", corrupt=False),
        Sibling("c", "uid-c", "acme_c", corrupt=True),
        Sibling("d", "uid-d", "acme_d", corrupt=False),
    )
    outcome = facts("Corrupt", MESSAGE, backups=["acme_b", "acme_c"], damaged="packs/aa/1 is damaged")
    plan = decide(replace(with_job(seen_with(), outcome=outcome), siblings=siblings), NOW)
    (condemned,) = actions_of(plan, Condemn)
    assert (condemned.name, condemned.uid, condemned.level) == ("b", "uid-b", "Checksum")
    assert "packs/aa/1 is damaged" in condemned.message
    assert "TenantBackup acme-1" in condemned.message


@pytest.mark.parametrize(
    "reason", [Reason.KEY_MISSING, Reason.WRONG_KEY, Reason.STORE_PERMISSION_DENIED, Reason.SIGNATURE_INVALID]
)
@pytest.mark.parametrize("health", ["Unknown", "Healthy", "Corrupt"])
def test_what_needs_a_person_ends_the_verification_and_leaves_health(reason: Reason, health: str) -> None:
    """A missing key says nothing about the backup."""
    status = COMMITTED | {"health": health}
    seen = with_job(seen_with(status, "one"), ended=1, outcome=Ended(False, reason, "no"))
    plan = decide(seen, NOW)
    after = status_of(plan)
    assert after["health"] == health
    assert after["verification"]["message"] == f"could not be verified: {reason}: no"
    assert after["verification"]["requested"] == "one"
    assert [event.reason for event in actions_of(plan, Announce)] == [Reason.VERIFICATION_FAILED]
    assert not actions_of(plan, Run)
    assert decide(replace(seen, status=after, jobs=()), at(5)) == Plan()


def test_a_store_that_is_away_is_asked_again_a_few_times_and_not_for_ever() -> None:
    """With growing pauses; then the message says so, and health is what it was."""
    seen, away = seen_with(), Ended(False, Reason.STORE_UNAVAILABLE, "no route", True)
    names, seconds = [run_of(seen).name], 0.0
    for attempt in range(1, TRIES + 1):
        failed = job(
            "verify",
            name=names[-1],
            attempt=attempt,
            created=at(seconds),
            finished="Failed",
            ended=3,
            outcome=away,
        )
        plan = decide(replace(seen, jobs=(failed,)), at(seconds + 5))
        if attempt == TRIES:
            break
        assert not actions_of(plan, Run)
        assert plan.retry_in
        assert status_of(plan)["verification"]["message"].startswith("StoreUnavailable: ")
        seconds += 5 + plan.retry_in
        (run,) = actions_of(decide(replace(seen, jobs=(failed,)), at(seconds)), Run)
        assert run.attempt == attempt + 1
        names.append(run.name)
    assert len(set(names)) == TRIES
    assert plan.retry_in is None
    assert not actions_of(plan, Run)
    status = status_of(plan)
    assert status["health"] == "Unknown"
    assert status["verification"]["message"] == (
        "could not be verified: StoreUnavailable: after 3 attempts: no route"
    )
    assert decide(replace(seen, status=status), at(seconds + 9)) == Plan()


def test_a_job_that_takes_too_long_is_not_begun_again() -> None:
    """It would take as long the next time."""
    seen = with_job(seen_with(), finished="Failed", failure="DeadlineExceeded")
    plan = decide(seen, at(7 * 3600))
    assert not actions_of(plan, Run)
    assert "DeadlineExceeded" in status_of(plan)["verification"]["message"]


def test_an_answer_that_is_none_is_not_health() -> None:
    """Success of the Job is not success of the backup."""
    status = status_of(decide(with_job(seen_with(), outcome=succeeded({})), NOW))
    assert status["health"] == "Unknown"
    assert "InternalError" in status["verification"]["message"]


def test_a_job_that_is_there_is_not_created_again() -> None:
    """A previous pass may have died between the Job and the status."""
    plan = decide(with_job(seen_with(), running=True, progress={"phase": "Verify", "percent": 40}), NOW)
    assert not actions_of(plan, Run)
    assert status_of(plan)["progress"] == {"phase": "Verify", "percent": 40}


def test_a_pod_that_cannot_start_is_told() -> None:
    """In the message: the backup itself is fine."""
    trouble = Trouble(Reason.UNSCHEDULABLE, "no room", NOW)
    status = status_of(decide(with_job(seen_with(), trouble=trouble), at(30)))
    assert status["verification"]["message"] == "Unschedulable: no room"
    assert status["state"] == "Succeeded"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"tenant": None}, Reason.TENANT_NOT_FOUND),
        ({"tenant": tenant(keys=False)}, Reason.TENANT_NOT_READY),
        ({"store": None}, Reason.STORE_NOT_FOUND),
        ({"store": store(deletionTimestamp="2024-01-15T14:00:00Z")}, Reason.STORE_NOT_FOUND),
    ],
)
def test_what_is_missing_is_waited_for_without_looking_again(fields: dict[str, Any], reason: Reason) -> None:
    """There may be thousands of backups of a Tenant that is gone."""
    plan = decide(seen_with(**fields), NOW)
    assert not actions_of(plan, Run)
    assert plan.retry_in is None
    assert plan.wait_for
    assert status_of(plan)["verification"]["message"].startswith(f"{reason}: ")


def test_a_result_counts_even_when_the_tenant_is_gone_by_then() -> None:
    """The Job was told everything it needed."""
    done = with_job(seen_with(), outcome=facts())
    assert status_of(decide(replace(done, tenant=None), NOW))["health"] == "Healthy"


def test_a_newer_request_stops_the_job_of_an_older_one() -> None:
    """And its own Job starts at once: both only read."""
    older = with_job(seen_with(HEALTHY, "one"), running=True)
    plan = decide(replace(seen_with(HEALTHY, "two"), jobs=older.jobs), NOW)
    assert [action.name for action in actions_of(plan, RemoveJob)] == [older.jobs[0].name]
    assert [run.name for run in actions_of(plan, Run)] == [run_of(seen_with(HEALTHY, "two")).name]


def test_a_request_that_is_withdrawn_is_wound_up() -> None:
    """The Job goes, and status no longer says that something is under way."""
    asked = with_job(seen_with(HEALTHY, "one"), running=True)
    under_way = status_of(decide(asked, NOW))
    assert not settled(under_way)
    plan = decide(replace(seen_with(under_way), jobs=asked.jobs), NOW)
    assert len(actions_of(plan, RemoveJob)) == 1
    status = status_of(plan)
    assert "progress" not in status
    assert status["health"] == "Healthy"
    assert settled(status)


def test_a_starting_operator_looks_at_what_is_still_to_be_verified() -> None:
    """And at nothing else: ten thousand finished backups cost nothing."""
    assert not settled(COMMITTED)
    assert not settled(HEALTHY, "new")
    assert settled({"state": "Failed", "observedGeneration": 1}, "new")


def test_a_failed_backup_is_never_verified() -> None:
    """There is nothing in the store."""
    assert decide(seen_with({"state": "Failed"}, "one"), NOW) == Plan()


@pytest.mark.parametrize("running", [True, False])
def test_deleting_the_backup_stops_its_verification_first(running: bool) -> None:
    """With its pods; then the data goes as always."""
    gone = {"deletionTimestamp": "2024-01-15T14:30:25Z", "finalizers": ["tenantbackup.dev/data"]}
    looks: Callable[..., BackupSeen] = backup_seen
    verifying: JobSeen = job("verify", running=running)
    first = decide(looks(backup=backup(**gone), status=COMMITTED, jobs=(verifying,)), NOW)
    assert first.actions == (RemoveJob("x-verify", "uid-job"),)
    then = decide(looks(backup=backup(**gone), status=COMMITTED), NOW)
    (delete,) = actions_of(then, Run)
    assert isinstance(delete.job, contract.Delete)


def test_what_was_unusual_stays_said_after_a_verification() -> None:
    """Verifying says whether it can be read, not whether it is as large as the others."""
    unlike = {"type": "Unusual", "status": "True", "reason": "SmallerThanUsual", "message": "half of it"}
    before = COMMITTED | {"conditions": [unlike]}
    asked = with_job(seen_with(before, "one"), finished="Complete", outcome=facts())
    assert unlike in status_of(decide(asked, at(9)))["conditions"]
