"""Tenant: what a tenant is and where its data lives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .resource import AGE, UNIQUE, Column, Names, Resource, Rule, Status, Struct, keyed_by
from .values import (
    LONG_NAME_LIMIT,
    Bytes,
    ClaimReference,
    Count,
    DatabaseName,
    Glob,
    ModuleName,
    Name,
    ReadRate,
    Recipient,
    RecoveryPoint,
    Reference,
    SigningKey,
    StoredBytes,
    TableName,
    VolumeGlob,
    VolumeName,
)

_SLUG = "^[a-z0-9-]{1,40}$"
UserId = Annotated[int, Field(ge=1, le=2147483647, json_schema_extra={"format": "int64"})]  # never root
DEFAULT_PORTS = {"PostgreSQL": 5432, "MariaDB": 3306, "MySQL": 3306}


class Tls(Struct):
    """How the connection to the database server is protected."""

    RULES: ClassVar = (
        Rule(
            "self.mode != 'VerifyFull' || has(self.caSecretRef)",
            "mode VerifyFull needs caSecretRef: the Secret with the server's CA certificate as ca.crt",
        ),
        Rule(
            "self.mode == 'VerifyFull' || !has(self.caSecretRef)",
            "caSecretRef is used by mode VerifyFull only; set mode: VerifyFull or leave it out",
        ),
    )

    mode: Literal["Disable", "Require", "VerifyFull"]
    """Disable: no TLS. Require: TLS, certificate not checked. VerifyFull: certificate and host name checked.
    """
    ca_secret_ref: Reference | None = None
    """Secret with key `ca.crt`: the certificate authority that signed the server's certificate."""


class Database(Struct):
    """The tenant's database on a server it may share with others."""

    engine: Literal["PostgreSQL", "MariaDB", "MySQL"]
    """The kind of database server."""
    host: str = Field(min_length=1, max_length=253, pattern="^[A-Za-z0-9]([A-Za-z0-9.:-]*[A-Za-z0-9])?$")
    """Host name or address of the server; one, not a list."""
    port: int | None = Field(default=None, ge=1, le=65535)
    """TCP port of the server. Default: 5432 for PostgreSQL, 3306 for MariaDB and MySQL."""
    name: DatabaseName
    """Name of the database on the server."""
    credentials_secret_ref: Reference
    """Secret with keys `username` and `password`: a login that may read everything it backs up."""
    admin_credentials_secret_ref: Reference | None = None
    """Secret with keys `username` and `password`: used by restores only, and only to create, rename and drop
    databases and a temporary login.
    """
    tls: Tls | None = None
    """How the connection is protected; without it TLS is used when the server offers it."""
    connections: int = Field(default=4, ge=2, le=32)
    """At most this many connections at once: one holds the snapshot, the others read or load."""
    read_rate: ReadRate | None = None
    """A backup reads at most so many bytes per second, such as 20Mi, on average. Default: as fast as it can.
    """

    @property
    def tcp_port(self) -> int:
        """The port, with the engine's own as default."""
        return self.port or DEFAULT_PORTS[self.engine]


class FilesSecurityContext(Struct):
    """Who can read the files, and who they belong to when they come back."""

    run_as_user: UserId
    """User that may read all of them."""
    run_as_group: UserId
    """Its group."""
    supplemental_groups: tuple[UserId, ...] = Field(default=(), max_length=32, json_schema_extra=UNIQUE)
    """Further groups, when the files need them."""


class Files(Struct):
    """A volume with files of the tenant, in the Tenant's namespace. Backups change nothing of it."""

    name: VolumeName
    """Names the volume in backups; unique in the tenant."""
    persistent_volume_claim: ClaimReference
    """The volume. With ReadWriteOnce, Jobs need the node of whoever uses it."""
    exclude: tuple[Glob, ...] = Field(default=(), max_length=100, json_schema_extra=UNIQUE)
    """What is left out, such as `cache/**`: paths from the top of the volume. `*` and `?` stand for what is
    in one name, `**` also for slashes. A directory is left out with all that is in it.
    """
    security_context: FilesSecurityContext
    """Who can read the files."""
    privileged: bool = False
    """True: the containers of this volume run as root instead, with the rights to read all files and to give
    them back to the users and groups they belonged to. The namespace has to allow that: Pod Security level
    baseline.
    """


class Module(Struct):
    """A named group of tables and files that can be backed up on its own."""

    RULES: ClassVar = (
        Rule(
            "(has(self.tables) && size(self.tables) > 0) || (has(self.files) && size(self.files) > 0)",
            "a module needs tables, files, or both",
        ),
    )

    name: ModuleName
    """Name of the module, unique in the tenant."""
    tables: tuple[TableName, ...] = Field(default=(), max_length=500, json_schema_extra=UNIQUE)
    """Tables as schema.table (MariaDB, MySQL: database.table); patterns such as `public.hr_*` are allowed."""
    files: tuple[VolumeGlob, ...] = Field(default=(), max_length=100, json_schema_extra=UNIQUE)
    """Files as volume:path, such as `uploads:hr/**`: the volume's name in spec.files, and paths from its top.
    `*` and `?` stand for what is in one name, `**` also for slashes.
    """


