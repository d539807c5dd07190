"""What becomes of what is in a store: objects once, a number otherwise, and a word about what vanished."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest

from tenant_backup.api import BackupStore
from tenant_backup.contract import job as contract
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions import backup as backups
from tenant_backup.decisions import store as stores
from tenant_backup.decisions.imported import judged, name_of, status_of
from tenant_backup.decisions.observed import Ended, JobSeen
from tenant_backup.decisions.plan import (
    Announce,
    ExpireJob,
    HoldData,
    ImportBackup,
    Judge,
    Plan,
    RemoveJob,
    Run,
)
from tenant_backup.decisions.summaries import BackupSummary, of_backup
from tests.decisions.objects import (
    NOW,
    PLATFORM,
    at,
    backup,
    backup_seen,
    condition,
    document,
    job,
    kinds,
    ready_store,
    store,
    store_seen,
    succeeded,
)

ID = "acme_2024-01-10_02-00-00"
OTHER_ID = "globex_2024-01-10_02-00-00"
LISTED: dict[str, Any] = {
    "startedAt": "2024-01-15T14:00:00Z",
    "completedAt": "2024-01-15T14:00:00Z",
    "generation": 1,
}
COLLECTED = {"startedAt": "2024-01-15T14:30:20Z", "attemptedAt": "2024-01-15T14:30:20Z"}
FOUND: dict[str, Any] = {
    "id": ID,
    "location": f"s3://b/acme/manifests/{ID}",
    "sha256": "c" * 64,
    "name": "acme-1",
    "uid": "uid-of-a-lost-cluster",
    "started": "2024-01-10T02:00:00Z",
    "completed": "2024-01-10T02:01:40Z",
    "encryption": "Age",
    "consistency": "Snapshot",
    "bytes": {"logical": 1000, "stored": 2048, "added": 512},
    "tables": 3,
    "rows": 12,
    "modules": [],
    "contents": "All",
    "files": 0,
    "changedFiles": 0,
    "skippedFiles": 0,
    "dataAt": {"database": "2024-01-10T02:00:03Z"},
}


def item(*backups: Any, slug: str = "acme", cluster: str = PLATFORM.cluster_id) -> dict[str, Any]:
    return {"slug": slug, "tenant": slug, "cluster": cluster, "backups": list(backups)}


def status(**catalogue: Any) -> dict[str, Any]:
    """Of a ready store that was collected just now."""
    known = ready_store(collection=COLLECTED, catalogue=catalogue)
    return known if catalogue else {key: value for key, value in known.items() if key != "catalogue"}


def annotated(value: str) -> BackupStore:
    return store(annotations={"tenantbackup.dev/import": value})


def known(name: str = "acme-1", backup_id: str = ID, **changes: Any) -> BackupSummary:
    """A TenantBackup that ended long ago."""
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}
    found = document("TenantBackup", name, spec)
    found["status"] = {"state": "Succeeded", "backupId": backup_id, "completedAt": "2024-01-10T02:01:40Z"}
    return replace(of_backup(found), **({"reason": "Succeeded"} | changes))


def decided(now: datetime = NOW, **fields: Any) -> Plan:
    return stores.decide(store_seen(**({"status": status()} | fields)), now)


def run_of(plan: Plan) -> Run:
    (run,) = [action for action in plan.actions if isinstance(action, Run)]
    assert run.purpose == "catalogue"
    return run


def listed(*items: dict[str, Any], upto: str = "", created: datetime = NOW, **fields: Any) -> Plan:
    """Decide after the Job that would be started now has answered with these items."""
    run = run_of(decided(**fields))
    answer = succeeded({"backups": 1, "next": upto})
    done = job("catalogue", name=run.name, generation=1, created=created, outcome=answer, told=run.job)
    return decided(at(5), **(fields | {"jobs": (done,), "pages": {run.name: items}}))


def imports(plan: Plan) -> list[ImportBackup]:
    return [action for action in plan.actions if isinstance(action, ImportBackup)]


def judges(plan: Plan) -> list[Judge]:
    return [action for action in plan.actions if isinstance(action, Judge)]


def told(plan: Plan) -> dict[str, Any]:
    assert plan.status
    return dict(plan.status["catalogue"])


def test_a_store_that_is_ready_for_the_first_time_is_listed_with_all_details() -> None:
    """By a Job with the store's credentials, which may not write a volume."""
    run = run_of(decided())

    assert isinstance(run.job, contract.Catalogue)
    assert (run.job.details, run.job.namespace, run.job.after) == (True, "backups", "")
    assert (run.secrets.store, run.secrets.keys, run.subject.kind) == ("s3", "", "BackupStore")


