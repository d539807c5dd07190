"""What a Job's containers are told: one JSON document in the environment, never a secret in it.

The operator builds these and serialises them with `to_json`; a stage reads them with `from_json`.
Secrets arrive as files below `paths.SECRETS`.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal

ENVIRONMENT_VARIABLE = "TENANT_BACKUP_JOB"

Contents = Literal["Database", "Files", "All"]  # of what a tenant has


@dataclass(frozen=True)
class Tenant:
    """Whose data this is. `cluster_id` is the UID of namespace kube-system."""

    cluster_id: str
    namespace: str
    name: str
    slug: str


@dataclass(frozen=True)
class Database:
    """Where the rows live. Credentials are files: {SECRETS}/database/{username,password}."""

    engine: Literal["PostgreSQL", "MariaDB", "MySQL", ""]  # "": of NO_DATABASE
    host: str
    port: int
    name: str
    tls_mode: Literal["Disable", "Prefer", "Require", "VerifyFull"] = "Prefer"
    connections: int = 4
    secret: str = ""  # name of the Secret, for messages only
    admin_secret: str = ""  # likewise; empty: the Tenant names none


NO_DATABASE = Database("", "", 0, "")  # in a job that is about files alone


@dataclass(frozen=True)
class Paths:
    """What a module has on a volume."""

    module: str
    patterns: list[str]


@dataclass(frozen=True)
class Volume:
    """A volume with files of the tenant. One container mounts it, at {FILES}/{name}, as this user."""

    name: str  # in the Tenant's spec.files
    claim: str  # PersistentVolumeClaim
    user: int
    group: int
    groups: list[int] = field(default_factory=list)
    exclude: list[str] = field(default_factory=list)  # patterns
    modules: list[Paths] = field(default_factory=list)  # those that have files on it
    only_modules: list[str] = field(default_factory=list)  # empty: all files, of modules or not
    select: list[str] = field(default_factory=list)  # patterns of what is restored; empty: everything
    privileged: bool = False  # root with a few rights, instead of user and group

    def container(self, stage: str) -> str:
        """Return the name of the container that runs a stage on it."""
        return f"{stage}-{self.name}"


@dataclass(frozen=True)
class Column:
    """A column that never leaves the server, and what a restore puts in its place."""

    table: str  # schema.table
    column: str
    on_restore: Literal["KeepLive", "Null", "Default", "Value"] = "KeepLive"
    value: str | None = None  # with Value: the text; with KeepLive: for rows without a match (or None: Null)


@dataclass(frozen=True)
class Module:
    """A named group of tables: exact names or patterns such as `public.hr_*`."""

    name: str
    tables: list[str]


@dataclass(frozen=True)
class Store:
    """Where packs and manifests go. Credentials: {SECRETS}/store/{accessKeyId,secretAccessKey}."""

    kind: Literal["s3", "volume"]
    bucket: str = ""
    prefix: str = ""  # inside the bucket or volume; no leading or trailing slash
    endpoint: str = ""
    region: str = ""
    secret: str = ""
    # the volume is mounted at paths.VOLUME


@dataclass(frozen=True)
class Backup:
    """One backup, once."""

    uid: str  # of the TenantBackup
    backup_id: str  # wished for: slug + creationTimestamp; `prepare` may add -2
    name: str  # of the TenantBackup
    tenant: Tenant
    database: Database  # NO_DATABASE: none is read
    store: Store
    recipients: list[str]  # age1… public keys; none with encryption None
    encryption: Literal["Age", "None"] = "Age"
    exclude_columns: list[Column] = field(default_factory=list)
    exclude_tables: list[str] = field(default_factory=list)  # structure kept, rows left out
    modules: list[Module] = field(default_factory=list)  # all the tenant's modules
    only_modules: list[str] = field(default_factory=list)  # empty: everything
    compression_level: int = 3
    verify: bool = True  # re-read and re-hash the packs of this run before success
    read_rate: int = 0  # bytes per second from the server; 0: no limit
    upload_rate: int = 0  # bytes per second to the store; 0: no limit
    mode: Literal["Incremental", "Full"] = "Incremental"  # Full: refer to nothing of earlier backups
    max_run_seconds: int = 86400  # from `prepare` to the commit: older packs are safe for so long
    adopt: str = ""  # whose prefix may be taken over: a cluster id, and more words to do it another time
    contents: Contents = "All"  # what was asked for
    files: list[Volume] = field(default_factory=list)  # to be read


@dataclass(frozen=True)
class Restore:
    """One restore, once."""

    uid: str  # of the TenantRestore
    name: str
    strategy: Literal["NewDatabase", "Replace", "Merge"]
    source: Tenant  # whose backup
    tenant: Tenant  # into whose server
    database: Database  # the target tenant's own database (live); NO_DATABASE: none is restored
    target_database: str  # NewDatabase: the name to create; Replace: the live name
    store: Store
    backup_id: str
    manifest_sha256: str  # hex; empty: not known to the cluster
    signing_key: str  # public Ed25519, hex: trusted, never from the store
    trusted_keys: list[str] = field(default_factory=list)  # likewise, of the tenant's earlier lives
    identity_secret: str = ""  # for messages
    exclude_columns: list[Column] = field(default_factory=list)  # the tenant's present policy
    deadline_seconds: int = 21600
    files: list[Volume] = field(default_factory=list)  # to be filled, each with what has its name

    @property
    def replaces(self) -> bool:
        """Whether it takes the place of what is live."""
        return self.strategy == "Replace"

    @property
    def decided_by(self) -> str:
        """The volume that says whether all of it has taken place; empty: the database does."""
        return "" if self.database.engine else self.files[0].name


@dataclass(frozen=True)
class Swap:
    """After a Replace: switch back, or drop what was kept. Runs with admin credentials only."""

    uid: str  # of the TenantRestore whose Replace it was
    name: str
    action: Literal["Undo", "DropPrevious"]
    database: Database  # NO_DATABASE: none was replaced
    target_database: str
    files: list[Volume] = field(default_factory=list)  # on which files were replaced


@dataclass(frozen=True)
class Preflight:
    """Can all that the tenant has be reached and read?"""

    tenant: Tenant
    database: Database  # NO_DATABASE: there is none to look at
    exclude_columns: list[Column] = field(default_factory=list)
    exclude_tables: list[str] = field(default_factory=list)
    modules: list[Module] = field(default_factory=list)
    files: list[Volume] = field(default_factory=list)  # to be walked


@dataclass(frozen=True)
class Probe:
    """Can the store be written, read back, listed, protected from overwrite, and deleted from?"""

    uid: str  # of the BackupStore
    cluster_id: str
    store: Store


@dataclass(frozen=True)
class Delete:
    """Delete one backup: its manifest goes; packs are the collector's."""

    uid: str  # of the TenantBackup: only a manifest with this UID is deleted
    backup_id: str
    tenant: Tenant
    store: Store
    grace_seconds: int = 90000  # of the collector


