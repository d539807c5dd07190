"""The real operator process on a real API server with the real Job controller; only the node is played."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tenant_backup.contract.reasons import Reason
from tenant_backup.contract.results import Result
from tests.operator.conftest import Space
from tests.operator.node import Node, all_is_well

RECIPIENT = "age1" + "q" * 58
TENANT: dict[str, Any] = {
    "database": {
        "engine": "PostgreSQL",
        "host": "pg",
        "name": "app",
        "credentialsSecretRef": {"name": "acme-db"},
        "adminCredentialsSecretRef": {"name": "pg-admin"},
    },
    "encryption": {"recipients": [RECIPIENT], "identitySecretRef": {"name": "acme-id"}},
}
STORE: dict[str, Any] = {"s3": {"bucket": "backups", "credentialsSecretRef": {"name": "s3"}}}
BACKUP: dict[str, Any] = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}


def replace(confirm: bool = True, **more: Any) -> dict[str, Any]:
    """The spec of a Replace."""
    expires = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    approval = {"approval": {"confirm": {"database": "app", "expires": expires}}} if confirm else {}
    return {
        "source": {"backupRef": {"name": "acme-1"}},
        "target": {"tenantRef": {"name": "acme"}},
        "strategy": "Replace",
        **approval,
        **more,
    }


def three_objects(space: Space) -> None:
    """What a user writes for a first backup, in the least helpful order."""
    space.create("TenantBackup", "acme-1", BACKUP)
    space.create("BackupStore", "prod", STORE)
    space.create("Tenant", "acme", TENANT)


def test_three_objects_in_any_order_become_a_backup(space: Space) -> None:
    """And at rest nothing is written at all."""
    space.operator()
    with Node(space.api, space.name):
        three_objects(space)
        found = space.until_condition("TenantBackup", "acme-1", "Succeeded")
        space.until_condition("Tenant", "acme", "Ready")
        space.until_condition("BackupStore", "prod", "Ready")
        tenant = space.until(
            lambda: (
                (space.get("Tenant", "acme") or {})["status"].get("lastBackup")
                and space.get("Tenant", "acme")
            ),
            "the Tenant names its last backup",
        )
    assert found["status"]["state"] == "Succeeded"
    assert found["status"]["checksum"] == "sha256:" + "a" * 64
    assert tenant["status"]["backups"] == 1
    assert tenant["status"]["database"]["version"] == "17.2"
    secrets = space.api.items(space.core("secrets"))
    assert [secret["metadata"]["name"] for secret in secrets] == [tenant["status"]["keySecret"]]
    assert secrets[0]["immutable"] is True
    assert "ownerReferences" not in secrets[0]["metadata"]
    mine = [line for line in space.writes if "acme-1" in line or line == f"POST {space.jobs}"]
    assert len(mine) <= 8 + 3  # and the Jobs of preflight, probe and catalogue


def test_files_without_a_database_are_backed_up_and_placed(space: Space) -> None:
    """The API server takes the objects and the pods; nothing looks at a database, or mounts a Secret of one."""
    uploads = {
        "name": "uploads",
        "persistentVolumeClaim": {"claimName": "acme-uploads"},
        "exclude": ["cache/**"],
        "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "supplementalGroups": [2000]},
    }
    files = {"files": {"count": 7, "changed": 1, "skipped": 0}}
    placed = {"files": 7, "bytes": 70, "skipped": ["1 files have another owner or group"]}

    def answer(purpose: str, container: str) -> tuple[int, Result]:
        if container == "place-uploads":
            return 0, Result(True, placed)
        code, result = all_is_well(purpose, container)
        return code, Result(True, result.facts | files) if container == "upload" else result

    _run_application(space, "acme-uploads")
    space.operator()
    with Node(space.api, space.name, answer):
        space.create("TenantBackup", "acme-1", {**BACKUP, "contents": "Files"})
        space.create("BackupStore", "prod", STORE)
        space.create("Tenant", "acme", {"files": [uploads], "encryption": TENANT["encryption"]})
        found = space.until_condition("TenantBackup", "acme-1", "Succeeded")
        ready = space.until_condition("Tenant", "acme", "Ready")
        spec = {
            "source": {"backupRef": {"name": "acme-1"}},
            "target": {"tenantRef": {"name": "acme"}, "files": [{"name": "uploads"}]},
            "strategy": "NewDatabase",
        }
        space.create("TenantRestore", "back", spec)
        back = space.until_condition("TenantRestore", "back", "Succeeded")
        jobs = {
            job["metadata"]["name"]: job["spec"]["template"]["spec"] for job in space.api.items(space.jobs)
        }
    pod = jobs[found["status"]["jobRef"]["name"]]
    assert [one["name"] for one in pod["containers"]] == ["archive", "upload", "gather-uploads"]
    assert "node-of-the-application" in str(pod["affinity"])
    assert (found["status"]["health"], found["status"]["contents"]["files"]) == ("Degraded", 7)
    assert "database" not in ready["status"]
    assert back["status"]["restored"] == {"files": 7, "bytes": 70}
    assert back["status"]["skipped"] == ["uploads: 1 files have another owner or group"]


def _run_application(space: Space, claim: str) -> None:
    """A pod that uses a claim, and runs."""
    container = {"name": "app", "image": "app", "volumeMounts": [{"name": "files", "mountPath": "/files"}]}
    spec = {
        "nodeName": "node-of-the-application",
        "containers": [container],
        "volumes": [{"name": "files", "persistentVolumeClaim": {"claimName": claim}}],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "app"}, "spec": spec}
    space.api.do("POST", space.core("pods"), pod)
    space.api.do("PATCH", space.core("pods", "app") + "/status", {"status": {"phase": "Running"}})


def test_the_operator_asks_for_no_secret(space: Space) -> None:
    """It may create the keys and read nothing."""
    space.operator()
    with Node(space.api, space.name):
        three_objects(space)
        space.until_condition("TenantBackup", "acme-1", "Succeeded")
    touched = {line for line in space.writes if "/secrets" in line}
    assert touched == {f"POST {space.core('secrets')}"}


def test_a_missing_database_is_a_failed_backup(space: Space) -> None:
    """With the stage's reason, in both conditions that kubectl can wait for."""

    def answer(purpose: str, container: str) -> tuple[int, Result]:
        if (purpose, container) == ("backup", "dump"):
            return 64, Result(False, {}, Reason.DATABASE_NOT_FOUND, 'database "app" does not exist')
        return (
            all_is_well(purpose, container)
            if purpose != "backup"
            else (76, Result(False, {}, Reason.PEER_FAILED))
        )

    space.operator()
    with Node(space.api, space.name, answer) as node:
        three_objects(space)
        found = space.until_condition("TenantBackup", "acme-1", "Failed")
    conditions = {item["type"]: item for item in found["status"]["conditions"]}
    assert conditions["Failed"]["reason"] == "DatabaseNotFound"
    assert conditions["Succeeded"]["status"] == "False"
    assert found["status"]["attempts"] == 1
    assert [count for name, count in node.ran.items() if "-backup-" in name] == [1]


