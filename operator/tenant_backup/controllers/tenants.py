"""Observe a Tenant: its keys, its preflight, its backups and its newest restore."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tenant_backup.api import Tenant
from tenant_backup.api.references import FINALIZER
from tenant_backup.cluster import BACKUP, RESTORE, SECRET, TENANT, AlreadyExists, Object, Rejected
from tenant_backup.decisions.described import trusted_keys
from tenant_backup.decisions.instants import rfc3339
from tenant_backup.decisions.names import key_secret
from tenant_backup.decisions.observed import KeyState, TenantSeen

from .afresh import backups_of, is_terminating
from .look import Look


async def observe(look: Look, document: Object, now: datetime) -> TenantSeen:
    """Return one look at the Tenant. Raises a ClusterError or pydantic.ValidationError."""
    tenant = Tenant.model_validate(document)
    namespace, name = tenant.metadata.namespace, tenant.metadata.name
    status = document.get("status", {})
    if tenant.metadata.deletion_timestamp:
        return await _leaving(look, tenant, status)
    keys = await key_state(look, namespace, status, now)
    return TenantSeen(
        tenant=tenant,
        status=status,
        keys=keys,
        recovered=await _recovered(look, tenant, now) if keys == "Absent" else "",
        jobs=await look.jobs(namespace, tenant.metadata.uid, now),
        platform=await look.platform(),
        backups=tuple(look.roster.of_tenant(namespace, name)),
        schedules=frozenset(one.name for one in look.roster.schedules(namespace)),
        last_restore=_last_restore(look, namespace, name),
    )


async def _leaving(look: Look, tenant: Tenant, status: Mapping[str, Any]) -> TenantSeen:
    """Return one look at a Tenant that is being deleted, which asks for nothing that may be gone already."""
    namespace, name = tenant.metadata.namespace, tenant.metadata.name
    known = tuple(look.roster.of_tenant(namespace, name))
    held = FINALIZER in tenant.metadata.finalizers
    kinds = (TENANT, BACKUP, RESTORE)
    terminating = held and await is_terminating(look.cluster, tenant.metadata, *kinds)
    afresh = held and not terminating
    return TenantSeen(
        tenant=tenant,
        status=status,
        keys="Present",  # nobody needs them any more
        jobs=(),
        platform=await look.platform(),
        backups=await backups_of(look.cluster, namespace, name) if afresh else known,
        terminating=terminating,
    )


def _last_restore(look: Look, namespace: str, tenant: str) -> tuple[str, str] | None:
    """Return name and completedAt of the tenant's newest restore that succeeded."""
    found = [
        (one.completed, one.name)
        for one in look.roster.restores(namespace)
        if one.tenant == tenant and one.state == "Succeeded" and one.completed
    ]
    if not found:
        return None
    completed, name = max(found)
    return name, rfc3339(completed)


async def key_state(look: Look, namespace: str, status: Mapping[str, Any], now: datetime) -> KeyState:
    """Return whether the tenant's key Secret exists, without the right to read Secrets."""
    name, ready = status.get("keySecret"), bool(status.get("keysReady"))
    if not name or not status.get("signingKey"):
        return "Absent"
    if ready and look.was_there(SECRET, namespace, name, now):
        return "Present"
    # A previous pass may have died between naming the Secret in status and creating it; or somebody
    # deleted it since.
    try:
        there = await _is_there(look, namespace, name, now)
    except Rejected:
        if not ready:
            raise
        return "Present"  # a quota or a policy answers for the Secret: that it is gone is not known
    return "Present" if there else "Gone" if ready else "Lost"


async def _recovered(look: Look, tenant: Tenant, now: datetime) -> str:
    """Return the first trusted key whose Secret is there; asked before keys are made."""
    for key in trusted_keys(tenant):
        secret = key_secret(tenant.metadata.name, key)
        if await _is_there(look, tenant.metadata.namespace, secret, now):
            return key
    return ""


async def _is_there(look: Look, namespace: str, name: str, now: datetime) -> bool:
    """Return whether a Secret exists: by creating it for the sake of the answer only."""
    probe = {"metadata": {"name": name, "namespace": namespace}, "type": "Opaque"}
    try:
        await look.cluster.create(SECRET, probe, dry_run=True)
    except AlreadyExists:
        look.note_there(SECRET, namespace, name, now)
        return True
    return False
