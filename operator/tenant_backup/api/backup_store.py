"""BackupStore: where backups go."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from .resource import AGE, UNIQUE, Column, Names, Resource, Rule, Status, Struct
from .values import Bytes, CapacityLimit, ClaimReference, Count, Recipient, Reference, UploadRate

ClusterId = Annotated[str, Field(max_length=253)]
_DOTS = r"(^|/)\\.\\.?(/|$)"

Folder = Annotated[
    str,
    Field(
        max_length=512,
        pattern=r"^[A-Za-z0-9!_.*'()/=-]*$",
        json_schema_extra={
            "x-kubernetes-validations": [
                Rule(f'!self.matches("{_DOTS}")', "must not have . or .. between slashes").document()
            ]
        },
    ),
]


class S3(Struct):
    """A bucket of Amazon S3 or of a server that speaks the same protocol."""

    RULES: ClassVar = (
        Rule(
            "!has(self.caSecretRef) || (has(self.endpoint) && self.endpoint.startsWith('https://'))",
            "caSecretRef needs an endpoint that starts with https://",
        ),
    )

    bucket: str = Field(min_length=3, max_length=63, pattern="^[A-Za-z0-9][A-Za-z0-9._-]*[A-Za-z0-9]$")
    """Name of the bucket; it must exist."""
    prefix: Folder = ""
    """Folder in the bucket that belongs to this cluster alone."""
    endpoint: str | None = Field(default=None, max_length=512, pattern=r"^https?://[^\s@?#]+$")
    """Address of the server. Default: Amazon's, by region."""
    region: str | None = Field(default=None, min_length=1, max_length=64, pattern="^[A-Za-z0-9-]+$")
    """Region of the bucket."""
    credentials_secret_ref: Reference
    """Secret with keys `accessKeyId` and `secretAccessKey`."""
    ca_secret_ref: Reference | None = None
    """Secret with key `ca.crt`: the certificate authority that signed the server's certificate."""


class Volume(Struct):
    """A folder on a volume of this namespace."""

    persistent_volume_claim: ClaimReference
    """The volume: ReadWriteMany, or Jobs follow the node that holds it."""
    path: Folder = "/"
    """Folder on the volume that belongs to this cluster alone."""


class StoreLimits(Struct):
    """How hard backups may use the store."""

    upload_rate: UploadRate | None = None
    """Each backup sends at most so many bytes per second, such as 50Mi, on average: a pack of about 32 MiB
    goes at once. Default: as fast as it can.
    """


class Capacity(Struct):
    """How much there is."""

    limit: CapacityLimit
    """How much the store is meant to hold, such as 1Ti."""
    warn_at: int = Field(default=80, ge=1, le=100)
    """From so many percent of it on, as the daily collection counts, condition CapacityOk is False and an
    Event says StoreNearlyFull; backups go on.
    """


class BackupStoreSpec(Struct):
    """Where backups go: exactly one of the fields."""

    RULES: ClassVar = (
        Rule("has(self.s3) != has(self.volume)", "set exactly one of s3 and volume"),
        Rule(
            "!has(self.collectorCredentialsSecretRef) || has(self.s3)",
            "collectorCredentialsSecretRef needs s3",
        ),
    )

    s3: S3 | None = None
    """An S3 bucket."""
    volume: Volume | None = None
    """A volume of this namespace."""
    recipients: tuple[Recipient, ...] = Field(default=(), max_length=20, json_schema_extra=UNIQUE)
    """Public age keys (age1…) of the platform: who has their identities can read every encrypted backup made
    from now on into this store. They are added to each tenant's own recipients.
    """
    limits: StoreLimits = StoreLimits()
    """How hard backups may use the store."""
    capacity: Capacity | None = None
    """How much there is."""
    collector_credentials_secret_ref: Reference | None = None
    """Secret with keys `accessKeyId` and `secretAccessKey` that may delete: it is used where data is deleted,
    so the store's own credentials need no right to. Default: the store's own.
    """