def test_a_store_that_is_not_ready_is_not_listed() -> None:
    purposes = [action.purpose for action in decided(status={}).actions if isinstance(action, Run)]
    assert purposes == ["probe"]


def test_what_is_found_the_first_time_gets_an_object() -> None:
    """That keeps the data when it is deleted, and asks for no verification of thousands at once."""
    plan = listed(item(FOUND))

    (made,) = imports(plan)
    assert made.spec == {
        "tenantRef": {"name": "acme"},
        "storeRef": {"name": "prod"},
        "imported": {"backupId": ID},
        "verification": "None",
        "deletionPolicy": "Retain",
    }
    assert made.status["state"] == "Succeeded"
    assert made.status["health"] == "Unknown"
    assert made.status["checksum"] == "sha256:" + "c" * 64
    assert made.status["duration"] == "1m40s"
    assert condition(made.status, "Succeeded")["status"] == "True"
    assert plan.status and plan.status["unlisted"] == 0
    assert told(plan) == {
        "startedAt": "2024-01-15T14:30:25Z",
        "completedAt": "2024-01-15T14:30:30Z",
        "generation": 1,
        "imported": 1,
    }
    assert Reason.BACKUPS_IMPORTED in [one.reason for one in plan.actions if isinstance(one, Announce)]


def test_a_backup_of_some_modules_says_so() -> None:
    """A Replace from it is refused because of its spec."""
    (made,) = imports(listed(item({**FOUND, "modules": ["hr"]})))

    assert made.spec["modules"] == ["hr"]
    assert made.status["contents"] == {"tables": 3, "rows": 12, "modules": ["hr"]}


def test_what_has_an_object_gets_no_other() -> None:
    """By its id, or by the UID in its manifest: a run commits before its object says so."""
    mine = {**FOUND, "id": "acme_2024-01-15_14-30-20", "uid": "uid-acme-2"}
    plan = listed(item(FOUND, mine), backups=(known(),), uids=frozenset({"uid-acme-1", "uid-acme-2"}))

    assert imports(plan) == []
    assert plan.status and plan.status["unlisted"] == 0


def test_later_listings_only_count() -> None:
    """What somebody deleted does not come back by itself."""
    fields = {"status": status(**LISTED | {"completedAt": "2024-01-14T14:00:00Z"})}
    run = run_of(decided(**fields))
    plan = listed(item(ID, "acme_2024-01-11_02-00-00"), backups=(known(),), **fields)

    assert isinstance(run.job, contract.Catalogue)
    assert not run.job.details
    assert imports(plan) == []
    assert plan.status and plan.status["unlisted"] == 1


@pytest.mark.parametrize(
    ("changes", "lists"),
    [
        ({}, False),
        ({"store": annotated("now")}, True),
        ({"store": annotated("now"), "status": status(**LISTED, requested="now")}, False),
        ({"store": annotated("again"), "status": status(**LISTED, requested="now")}, True),
        ({"status": status(**LISTED | {"completedAt": "2024-01-14T14:00:00Z"})}, True),
        ({"status": status(**LISTED | {"generation": 0})}, True),
    ],
)
def test_it_is_listed_again_when_asked_due_or_elsewhere(changes: dict[str, Any], lists: bool) -> None:
    """And otherwise nothing is written."""
    plan = decided(**({"status": status(**LISTED)} | changes))

    assert any(isinstance(action, Run) for action in plan.actions) is lists
    assert (
        plan.status
        and plan.status.get("catalogue") == (changes.get("status") or status(**LISTED))["catalogue"]
    )


