"""What the audit trail says of a TenantBackup: which one, whose and where, the same way for every event."""

from __future__ import annotations

from typing import Any

from tenant_backup.api import TenantBackup
from tenant_backup.contract.reasons import Reason

from .plan import Action, Audit, DeleteBackup
from .summaries import BackupSummary


def audited(event: str, backup: TenantBackup, **more: Any) -> Audit:
    """Return the line about `event`; `more` is what else is known of it."""
    metadata, spec = backup.metadata, backup.spec
    about = {
        "event": event,
        "namespace": metadata.namespace,
        "name": metadata.name,
        "uid": metadata.uid,
        "tenant": spec.tenant_ref.name,
        "store": spec.store_ref.name,
    }
    return Audit(about | more)


def deletion(event: str, backup: BackupSummary, reason: Reason, **more: Any) -> tuple[Action, ...]:
    """Return what deletes a TenantBackup as it was read, and first the line that says so."""
    about = {
        "event": event,
        "namespace": backup.namespace,
        "name": backup.name,
        "uid": backup.uid,
        "tenant": backup.tenant,
        "store": backup.store,
        "backupId": backup.backup_id,
        "reason": str(reason),
    }
    return (Audit(about | more), DeleteBackup(backup.name, backup.uid, str(backup.version)))
