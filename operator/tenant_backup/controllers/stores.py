"""Observe a BackupStore: its Jobs, and what one of them listed."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tenant_backup.api import BackupStore
from tenant_backup.cluster import Object
from tenant_backup.decisions.observed import JobSeen, StoreSeen

from .look import Look


async def observe(look: Look, document: Object, now: datetime) -> StoreSeen:
    """Return one look at the BackupStore. Raises a ClusterError or pydantic.ValidationError."""
    store = BackupStore.model_validate(document)
    namespace = store.metadata.namespace
    seen = StoreSeen(
        store=store,
        status=document.get("status", {}),
        jobs=await look.jobs(namespace, store.metadata.uid, now),
        platform=await look.platform(),
    )
    waiting = [job for job in seen.jobs if _is_to_be_read(job)]
    if not waiting:
        return seen
    pages = {job.name: await look.listed(namespace, job) for job in waiting}
    return replace(
        seen,
        pages={name: page for name, page in pages.items() if page is not None},
        backups=tuple(look.roster.of_store(namespace, store.metadata.name)),
        uids=frozenset(one.uid for one in look.roster.backups(namespace)),
    )


def _is_to_be_read(job: JobSeen) -> bool:
    """Whether it is a page of the catalogue that was not taken in yet; from then on it has a TTL."""
    return job.purpose == "catalogue" and job.outcome is not None and job.outcome.ok and not job.expires