def test_a_request_is_an_import_and_is_recorded() -> None:
    fields = {"store": annotated("now"), "status": status(**LISTED)}
    plan = listed(item(FOUND), **fields)

    assert [made.name for made in imports(plan)] == [name_of("prod", ID)]
    assert told(plan)["requested"] == "now"


def test_pages_follow_each_other_and_add_up() -> None:
    """The next Job begins where the page ended; the end comes with the sums of all."""
    first = listed(item(FOUND, {"id": "acme_2024-01-11_02-00-00", "unreadable": True}), upto=f"acme/{ID}")
    assert first.status
    assert "completedAt" not in told(first)
    assert len(imports(first)) == 1
    begun = {"status": first.status, "backups": (known(),)}
    run = run_of(decided(**begun))
    assert isinstance(run.job, contract.Catalogue)
    assert run.job.after == f"acme/{ID}"

    last = listed(item({**FOUND, "id": OTHER_ID}, slug="globex"), **begun)
    assert (told(last)["imported"], last.status and last.status["unlisted"]) == (2, 1)
    assert told(last)["message"].startswith("1 manifests cannot be read")
    assert "page" not in told(last)


def test_another_request_begins_from_the_start() -> None:
    """What the pages before did was for something else."""
    first = listed(item(FOUND), upto=f"acme/{ID}")
    run = run_of(decided(status=first.status, store=annotated("now")))

    assert isinstance(run.job, contract.Catalogue)
    assert (run.job.after, run.job.request) == ("", "now")


def test_a_pass_that_died_before_it_was_recorded_finds_the_same_job() -> None:
    """Names are functions of the page before; each page has another."""
    first = listed(item(FOUND), upto=f"acme/{ID}")

    assert run_of(decided()).name == run_of(decided(at(5))).name
    assert run_of(decided()).name != run_of(decided(status=first.status)).name


def test_the_job_goes_only_after_its_page_is_recorded() -> None:
    """It is the only one who knows the page."""
    plan = listed(item(FOUND))
    assert [type(action) for action in plan.actions if isinstance(action, ExpireJob)] == [ExpireJob]
    run = run_of(decided())
    unread = job("catalogue", name=run.name, generation=1, outcome=succeeded({}), told=run.job)
    gone = decided(at(60), jobs=(unread,))

    assert [action for action in gone.actions if isinstance(action, RemoveJob)] == [
        RemoveJob(run.name, "uid-job")
    ]
    assert not any(isinstance(action, ExpireJob) for action in gone.actions)
    assert gone.status and "catalogue" not in gone.status


def test_a_page_that_cannot_be_read_is_listed_again_once_a_minute_at_most() -> None:
    """A log nobody may read must not become a Job every five seconds."""
    run = run_of(decided())
    unread = job("catalogue", name=run.name, generation=1, outcome=succeeded({}), told=run.job)
    early = decided(at(5), jobs=(unread,))

    assert not any(isinstance(action, RemoveJob) for action in early.actions)
    assert run.name in told(early)["message"]
    assert early.retry_in is not None
    assert 50 < early.retry_in <= 60


def test_a_listing_that_failed_is_told_and_tried_again() -> None:
    """The store stays Ready; backups do not depend on it."""
    run = run_of(decided())
    bad = Ended(False, Reason.STORE_UNAVAILABLE, "no answer from s3", retriable=True)
    failed = job("catalogue", name=run.name, generation=1, finished="Failed", outcome=bad, ended=1)
    plan, later = decided(at(5), jobs=(failed,)), decided(at(60), jobs=(failed,))

    assert "no answer from s3" in told(plan)["message"]
    assert plan.status and condition(plan.status, "Ready")["status"] == "True"
    assert run_of(later).attempt == 2


