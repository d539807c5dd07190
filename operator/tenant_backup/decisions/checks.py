"""Checks that backups and restores share: what must exist before a Job can be described."""

from __future__ import annotations

from typing import Any

from tenant_backup.api import BackupStore, Tenant
from tenant_backup.contract.reasons import Reason

from .verdicts import Ref, Verdict, Waiting

UNTIL_THERE = 30.0  # seconds; the work queue wakes us earlier


def tenant_is_there(tenant: Tenant | None, namespace: str, name: str) -> Verdict | None:
    """The order in which objects are applied does not matter: wait."""
    if tenant is not None and not tenant.metadata.deletion_timestamp:
        return None
    message = f"Tenant {name} does not exist in namespace {namespace}; create it, or correct the reference"
    return Waiting(Reason.TENANT_NOT_FOUND, message, UNTIL_THERE, (Ref("Tenant", namespace, name),))


def tenant_has_keys(tenant: Tenant) -> Verdict | None:
    """The operator makes them within a second of seeing the Tenant."""
    if tenant.status.keys_ready and tenant.status.key_secret and tenant.status.signing_key:
        return None
    namespace, name = tenant.metadata.namespace, tenant.metadata.name
    message = f"the keys of Tenant {name} are being made"
    return Waiting(Reason.TENANT_NOT_READY, message, UNTIL_THERE, (Ref("Tenant", namespace, name),))


def store_is_there(store: BackupStore | None, namespace: str, name: str) -> Verdict | None:
    """Likewise for the store."""
    if store is not None and not store.metadata.deletion_timestamp:
        return None
    message = (
        f"BackupStore {name} does not exist in namespace {namespace}; create it, or correct the reference"
    )
    return Waiting(Reason.STORE_NOT_FOUND, message, UNTIL_THERE, (Ref("BackupStore", namespace, name),))


def requested_by(annotations: Any, *, trusted: bool) -> dict[str, str]:
    """Return who asked, only where an admission policy vouches for the annotation."""
    user = str(annotations.get("tenantbackup.dev/requested-by", "")) if trusted else ""
    return {"requestedBy": user[:256]} if user else {}
