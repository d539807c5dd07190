"""`restore`: a backup into a new database, by the same stages as in a cluster."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from tenant_backup.archive.manifest import Manifest
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths

from . import console, pipeline, taken
from .chosen import Chosen
from .following import Follower
from .private import write_secret
from .server import Login, Server

_SPACE = uuid.UUID("5b0c3f6e-8c0a-4d6e-9d0f-6a2f5f1f7c11")  # ours, for names of restores


@dataclass(frozen=True)
class Target:
    """Where a backup is restored to."""

    server: Server
    database: str  # to be created
    owner: Login  # whose it becomes; of PostgreSQL only where the role that owned it does not exist


def restore(chosen: Chosen, target: Target) -> dict[str, Any]:
    """Create the database and fill it; return what came of it. Raises Failure."""
    folder = chosen.opened.folder
    chosen.require_identity()
    job = _job(chosen, target)
    taken.refuse_existing(target.server, target.owner, job, folder)
    # No live database is asked for anything: what would be its login is that of the new one's owner.
    target.server.write_secrets(folder, **{paths.ADMIN: target.server.login, paths.DATABASE: target.owner})
    write_secret(folder, paths.IDENTITY, {"identity": chosen.identity_text})
    with console.progress("Download") as bar:
        ended = pipeline.run(
            job,
            pipeline.RESTORE,
            folder / "pod",
            pipeline.Mounts(folder / "secrets", chosen.opened.where.volume),
            Follower(bar, "load"),
        )
    found = pipeline.facts(ended, "load")
    told = {key: found[key] for key in ("restored", "check", "skipped")}
    return {"backupId": job.backup_id, "database": target.database, **told}


def in_words(done: dict[str, Any]) -> str:
    """Return what was restored, for people."""
    restored = done["restored"]
    amount = f"{restored['tables']} tables, {restored['rows']} rows, {console.size(restored['bytes'])}"
    where = f'{done["backupId"]} is restored into database "{done["database"]}"'
    lines = [f"{where}: {amount}; the server counted every table again"]
    if not done["check"]["constraintsValid"]:
        lines.append("some constraints are not valid; see \\d in psql")
    return "\n".join(lines + [f"  not as it was: {text}" for text in done["skipped"]])


def _job(chosen: Chosen, target: Target) -> jobs.Restore:
    manifest = chosen.manifest
    tenant = _tenant(manifest)
    # The same restore again gets the same name, and so finds and clears what a killed one left in the server.
    uid = uuid.uuid5(_SPACE, f"{chosen.sha256}/{target.database}")
    return jobs.Restore(
        uid=str(uid),
        name="command-line",
        strategy="NewDatabase",
        source=tenant,
        tenant=tenant,
        database=target.server.database(target.database),
        target_database=target.database,
        store=chosen.opened.where.store,
        backup_id=manifest.backup_id,
        manifest_sha256=chosen.sha256,
        signing_key=chosen.trust,
    )


def _tenant(manifest: Manifest) -> jobs.Tenant:
    owner = manifest.tenant
    return jobs.Tenant(owner.cluster_id, owner.namespace, owner.name, owner.slug)
