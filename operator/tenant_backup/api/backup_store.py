"""BackupStore: where backups go."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from .resource import AGE, UNIQUE, Column, Names, Resource, Rule, Status, Struct
from .values import ClaimReference, Recipient, Reference, UploadRate

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


class BackupStoreSpec(Struct):
    """Where backups go: exactly one of the fields."""

    RULES: ClassVar = (Rule("has(self.s3) != has(self.volume)", "set exactly one of s3 and volume"),)

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


class Capabilities(Struct):
    """What the store lets us do, as tried by the probe."""

    conditional_put: bool | None = None
    """Whether it refuses to overwrite an object that must be created."""
    delete: bool | None = None
    """Whether the credentials may delete."""


class BackupStoreStatus(Status):
    """What the operator knows about the store."""

    capabilities: Capabilities | None = None
    """What the store lets us do."""


class BackupStore(Resource):
    """A place for backups, shared by the tenants of its namespace, each below a prefix of its own."""

    NAMES: ClassVar = Names("BackupStore", "backupstores", "bst")
    COLUMNS: ClassVar = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Bucket", ".spec.s3.bucket"),
        Column("Claim", ".spec.volume.persistentVolumeClaim.claimName"),
        AGE,
        Column("Endpoint", ".spec.s3.endpoint", wide=True),
    )

    spec: BackupStoreSpec
    """Where backups go."""
    status: BackupStoreStatus = BackupStoreStatus()
    """What the operator knows about it."""
