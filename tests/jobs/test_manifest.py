"""Job manifests: least privilege per container, retries by exit code, names and labels."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_backup.contract import job as contract
from tenant_backup.decisions import backup, deletion, previous, restore, store, tenant
from tenant_backup.decisions.names import job_name
from tenant_backup.decisions.plan import Plan, Run
from tenant_backup.jobs.containers import CONTAINERS
from tenant_backup.jobs.manifest import Runner, manifest
from tests.decisions import objects

RUNNER = Runner("registry/runner:1", "Always", ("pull",))
LATE = objects.at(48 * 3600)


def run_of(plan: Plan) -> Run:
    """The Job a plan starts."""
    (run,) = [action for action in plan.actions if isinstance(action, Run)]
    return run


def all_runs(*, volume: bool = False) -> dict[str, Run]:
    """One Run of each purpose, with every Secret that can be named."""
    where = objects.store(volume=volume)
    acme = objects.tenant(tls={"mode": "VerifyFull", "caSecretRef": {"name": "pg-ca"}})
    gone = objects.backup(deletionTimestamp="2024-01-15T14:30:25Z", finalizers=["tenantbackup.dev/data"])
    committed = {
        "status": {"state": "Succeeded", "backupId": "acme_1"},
        "backup": objects.backup({"verification": "Contents"}),
    }
    collected = {"startedAt": objects.CREATED, "attemptedAt": objects.CREATED}
    unlisted = objects.ready_store(collection=collected, catalogue={})
    found = {"imported": {"backupId": "acme_2024-01-10_02-00-00"}, "deletionPolicy": "Retain"}
    kept = {"state": "Succeeded", "previousDatabase": "old", "undoUntil": "2024-01-16T00:00:00Z"}
    return {
        "backup": run_of(backup.decide(objects.backup_seen(tenant=acme, store=where), objects.NOW)),
        "restore": run_of(restore.decide(objects.restore_seen(tenant=acme, store=where), objects.NOW)),
        "swap": run_of(previous.decide_previous(objects.restore_seen(tenant=acme, status=kept), LATE)),
        "preflight": run_of(tenant.decide(objects.tenant_seen(acme), objects.NOW)),
        "probe": run_of(store.decide(objects.store_seen(store=where), objects.NOW)),
        "collect": run_of(
            store.decide(objects.store_seen(store=where, status=objects.ready_store()), objects.NOW)
        ),
        "catalogue": run_of(store.decide(objects.store_seen(store=where, status=unlisted), objects.NOW)),
        "inspect": run_of(
            backup.decide(objects.backup_seen(backup=objects.backup(found), store=where), objects.at(60))
        ),
        "delete": run_of(
            deletion.decide_deletion(
                objects.backup_seen(backup=gone, status=committed["status"], store=where), objects.NOW
            )
        ),
        "verify": run_of(
            backup.decide(objects.backup_seen(tenant=acme, **committed, store=where), objects.NOW)
        ),
    }


def containers(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """All containers of a pod by name."""
    return {one["name"]: one for one in (*pod.get("initContainers", ()), *pod["containers"])}


def secrets(pod: dict[str, Any]) -> dict[str, set[str]]:
    """Names of the Secrets each container mounts."""
    names = {v["name"]: v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v}
    return {
        name: {names[mount["name"]] for mount in one["volumeMounts"] if mount["name"] in names}
        for name, one in containers(pod).items()
    }


def pod_of(purpose: str, *, volume: bool = False) -> dict[str, Any]:
    """The pod template of a purpose."""
    return dict(manifest(all_runs(volume=volume)[purpose], RUNNER)["spec"]["template"]["spec"])


def test_each_container_of_a_backup_sees_only_its_own_secrets() -> None:
    """Who talks to the database holds no store credentials and no key; who encrypts holds neither."""
    assert secrets(pod_of("backup")) == {
        "prepare": {"s3", "s3-ca"},
        "dump": {"acme-db", "pg-ca"},
        "archive": {"acme-keys-0123456789"},
        "upload": {"s3", "s3-ca"},
    }


def test_each_container_of_a_restore_sees_only_its_own_secrets() -> None:
    """The same three rooms in the other direction."""
    assert secrets(pod_of("restore")) == {
        "download": {"s3", "s3-ca"},
        "open": {"acme-keys-0123456789", "acme-id"},
        "load": {"acme-db", "pg-ca", "pg-admin"},
    }


@pytest.mark.parametrize(
    ("purpose", "expected"),
    [
        ("swap", {"swap": {"pg-admin", "pg-ca"}}),
        ("preflight", {"preflight": {"acme-db", "pg-ca"}}),
        ("probe", {"probe": {"s3", "s3-ca"}}),
        ("delete", {"delete": {"s3", "s3-ca"}}),
        ("collect", {"collect": {"s3", "s3-ca"}}),
        ("catalogue", {"catalogue": {"s3", "s3-ca"}}),
        ("inspect", {"inspect": {"s3", "s3-ca"}}),
        ("verify", {"download": {"s3", "s3-ca"}, "examine": {"acme-keys-0123456789", "acme-id"}}),
    ],
)
def test_small_jobs_see_only_what_they_need(purpose: str, expected: dict[str, set[str]]) -> None:
    """One container each."""
    assert secrets(pod_of(purpose)) == expected


@pytest.mark.parametrize("purpose", list(CONTAINERS))
def test_pods_are_restricted(purpose: str) -> None:
    """PodSecurity restricted, read-only root, no token, no Secret in the environment."""
    pod = pod_of(purpose)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["restartPolicy"] == "Never"
    for one in containers(pod).values():
        context = one["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        }
        assert all("value" in variable for variable in one["env"])
        assert one["resources"]["limits"]["memory"]
        assert "cpu" not in one["resources"]["limits"]


@pytest.mark.parametrize("purpose", list(CONTAINERS))
def test_missing_secrets_do_not_hang_a_pod(purpose: str) -> None:
    """The stage itself says which one is missing."""
    volumes = [volume for volume in pod_of(purpose)["volumes"] if "secret" in volume]
    assert volumes
    assert all(volume["secret"]["optional"] for volume in volumes)


@pytest.mark.parametrize("purpose", list(CONTAINERS))
def test_every_mount_has_its_volume_and_no_volume_is_unused(purpose: str) -> None:
    """The API server refuses the first, nobody notices the second."""
    for volume in (True, False):
        pod = pod_of(purpose, volume=volume)
        mounted = {mount["name"] for one in containers(pod).values() for mount in one["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_staging_space_is_bounded() -> None:
    """No staging disk grows with the database."""
    volumes = {volume["name"]: volume for volume in pod_of("backup")["volumes"]}
    assert volumes["run"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "16Mi"}
    assert volumes["spool"]["emptyDir"] == {"sizeLimit": "4Gi"}
    assert volumes["scratch-dump"]["emptyDir"]["medium"] == "Memory"


def test_the_stores_volume_is_mounted_only_where_the_store_is_used() -> None:
    """And read-only where nothing is written."""
    backups, restores = pod_of("backup", volume=True), pod_of("restore", volume=True)
    found = {
        name: mount["readOnly"]
        for pod in (backups, restores)
        for name, one in containers(pod).items()
        for mount in one["volumeMounts"]
        if mount["name"] == "store-volume"
    }
    assert found == {"prepare": False, "upload": False, "download": True}
    assert backups["securityContext"]["fsGroup"] == 65532
    assert "fsGroup" not in pod_of("backup")["securityContext"]


FILES = [
    {
        "name": name,
        "persistentVolumeClaim": {"claimName": f"acme-{name}"},
        "securityContext": {"runAsUser": user, "runAsGroup": user + 1, "supplementalGroups": [user + 2]},
    }
    for name, user in (("uploads", 1000), ("exports", 2000))
]


def files_pod(
    purpose: str, *, database: bool = True, volume: bool = False, files: Any = None
) -> dict[str, Any]:
    """The pod of a backup or restore of a tenant with files."""
    more = {"files": files or FILES} | ({} if database else {"database": None})
    acme, where = objects.tenant(more=more), objects.store(volume=volume)
    target = {"tenantRef": {"name": "acme"}, "files": [{"name": "uploads"}, {"name": "exports"}]}
    target |= {"database": "copy"} if database else {}
    plans = {
        "backup": lambda: backup.decide(objects.backup_seen(tenant=acme, store=where), objects.NOW),
        "restore": lambda: restore.decide(
            objects.restore_seen(tenant=acme, store=where, restore=objects.restore({"target": target})),
            objects.NOW,
        ),
        "swap": lambda: restore.decide(
            objects.restore_seen(
                tenant=acme,
                status={
                    "state": "Succeeded",
                    "previousFiles": ["uploads", "exports"],
                    "undoUntil": objects.CREATED,
                    **({"previousDatabase": "app_old"} if database else {}),
                },
                restore=objects.restore({"target": target, "strategy": "Replace"}),
            ),
            objects.NOW,
        ),
    }
    return dict(manifest(run_of(plans[purpose]()), RUNNER)["spec"]["template"]["spec"])


def test_a_preflight_walks_each_volume_as_who_would_read_it() -> None:
    """Read-only, without a Secret, and without an fsGroup, which would change what is there."""
    acme = objects.tenant(more={"files": FILES})
    run = run_of(tenant.decide(objects.tenant_seen(acme, node="n1"), objects.NOW))
    pod = dict(manifest(run, RUNNER)["spec"]["template"]["spec"])
    assert list(containers(pod)) == ["preflight", "survey-uploads", "survey-exports"]
    for name, user in (("uploads", 1000), ("exports", 2000)):
        one = containers(pod)[f"survey-{name}"]
        assert (one["args"], one["securityContext"]["runAsUser"]) == (["survey", name], user)
        assert {mount["name"]: mount["readOnly"] for mount in one["volumeMounts"]} == {
            "run": False,
            f"files-{name}": True,
        }
    assert pod["securityContext"]["supplementalGroups"] == [1002, 2002]
    assert "fsGroup" not in pod["securityContext"]
    assert "n1" in str(pod["affinity"])
    alone = objects.tenant(more={"files": FILES, "database": None})
    pod = dict(
        manifest(run_of(tenant.decide(objects.tenant_seen(alone), objects.NOW)), RUNNER)["spec"]["template"][
            "spec"
        ]
    )
    assert list(containers(pod)) == ["survey-uploads", "survey-exports"]


@pytest.mark.parametrize(
    ("purpose", "stage", "read_only"),
    [("backup", "gather", True), ("restore", "place", False), ("swap", "switch", False)],
)
@pytest.mark.parametrize("volume", [True, False])
def test_each_volume_has_a_container_that_may_do_nothing_else(
    purpose: str, stage: str, read_only: bool, volume: bool
) -> None:
    """As the user of its files, without a Secret, a spool, or a way to change the group of what is there."""
    pod = files_pod(purpose, volume=volume)
    volumes = {one["name"]: one for one in pod["volumes"]}
    for name, user in (("uploads", 1000), ("exports", 2000)):
        one = containers(pod)[f"{stage}-{name}"]
        assert one["args"] == [stage, name]
        assert one["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
            "runAsUser": user,
            "runAsGroup": user + 1,
        }
        assert {mount["name"]: (mount["mountPath"], mount["readOnly"]) for mount in one["volumeMounts"]} == {
            "run": ("/run/tenant-backup", False),
            f"files-{name}": (f"/files/{name}", read_only),
        }
        claim = {"claimName": f"acme-{name}", "readOnly": read_only}
        assert volumes[f"files-{name}"]["persistentVolumeClaim"] == claim
    others = {name: one for name, one in containers(pod).items() if not name.startswith(stage)}
    assert not any("runAsUser" in one["securityContext"] for one in others.values())
    assert not any(
        mount["name"].startswith("files-") for one in others.values() for mount in one["volumeMounts"]
    )
    assert pod["securityContext"]["runAsNonRoot"] is True
    # An fsGroup changes what can be written: the store's volume in a backup, where the tenant's are read-only.
    assert ("fsGroup" in pod["securityContext"]) == (volume and read_only)
    groups = {1002, 2002} | ({65532} if volume and purpose == "restore" else set())
    assert set(pod["securityContext"]["supplementalGroups"]) == groups


def test_only_a_privileged_volume_has_containers_of_root_with_a_few_rights() -> None:
    """Who only reads gets those of reading; its neighbours get none."""
    asked = [FILES[0] | {"privileged": True}, FILES[1]]
    for purpose, stage, added in [
        ("backup", "gather", ["DAC_OVERRIDE"]),
        ("restore", "place", ["DAC_OVERRIDE", "CHOWN", "FOWNER", "FSETID"]),
        ("swap", "switch", ["DAC_OVERRIDE", "CHOWN", "FOWNER", "FSETID"]),
    ]:
        found = containers(files_pod(purpose, files=asked))
        context = found.pop(f"{stage}-uploads")["securityContext"]
        assert context == {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"], "add": added},
            "readOnlyRootFilesystem": True,
            "runAsUser": 0,
            "runAsGroup": 0,
            "runAsNonRoot": False,
        }
        assert all(one["securityContext"]["capabilities"] == {"drop": ["ALL"]} for one in found.values())
        assert not any("runAsNonRoot" in one["securityContext"] for one in found.values())


def test_a_backup_goes_where_its_volume_is_in_use() -> None:
    """A wish, not a condition; without a pod that uses one there is none."""
    acme = objects.tenant(more={"files": FILES})
    pods = [
        manifest(run_of(backup.decide(objects.backup_seen(tenant=acme, node=node), objects.NOW)), RUNNER)
        for node in ("node-1", "")
    ]
    there, anywhere = (pod["spec"]["template"]["spec"] for pod in pods)
    (wish,) = there["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["preference"]["matchFields"][0]["values"] == ["node-1"]
    assert "affinity" not in anywhere


@pytest.mark.parametrize(("purpose", "absent"), [("backup", "dump"), ("restore", "load"), ("swap", "swap")])
def test_a_tenant_without_a_database_has_no_container_for_one(purpose: str, absent: str) -> None:
    """Nor its Secrets."""
    pod = files_pod(purpose, database=False)
    assert absent not in containers(pod)
    assert not {"acme-db", "pg-admin"} & set().union(*secrets(pod).values())
    mounted = {mount["name"] for one in containers(pod).values() for mount in one["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("purpose", list(CONTAINERS))
def test_the_description_of_the_job_comes_back(purpose: str) -> None:
    """What a stage reads is what was decided."""
    run = all_runs()[purpose]
    for one in containers(pod_of(purpose)).values():
        told = {variable["name"]: variable["value"] for variable in one["env"]}
        assert contract.from_json(told["TENANT_BACKUP_JOB"]) == run.job
        assert one["args"] == [one["name"]]
        assert one["image"] == "registry/runner:1"


def test_retries_follow_the_table_of_exit_codes() -> None:
    """Permanent ends the Job, a drained node does not count, all else does."""
    spec = manifest(all_runs()["backup"], RUNNER)["spec"]
    assert spec["podFailurePolicy"]["rules"] == [
        {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [64]}},
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    ]
    assert spec["backoffLimit"] == 2
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["activeDeadlineSeconds"] == 6 * 3600
    assert "ttlSecondsAfterFinished" not in spec
    # Nobody is left to record the outcome of a deletion, and doing it again is harmless.
    assert manifest(all_runs()["delete"], RUNNER)["spec"]["ttlSecondsAfterFinished"] == 900


def test_a_job_is_found_by_labels_and_belongs_to_its_object() -> None:
    """Labels are cut to 63 characters; the annotation has the whole name."""
    metadata = manifest(all_runs()["backup"], RUNNER)["metadata"]
    assert metadata["labels"]["tenantbackup.dev/uid"] == "uid-acme-1"
    assert metadata["annotations"] == {"tenantbackup.dev/subject": "acme-1"}
    (owner,) = metadata["ownerReferences"]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("TenantBackup", "acme-1", "uid-acme-1")


@pytest.mark.parametrize("name", ["a", "a" * 253, "with.dots." + "b" * 200, "x" * 40 + "." * 0 + "-y"])
def test_names_of_jobs_are_short_and_a_function_of_the_uid(name: str) -> None:
    """Delete and re-create is another object; the next try is another Job."""
    first = job_name(name, "uid-1", "preflight", 1, 1)
    assert len(first) <= 63
    assert first == job_name(name, "uid-1", "preflight", 1, 1)
    others = {job_name(name, "uid-2", "preflight", 1, 1), job_name(name, "uid-1", "preflight", 2, 1)}
    assert first not in others | {job_name(name, "uid-1", "preflight", 1, 2)}
    assert "." not in first
