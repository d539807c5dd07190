"""Carrying a plan out: each action once or twice is the same; status comes last.

We may die before and after every request here. What was done is found again by the next look: Jobs
and backups have names that are functions of what they are for, patches carry the resourceVersion of
what was decided on, Events are named by their content.
"""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenant_backup.api.references import ANNOTATION_VERIFY, API_VERSION, FINALIZER, LABEL_TENANT
from tenant_backup.cluster import (
    BACKUP,
    EVENT,
    JOB,
    SECRET,
    AlreadyExists,
    Cluster,
    Conflict,
    Gone,
    Kind,
    Object,
    Rejected,
)
from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.imported import judged
from tenant_backup.decisions.instants import rfc3339
from tenant_backup.decisions.names import digest, key_secret, shortened
from tenant_backup.decisions.plan import (
    Announce,
    Audit,
    Condemn,
    CreateBackup,
    DeleteBackup,
    Deliver,
    ExpireJob,
    HoldData,
    ImportBackup,
    Judge,
    MakeKeys,
    Plan,
    ReleaseData,
    RemoveJob,
    RequestVerification,
    Run,
    merge_patch,
)
from tenant_backup.jobs import labels
from tenant_backup.jobs.manifest import Runner, manifest
from tenant_backup.telemetry.audit import audit

from .look import Look

_log = logging.getLogger(__name__)
INVALID = 422  # the status of what the CRD does not allow
_EVENT_MESSAGE_LIMIT = 1000  # characters


class ForeignObject(Exception):
    """An object with a name of ours is there and was not made by us."""