def test_another_clusters_tenants_are_named_with_what_to_do() -> None:
    """They are imported all the same: reading needs nobody's leave."""
    plan = listed(item(FOUND, cluster="lost-1"), item(slug="globex", cluster="lost-1"))

    assert len(imports(plan)) == 1
    assert told(plan)["clusters"] == ["lost-1"]
    assert "tenantbackup.dev/adopt=lost-1" in told(plan)["message"]


def test_data_that_vanished_is_told_of_its_object() -> None:
    """Also when the whole tenant is gone from the store."""
    for items in ((item("acme_2024-01-11_02-00-00"),), ()):
        plan = listed(*items, status=status(**LISTED | {"generation": 0}), backups=(known(),))
        assert judges(plan) == [Judge("acme-1", "uid-acme-1", gone=True, store="prod")]


@pytest.mark.parametrize(
    "backup",
    [
        known(completed=at(-60)),
        known(completed=None),
        known(state="Failed"),
        known(state="Expired"),
        known(state="Running"),
        known(removing=True),
        known(reason="BackupNotFound"),
    ],
    ids=["just ended", "no end", "failed", "expired", "running", "being deleted", "told already"],
)
def test_what_cannot_be_judged_is_not(backup: BackupSummary) -> None:
    """A listing says nothing about what came after it began, and nothing twice."""
    plan = listed(status=status(**LISTED | {"generation": 0}), backups=(backup,))

    assert judges(plan) == []


def test_a_tenant_that_was_passed_over_is_not_judged() -> None:
    """Its marker could not be read; its backups may be there."""
    skipped = {"slug": "acme", "skipped": True}
    plan = listed(skipped, status=status(**LISTED | {"generation": 0}), backups=(known(),))

    assert judges(plan) == []


def test_a_page_judges_only_what_it_would_have_shown() -> None:
    """By the order of the listing, in which acme-b comes after all of acme."""
    after_acme = known("b", "acme-b_2024-01-10_02-00-00")
    first = listed(
        item(ID),
        upto=f"acme/{ID}",
        status=status(**LISTED | {"generation": 0}),
        backups=(known(), after_acme),
    )
    assert first.status
    assert judges(first) == []
    last = listed(status=first.status, backups=(known(), after_acme))

    assert [one.name for one in judges(last)] == ["b"]


def test_data_that_is_back_is_told_too() -> None:
    plan = listed(
        item(ID), status=status(**LISTED | {"generation": 0}), backups=(known(reason="BackupNotFound"),)
    )

    assert judges(plan) == [Judge("acme-1", "uid-acme-1", gone=False, store="prod")]


def test_thousands_are_judged_a_few_at_a_time() -> None:
    """The page is recorded when the last one is judged."""
    many = tuple(known(f"b{number}", f"acme_2024-01-10_02-00-00-{number}") for number in range(300))
    fields = {"status": status(**LISTED | {"generation": 0})}
    plan = listed(**fields, backups=many)
    rest = tuple(replace(one, reason="BackupNotFound") for one in many[:250]) + many[250:]
    last = listed(**fields, backups=rest)

    assert (len(judges(plan)), told(plan), plan.retry_in) == (250, fields["status"]["catalogue"], 1.0)
    assert not any(isinstance(action, ExpireJob) for action in plan.actions)
    assert len(judges(last)) == 50
    assert "completedAt" in told(last)


def test_what_is_judged_is_looked_at_first() -> None:
    """By then it may have been deleted, have expired, or have been told by another pass."""
    good = status_of(FOUND, "prod", 1, NOW) | {"health": "Healthy"}
    gone = judged(good, Judge("acme-1", "uid", gone=True, store="prod"))
    assert gone
    assert gone["health"] == "Corrupt"
    assert condition(gone, "Succeeded")["reason"] == "BackupNotFound"
    assert condition(gone, "Succeeded")["status"] == "True"
    assert ID in gone["verification"]["message"]

    vanished = good | gone
    assert judged(vanished, Judge("acme-1", "uid", gone=True, store="prod")) is None
    assert judged({"state": "Expired"}, Judge("acme-1", "uid", gone=True, store="prod")) is None
    back = judged(vanished, Judge("acme-1", "uid", gone=False, store="prod"))
    assert back
    assert (back["health"], condition(back, "Succeeded")["reason"]) == ("Unknown", "Succeeded")


