"""Observe a TenantBackup: its Jobs and what it refers to."""

from __future__ import annotations

from datetime import datetime

from tenant_backup.api import BackupStore, Tenant, TenantBackup
from tenant_backup.api.references import FINALIZER
from tenant_backup.cluster import BACKUP, DEFINITION, NAMESPACE, STORE, TENANT, Cluster, Object, Rejected
from tenant_backup.decisions.observed import BackupSeen

from .look import Look


async def observe(look: Look, document: Object, now: datetime) -> BackupSeen:
    """Return one look at the TenantBackup. Raises a ClusterError or pydantic.ValidationError."""
    backup = TenantBackup.model_validate(document)
    namespace = backup.metadata.namespace
    tenant = await look.cluster.get(TENANT, namespace, backup.spec.tenant_ref.name)
    store = await look.cluster.get(STORE, namespace, backup.spec.store_ref.name)
    return BackupSeen(
        backup=backup,
        status=document.get("status", {}),
        tenant=Tenant.model_validate(tenant) if tenant else None,
        store=BackupStore.model_validate(store) if store else None,
        jobs=await look.jobs(namespace, backup.metadata.uid, now),
        platform=await look.platform(),
        terminating=await _is_terminating(look.cluster, backup),
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