class ExcludedColumn(Struct):
    """A column whose values never leave the database server."""

    RULES: ClassVar = (
        Rule(
            "(self.onRestore == 'Value') == has(self.value)",
            "onRestore: Value needs value, and value is for onRestore: Value only",
        ),
        Rule(
            "!has(self.__else__) || self.onRestore == 'KeepLive'",
            "else is for onRestore: KeepLive only: what rows without a match in the live database get",
        ),
    )

    table: TableName
    """The table as schema.table (MariaDB, MySQL: database.table)."""
    column: DatabaseName
    """The column."""
    on_restore: Literal["KeepLive", "Null", "Default", "Value"] = "KeepLive"
    """What a restore puts in its place. KeepLive: copied by primary key from the live database; Null;
    Default: the column's default; Value: the text in `value`.
    """
    value: str | None = Field(default=None, max_length=1024)
    """With onRestore: Value, the text every row gets."""
    else_: str | None = Field(default=None, alias="else", max_length=1024)
    """With onRestore: KeepLive, the text for rows without a match in the live database; without it they get
    NULL.
    """

    @property
    def replacement(self) -> str | None:
        """The text a restore writes: for every row, or with KeepLive for rows without a match."""
        return self.else_ if self.on_restore == "KeepLive" else self.value


class Exclusions(Struct):
    """What is left out of every backup of this tenant."""

    tables: tuple[TableName, ...] = Field(default=(), max_length=500, json_schema_extra=UNIQUE)
    """Tables whose structure is kept and whose rows are left out."""
    columns: tuple[ExcludedColumn, ...] = Field(
        default=(),
        max_length=200,
        json_schema_extra=keyed_by("table", "column"),
    )
    """Columns whose values never leave the server, such as password hashes."""


class Encryption(Struct):
    """Who can read the tenant's backups."""

    RULES: ClassVar = (
        Rule(
            "self.mode != 'None' || !has(self.recipients) || size(self.recipients) == 0",
            "mode None encrypts for nobody: remove recipients, or set mode: Age",
        ),
    )

    mode: Literal["Age", "None"] = "Age"
    """Age: only the recipients can read new backups. None: whoever can read the store can, without any key.
    Backups that are there stay as they are.
    """
    recipients: tuple[Recipient, ...] = Field(default=(), max_length=20, json_schema_extra=UNIQUE)
    """Public age keys (age1…); whoever has one of the identities that belong to them can restore."""
    identity_secret_ref: Reference | None = None
    """Secret with key `identity` (AGE-SECRET-KEY-1…); only restores mount it."""
    trusted_signing_keys: tuple[SigningKey, ...] = Field(default=(), max_length=10, json_schema_extra=UNIQUE)
    """Public keys (ed25519:…) from recovery sheets: what they signed before the cluster was lost is believed,
    too. When the key Secret of the first of them is there before the Tenant, no new one is made.
    """


class Objectives(Struct):
    """What the backups of the tenant must be good for."""

    recovery_point: RecoveryPoint | None = None
    """At most so much is ever lost, such as 26h: the newest good backup of everything holds no older data,
    counted from when it started. Else condition ObjectivesMet is False and an Event says BackupMissed,
    whatever schedules do. A daily backup needs a day and as long as it may take.
    """


class TenantLimits(Struct):
    """How much the tenant is meant to use."""

    stored_bytes: StoredBytes | None = None
    """Its backups are meant to need no more in their stores, such as 200Gi. Beyond it condition WithinLimits
    is False and an Event says so; backups go on.
    """


class TenantSpec(Struct):
    """What the tenant is."""

    RULES: ClassVar = (
        Rule(
            "has(self.database) || (has(self.files) && size(self.files) > 0)",
            "a Tenant needs database, files, or both: what is backed up",
        ),
    )

    slug: str | None = Field(default=None, max_length=40, pattern=_SLUG)
    """Names the tenant in every store; immutable. Default: metadata.name."""
    database: Database | None = None
    """Where the rows live."""
    files: tuple[Files, ...] = Field(default=(), max_length=16, json_schema_extra=keyed_by("name"))
    """Where files live."""
    modules: tuple[Module, ...] = Field(
        default=(),
        max_length=100,
        json_schema_extra=keyed_by("name"),
    )
    """Named groups of tables and files, for backups of a part."""
    exclusions: Exclusions = Exclusions()
    """What is left out of every backup."""
    encryption: Encryption = Encryption()
    """Who can read the backups. With mode Age and no recipients the Tenant is Stalled and says how to make a
    key.
    """
    objectives: Objectives = Objectives()
    """What the backups must be good for."""
    limits: TenantLimits = TenantLimits()
    """How much the tenant is meant to use."""
    offboarding: Literal["Retain", "Delete"] = "Retain"
    """What happens to the backups when the Tenant is deleted. Retain: nothing. Delete: its TenantBackups are
    deleted, each as its deletionPolicy says, and the Tenant is gone when they are. When the namespace is
    deleted the data stays.
    """


