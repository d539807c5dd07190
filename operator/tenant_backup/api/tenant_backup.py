"""TenantBackup: one backup, once."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from pydantic import Field

from .resource import AGE, UNIQUE, Column, Names, Resource, Rule, Struct
from .values import (
    BackupDeadline,
    Bytes,
    Count,
    ExpiresAfter,
    ModuleName,
    Reference,
    RunStatus,
    TenantReference,
)

VerificationLevel = Literal["Checksum", "Contents"]
Verification = Literal["None", "Checksum", "Contents"]


Mode = Literal["Incremental", "Full"]
Parts = Literal["Database", "Files", "All"]


class Compression(Struct):
    """How hard zstd tries."""

    level: int = Field(default=3, ge=1, le=19)
    """1: fastest; 19: smallest."""


class Imported(Struct):
    """What stands in the store already."""

    backup_id: str = Field(max_length=80, pattern=r"^[a-z0-9][a-z0-9-]*_[0-9_-]+$")
    """Its name in the store."""


class TenantBackupSpec(Struct):
    """What to back up, and where to; immutable."""

    RULES: ClassVar = (
        Rule("self == oldSelf", "a TenantBackup is immutable: create a new one with another name"),
        Rule(
            "!has(self.imported) || self.deletionPolicy == 'Retain'",
            "imported needs deletionPolicy Retain: what another object wrote is not deleted with this one",
        ),
        Rule(
            "!has(self.imported) || !has(self.expiresAfter)",
            "imported backups do not expire: remove expiresAfter",
        ),
    )

    tenant_ref: TenantReference
    """Whose data."""
    store_ref: Reference
    """The BackupStore it goes to."""
    contents: Parts = "All"
    """All: everything the tenant has when the backup starts. Database: no files. Files: no database."""
    modules: tuple[ModuleName, ...] = Field(default=(), max_length=100, json_schema_extra=UNIQUE)
    """Rows and files of these modules of the tenant only; the structure, directories too, is always complete.
    Empty: everything."""
    imported: Imported | None = None
    """Nothing is backed up: this object stands for a backup that is in the store. The operator makes such
    objects when it imports a store; it does not matter who wrote one.
    """
    mode: Mode = "Incremental"
    """Incremental: store only what earlier backups have not stored; every backup is complete all the same.
    Full: store everything anew."""
    compression: Compression = Compression()
    """How hard zstd tries."""
    verification: Verification = "Checksum"
    """Checksum: read again what this run wrote and a seventh of the older packs, and compare SHA-256.
    Contents: also decrypt everything with the Tenant's identity and count the rows."""
    deletion_policy: Literal["Delete", "Retain"] = "Delete"
    """What happens to the data in the store when this object is deleted."""
    expires_after: ExpiresAfter | None = None
    """So long after it is complete the data is deleted, whatever the deletionPolicy; this object stays, as
    Expired. Not while it is held or to be restored, nor before a newer one of the same is good and verified.
    """
    deadline: BackupDeadline = "6h"
    """From start to end, such as 90m or 6h, at most 24h; then the backup has failed."""


class BackupBytes(Struct):
    """Exact sizes in bytes."""

    logical: Bytes | None = None
    """Read from the database and the volumes."""
    stored: Bytes | None = None
    """Of all packs this backup needs."""
    added: Bytes | None = None
    """Written to the store by this run."""


class Contents(Struct):
    """What is in the backup."""

    tables: Count | None = None
    """Number of tables."""
    rows: Count | None = None
    """Number of rows."""
    files: Count | None = None
    """Number of files and links."""
    changed_files: Count | None = None
    """Files that changed each time they were read: what is stored of one may be of two moments. The log of
    the Job names them.
    """
    skipped_files: Count | None = None
    """Sockets, pipes, devices and mounts of other file systems, which are not in the backup."""
    modules: tuple[ModuleName, ...] = Field(default=(), max_length=100, json_schema_extra=UNIQUE)
    """The modules it was limited to. Empty: everything is in it."""


