"""Files of a claim, from `kubectl apply` to another claim with the same files, as a user without any rights."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pyrage
import pytest

from hack.lab.kubectl import Kubectl, condition, is_over
from hack.lab.servers import S3, secret

from .conftest import API_VERSION, failure

pytestmark = pytest.mark.cluster

USER = 1000
GROW = """
set -eu; cd /live
mkdir -p letters/2024 shut cache; echo hello > letters/2024/a.txt; : > empty; ln -s letters link
ln letters/2024/a.txt same; head -c 3000000 /dev/urandom > photo.jpg; truncate -s 100M disk.img
printf x > "$(printf 'odd\\377\\nname')"; echo x > shut/x; chmod 555 shut; echo x > cache/x; mkfifo pipe
"""
DESCRIBE = "cd %s; find . -mindepth 1 -not -path './.tenant-backup*' -printf '%%p %%y %%m %%s %%T@ %%n %%l\\n' | sort; find . -type f -not -path './.tenant-backup*' -exec sha256sum {} + | sort"


def claim(name: str) -> dict[str, Any]:
    """A volume of the local cluster."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name}, "spec": spec}


def application(kubectl: Kubectl, name: str, script: str) -> str:
    """Run a script as the application does, whose pod has an fsGroup; return what it wrote."""
    restricted = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container = {
        "name": "shell",
        "image": "localhost/test-postgres:17",
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script],
        "securityContext": restricted,
        "volumeMounts": [{"name": each, "mountPath": f"/{each}"} for each in ("live", "copy")],
    }
    spec = {
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": each, "persistentVolumeClaim": {"claimName": f"acme-{each}"}}
            for each in ("live", "copy")
        ],
    }
    kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    over = kubectl.wait("pod", name, lambda pod: pod["status"]["phase"] in ("Succeeded", "Failed"), 60)
    written = kubectl("logs", name)
    assert over["status"]["phase"] == "Succeeded", written
    return written


def create(kubectl: Kubectl, s3: S3, user: int = USER) -> None:
    """A tenant that has nothing but files, and a store."""
    identity = pyrage.x25519.Identity.generate()
    kubectl.apply(secret("identity", identity=str(identity)), *s3.store("prod", "backups", kubectl.namespace))
    uploads = {
        "name": "uploads",
        "persistentVolumeClaim": {"claimName": "acme-live"},
        "exclude": ["cache/**"],
        "securityContext": {"runAsUser": user, "runAsGroup": user},
    }
    keys = {"recipients": [str(identity.to_public())], "identitySecretRef": {"name": "identity"}}
    apply(kubectl, "Tenant", "acme", {"files": [uploads], "encryption": keys})


def apply(kubectl: Kubectl, kind: str, name: str, spec: dict[str, Any]) -> None:
    """Apply one of our objects."""
    kubectl.apply({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec})


def back_up(kubectl: Kubectl, name: str) -> dict[str, Any]:
    """Create a TenantBackup and return it once it is over."""
    apply(kubectl, "TenantBackup", name, {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}})
    return kubectl.wait("tb", name, is_over, 60)


def restore(kubectl: Kubectl, name: str, claim: str) -> dict[str, Any]:
    """Restore b1 into a claim and return it once it is over."""
    files = [{"name": "uploads", "persistentVolumeClaim": {"claimName": claim}}]
    target = {"tenantRef": {"name": "acme"}, "files": files}
    spec = {"source": {"backupRef": {"name": "b1"}}, "target": target, "strategy": "NewDatabase"}
    apply(kubectl, "TenantRestore", name, spec)
    return kubectl.wait("tr", name, is_over, 60)


def test_the_files_of_a_claim_come_back_on_another(
    operator: Kubectl, s3_server: S3, namespace: Kubectl
) -> None:
    """Names, modes, times, links and holes; a second backup stores nothing; what is not empty is not touched."""
    namespace.apply(claim("acme-live"), claim("acme-copy"))
    before = application(namespace, "grow", GROW + DESCRIBE % "/live")
    create(namespace, s3_server)
    status = back_up(namespace, "b1")["status"]
    assert (status["state"], status["health"], status["consistency"]) == (
        "Succeeded",
        "Healthy",
        "PerFile",
    ), status
    assert (status["contents"]["files"], status["contents"]["skippedFiles"]) == (8, 1)
    again = back_up(namespace, "b2")["status"]
    assert again["bytes"]["added"] < again["bytes"]["stored"] / 10
    restored = restore(namespace, "beside", "acme-copy")["status"]
    assert restored["state"] == "Succeeded", restored
    assert (restored["restored"]["files"], "skipped" in restored) == (8, False)
    after = application(namespace, "look", DESCRIBE % "/copy")
    left_out = ("./cache/x", "./pipe")
    kept = [line for line in before.splitlines() if not any(name in line for name in left_out)]
    assert after.splitlines() == kept
    assert application(namespace, "still", DESCRIBE % "/live") == before
    reason, message = failure(restore(namespace, "again", "acme-live"))
    assert (reason, "is not empty" in message) == ("NameTaken", True)