class DatabaseFacts(Struct):
    """What the last look at the database found."""

    version: str | None = Field(default=None, max_length=128)
    """Version of the server."""
    size_bytes: Bytes | None = None
    """Size of the database on the server, in bytes."""
    tables: Count | None = None
    """Number of tables."""


class Counted(Struct):
    """A list that may be long."""

    count: Count
    """How many there are."""
    names: tuple[Annotated[str, Field(max_length=512)], ...] = Field(default=(), max_length=400)
    """The first of them, as many as fit."""


class VolumeFacts(Struct):
    """What the last look at a volume found."""

    name: VolumeName
    """Its name in spec.files."""
    files: Count | None = None
    """Number of files and links."""
    bytes: Bytes | None = None
    """What they take, in bytes."""
    complete: bool | None = None
    """False: it is so large that not all of it was looked at."""


class Estimate(Struct):
    """How long a backup of everything takes."""

    duration: str = Field(max_length=16)
    """Such as 8s or 12m30s."""
    basis: Literal["Backups", "Size"]
    """Backups: as the last seven did, half of which took longer. Size: a guess by how much there is."""


class LastRun(Struct):
    """The newest that succeeded."""

    name: Name
    """Name of the object."""
    completed_at: datetime
    """When it was complete."""


class LastVerified(Struct):
    """The newest verification that found a backup Healthy."""

    name: Name
    """Name of the TenantBackup."""
    verified_at: datetime
    """When it was found Healthy."""


class RecoveryPointStatus(Struct):
    """How the tenant stands to objectives.recoveryPoint."""

    met_until: datetime | None = None
    """When the newest good backup is, or was, too old."""
    missed_at: datetime | None = None
    """When the objective was missed the last time."""


class TenantStatus(Status):
    """What the operator knows about the tenant."""

    database: DatabaseFacts | None = None
    """What the last look at the database found."""
    files: tuple[VolumeFacts, ...] = Field(default=(), max_length=16, json_schema_extra=keyed_by("name"))
    """What the last look at the volumes found."""
    looked_at: datetime | None = None
    """When that was. Once a day it is done again."""
    estimate: Estimate | None = None
    """How long a backup of everything takes."""
    unclaimed_tables: Counted | None = None
    """Tables with rows that no module claims: a backup of modules leaves them out."""
    leaving_foreign_keys: Counted | None = None
    """Foreign keys to rows that a backup of everything leaves out (spec.exclusions), or one of that module
    alone: in what is restored from it they do not hold.
    """
    last_backup: LastRun | None = None
    """The newest good TenantBackup: it succeeded and is not Corrupt."""
    last_verified: LastVerified | None = None
    """The newest verification that found a backup Healthy, of the backups that are still good."""
    last_restore: LastRun | None = None
    """The newest TenantRestore that succeeded."""
    backups: Count | None = None
    """Number of TenantBackups that succeeded and are still there."""
    stored_bytes: Bytes | None = None
    """What they need in their stores, in bytes."""
    recovery_point: RecoveryPointStatus | None = None
    """How the tenant stands to objectives.recoveryPoint."""
    signing_key: str | None = Field(default=None, max_length=64)
    """Public Ed25519 key (hex) that manifests of this tenant are signed with."""
    key_secret: Name | None = None
    """Secret the operator made for the tenant: keys `indexKey` and `signingKey`. Keep it."""
    keys_ready: bool | None = None
    """Whether the key Secret exists."""


class Tenant(Resource):
    """A tenant: its database, its files, its modules, what is left out and who can read its backups."""

    NAMES: ClassVar = Names("Tenant", "tenants", "tnt")
    COLUMNS: ClassVar = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Database", ".spec.database.name"),
        Column("Backups", ".status.backups", "integer"),
        Column("Last-Backup", ".status.lastBackup.completedAt", "date"),
        Column("Objectives", '.status.conditions[?(@.type=="ObjectivesMet")].status'),
        AGE,
        Column("Verified", ".status.lastVerified.verifiedAt", "date", wide=True),
        Column("Host", ".spec.database.host", wide=True),
    )
    RULES: ClassVar = (
        Rule(
            f"size(self.metadata.name) <= {LONG_NAME_LIMIT}",
            f"the name of a Tenant has at most {LONG_NAME_LIMIT} characters",
        ),
        Rule(
            f"has(self.spec.slug) || self.metadata.name.matches('{_SLUG}')",
            "spec.slug is needed because the name is longer than 40 characters or has a dot",
        ),
        Rule(
            "(has(self.spec.slug) ? self.spec.slug : self.metadata.name)"
            " == (has(oldSelf.spec.slug) ? oldSelf.spec.slug : oldSelf.metadata.name)",
            "slug is immutable: it names the tenant in every store",
        ),
    )

    spec: TenantSpec
    """What the tenant is."""
    status: TenantStatus = TenantStatus()
    """What the operator knows about it."""

    @property
    def slug(self) -> str:
        """The tenant's name in every store."""
        return self.spec.slug or self.metadata.name
