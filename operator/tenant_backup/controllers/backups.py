"""Observe a TenantBackup: its Jobs and what it refers to."""

from __future__ import annotations

from datetime import datetime

from tenant_backup.api import BackupStore, Tenant, TenantBackup
from tenant_backup.api.references import FINALIZER
from tenant_backup.cluster import BACKUP, DEFINITION, NAMESPACE, STORE, TENANT, Cluster, Object, Rejected
from tenant_backup.decisions.observed import BackupSeen, JobSeen, Sibling

from .look import Look


async def observe(look: Look, document: Object, now: datetime) -> BackupSeen:
    """Return one look at the TenantBackup. Raises a ClusterError or pydantic.ValidationError."""
    backup = TenantBackup.model_validate(document)
    namespace = backup.metadata.namespace
    tenant = await look.cluster.get(TENANT, namespace, backup.spec.tenant_ref.name)
    store = await look.cluster.get(STORE, namespace, backup.spec.store_ref.name)
    jobs = await look.jobs(namespace, backup.metadata.uid, now)
    return BackupSeen(
        backup=backup,
        status=document.get("status", {}),
        tenant=Tenant.model_validate(tenant) if tenant else None,
        store=BackupStore.model_validate(store) if store else None,
        jobs=jobs,
        platform=await look.platform(),
        terminating=await _is_terminating(look.cluster, backup),
        siblings=await _siblings(look.cluster, backup) if _found_damage(jobs) else (),
    )


def _found_damage(jobs: tuple[JobSeen, ...]) -> bool:
    """Whether a verification said that other backups are hit; only then it matters which there are."""
    return any(job.purpose == "verify" and job.outcome and job.outcome.facts.get("backups") for job in jobs)


async def _siblings(cluster: Cluster, backup: TenantBackup) -> tuple[Sibling, ...]:
    """Return the tenant's other committed backups in the same store."""
    namespace, spec = backup.metadata.namespace, backup.spec
    mine = f"spec.tenantRef.name={spec.tenant_ref.name},status.state=Succeeded"
    found = await cluster.list(BACKUP, namespace, fields=mine)
    return tuple(
        Sibling(
            name=item["metadata"]["name"],
            uid=item["metadata"]["uid"],
            backup_id=item["status"].get("backupId", ""),
            corrupt=item["status"].get("health") == "Corrupt",
        )
        for item in found
        if item["spec"]["storeRef"]["name"] == spec.store_ref.name
        and item["metadata"]["uid"] != backup.metadata.uid
    )


async def _is_terminating(cluster: Cluster, backup: TenantBackup) -> bool:
    """Whether more than this one object is going away; asked only when the answer matters."""
    if not backup.metadata.deletion_timestamp or FINALIZER not in backup.metadata.finalizers:
        return False
    definition = f"{BACKUP.plural}.{BACKUP.api_version.split('/')[0]}"
    for kind, name in ((NAMESPACE, backup.metadata.namespace), (DEFINITION, definition)):
        try:
            found = await cluster.get(kind, "", name)
        except Rejected:
            continue  # without the right to look nothing is known to go away
        if found is None or "deletionTimestamp" in found["metadata"]:
            return True
    return False
