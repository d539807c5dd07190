"""What users write: one frozen pydantic type per kind, from which the CRDs and the reference are made.

Parse an object of the API server with `Tenant.model_validate(document)`. A broken stored object
raises `pydantic.ValidationError`, never anything else.
"""

from .backup_notifier import BackupNotifier
from .backup_schedule import BackupSchedule
from .backup_store import BackupStore
from .resource import Condition, Metadata, Resource
from .tenant import Tenant
from .tenant_backup import TenantBackup
from .tenant_restore import TenantRestore

KINDS: tuple[type[Resource], ...] = (
    Tenant,
    BackupStore,
    TenantBackup,
    TenantRestore,
    BackupSchedule,
    BackupNotifier,
)

__all__ = [
    "KINDS",
    "BackupNotifier",
    "BackupSchedule",
    "BackupStore",
    "Condition",
    "Metadata",
    "Resource",
    "Tenant",
    "TenantBackup",
    "TenantRestore",
]