@dataclass(frozen=True)
class Collect:
    """Delete from the store what no backup needs any more, for all tenants of this cluster."""

    uid: str  # of the BackupStore
    cluster_id: str  # other clusters' tenants are left alone
    store: Store
    grace_seconds: int = 90000  # between naming an object and deleting it
    dry_run: bool = False  # only say what would go
    request: str = ""  # the annotation that asked for it


@dataclass(frozen=True)
class Catalogue:
    """List the backups of one namespace's tenants that are in the store, a page of them."""

    uid: str  # of the BackupStore
    namespace: str
    store: Store
    details: bool = False  # read each manifest; else only their names
    after: str = ""  # slug/backup id the page begins behind
    limit: int = 5000  # backups in a page
    request: str = ""  # the annotation that asked for it


@dataclass(frozen=True)
class Inspect:
    """Read the manifest of one backup that is in the store."""

    uid: str  # of the TenantBackup that stands for it
    backup_id: str
    tenant: Tenant  # whose it has to be; only the cluster may be another
    store: Store
    modules: list[str] = field(default_factory=list)  # sorted: what it has to be limited to
    contents: Contents = "All"  # what it has to be a backup of


@dataclass(frozen=True)
class Verify:
    """Read one backup back and say whether it is what was written."""

    uid: str  # of the TenantBackup
    backup_id: str
    level: Literal["Checksum", "Contents"]
    everything: bool  # Checksum: also what earlier runs wrote; else a seventh of it
    day: int  # counted from anywhere: which seventh
    tenant: Tenant
    store: Store
    manifest_sha256: str  # hex: what was committed
    signing_key: str  # public Ed25519, hex
    trusted_keys: list[str] = field(default_factory=list)  # likewise, of the tenant's earlier lives
    identity_secret: str = ""  # for messages


Job = Backup | Restore | Swap | Preflight | Probe | Delete | Collect | Catalogue | Inspect | Verify
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (Backup, Restore, Swap, Preflight, Probe, Delete, Collect, Catalogue, Inspect, Verify)
}


def to_json(job: Job) -> str:
    """Return the job as compact JSON with its kind, stable for equal jobs."""
    document = {"kind": type(job).__name__, **dataclasses.asdict(job)}
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def from_json(text: str) -> Job:
    """Read what `to_json` wrote. Raises ValueError on anything else."""
    try:
        document = json.loads(text)
        kind = _KINDS[document.pop("kind")]
        return typing.cast(Job, _build(kind, document))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a job description: {error}") from error


def _build(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return typing.cast(Any, kind)(**{key: _build(hints[key], item) for key, item in value.items()})
    if typing.get_origin(kind) is list:
        (item_kind,) = typing.get_args(kind)
        return [_build(item_kind, item) for item in value]
    if isinstance(kind, types.UnionType):
        return value
    return value
