"""Observe a TenantRestore: its Jobs, what it refers to, and who else restores into the same tenant."""

from __future__ import annotations

from datetime import datetime

from tenant_backup.api import BackupStore, Tenant, TenantBackup, TenantRestore
from tenant_backup.cluster import BACKUP, JOB, STORE, TENANT, Object
from tenant_backup.decisions.observed import RestoreSeen
from tenant_backup.jobs import labels

from .look import Look


async def observe(look: Look, document: Object, now: datetime) -> RestoreSeen:
    """Return one look at the TenantRestore. Raises a ClusterError or pydantic.ValidationError."""
    restore = TenantRestore.model_validate(document)
    namespace, target = restore.metadata.namespace, restore.spec.target.tenant_ref.name
    found = await look.cluster.get(BACKUP, namespace, restore.spec.source.backup_ref.name)
    backup = TenantBackup.model_validate(found) if found else None
    store = await look.cluster.get(STORE, namespace, backup.spec.store_ref.name) if backup else None
    tenant = await look.cluster.get(TENANT, namespace, target)
    return RestoreSeen(
        restore=restore,
        status=document.get("status", {}),
        backup=backup,
        backup_status=(found or {}).get("status", {}),
        tenant=Tenant.model_validate(tenant) if tenant else None,
        store=BackupStore.model_validate(store) if store else None,
        jobs=await look.jobs(namespace, restore.metadata.uid, now),
        rival=await _rival(look, restore),
        platform=await look.platform(),
    )


async def _rival(look: Look, restore: TenantRestore) -> str:
    """Return the name of another restore whose Job works on the same tenant now, or nothing."""
    target = labels.label_value(restore.spec.target.tenant_ref.name)
    selector = f"{labels.KIND}=TenantRestore,{labels.TENANT}={target},{labels.UID}!={restore.metadata.uid}"
    jobs = await look.cluster.list(JOB, restore.metadata.namespace, labels=selector)
    return next((_subject(job) for job in jobs if not _is_finished(job)), "")


def _subject(job: Object) -> str:
    return str(job["metadata"].get("annotations", {}).get(labels.SUBJECT, job["metadata"]["name"]))


def _is_finished(job: Object) -> bool:
    conditions = job.get("status", {}).get("conditions", ())
    return any(item["type"] in ("Complete", "Failed") and item["status"] == "True" for item in conditions)