def test_files_are_replaced_once_somebody_says_so_and_come_back_with_an_undo(
    operator: Kubectl, s3_server: S3, namespace: Kubectl
) -> None:
    """In the tenant's own claim, by the user of its files."""
    namespace.apply(claim("acme-live"), claim("acme-copy"))
    then = application(namespace, "grow", "cd /live; mkdir a; echo old > a/x; " + DESCRIBE % "/live")
    create(namespace, s3_server)
    assert back_up(namespace, "b1")["status"]["state"] == "Succeeded"
    since = application(namespace, "change", "cd /live; echo new > a/x; echo y > y; " + DESCRIBE % "/live")
    target = {"tenantRef": {"name": "acme"}, "files": [{"name": "uploads"}]}
    spec = {"source": {"backupRef": {"name": "b1"}}, "target": target, "strategy": "Replace"}
    apply(namespace, "TenantRestore", "back", spec)
    namespace.wait("tr", "back", lambda tr: tr.get("status", {}).get("state") == "ApprovalPending", 30)
    expires = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    _patch(namespace, {"approval": {"confirm": {"files": ["uploads"], "expires": expires}}})
    restored = namespace.wait("tr", "back", is_over, 60)["status"]
    assert (restored["state"], restored["previousFiles"]) == ("Succeeded", ["uploads"]), restored
    assert application(namespace, "look", DESCRIBE % "/live") == then
    _patch(namespace, {"undo": True})
    namespace.wait("tr", "back", lambda tr: tr["status"]["state"] == "Undone", 60)
    assert application(namespace, "again", DESCRIBE % "/live") == since


def _patch(kubectl: Kubectl, spec: dict[str, Any]) -> None:
    kubectl("patch", "tr", "back", "--type=merge", "-p", json.dumps({"spec": spec}))


def test_a_restricted_namespace_refuses_a_privileged_volume_and_says_how_to_allow_it(
    operator: Kubectl, s3_server: S3, namespace: Kubectl
) -> None:
    """No pod; once the namespace allows it, the same backup goes on."""
    namespace.apply(claim("acme-live"), claim("acme-copy"))
    application(namespace, "grow", "umask 077; echo secret > /live/private")
    create(namespace, s3_server, user=2000)
    namespace(
        "patch", "tenant", "acme", "--type=json", "-p",
        '[{"op": "add", "path": "/spec/files/0/privileged", "value": true}]',
    )  # fmt: skip
    spec = {"tenantRef": {"name": "acme"}, "storeRef": {"name": "prod"}}
    apply(namespace, "TenantBackup", "b1", spec)
    level = "pod-security.kubernetes.io/enforce=baseline"
    namespace.wait("tb", "b1", lambda tb: level in str(tb.get("status")), 60)
    operator("label", "--overwrite", "namespace", namespace.namespace, level)
    assert namespace.wait("tb", "b1", is_over, 120)["status"]["state"] == "Succeeded"


def test_files_of_somebody_else_are_named(operator: Kubectl, s3_server: S3, namespace: Kubectl) -> None:
    """The user that was given may not read them: not Ready, no backup, and the way out in the message."""
    namespace.apply(claim("acme-live"), claim("acme-copy"))
    application(namespace, "grow", "umask 077; echo secret > /live/private")
    create(namespace, s3_server, user=2000)
    found = namespace.wait("tnt", "acme", lambda one: bool(condition(one, "Stalled")), 60)
    assert (condition(found, "Ready")["reason"], "private" in condition(found, "Ready")["message"]) == (
        "PermissionDenied",
        True,
    )
    failed = back_up(namespace, "b1")
    assert condition(failed, "Failed")["reason"] == "PermissionDenied"
    assert "private" in condition(failed, "Failed")["message"]
    assert "securityContext" in condition(failed, "Failed")["message"]


def test_a_claim_that_is_not_there_is_told_before_the_first_backup(
    operator: Kubectl, s3_server: S3, namespace: Kubectl
) -> None:
    """By the scheduler's own words."""
    create(namespace, s3_server)
    found = namespace.wait(
        "tnt", "acme", lambda one: condition(one, "Ready").get("reason") == "VolumeUnavailable", 60
    )
    assert "acme-live" in condition(found, "Ready")["message"]