def test_a_replace_waits_for_approval_then_keeps_and_drops(space: Space) -> None:
    """The whole life of a restore."""
    space.operator()
    with Node(space.api, space.name):
        three_objects(space)
        space.until_condition("TenantBackup", "acme-1", "Succeeded")
        space.create("TenantRestore", "back", replace(confirm=False, keepPrevious="0s"))
        waiting = space.until_condition("TenantRestore", "back", "Stalled")
        assert waiting["status"]["state"] == "ApprovalPending"
        space.api.do(
            "PATCH", space.path("TenantRestore", "back"), {"spec": {"approval": replace()["approval"]}}
        )
        space.until_condition("TenantRestore", "back", "Succeeded")
        space.until(
            lambda: "previousDatabase" not in (space.get("TenantRestore", "back") or {})["status"],
            "the previous database is dropped",
        )


def test_a_tenant_on_mariadb_is_restored_beside_and_in_place(space: Space) -> None:
    """At its own port."""
    database = {**TENANT["database"], "engine": "MariaDB"}
    restore = {**replace(confirm=False), "strategy": "NewDatabase"}
    restore["target"] = {"tenantRef": {"name": "acme"}, "database": "app_copy"}
    space.operator()
    with Node(space.api, space.name):
        space.create("TenantBackup", "acme-1", BACKUP)
        space.create("BackupStore", "prod", STORE)
        space.create("Tenant", "acme", {**TENANT, "database": database})
        space.until_condition("TenantBackup", "acme-1", "Succeeded")
        space.create("TenantRestore", "beside", restore)
        space.create("TenantRestore", "instead", replace())
        space.until_condition("TenantRestore", "beside", "Succeeded")
        space.until_condition("TenantRestore", "instead", "Succeeded")
    told = json.dumps(space.api.items(space.jobs))
    assert (told.count('\\"port\\":3306') > 0, told.count('\\"port\\":5432')) == (True, 0)


