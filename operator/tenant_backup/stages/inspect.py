"""Reads one manifest, so that a TenantBackup made for what is in the store already can say what that is.

Holds the store's credentials and no key: what it says is not believed before a signature was checked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores import connect
from tenant_backup.stores.base import NotFoundError

from . import commits
from .catalogue import described


def run(job: jobs.Inspect, *, secrets: Path = paths.SECRETS, volume: Path = paths.VOLUME) -> dict[str, Any]:
    """Return what `catalogue.described` does, but for the modules, which have to be the ones asked for.

    Raises Failure: BackupNotFound, CrossTenantAccess, InvalidSpec for other modules, what the store raises.
    """
    store = connect(job.store, job.tenant.slug, secrets=secrets, volume=volume)
    try:
        whose = (job.tenant.namespace, job.tenant.name, job.tenant.slug)
        found = described(store, job.backup_id, whose)
    except NotFoundError:
        place = commits.location(store, job.backup_id)
        raise Failure(Reason.BACKUP_NOT_FOUND, f"there is no backup {place}; name one that exists") from None
    modules = sorted(found.pop("modules"))
    if modules != job.modules:
        has = f"rows of {', '.join(modules)} only" if modules else "everything"
        raise Failure(Reason.INVALID_SPEC, f"{job.backup_id} has {has}; say so in spec.modules")
    if found["contents"] != job.contents:
        message = f"{job.backup_id} is of contents {found['contents']}; say so in spec.contents"
        raise Failure(Reason.INVALID_SPEC, message)
    return found
