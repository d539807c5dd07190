"""Observe a TenantBackup: its Jobs and what it refers to."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tenant_backup.api import BackupStore, Tenant, TenantBackup
from tenant_backup.api.references import FINALIZER
from tenant_backup.cluster import BACKUP, STORE, TENANT, Cluster, Object
from tenant_backup.decisions.backup import is_at_work, volumes_to_read, wants_to_start
from tenant_backup.decisions.expiry import expires_at
from tenant_backup.decisions.observed import BackupSeen, JobSeen, Sibling
from tenant_backup.decisions.queue import Place, steady
from tenant_backup.decisions.summaries import BackupSummary, of_backup

from .admission import Admission
from .afresh import backups_of, is_terminating
from .look import Look
from .nodes import node_of
from .roster import Roster


async def observe(look: Look, document: Object, now: datetime) -> BackupSeen:
    """Return one look at the TenantBackup. Raises a ClusterError or pydantic.ValidationError."""
    backup = TenantBackup.model_validate(document)
    namespace = backup.metadata.namespace
    look.admission.see(BACKUP.name, document)  # of which the watch may not have told yet
    tenant = await look.cluster.get(TENANT, namespace, backup.spec.tenant_ref.name)
    if tenant:
        look.roster.see(TENANT.name, tenant)
    store = await look.cluster.get(STORE, namespace, backup.spec.store_ref.name)
    jobs = await look.jobs(namespace, backup.metadata.uid, now)
    seen = BackupSeen(
        backup=backup,
        status=document.get("status", {}),
        tenant=Tenant.model_validate(tenant) if tenant else None,
        store=BackupStore.model_validate(store) if store else None,
        jobs=jobs,
        platform=await look.platform(),
        terminating=await _is_terminating(look.cluster, backup),
        line=await _line(look.cluster, document, now),
        siblings=await _siblings(look.cluster, backup) if _found_damage(jobs) else (),
        comparable=_comparable(look.roster, backup),
        before=_before(look.roster, document),
    )
    seen = replace(seen, place=_place(look.admission, seen, now))
    return replace(seen, node=await _node(look.cluster, seen))


async def _node(cluster: Cluster, seen: BackupSeen) -> str:
    """Return where a volume to be read is in use; asked when it starts."""
    if seen.place or not wants_to_start(seen):
        return ""
    claims = {volume.claim for volume in volumes_to_read(seen)}
    return await node_of(cluster, seen.backup.metadata.namespace, claims)


def _place(admission: Admission, seen: BackupSeen, now: datetime) -> Place | None:
    """Tell the queue how it is with this backup, and return its place if it waits."""
    uid = seen.backup.metadata.uid
    if is_at_work(seen):
        admission.at_work(uid)
    elif wants_to_start(seen):
        place = admission.ask(uid, now)
        return steady(place, seen.status.get("queue", {})) if place else None
    else:
        admission.leave(uid)
    return None


def _comparable(roster: Roster, backup: TenantBackup) -> tuple[BackupSummary, ...]:
    """Return the backups that tell what is usual for this one."""
    metadata, spec = backup.metadata, backup.spec
    alike = (spec.store_ref.name, spec.contents, tuple(sorted(spec.modules)))
    found = roster.of_tenant(metadata.namespace, spec.tenant_ref.name)
    return tuple(
        one for one in found if (one.store, one.contents, one.modules) == alike and one.uid != metadata.uid
    )


def _before(roster: Roster, document: Object) -> str:
    """Return the name of its schedule's earlier backup of the tenant that has not ended; empty for none."""
    me = of_backup(document)
    earlier = [
        one.name
        for one in roster.of_tenant(me.namespace, me.tenant)
        if me.schedule and one.schedule == me.schedule and one.started and not one.finished
        if (one.created, one.name) < (me.created, me.name)
    ]
    return min(earlier, default="")


def _found_damage(jobs: tuple[JobSeen, ...]) -> bool:
    """Whether a verification said that other backups are hit; only then it matters which there are."""
    return any(job.purpose == "verify" and job.outcome and job.outcome.facts.get("backups") for job in jobs)


async def _siblings(cluster: Cluster, backup: TenantBackup) -> tuple[Sibling, ...]:
    """Return the tenant's other committed backups in the same store."""
    namespace, spec = backup.metadata.namespace, backup.spec
    mine = f"spec.tenantRef.name={spec.tenant_ref.name},status.state=Succeeded"
    found = await cluster.list(BACKUP, namespace, fields=mine)
    return tuple(
        Sibling(
            name=item["metadata"]["name"],
            uid=item["metadata"]["uid"],
            backup_id=item["status"].get("backupId", ""),
            corrupt=item["status"].get("health") == "Corrupt",
        )
        for item in found
        if item["spec"]["storeRef"]["name"] == spec.store_ref.name
        and item["metadata"]["uid"] != backup.metadata.uid
    )


async def _is_terminating(cluster: Cluster, backup: TenantBackup) -> bool:
    """Whether more than this one object is going away; asked only when the answer matters."""
    held = FINALIZER in backup.metadata.finalizers
    going = backup.metadata.deletion_timestamp is not None
    return going and held and await is_terminating(cluster, backup.metadata, BACKUP)


async def _line(cluster: Cluster, document: Object, now: datetime) -> tuple[BackupSummary, ...]:
    """Return the tenant's backups once this one is to expire."""
    due, spec = expires_at(document["spec"], document.get("status", {})), document["spec"]
    if due is None or now < due or "deletionTimestamp" in document["metadata"]:
        return ()
    return await backups_of(cluster, document["metadata"]["namespace"], spec["tenantRef"]["name"])