class CarryOut:
    """Carries out one plan about one object, as it was read."""

    def __init__(self, cluster: Cluster, runner: Runner, look: Look, kind: Kind, target: Object) -> None:
        self._cluster = cluster
        self._runner = runner
        self._courier, self._roster = look.courier, look.roster
        self._kind = kind
        self._target = target  # the newest version we know
        self._keys: Mapping[str, Any] = {}
        self._do: dict[type[Any], Callable[[Any], Awaitable[None]]] = {
            Run: self._run,
            RemoveJob: self._remove_job,
            ExpireJob: self._expire_job,
            MakeKeys: self._make_keys,
            CreateBackup: self._create_backup,
            DeleteBackup: self._delete_backup,
            RequestVerification: self._request_verification,
            Condemn: self._condemn,
            ImportBackup: self._import_backup,
            Judge: self._judge,
            Deliver: self._deliver,
            HoldData: self._hold_data,
            ReleaseData: self._release_data,
            Announce: self._announce,
            Audit: self._audit,
        }

    async def __call__(self, plan: Plan) -> None:
        """Carry out. Raises a ClusterError, or ForeignObject."""
        refused: list[Rejected | ForeignObject] = []
        for action in plan.actions:
            if isinstance(action, ExpireJob):
                continue
            try:
                await self._do[type(action)](action)
            except (Rejected, ForeignObject) as error:
                if not isinstance(action, CreateBackup):
                    raise
                refused.append(error)  # one tenant's trouble is not another's
        if refused:
            raise refused[0]
        await self.write(plan.status)
        # A Job may go only after its outcome is recorded.
        for action in plan.actions:
            if isinstance(action, ExpireJob):
                await self._expire_job(action)

    async def write(self, status: Mapping[str, Any] | None) -> None:
        """Write the status, if it differs. Raises Conflict when the object changed meanwhile."""
        if status is None:
            return
        patch = merge_patch(self._target.get("status", {}), {**status, **self._keys})
        if patch:
            self._target = await self._cluster.patch_status(self._kind, self._target, patch)

    async def _run(self, run: Run) -> None:
        try:
            await self._cluster.create(JOB, manifest(run, self._runner))
        except AlreadyExists:
            # A previous pass created it and died before the status patch; or it is not ours.
            there = await self._cluster.get(JOB, run.subject.namespace, run.name)
            if there and there["metadata"].get("labels", {}).get(labels.UID) != run.subject.uid:
                raise ForeignObject(
                    f"a Job named {run.name} exists and was not made for this object; delete it"
                ) from None

    async def _remove_job(self, action: RemoveJob) -> None:
        # Foreground: the Job is there until its last pod is gone, so its absence means that nothing runs.
        await self._cluster.delete(
            JOB, self._namespace, action.name, uid=action.uid, propagation="Foreground"
        )

    async def _expire_job(self, action: ExpireJob) -> None:
        try:
            patch = {"spec": {"ttlSecondsAfterFinished": action.seconds}}
            await self._cluster.patch(JOB, self._namespace, action.name, patch)
        except Gone:
            return
        except Rejected as error:
            _log.warning("Job %s stays: %s", action.name, error.message)

    async def _make_keys(self, action: MakeKeys) -> None:
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw().hex()
        name = key_secret(action.tenant, public)
        named = {"signingKey": public, "keySecret": name}
        # Status first, guarded by resourceVersion: of two passes only one gets to create its Secret.
        # If we die before that Secret exists, the next pass finds it missing and nothing was signed yet.
        self._target = await self._cluster.patch_status(self._kind, self._target, named)
        await self._cluster.create(SECRET, self._key_secret(name, action.tenant, private.private_bytes_raw()))
        self._keys = {**named, "keysReady": True}

    def _key_secret(self, name: str, tenant: str, seed: bytes) -> Object:
        data = {"indexKey": secrets.token_bytes(32), "signingKey": seed}
        return {
            # No owner: the keys outlive a Tenant deleted by mistake, and so do its backups.
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": {
                    "app.kubernetes.io/managed-by": "tenant-backup-operator",
                    LABEL_TENANT: labels.label_value(tenant),
                },
            },
            "type": "Opaque",
            "immutable": True,
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }

    async def _create_backup(self, action: CreateBackup) -> None:
        metadata = {"name": action.name, "namespace": self._namespace, "labels": dict(action.labels)}
        if action.spec.get("deletionPolicy", "Delete") == "Delete":
            metadata["finalizers"] = [FINALIZER]  # it needs one before its Job: here it costs no write
        try:
            made = await self._cluster.create(BACKUP, {"metadata": metadata, "spec": dict(action.spec)})
        except AlreadyExists:
            # A previous pass made it, and no watch has told of it yet; or it is not ours.
            made = await self._theirs_or_ours(action)
        self._roster.see(BACKUP.name, made)  # the next pass must know it, whenever the watch tells of it

    async def _theirs_or_ours(self, action: CreateBackup) -> Object:
        there = await self._cluster.get(BACKUP, self._namespace, action.name)
        if there is None:
            raise Gone(f"TenantBackup {action.name} was there and is gone: observe again")
        ours = action.labels.items() <= there["metadata"].get("labels", {}).items()
        if not ours or there["spec"]["tenantRef"] != action.spec["tenantRef"]:
            raise ForeignObject(f"TenantBackup {action.name} exists and was made by others; delete it")
        return there

    async def _delete_backup(self, action: DeleteBackup) -> None:
        await self._cluster.delete(
            BACKUP, self._namespace, action.name, uid=action.uid, version=action.version
        )

    async def _request_verification(self, action: RequestVerification) -> None:
        asked = {"annotations": {ANNOTATION_VERIFY: action.value}, "resourceVersion": action.version}
        try:
            found = await self._cluster.patch(BACKUP, self._namespace, action.name, {"metadata": asked})
        except (Conflict, Gone):
            return  # it changed, and whatever changes has its schedule look again
        except Rejected as error:
            _log.warning("TenantBackup %s is not verified: %s", action.name, error.message)
            return
        self._roster.see(BACKUP.name, found)  # the next pass must know it, whenever the watch tells of it

    async def _condemn(self, action: Condemn) -> None:
        there = await self._backup(action)
        if there is None:
            return
        await self._post(there["metadata"], Announce("Warning", Reason.VERIFICATION_FAILED, action.message))
        found = {"level": action.level, "message": action.message}
        if "completedAt" in there["status"].get("verification", {}):  # else its own verification is to come
            found["completedAt"] = rfc3339(Look.now())
        status = {"health": "Corrupt", "verification": found}
        await self._cluster.patch_status(BACKUP, there, status)

    async def _import_backup(self, action: ImportBackup) -> None:
        metadata = {"name": action.name, "namespace": self._namespace, "labels": dict(action.labels)}
        try:
            made = await self._cluster.create(BACKUP, {"metadata": metadata, "spec": dict(action.spec)})
        except AlreadyExists:
            return  # a previous pass made it; without a status it asks for what it needs itself
        except Rejected as error:
            if error.status != INVALID:
                raise
            # Whoever may write the store must not keep the others from being imported.
            _log.warning("no TenantBackup %s: %s", action.name, error.message)
            return
        await self._cluster.patch_status(BACKUP, made, dict(action.status))

    async def _judge(self, action: Judge) -> None:
        there = await self._backup(action)
        if there is None:
            return
        status = judged(there.get("status", {}), action)
        if status is None:
            return
        if action.gone:
            status["verification"]["completedAt"] = rfc3339(Look.now())  # of when notifiers tell it
            said = Announce("Warning", Reason.BACKUP_NOT_FOUND, status["verification"]["message"])
            await self._post(there["metadata"], said)
        await self._cluster.patch_status(BACKUP, there, status)

    async def _backup(self, action: Condemn | Judge) -> Object | None:
        """Return the TenantBackup that is meant, as it is now, and not another one of its name."""
        there = await self._cluster.get(BACKUP, self._namespace, action.name)
        return there if there and there["metadata"]["uid"] == action.uid else None

    async def _deliver(self, action: Deliver) -> None:
        self._courier.send(action)

    async def _hold_data(self, _action: HoldData) -> None:
        await self._patch_finalizers([*self._finalizers, FINALIZER])

    async def _release_data(self, _action: ReleaseData) -> None:
        await self._patch_finalizers([name for name in self._finalizers if name != FINALIZER])

    async def _patch_finalizers(self, finalizers: list[str]) -> None:
        metadata = self._target["metadata"]
        guarded = {"finalizers": finalizers, "resourceVersion": metadata["resourceVersion"]}
        self._target = await self._cluster.patch(
            self._kind, self._namespace, metadata["name"], {"metadata": guarded}
        )

    async def _announce(self, action: Announce) -> None:
        await self._post(self._target["metadata"], action)

    async def _post(self, metadata: Mapping[str, Any], action: Announce) -> None:
        now = rfc3339(Look.now())
        name = shortened(metadata["name"], limit=200)
        event = {
            "metadata": {
                "name": f"{name}.{digest(metadata['uid'], action.reason, action.message)}",
                "namespace": self._namespace,
            },
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": self._kind.name,  # what is condemned beside a TenantBackup is one, too
                "name": metadata["name"],
                "namespace": self._namespace,
                "uid": metadata["uid"],
            },
            "type": action.type,
            "reason": action.reason,
            "message": action.message[:_EVENT_MESSAGE_LIMIT],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": "tenant-backup-operator"},
        }
        try:
            await self._cluster.create(EVENT, event)
        except AlreadyExists:
            return
        except Rejected as error:
            _log.warning("no Event about %s: %s", metadata["name"], error.message)

    async def _audit(self, action: Audit) -> None:
        audit(action.record)

    @property
    def _namespace(self) -> str:
        return str(self._target["metadata"]["namespace"])

    @property
    def _finalizers(self) -> list[str]:
        return list(self._target["metadata"].get("finalizers", ()))
