"""From what users wrote to what a Job is told: API types to `contract.job` descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tenant_backup.api import BackupStore, Tenant
from tenant_backup.api.references import ANNOTATION_ADOPT
from tenant_backup.api.tenant import Module
from tenant_backup.api.values import quantity_bytes
from tenant_backup.contract import job as contract

from .plan import Secrets

ADOPT_LIMIT = 128  # characters


def tenant(tenant: Tenant, cluster_id: str) -> contract.Tenant:
    """Return who the data belongs to."""
    return contract.Tenant(cluster_id, tenant.metadata.namespace, tenant.metadata.name, tenant.slug)


def database(tenant: Tenant) -> contract.Database:
    """Return where the rows live; NO_DATABASE when the tenant has files alone."""
    spec = tenant.spec.database
    if spec is None:
        return contract.NO_DATABASE
    admin = spec.admin_credentials_secret_ref
    return contract.Database(
        engine=spec.engine,
        host=spec.host,
        port=spec.tcp_port,
        name=spec.name,
        tls_mode=spec.tls.mode if spec.tls else "Prefer",
        connections=spec.connections,
        secret=spec.credentials_secret_ref.name,
        admin_secret=admin.name if admin else "",
    )


def volumes(tenant: Tenant, only_modules: Sequence[str] = ()) -> list[contract.Volume]:
    """Return where files live; those of some modules only, if any are named."""
    found = []
    for files in tenant.spec.files:
        modules = [
            contract.Paths(module.name, patterns)
            for module in tenant.spec.modules
            if (patterns := _patterns(module, files.name))
        ]
        here = [paths.module for paths in modules if paths.module in only_modules]
        if only_modules and not here:
            continue
        volume = contract.Volume(
            name=files.name,
            claim=files.persistent_volume_claim.claim_name,
            user=files.security_context.run_as_user,
            group=files.security_context.run_as_group,
            groups=list(files.security_context.supplemental_groups),
            exclude=list(files.exclude),
            modules=modules,
            only_modules=here,
            privileged=files.privileged,
        )
        found.append(volume)
    return found


def _patterns(module: Module, volume: str) -> list[str]:
    pairs = (glob.split(":", 1) for glob in module.files)
    return [pattern for name, pattern in pairs if name == volume]


def excluded_columns(tenant: Tenant) -> list[contract.Column]:
    """Return the columns that never leave the server."""
    return [
        contract.Column(column.table, column.column, column.on_restore, column.replacement)
        for column in tenant.spec.exclusions.columns
    ]


def modules(tenant: Tenant) -> list[contract.Module]:
    """Return the tenant's named groups of tables."""
    return [contract.Module(module.name, list(module.tables)) for module in tenant.spec.modules]


def store(store: BackupStore) -> contract.Store:
    """Return where packs and manifests go. Raises ValueError when the spec names no place."""
    if store.spec.s3:
        s3 = store.spec.s3
        return contract.Store(
            kind="s3",
            bucket=s3.bucket,
            prefix=s3.prefix.strip("/"),
            endpoint=s3.endpoint or "",
            region=s3.region or "",
            secret=s3.credentials_secret_ref.name,
        )
    if store.spec.volume:
        return contract.Store(kind="volume", prefix=store.spec.volume.path.strip("/"))
    raise ValueError("the BackupStore names neither s3 nor volume")


def recipients(tenant: Tenant, store: BackupStore) -> list[str]:
    """Return who can read a new backup: the tenant's own recipients, then the platform's; each once."""
    if tenant.spec.encryption.mode == "None":
        return []
    return list(dict.fromkeys((*tenant.spec.encryption.recipients, *store.spec.recipients)))


def read_rate(tenant: Tenant) -> int:
    """Return how many bytes per second a backup may read; 0 is no limit."""
    rate = tenant.spec.database.read_rate if tenant.spec.database else None
    return quantity_bytes(rate) if rate else 0


def upload_rate(store: BackupStore) -> int:
    """Return how many bytes per second a backup may send to the store; 0 is no limit."""
    rate = store.spec.limits.upload_rate
    return quantity_bytes(rate) if rate else 0


def claim(store: BackupStore) -> str:
    """Return the PersistentVolumeClaim of a volume store, else nothing."""
    return store.spec.volume.persistent_volume_claim.claim_name if store.spec.volume else ""


def database_secrets(tenant: Tenant) -> Secrets:
    """Return the names of the Secrets a stage needs that reads the tenant's database, if it has one."""
    spec = tenant.spec.database
    if spec is None:
        return Secrets()
    ca = spec.tls.ca_secret_ref if spec.tls else None
    return Secrets(database=spec.credentials_secret_ref.name, database_ca=ca.name if ca else "")


def store_secrets(store: BackupStore) -> Secrets:
    """Return the names of the Secrets a stage needs that reaches the store."""
    if not store.spec.s3:
        return Secrets()
    ca = store.spec.s3.ca_secret_ref
    return Secrets(store=store.spec.s3.credentials_secret_ref.name, store_ca=ca.name if ca else "")


def trusted_keys(tenant: Tenant) -> list[str]:
    """Return the public keys (hex) that vouched for the tenant's backups in an earlier life of it."""
    return [key.removeprefix("ed25519:") for key in tenant.spec.encryption.trusted_signing_keys]


def adopts(store: BackupStore) -> str:
    """Return whose prefixes may be taken over: a cluster id and perhaps more words, or nothing."""
    words = " ".join(store.metadata.annotations.get(ANNOTATION_ADOPT, "").split())
    return words[:ADOPT_LIMIT]


def collected_store(where: BackupStore) -> contract.Store:
    """Return where data is deleted, for messages with the Secret whose credentials do it."""
    own = where.spec.collector_credentials_secret_ref
    return replace(store(where), secret=own.name) if own else store(where)


def collector_secrets(store: BackupStore) -> Secrets:
    """Return the names of the Secrets a stage needs that deletes from the store."""
    mounted, own = store_secrets(store), store.spec.collector_credentials_secret_ref
    return replace(mounted, store=own.name) if own else mounted


def admin_secret(tenant: Tenant) -> str:
    """Return the name of the Secret that may create and rename databases, else nothing."""
    database = tenant.spec.database
    reference = database.admin_credentials_secret_ref if database else None
    return reference.name if reference else ""


def key_secrets(tenant: Tenant) -> Secrets:
    """Return the name of the Secret with the tenant's own keys."""
    return Secrets(keys=tenant.status.key_secret or "")
