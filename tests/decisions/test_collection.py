"""When a store is collected, what is told of it, and that nothing piles up."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from tenant_backup.api import BackupStore
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import backup as backups
from tenant_backup.decisions import store as stores
from tenant_backup.decisions.observed import Collection, Ended, JobSeen, Platform
from tenant_backup.decisions.plan import Announce, ExpireJob, Plan, RemoveJob, Run
from tests.decisions.objects import (
    NOW,
    at,
    backup,
    backup_seen,
    condition,
    document,
    job,
    ready_store,
    store,
    store_seen,
    succeeded,
)

FACTS = {
    "tenants": 2,
    "backups": 7,
    "usedBytes": 3 << 30,
    "candidates": 4,
    "deleted": 3,
    "freedBytes": 5 << 20,
    "message": "",
}
YESTERDAY = "2024-01-14T14:30:25Z"
BEFORE = {"startedAt": "2024-01-15T14:30:25Z", "requested": "dry-run 1"}
JUST_NOW = {"startedAt": "2024-01-15T14:30:20Z", "attemptedAt": "2024-01-15T14:30:20Z"}


def annotated(value: str) -> BackupStore:
    return store(annotations={"tenantbackup.dev/collect": value})


def decided(now: Any = NOW, **fields: Any) -> Plan:
    return stores.decide(store_seen(**({"status": ready_store()} | fields)), now)


def runs(plan: Plan) -> list[Run]:
    return [action for action in plan.actions if isinstance(action, Run)]


def told(plan: Plan) -> list[tuple[str, Reason]]:
    return [(action.type, action.reason) for action in plan.actions if isinstance(action, Announce)]


def collection(plan: Plan) -> dict[str, Any]:
    assert plan.status
    return dict(plan.status["collection"])


def under_way(request: str = "", **fields: Any) -> JobSeen:
    """A collection that was started at NOW."""
    dry_run = request.startswith("dry-run")
    asked = contract.Collect("u", "c", contract.Store("s3"), dry_run=dry_run, request=request)
    return job("collect", generation=1, told=asked, **fields)


def test_a_store_that_was_ready_for_an_interval_is_collected() -> None:
    """By a Job with the store's credentials and the grace of the installation."""
    (run,) = runs(decided(platform=Platform("c", collection=Collection(86400, 100000))))

    assert isinstance(run.job, contract.Collect)
    assert (run.purpose, run.job.grace_seconds, run.job.dry_run) == ("collect", 100000, False)
    assert (run.secrets.store, run.subject.kind, run.owner) == ("s3", "BackupStore", None)


@pytest.mark.parametrize(
    ("status", "seconds"),
    [
        (ready_store(collection=JUST_NOW), 86395),
        (ready_store(conditions=[ready_store()["conditions"][0] | {"lastTransitionTime": YESTERDAY}]), 0),
    ],
)
def test_between_two_collections_nothing_is_written(status: dict[str, Any], seconds: float) -> None:
    """It is looked at again when the next is due."""
    plan = decided(at(-1) if not seconds else NOW, status=status)

    assert runs(plan) == []
    assert plan.retry_in == (seconds or 1)
    assert plan.status is not None
    assert plan.status.get("collection") == status.get("collection")


def test_a_pass_that_died_after_creating_the_job_finds_it_again() -> None:
    """Its name is a function of the collection before it; the next one has another."""
    first, again = runs(decided())[0], runs(decided(at(5)))[0]
    later = ready_store(collection={"startedAt": YESTERDAY, "attemptedAt": YESTERDAY})

    assert first.name == again.name
    assert first.name != runs(decided(status=later))[0].name


def test_a_store_that_is_not_ready_is_not_collected() -> None:
    """The probe comes first, also after a change of the spec."""
    assert [run.purpose for run in runs(decided(store=store(generation=2)))] == ["probe"]


def test_only_one_collection_runs_at_a_time() -> None:
    """Whatever is due or asked for meanwhile; and it is not let go before it is recorded."""
    plan = decided(store=annotated("now"), jobs=(under_way(running=True),))

    assert plan.actions == ()
    assert plan.retry_in == 10