class Capabilities(Struct):
    """What the store lets us do, as tried by the probe."""

    conditional_put: bool | None = None
    """Whether it refuses to overwrite an object that must be created."""
    delete: bool | None = None
    """Whether the credentials may delete."""


class Collection(Struct):
    """The last time that what no backup needs any more was deleted."""

    started_at: datetime | None = None
    """When the last one began, or a dry run."""
    attempted_at: datetime | None = None
    """When the last one began that was no dry run; the next is an interval later."""
    completed_at: datetime | None = None
    """When the last one that succeeded ended."""
    requested: str | None = Field(default=None, max_length=4096)
    """The last value of annotation tenantbackup.dev/collect that was done."""
    candidates: Count | None = None
    """Objects that it found unused: one that comes after the grace deletes them."""
    deleted: Count | None = None
    """Objects it deleted."""
    freed_bytes: Bytes | None = None
    """What they had."""
    message: str | None = Field(default=None, max_length=4096)
    """Why it failed, what it left out, or what a dry run found."""


class CataloguePage(Struct):
    """How far a listing is that takes several Jobs."""

    imports: bool = False
    """Whether it creates objects."""
    request: str | None = Field(default=None, max_length=128)
    """The value of annotation tenantbackup.dev/import it was begun for."""
    after: str | None = Field(default=None, max_length=200)
    """The last backup it has seen."""
    unlisted: Count | None = None
    """Backups without an object so far."""
    imported: Count | None = None
    """Objects created so far."""
    unreadable: Count | None = None
    """Manifests that cannot be read so far."""
    clusters: tuple[ClusterId, ...] = Field(default=(), max_length=5)
    """Other clusters that own tenants here, so far."""


class Catalogue(Struct):
    """The last time that the backups in the store were listed."""

    started_at: datetime | None = None
    """When its last Job began."""
    completed_at: datetime | None = None
    """When it was complete; the next is an interval later."""
    generation: Count | None = None
    """The metadata.generation of the spec it was for."""
    requested: str | None = Field(default=None, max_length=128)
    """The last value of annotation tenantbackup.dev/import that was done."""
    imported: Count | None = None
    """TenantBackups that the last import created."""
    clusters: tuple[ClusterId, ...] = Field(default=(), max_length=5)
    """Other clusters that own tenants here: their backups can be restored; see tenantbackup.dev/adopt."""
    page: CataloguePage | None = None
    """How far a listing is that takes several Jobs."""
    message: str | None = Field(default=None, max_length=4096)
    """Why it failed, or what it left out."""


class BackupStoreStatus(Status):
    """What the operator knows about the store."""

    capabilities: Capabilities | None = None
    """What the store lets us do."""
    collection: Collection | None = None
    """Deleting what no backup needs any more."""
    catalogue: Catalogue | None = None
    """What backups there are."""
    unlisted: Count | None = None
    """Backups of this namespace's tenants in the store without a TenantBackup; annotation
    tenantbackup.dev/import with any new value makes them one."""
    tenants: Count | None = None
    """How many tenants of this cluster had data here at the last collection."""
    backups: Count | None = None
    """How many backups they had then."""
    used: str | None = Field(default=None, max_length=32)
    """What their data took then, such as 1.2Gi."""
    used_bytes: Bytes | None = None
    """The same in bytes."""


class BackupStore(Resource):
    """A place for backups, shared by the tenants of its namespace, each below a prefix of its own."""

    NAMES: ClassVar = Names("BackupStore", "backupstores", "bst")
    COLUMNS: ClassVar = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Bucket", ".spec.s3.bucket"),
        Column("Claim", ".spec.volume.persistentVolumeClaim.claimName"),
        Column("Backups", ".status.backups", "integer"),
        Column("Used", ".status.used"),
        AGE,
        Column("Tenants", ".status.tenants", "integer", wide=True),
        Column("Collected", ".status.collection.completedAt", "date", wide=True),
        Column("Endpoint", ".spec.s3.endpoint", wide=True),
    )

    spec: BackupStoreSpec
    """Where backups go."""
    status: BackupStoreStatus = BackupStoreStatus()
    """What the operator knows about it."""