IMPORTED = {"imported": {"backupId": ID}, "deletionPolicy": "Retain", "verification": "None"}


def imported_seen(**fields: Any) -> Any:
    return backup_seen(backup=backup(IMPORTED), **fields)


def inspection() -> Run:
    (run,) = [action for action in backups.decide(imported_seen(), at(60)).actions if isinstance(action, Run)]
    return run


def inspected(**fields: Any) -> Plan:
    """After its Job has ended so."""
    run = inspection()
    ended = job("inspect", **({"name": run.name, "created": at(50)} | fields))
    return backups.decide(imported_seen(jobs=(ended,)), at(60))


def test_an_imported_object_without_a_status_never_backs_anything_up() -> None:
    """Whoever wrote it; whatever is missing. The listing that made it has a moment to write its status."""
    assert backups.decide(imported_seen(), at(5)) == Plan(retry_in=5.0)
    run = inspection()
    assert isinstance(run.job, contract.Inspect)
    assert (run.purpose, run.job.backup_id, run.job.tenant.slug) == ("inspect", ID, "acme")
    assert (run.secrets.database, run.secrets.keys, run.secrets.store) == ("", "", "s3")
    assert not backups.wants_to_start(imported_seen())
    assert not any(isinstance(action, HoldData) for action in backups.decide(imported_seen(), at(60)).actions)
    leftover: JobSeen = job("backup", running=True)
    assert backups.decide(imported_seen(jobs=(leftover,)), at(5)).actions == ()


def test_what_is_inspected_becomes_its_status() -> None:
    found = {key: value for key, value in FOUND.items() if key != "modules"}
    plan = inspected(outcome=succeeded(found))

    assert plan.status == status_of(FOUND, "prod", 1, at(60))


@pytest.mark.parametrize("reason", [Reason.BACKUP_NOT_FOUND, Reason.CROSS_TENANT_ACCESS, Reason.INVALID_SPEC])
def test_what_is_not_there_has_failed_once_and_for_all(reason: Reason) -> None:
    """An object in Git without data does not flap."""
    plan = inspected(finished="Failed", outcome=Ended(False, reason, "why"), ended=1)

    assert plan.status
    assert (plan.status["state"], condition(plan.status, "Failed")["reason"]) == ("Failed", reason)
    assert not any(isinstance(action, Run) for action in plan.actions)
    later = backups.decide(imported_seen(status=plan.status), at(9999))
    assert later.status is None
    assert not any(isinstance(action, Run) for action in later.actions)


def test_a_store_that_is_away_is_asked_again() -> None:
    bad = Ended(False, Reason.STORE_UNAVAILABLE, "no answer", retriable=True)
    plan = inspected(finished="Failed", outcome=bad, ended=3)

    assert plan.status
    assert plan.status["state"] == "Pending"
    assert "Failed" not in kinds(plan.status)
    assert plan.retry_in


def test_names_of_imported_objects_never_meet() -> None:
    """Functions of store and id, short enough for a label."""
    ids = [("prod", ID), ("prod", f"{ID}-2"), ("2-prod", ID), ("prod", "a" * 40 + "_2024-01-10_02-00-00")]
    names = [name_of(*one) for one in ids]

    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for name in names)


def test_a_backup_is_told_whose_prefix_may_be_taken_over() -> None:
    """By the annotation on its store."""
    adopting = store(annotations={"tenantbackup.dev/adopt": "  lost-1   again "})
    plan = backups.decide(backup_seen(store=adopting), NOW)
    (run,) = [action for action in plan.actions if isinstance(action, Run)]

    assert isinstance(run.job, contract.Backup)
    assert run.job.adopt == "lost-1 again"
