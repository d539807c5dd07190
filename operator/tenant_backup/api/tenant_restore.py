"""TenantRestore: one restore, once."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .resource import AGE, UNIQUE, Column, Names, Resource, Rule, Struct, keyed_by, unchanged_optional
from .values import (
    Bytes,
    ClaimReference,
    Count,
    DatabaseName,
    Deadline,
    KeepPrevious,
    Name,
    Reference,
    RunStatus,
    SelectedFiles,
    TenantReference,
    VolumeName,
)

_FIXED = ("source", "target", "strategy", "keepPrevious", "deadline")  # required, or with a default
_FIXED_OPTIONAL = ("select", "identitySecretRef")

SkippedObject = Annotated[str, Field(max_length=512)]


class Source(Struct):
    """What is restored."""

    backup_ref: Reference
    """The TenantBackup to restore."""


class TargetFiles(Struct):
    """A volume that is filled, or whose files are replaced."""

    name: VolumeName
    """Name of the volume in the Tenant's spec.files, and in the backup."""
    persistent_volume_claim: ClaimReference | None = None
    """The volume that gets the files. Default: the Tenant's own."""


class Target(Struct):
    """Where it is restored to."""

    tenant_ref: TenantReference
    """The Tenant whose server and credentials are used; it must be the tenant of the backup."""
    database: DatabaseName | None = None
    """With strategy NewDatabase, the database to create. With Replace, the Tenant's own, which is replaced
    together with target.files; without those it is in any case.
    """
    files: tuple[TargetFiles, ...] = Field(default=(), max_length=16, json_schema_extra=keyed_by("name"))
    """The volumes to fill, which must be empty, or with strategy Replace those whose files are replaced, all
    of them, or with Merge some; others stay as they are. Files come back as the user and group of
    securityContext.
    """


class Select(Struct):
    """A part of the backup."""

    files: tuple[SelectedFiles, ...] = Field(min_length=1, max_length=64, json_schema_extra=UNIQUE)
    """What is restored of the volumes in target.files, as volume:pattern, such as uploads:hr/**: at least one
    pattern of each. * and ? stand for what is in one name, ** also for slashes; of a directory that is meant
    all is. A pattern that means nothing in the backup is refused before anything is touched.
    """


class Confirmation(Struct):
    """A person's word that this may be replaced."""

    RULES: ClassVar = (
        Rule(
            "has(self.database) || (has(self.files) && size(self.files) > 0)",
            "confirm names what will be replaced: database, files, or both",
        ),
    )

    database: DatabaseName | None = None
    """Name of the live database, when it will be replaced."""
    files: tuple[VolumeName, ...] = Field(default=(), max_length=16, json_schema_extra=UNIQUE)
    """Names of the volumes whose files will be replaced."""
    expires: datetime
    """Until when the word holds: at most 24 hours ahead."""


class Approval(Struct):
    """What Replace and Merge wait for. Setting it needs the verb `approve` on the Tenant."""

    confirm: Confirmation
    """Names what will be replaced."""


class TenantRestoreSpec(Struct):
    """What to restore, and where to; immutable except `approval` and `undo`."""

    RULES: ClassVar = (
        Rule(
            "self.strategy != 'NewDatabase' || has(self.target.database)"
            " || (has(self.target.files) && size(self.target.files) > 0)",
            "strategy NewDatabase needs target.database, the database to create, or target.files",
        ),
        Rule(
            "self.strategy != 'Merge'"
            " || (has(self.select) && has(self.target.files) && size(self.target.files) > 0"
            " && !has(self.target.database))",
            "strategy Merge needs target.files and select.files, and no target.database: it is for files",
        ),
        Rule(
            "self.strategy != 'Replace' || !has(self.select)",
            "select is for strategies NewDatabase and Merge; Replace replaces all",
        ),
        Rule(
            "self.strategy != 'NewDatabase' || !has(self.approval)",
            "approval is for strategies Replace and Merge; NewDatabase replaces nothing",
            field=".approval",
        ),
        Rule(
            "self.strategy != 'NewDatabase' || !self.undo",
            "undo is for strategies Replace and Merge; drop the new database instead",
            field=".undo",
        ),
        Rule(
            "oldSelf.hasValue() || !self.undo",
            "undo is set after the restore, not when it is created",
            field=".undo",
            on_create_too=True,
        ),
        Rule(
            "!oldSelf.undo || self.undo",
            "undo cannot be taken back: create a new TenantRestore",
            field=".undo",
        ),
        Rule(
            " && ".join(
                [f"self.{field} == oldSelf.{field}" for field in _FIXED]
                + [unchanged_optional(field) for field in _FIXED_OPTIONAL]
            ),
            "a TenantRestore is immutable except approval and undo: create a new one with another name",
        ),
    )

    source: Source
    """What is restored."""
    target: Target
    """Where it is restored to."""
    strategy: Literal["NewDatabase", "Replace", "Merge"]
    """NewDatabase: creates target.database and fills the empty volumes of target.files; what neither names is
    not restored. Replace: restores beside the live database and the files of target.files, checks, then swaps
    all of it. Merge: puts the files of select among those of target.files, in the place of those of the same
    name.
    """
    select: Select | None = None
    """With strategies NewDatabase and Merge, the part of the files that is restored. Default: all."""
    approval: Approval | None = None
    """With strategies Replace and Merge nothing is touched before this is set."""
    identity_secret_ref: Reference | None = None
    """Secret with key `identity` (AGE-SECRET-KEY-1…), instead of the Tenant's."""
    keep_previous: KeepPrevious = "24h"
    """How long the database and files that were replaced are kept."""
    undo: bool = False
    """Set to true to switch back while what was replaced is kept."""
    deadline: Deadline = "6h"
    """From start to end, such as 90m or 6h; then the restore has failed."""


