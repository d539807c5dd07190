"""What whoever deletes reads from the API first, because the roster may be a moment behind."""

from __future__ import annotations

from dataclasses import replace

from tenant_backup.api.resource import Metadata
from tenant_backup.cluster import BACKUP, DEFINITION, NAMESPACE, RESTORE, Cluster, Kind, Rejected
from tenant_backup.decisions.summaries import BackupSummary, of_backup

_UNDER_WAY = "status.state!=Succeeded,status.state!=Failed,status.state!=Undone"


async def backups_of(
    cluster: Cluster, namespace: str, tenant: str, labels: str = ""
) -> tuple[BackupSummary, ...]:
    """Return a tenant's backups as they are now; one that a restore is to read counts as held."""
    found = await cluster.list(BACKUP, namespace, labels=labels, fields=f"spec.tenantRef.name={tenant}")
    restores = await cluster.list(RESTORE, namespace, fields=_UNDER_WAY)
    needed = {restore["spec"]["source"]["backupRef"]["name"] for restore in restores}
    backups = [of_backup(document) for document in found]
    return tuple(replace(one, held=True) if one.name in needed else one for one in backups)


async def is_terminating(cluster: Cluster, metadata: Metadata, *kinds: Kind) -> bool:
    """Return whether the namespace or one of the kinds is going away, and not just this object."""
    definitions = [f"{kind.plural}.{kind.api_version.split('/')[0]}" for kind in kinds]
    for owner, name in ((NAMESPACE, metadata.namespace), *((DEFINITION, name) for name in definitions)):
        try:
            found = await cluster.get(owner, "", name)
        except Rejected:
            continue  # without the right to look nothing is known to go away
        if found is None or "deletionTimestamp" in found["metadata"]:
            return True
    return False
