"""A Job manifest from a Run: least privilege per container, and retries by exit code."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tenant_backup.api.references import API_VERSION
from tenant_backup.contract import job as contract
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import ExitCode
from tenant_backup.decisions.plan import Run

from . import labels
from .containers import FILL, Container, containers_of

RUN_SIZE = "16Mi"
SPOOL_SIZE = "4Gi"  # a limit, taken only as needed: at a terabyte, chunk lists are most of it
SCRATCH_SIZE = "256Mi"
# What Pod Security level baseline allows; whoever only reads has the volume mounted read-only.
_READS = ("DAC_OVERRIDE",)
_GIVES_BACK = ("CHOWN", "FOWNER", "FSETID")


@dataclass(frozen=True)
class Runner:
    """The image that Jobs run, and how the platform wants it run."""

    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    group: int = 65532  # owns the store's volume, so that a non-root user may write it


def manifest(run: Run, runner: Runner) -> dict[str, Any]:
    """Return the Job that does `run`."""
    return {
        "metadata": {
            "name": run.name,
            "namespace": run.subject.namespace,
            "labels": _labels(run),
            "annotations": _annotations(run),
            "ownerReferences": [_owner(run)],
        },
        "spec": {
            "backoffLimit": run.retries,
            # Two pods of one backup never overlap.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": _failure_rules()},
            "activeDeadlineSeconds": run.deadline,
            **({} if run.expires is None else {"ttlSecondsAfterFinished": run.expires}),
            "template": {
                "metadata": {"labels": _labels(run), "annotations": _annotations(run)},
                "spec": _pod(run, runner),
            },
        },
    }


def _labels(run: Run) -> dict[str, str]:
    values = {
        "app.kubernetes.io/name": "tenant-backup",
        "app.kubernetes.io/component": run.purpose,
        "app.kubernetes.io/managed-by": "tenant-backup-operator",
        labels.KIND: run.subject.kind,
        labels.NAME: labels.label_value(run.subject.name),
        labels.UID: run.subject.uid,
        labels.PURPOSE: run.purpose,
        labels.GENERATION: str(run.generation),
        labels.ATTEMPT: str(run.attempt),
    }
    return values | ({labels.TENANT: labels.label_value(run.tenant)} if run.tenant else {})


def _annotations(run: Run) -> dict[str, str]:
    return {labels.SUBJECT: run.subject.name}


def _owner(run: Run) -> dict[str, Any]:
    object_ = run.owner or run.subject
    owner = {"apiVersion": API_VERSION, "kind": object_.kind, "name": object_.name, "uid": object_.uid}
    return {**owner, "controller": True, "blockOwnerDeletion": False}


def _failure_rules() -> list[dict[str, Any]]:
    """What cannot heal is not tried again; a drained node does not count; all else does."""
    permanent = {"operator": "In", "values": [int(ExitCode.PERMANENT)]}
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    return [
        {"action": "FailJob", "onExitCodes": permanent},
        {"action": "Ignore", "onPodConditions": disrupted},
    ]


def _pod(run: Run, runner: Runner) -> dict[str, Any]:
    containers = containers_of(run)
    security: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    security |= _groups(run, runner, containers)
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 10,
        "securityContext": security,
        "containers": [_container(one, run, runner) for one in containers if not one.initial],
        "volumes": _volumes(run, containers),
    }
    initial = [_container(one, run, runner) for one in containers if one.initial]
    if initial:
        pod["initContainers"] = initial
    if run.node:
        pod["affinity"] = _at_best(run.node)
    if runner.pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in runner.pull_secrets]
    return pod


def _at_best(node: str) -> dict[str, Any]:
    # A wish only: what any node may mount can be read anywhere, and a node may be full.
    fields = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    wish = {"weight": 100, "preference": {"matchFields": fields}}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [wish]}}


def _groups(run: Run, runner: Runner, containers: tuple[Container, ...]) -> dict[str, Any]:
    """Return the groups of the pod: those that may use the store's volume, and read the tenant's.

    An fsGroup changes the group of every file on every volume that can be written: never a tenant's.
    """
    groups = {group for container in containers if container.files for group in container.files.groups}
    if run.claim and not any(container.stage in FILL for container in containers):
        owned = {"fsGroup": runner.group, "fsGroupChangePolicy": "OnRootMismatch"}
        return owned | ({"supplementalGroups": sorted(groups)} if groups else {})
    groups |= {runner.group} if run.claim else set()
    return {"supplementalGroups": sorted(groups)} if groups else {}


def _container(container: Container, run: Run, runner: Runner) -> dict[str, Any]:
    return {
        "name": container.name,
        "image": runner.image,
        "imagePullPolicy": runner.pull_policy,
        "args": container.arguments,
        "env": _environment(container, run),
        "resources": {
            "requests": {"cpu": "20m", "memory": f"{container.request}Mi"},
            "limits": {"memory": f"{container.limit}Mi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": _capabilities(container),
            "readOnlyRootFilesystem": True,
            **_user(container),
        },
        "terminationMessagePath": str(paths.TERMINATION_MESSAGE),
        "terminationMessagePolicy": "File",
        "volumeMounts": _mounts(container, run),
    }


def _user(container: Container) -> dict[str, Any]:
    volume = container.files
    if volume and volume.privileged:
        # Nobody else gets a capability: Kubernetes gives other users none of those that are added.
        return {"runAsUser": 0, "runAsGroup": 0, "runAsNonRoot": False}
    return {"runAsUser": volume.user, "runAsGroup": volume.group} if volume else {}


def _capabilities(container: Container) -> dict[str, list[str]]:
    if not (container.files and container.files.privileged):
        return {"drop": ["ALL"]}
    return {"drop": ["ALL"], "add": [*_READS, *(_GIVES_BACK if container.stage in FILL else ())]}


def _environment(container: Container, run: Run) -> list[dict[str, str]]:
    values = [{"name": contract.ENVIRONMENT_VARIABLE, "value": contract.to_json(run.job)}]
    # The root file system is read-only: whatever a library wants to put down goes to memory.
    writable = paths.SCRATCH if container.scratch else paths.SPOOL if container.spool else paths.RUN
    return [*values, {"name": "TMPDIR", "value": str(writable)}, {"name": "HOME", "value": str(writable)}]


def _mounts(container: Container, run: Run) -> list[dict[str, Any]]:
    mounts = [_mount("run", paths.RUN)]
    mounts += [_mount("spool", paths.SPOOL)] if container.spool else []
    mounts += [_mount(f"scratch-{container.stage}", paths.SCRATCH)] if container.scratch else []
    if container.volume and run.claim:
        mounts.append(_mount("store-volume", paths.VOLUME, read_only=container.volume == "ro"))
    if container.files:
        where = paths.FILES / container.files.name
        mounts.append(_mount(f"files-{container.files.name}", where, read_only=container.stage not in FILL))
    for secret in container.secrets:
        if _secret_names(run).get(secret):
            mounts.append(_mount(f"secret-{secret}", paths.SECRETS / secret, read_only=True))
    return mounts


def _mount(name: str, path: object, *, read_only: bool = False) -> dict[str, Any]:
    return {"name": name, "mountPath": str(path), "readOnly": read_only}


def _volumes(run: Run, containers: tuple[Container, ...]) -> list[dict[str, Any]]:
    volumes = [_memory("run", RUN_SIZE)]
    if any(container.spool for container in containers):
        volumes.append({"name": "spool", "emptyDir": {"sizeLimit": SPOOL_SIZE}})
    volumes += [_memory(f"scratch-{one.stage}", SCRATCH_SIZE) for one in containers if one.scratch]
    if run.claim:
        volumes.append({"name": "store-volume", "persistentVolumeClaim": {"claimName": run.claim}})
    volumes += [_files(container.files, container) for container in containers if container.files]
    mounted = {secret for container in containers for secret in container.secrets}
    return volumes + [
        _secret(key, name) for key, name in _secret_names(run).items() if name and key in mounted
    ]


def _files(volume: contract.Volume, container: Container) -> dict[str, Any]:
    claim = {"claimName": volume.claim, "readOnly": container.stage not in FILL}
    return {"name": f"files-{volume.name}", "persistentVolumeClaim": claim}


def _memory(name: str, limit: str) -> dict[str, Any]:
    return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": limit}}


def _secret(key: str, name: str) -> dict[str, Any]:
    # Optional: a pod whose Secret is missing would hang for ever; the stage says which one it is.
    return {"name": f"secret-{key}", "secret": {"secretName": name, "optional": True, "defaultMode": 0o444}}


def _secret_names(run: Run) -> dict[str, str]:
    return {key.replace("_", "-"): name for key, name in dataclasses.asdict(run.secrets).items()}