def test_what_a_collection_did_is_told_and_recorded() -> None:
    """In status and by an Event; then the Job may go, and the next one is an interval later."""
    plan = decided(at(30), jobs=(under_way(finished="Complete", outcome=succeeded(FACTS)),))

    assert collection(plan) == {
        "startedAt": "2024-01-15T14:30:25Z",
        "attemptedAt": "2024-01-15T14:30:25Z",
        "completedAt": "2024-01-15T14:30:55Z",
        "candidates": 4,
        "deleted": 3,
        "freedBytes": 5 << 20,
    }
    assert plan.status is not None
    assert [plan.status[key] for key in ("tenants", "backups", "used", "usedBytes")] == [
        2,
        7,
        "3.0Gi",
        3 << 30,
    ]
    assert told(plan) == [("Normal", Reason.STORE_COLLECTED)]
    assert any(isinstance(action, ExpireJob) for action in plan.actions)
    assert condition(plan.status, "Ready")["status"] == "True"

    after = decided(at(35), status=plan.status, jobs=(under_way(finished="Complete", expires=True),))
    assert (after.actions, after.status) == ((), plan.status)


def test_a_collection_that_found_nothing_makes_no_event() -> None:
    """Nobody needs to hear of it."""
    facts = {**FACTS, "deleted": 0, "freedBytes": 0}

    assert told(decided(jobs=(under_way(outcome=succeeded(facts)),))) == []


def test_a_tenant_that_was_left_out_is_told() -> None:
    """The rest was collected, and the message says what to look at."""
    plan = decided(jobs=(under_way(outcome=succeeded({**FACTS, "message": "acme: damaged"})),))

    assert collection(plan)["message"] == "acme: damaged"
    assert ("Warning", Reason.COLLECTION_FAILED) in told(plan)


def test_a_failed_collection_leaves_the_store_ready_and_is_not_repeated_at_once() -> None:
    """An Event, a message, and the next try after the interval."""
    refused = Ended(False, Reason.STORE_PERMISSION_DENIED, "no right to delete")
    plan = decided(jobs=(under_way(ended=1, outcome=refused),))

    assert plan.status is not None
    assert condition(plan.status, "Ready")["status"] == "True"
    assert collection(plan)["message"] == "StorePermissionDenied: no right to delete"
    assert told(plan) == [("Warning", Reason.COLLECTION_FAILED)]
    after = decided(at(60), status=plan.status)
    assert (runs(after), after.retry_in) == ([], 86340)


def test_a_collection_on_a_lost_node_ends_at_its_deadline() -> None:
    """Nothing runs for ever."""
    plan = decided(NOW + timedelta(hours=7), jobs=(under_way(running=True, node_lost=True),))

    assert any(isinstance(action, RemoveJob) for action in plan.actions)
    assert "NodeLost" in collection(plan)["message"]


def test_an_annotation_asks_for_one_now_and_only_once() -> None:
    """Any new value does."""
    recent = ready_store(collection=JUST_NOW)
    (run,) = runs(decided(store=annotated("now"), status=recent))
    assert isinstance(run.job, contract.Collect)
    assert run.job.request == "now"

    plan = decided(
        at(9), store=annotated("now"), status=recent, jobs=(under_way("now", outcome=succeeded(FACTS)),)
    )
    assert collection(plan)["requested"] == "now"
    assert runs(decided(at(12), store=annotated("now"), status=plan.status)) == []


def test_a_dry_run_is_told_and_changes_nothing_else() -> None:
    """Neither the counts nor when the next one is due; its log stays for half an hour."""
    before = ready_store(collection={"attemptedAt": YESTERDAY, "completedAt": YESTERDAY, "deleted": 9})
    ended = under_way("dry-run 1", finished="Complete", outcome=succeeded(FACTS))
    plan = decided(store=annotated("dry-run 1"), status=before, jobs=(ended,))

    found = collection(plan)
    assert "3 objects of 5.0Mi would be deleted" in found.pop("message")
    began = "2024-01-15T14:30:25Z"
    assert found == {**before["collection"], "requested": "dry-run 1", "startedAt": began}
    assert [action.seconds for action in plan.actions if isinstance(action, ExpireJob)] == [1800]
    assert told(plan) == []
    assert plan.status is not None
    assert "usedBytes" not in plan.status