def test_deleting_a_backup_deletes_its_data_first(space: Space) -> None:
    """By a Job that has the store's credentials."""
    space.operator()
    with Node(space.api, space.name) as node:
        three_objects(space)
        space.until_condition("TenantBackup", "acme-1", "Succeeded")
        space.api.do("DELETE", space.path("TenantBackup", "acme-1"))
        space.until(lambda: space.get("TenantBackup", "acme-1") is None, "the backup is gone")
    assert [count for name, count in node.ran.items() if "-delete-" in name] == [1]
    events = {event["reason"] for event in space.api.items(space.core("events"))}
    assert "DataDeleted" in events


def test_a_namespace_goes_away_with_backups_in_it(space: Space) -> None:
    """Our finalizer never holds it."""
    space.operator()
    with Node(space.api, space.name):
        three_objects(space)
        space.until_condition("TenantBackup", "acme-1", "Succeeded")
    space.api.do("DELETE", f"/api/v1/namespaces/{space.name}")
    space.until(
        lambda: space.api.call("GET", f"/api/v1/namespaces/{space.name}").status_code == 404,
        "the namespace is gone",
    )


def test_a_job_with_our_name_that_is_not_ours_is_left_alone(space: Space) -> None:
    """The object says which one is in the way."""
    three_objects(space)
    from tenant_backup.decisions.names import job_name

    backup = space.get("TenantBackup", "acme-1")
    assert backup
    name = job_name("acme-1", backup["metadata"]["uid"], "backup")
    pod = {"restartPolicy": "Never", "containers": [{"name": "x", "image": "x"}]}
    body = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"suspend": True, "template": {"spec": pod}},
    }
    foreign = space.api.do("POST", space.jobs, body)
    space.operator()
    found = space.until_condition("TenantBackup", "acme-1", "Stalled")
    assert {item["reason"] for item in found["status"]["conditions"]} == {"ForeignObject"}
    again = space.api.do("GET", f"{space.jobs}/{name}")
    assert again["metadata"]["uid"] == foreign["metadata"]["uid"]
    assert again["spec"] == foreign["spec"]


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_order_ends_the_operator_cleanly(space: Space, stop: signal.Signals) -> None:
    """With exit code 0, so that nobody thinks it crashed."""
    process = space.operator()
    space.create("BackupStore", "prod", STORE)
    space.until(lambda: space.api.items(space.jobs), "the probe has started")
    process.send_signal(stop)
    assert process.wait(20) == 0


def test_a_restarted_operator_at_rest_writes_nothing(space: Space) -> None:
    """Start-up costs reads only."""
    first = space.operator()
    with Node(space.api, space.name):
        three_objects(space)
        space.until_condition("TenantBackup", "acme-1", "Succeeded")
        space.until(
            lambda: (space.get("Tenant", "acme") or {})["status"].get("backups") == 1, "the Tenant counts it"
        )
        space.until(
            lambda: all("ttlSecondsAfterFinished" in job["spec"] for job in space.api.items(space.jobs)),
            "finished Jobs may go",
        )
    first.send_signal(signal.SIGTERM)
    first.wait(20)
    before = space.writes
    second = space.operator()
    # A new object shows that the second one is at work; everything older was looked at before it.
    space.create("BackupStore", "other", STORE)
    space.until(lambda: len(space.api.items(space.jobs)) > 4, "the new store is probed")
    second.send_signal(signal.SIGTERM)
    second.wait(20)
    assert [line for line in space.writes[len(before) :] if "other" not in line] == [f"POST {space.jobs}"]