class VerificationStatus(Struct):
    """The last verification."""

    level: VerificationLevel | None = None
    """What was done."""
    completed_at: datetime | None = None
    """When it ended, well or not."""
    healthy_at: datetime | None = None
    """When it was found Healthy the last time."""
    message: str | None = Field(default=None, max_length=1024)
    """What is damaged, with tables and other backups that are hit; or why it could not be verified."""
    requested: str | None = Field(default=None, max_length=128)
    """The last value of annotation tenantbackup.dev/verify that was acted on."""


class QueuePlace(Struct):
    """Where a waiting backup stands; written when the wait begins, and once an hour from then on."""

    position: Count | None = None
    """Place in the queue of all backups, 1 being the first."""
    message: str | None = Field(default=None, max_length=1024)
    """Which budget holds it back."""
    updated_at: datetime | None = None
    """When that was so."""


class DataAt(Struct):
    """Of when the data is: database and files of one backup are one recovery point."""

    database: datetime | None = None
    """The moment of the database: all of it is as it was then, if consistency is Snapshot."""
    files_from: datetime | None = None
    """When the first file was read."""
    files_to: datetime | None = None
    """When the last file had been read."""


class TenantBackupStatus(RunStatus):
    """How the backup went."""

    state: Literal["Pending", "Queued", "Running", "Succeeded", "Failed", "Expired"] | None = None
    """Derived from the conditions."""
    queue: QueuePlace | None = None
    """While it is Queued: what it waits for."""
    health: Literal["Unknown", "Healthy", "Degraded", "Corrupt"] | None = None
    """Unknown: not verified. Healthy. Degraded: restorable, with warnings. Corrupt."""
    verification: VerificationStatus | None = None
    """How it was verified last."""
    backup_id: str | None = Field(default=None, max_length=80)
    """Names the backup in the store: slug and creation time in UTC."""
    location: str | None = Field(default=None, max_length=1024)
    """Where the manifest is: what a restore without a cluster needs."""
    checksum: str | None = Field(default=None, max_length=80)
    """sha256:… of the manifest, which names the checksum of everything else."""
    encryption: str | None = Field(default=None, max_length=16)
    """How the data is encrypted."""
    size: str | None = Field(default=None, max_length=16)
    """Stored size for people; exact figures are in `bytes`."""
    added: str | None = Field(default=None, max_length=16)
    """What this run wrote, for people; exact figures are in `bytes`."""
    bytes: BackupBytes | None = None
    """Exact sizes."""
    contents: Contents | None = None
    """What is in it."""
    consistency: Literal["Snapshot", "PerTable", "PerFile"] | None = None
    """Snapshot: all tables as of one moment. PerFile: there are only files."""
    data_at: DataAt | None = None
    """Of when the data is."""


class TenantBackup(Resource):
    """One backup of one tenant. It succeeds only after everything is in the store and was read back."""

    NAMES: ClassVar = Names("TenantBackup", "tenantbackups", "tb")
    COLUMNS: ClassVar = (
        Column("Tenant", ".spec.tenantRef.name"),
        Column("State", ".status.state"),
        Column("Health", ".status.health"),
        Column("Size", ".status.size"),
        Column("Added", ".status.added"),
        Column("Duration", ".status.duration"),
        AGE,
        Column("Store", ".spec.storeRef.name", wide=True),
        Column("Checksum", ".status.checksum", wide=True),
        Column("Reason", '.status.conditions[?(@.type=="Succeeded")].reason', wide=True),
        Column("Requested-By", ".status.requestedBy", wide=True),
        Column("Encryption", ".status.encryption", wide=True),
        Column("Unusual", '.status.conditions[?(@.type=="Unusual")].reason', wide=True),
    )
    SELECTABLE: ClassVar = (".spec.tenantRef.name", ".status.state")

    spec: TenantBackupSpec
    """What to back up, and where to."""
    status: TenantBackupStatus = TenantBackupStatus()
    """How it went."""