def test_a_dry_run_whose_job_is_still_there_is_not_told_again() -> None:
    """Its Job outlives the next collection, which must not be repeated because of it."""
    dry = under_way("dry-run 1", finished="Complete", outcome=succeeded(FACTS), expires=True)
    later = replace(under_way("now", finished="Complete", outcome=succeeded(FACTS)), created=at(60))
    plan = decided(at(90), store=annotated("now"), jobs=(dry, later), status=ready_store(collection=BEFORE))
    assert collection(plan)["requested"] == "now"

    after = decided(at(95), store=annotated("now"), jobs=(dry, later), status=plan.status)
    assert (runs(after), after.status) == ([], plan.status)


def test_credentials_that_may_not_delete_start_nothing() -> None:
    """It is said once, until others are named; deleting a backup uses those too."""
    refused = ready_store(capabilities={"delete": False})
    plan = decided(status=refused)
    assert runs(plan) == []
    assert "collectorCredentialsSecretRef" in collection(plan)["message"]
    assert decided(status=plan.status).status == plan.status

    spec = {**store().spec.model_dump(by_alias=True), "collectorCredentialsSecretRef": {"name": "collector"}}
    (run,) = runs(
        decided(store=BackupStore.model_validate(document("BackupStore", "prod", spec)), status=refused)
    )
    assert isinstance(run.job, contract.Collect)
    assert (run.secrets.store, run.job.store.secret) == ("collector", "collector")


def test_a_backup_that_could_outlast_the_grace_is_refused() -> None:
    """Its deadline is an hour shorter; the run is told how long what it refers to is safe."""
    platform = Platform("c", collection=Collection(grace=7200))
    plan = backups.decide(backup_seen(platform=platform, backup=backup({"deadline": "61m"})), NOW)
    assert plan.status is not None
    assert condition(plan.status, "Stalled")["reason"] == Reason.INVALID_SPEC

    (run,) = runs(backups.decide(backup_seen(platform=platform, backup=backup({"deadline": "1h"})), NOW))
    assert isinstance(run.job, contract.Backup)
    assert run.job.max_run_seconds == 3600
    assert Collection(grace=1_000_000).max_run == 86400, "the command line collects too"


@pytest.mark.parametrize("seed", range(30))
def test_each_request_is_done_once_whatever_dies_between_two_writes(seed: int) -> None:
    """And then nothing is written any more."""
    chance = random.Random(seed)
    status, jobs, clock = (
        ready_store(collection=dict(JUST_NOW)),
        dict[str, JobSeen](),
        itertools.count(10, 10),
    )
    for request in ("dry-run 1", "now", "dry-run 2", "again"):
        idle = 0
        while idle < 3:
            passed = next(clock)
            assert passed < 5000, "it never settles"
            now = at(passed)
            plan = decided(now, store=annotated(request), status=status, jobs=tuple(jobs.values()))
            idle = idle + 1 if (plan.actions, plan.status) == ((), status) else 0
            first = [action for action in plan.actions if not isinstance(action, ExpireJob)]
            last = [action for action in plan.actions if isinstance(action, ExpireJob)]
            writes: list[Any] = [*first, plan.status, *last]
            for write in writes[: chance.choice((0, 1, 2, len(writes), len(writes)))]:
                if isinstance(write, Run):
                    assert isinstance(write.job, contract.Collect)
                    made = under_way(write.job.request, finished="Complete", outcome=succeeded(FACTS))
                    jobs.setdefault(write.name, replace(made, name=write.name, created=now))
                elif isinstance(write, ExpireJob):
                    jobs[write.name] = replace(jobs[write.name], expires=True)
                elif not isinstance(write, Announce):
                    status = dict(write)
        assert status["collection"]["requested"] == request

    assert len(jobs) == 4
    assert all(job.expires for job in jobs.values())