class ResolvedBackup(Struct):
    """The backup that was chosen, settled once."""

    name: Name
    """The TenantBackup."""
    backup_id: str = Field(max_length=80)
    """Its name in the store."""
    checksum: str = Field(max_length=80)
    """sha256:… of its manifest."""


class Restored(Struct):
    """What came back."""

    tables: Count | None = None
    """Number of tables."""
    rows: Count | None = None
    """Number of rows."""
    files: Count | None = None
    """Number of files and links."""
    bytes: Bytes | None = None
    """Bytes sent to the database and the volumes."""


class Check(Struct):
    """What was proved before anything was swapped."""

    rows_match: bool | None = None
    """Rows of each table are as many as the manifest says."""
    constraints_valid: bool | None = None
    """All constraints and indexes were created and hold."""


class KeepLive(Struct):
    """What excluded columns with onRestore: KeepLive got."""

    kept: Count | None = None
    """Rows whose live value was kept."""
    without_match: Count | None = None
    """Rows that are not in the live database."""


class TenantRestoreStatus(RunStatus):
    """How the restore went."""

    state: Literal["Pending", "ApprovalPending", "Running", "Succeeded", "Failed", "Undone"] | None = None
    """Derived from the conditions."""
    resolved_backup: ResolvedBackup | None = None
    """The backup that was chosen."""
    restored: Restored | None = None
    """What came back."""
    check: Check | None = None
    """What was proved."""
    keep_live: KeepLive | None = None
    """What excluded columns got."""
    skipped: tuple[SkippedObject, ...] = Field(default=(), max_length=200)
    """Objects left out because they need administrator rights or do not exist at the target; at most 200."""
    previous_database: DatabaseName | None = None
    """With strategy Replace, the name the replaced database has now."""
    previous_files: tuple[VolumeName, ...] = Field(default=(), max_length=16)
    """The volumes that keep files that were replaced, below .tenant-backup."""
    undo_until: datetime | None = None
    """Until when it is kept."""


class TenantRestore(Resource):
    """One restore of one backup.

    What is there is not touched before what comes is complete and checked.
    """

    NAMES: ClassVar = Names("TenantRestore", "tenantrestores", "tr")
    COLUMNS: ClassVar = (
        Column("Tenant", ".spec.target.tenantRef.name"),
        Column("Backup", ".spec.source.backupRef.name"),
        Column("Strategy", ".spec.strategy"),
        Column("State", ".status.state"),
        Column("Duration", ".status.duration"),
        AGE,
        Column("Database", ".spec.target.database", wide=True),
        Column("Previous", ".status.previousDatabase", wide=True),
        Column("Undo-Until", ".status.undoUntil", wide=True),
        Column("Reason", '.status.conditions[?(@.type=="Succeeded")].reason', wide=True),
        Column("Requested-By", ".status.requestedBy", wide=True),
    )
    SELECTABLE: ClassVar = (".spec.target.tenantRef.name", ".status.state")

    spec: TenantRestoreSpec
    """What to restore, and where to."""
    status: TenantRestoreStatus = TenantRestoreStatus()
    """How it went."""
