"""Observe a Tenant: its keys, its preflight, its backups and its newest restore."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tenant_backup.api import Tenant
from tenant_backup.cluster import RESTORE, SECRET, AlreadyExists, Cluster, Object, Rejected
from tenant_backup.decisions.observed import KeyState, TenantSeen

from .look import Look


async def observe(look: Look, document: Object, now: datetime) -> TenantSeen:
    """Return one look at the Tenant. Raises a ClusterError or pydantic.ValidationError."""
    tenant = Tenant.model_validate(document)
    namespace, name = tenant.metadata.namespace, tenant.metadata.name
    status = document.get("status", {})
    restores = await _succeeded(look.cluster, namespace, name)
    return TenantSeen(
        tenant=tenant,
        status=status,
        keys=await key_state(look, namespace, status, now),
        jobs=await look.jobs(namespace, tenant.metadata.uid, now),
        platform=await look.platform(),
        backups=tuple(look.roster.of_tenant(namespace, name)),
        last_restore=max(restores, key=lambda item: item[1], default=None),
    )


async def _succeeded(cluster: Cluster, namespace: str, tenant: str) -> list[tuple[str, str]]:
    """Return name and completedAt of the tenant's restores that succeeded."""
    selector = f"spec.target.tenantRef.name={tenant},status.state=Succeeded"
    found = await cluster.list(RESTORE, namespace, fields=selector)
    return [
        (item["metadata"]["name"], item["status"]["completedAt"])
        for item in found
        if "completedAt" in item["status"] and "deletionTimestamp" not in item["metadata"]
    ]


async def key_state(look: Look, namespace: str, status: Mapping[str, Any], now: datetime) -> KeyState:
    """Return whether the tenant's key Secret exists, without the right to read Secrets."""
    name, ready = status.get("keySecret"), bool(status.get("keysReady"))
    if not name or not status.get("signingKey"):
        return "Absent"
    if ready and look.was_there(SECRET, namespace, name, now):
        return "Present"
    # Creating it for the sake of the answer only. A previous pass may have died between naming the Secret
    # in status and creating it; or somebody deleted it since.
    probe = {"metadata": {"name": name, "namespace": namespace}, "type": "Opaque"}
    try:
        await look.cluster.create(SECRET, probe, dry_run=True)
    except AlreadyExists:
        look.note_there(SECRET, namespace, name, now)
        return "Present"
    except Rejected:
        if not ready:
            raise
        return "Present"  # a quota or a policy answers for the Secret: that it is gone is not known
    return "Gone" if ready else "Lost"
