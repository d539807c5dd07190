"""Observe a Tenant: its keys, its preflight, its backups and its newest restore."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from tenant_backup.api import Tenant
from tenant_backup.api.references import FINALIZER
from tenant_backup.cluster import (
    BACKUP,
    RESTORE,
    SECRET,
    TENANT,
    AlreadyExists,
    ClusterError,
    Object,
    Rejected,
)
from tenant_backup.decisions.described import trusted_keys
from tenant_backup.decisions.instants import rfc3339
from tenant_backup.decisions.names import key_secret
from tenant_backup.decisions.observed import JobSeen, KeyState, TenantSeen
from tenant_backup.decisions.plan import Run, merge_patch
from tenant_backup.decisions.slots import offset
from tenant_backup.decisions.tenant import decide

from .afresh import backups_of, is_terminating
from .look import Look
from .nodes import node_of

LOOKED_AT_WITHIN = timedelta(hours=1)  # of a start: every Tenant, one after the other


async def observe(look: Look, document: Object, now: datetime) -> TenantSeen:
    """Return one look at the Tenant. Raises a ClusterError or pydantic.ValidationError."""
    tenant = Tenant.model_validate(document)
    namespace = tenant.metadata.namespace
    status = document.get("status", {})
    if tenant.metadata.deletion_timestamp:
        return await _leaving(look, tenant, status)
    keys = await key_state(look, namespace, status, now)
    seen = await _standing(look, tenant, status, keys, await look.jobs(namespace, tenant.metadata.uid, now))
    seen = replace(seen, recovered=await _recovered(look, tenant, now)) if keys == "Absent" else seen
    return replace(seen, node=await _node(look, seen, now))


async def _node(look: Look, seen: TenantSeen, now: datetime) -> str:
    """Return where a volume of the tenant is in use; asked when its preflight starts."""
    if not any(isinstance(action, Run) for action in decide(seen, now).actions):
        return ""
    claims = {files.persistent_volume_claim.claim_name for files in seen.tenant.spec.files}
    return await node_of(look.cluster, seen.tenant.metadata.namespace, claims)


async def rest(look: Look, document: Object) -> float:
    """Return for how many seconds a Tenant can be left alone; 0 when there may be something to do.

    Nothing is asked for it, so that an operator with a thousand of them starts within seconds: a Job of it
    reports itself, and that its keys are there is seen again within the hour.
    """
    metadata, status, now = document["metadata"], document.get("status", {}), look.now()
    if "deletionTimestamp" in metadata or not status.get("keysReady"):
        return 0.0
    try:
        seen = await _standing(look, Tenant.model_validate(document), status, "Present", ())
    except (ValidationError, ClusterError):
        return 0.0  # whoever works on it says what is wrong
    plan = decide(seen, now)
    if plan.actions or merge_patch(status, plan.status or {}):
        return 0.0
    turn = offset(metadata["namespace"], metadata["name"], LOOKED_AT_WITHIN).total_seconds()
    return turn if plan.retry_in is None else min(turn, plan.retry_in)


async def _standing(
    look: Look, tenant: Tenant, status: Mapping[str, Any], keys: KeyState, jobs: tuple[JobSeen, ...]
) -> TenantSeen:
    """Return a Tenant that stays, with what the roster has of it."""
    namespace, name = tenant.metadata.namespace, tenant.metadata.name
    return TenantSeen(
        tenant=tenant,
        status=status,
        keys=keys,
        jobs=jobs,
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
