"""`restore`: a backup into a new database, its files into a folder, by the same stages as in a cluster."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tenant_backup.archive.manifest import Manifest
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.files.names import LEFT_ALONE, OURS

from . import console, pipeline, taken
from .chosen import Chosen
from .following import Follower
from .opened import reading
from .private import write_secret
from .server import Login, Server

_SPACE = uuid.UUID("5b0c3f6e-8c0a-4d6e-9d0f-6a2f5f1f7c11")  # ours, for names of restores


@dataclass(frozen=True)
class Target:
    """Where a backup's database is restored to."""

    server: Server
    database: str  # to be created
    owner: Login  # whose it becomes; of PostgreSQL only where the role that owned it does not exist


def restore(chosen: Chosen, target: Target | None, files: Path | None) -> dict[str, Any]:
    """Create the database and fill it, and the folder `files`; return what came of it. Raises Failure."""
    folder = chosen.opened.folder
    chosen.require_identity()
    chosen.say_left_out(rows=target is None, files=files is None)
    volumes = _prepared(files, _volumes(chosen)) if files else []
    job = _job(chosen, target, volumes)
    if target:
        taken.refuse_existing(target.server, target.owner, job, folder)
        # No live database is asked for anything: what would be its login is that of the new one's owner.
        target.server.write_secrets(
            folder, **{paths.ADMIN: target.server.login, paths.DATABASE: target.owner}
        )
    write_secret(folder, paths.IDENTITY, {"identity": chosen.identity_text})
    with console.progress("Download") as bar:
        ended = pipeline.run(
            job,
            folder / "pod",
            pipeline.Mounts(folder / "secrets", chosen.opened.where.volume, files and files.resolve()),
            Follower(bar, "load"),
        )
    done = {"backupId": job.backup_id} | (_loaded(ended, target) if target else {})
    return done | ({"volumes": [_placed(ended, volume) for volume in job.files]} if files else {})


def in_words(done: dict[str, Any]) -> str:
    """Return what was restored, for people."""
    lines = _rows_in_words(done) if "database" in done else []
    for volume in done.get("volumes", ()):
        amount = f"{volume['files']} files, {console.size(volume['bytes'])}"
        lines.append(
            f"{done['backupId']}: volume {volume['name']} is restored into {volume['path']}: {amount}"
        )
        lines += [f"  not as it was: {text}" for text in volume["skipped"]]
    return "\n".join(lines)


def _rows_in_words(done: dict[str, Any]) -> list[str]:
    restored = done["restored"]
    amount = f"{restored['tables']} tables, {restored['rows']} rows, {console.size(restored['bytes'])}"
    where = f'{done["backupId"]} is restored into database "{done["database"]}"'
    lines = [f"{where}: {amount}; the server counted every table again"]
    if not done["check"]["constraintsValid"]:
        lines.append("some constraints are not valid; see \\d in psql")
    return lines + [f"  not as it was: {text}" for text in done["skipped"]]


def _loaded(ended: dict[str, pipeline.Ended], target: Target) -> dict[str, Any]:
    found = pipeline.facts(ended, "load")
    return {"database": target.database, **{key: found[key] for key in ("restored", "check", "skipped")}}


def _placed(ended: dict[str, pipeline.Ended], volume: jobs.Volume) -> dict[str, Any]:
    found = pipeline.facts(ended, f"place {volume.name}")
    shutil.rmtree(Path(volume.claim) / OURS)  # by which a killed restore would have known its own work
    return {"name": volume.name, "path": volume.claim, **found}


def _volumes(chosen: Chosen) -> list[str]:
    """Return the names of the volumes in the backup. Raises Failure."""
    opened = chosen.opened
    if not chosen.has_files:
        message = f"backup {chosen.manifest.backup_id} has no files; leave --files out"
        raise Failure(Reason.PARTIAL_BACKUP, message)
    with reading(chosen.manifest, chosen.identity, opened.store, opened.spool, lambda _: None) as reader:
        return [str(volume["name"]) for volume in reader.catalogue().engine["files"]]


def _prepared(files: Path, names: Sequence[str]) -> list[jobs.Volume]:
    """Make a folder for each volume below `files`. Raises Failure when there is anything else."""
    if not files.parent.is_dir():
        raise Failure(Reason.VOLUME_UNAVAILABLE, f"there is no folder {files.parent}; make it")
    try:
        files.mkdir(exist_ok=True)
        found = {one.name for one in files.iterdir()} - {*names, *LEFT_ALONE}
        for name in names:
            (files / name).mkdir(exist_ok=True)
            there = {one.name for one in (files / name).iterdir()}
            # A killed restore left something in it: `place` knows whether it was this one.
            found |= set() if OURS in there else {f"{name}/{one}" for one in there - LEFT_ALONE}
    except OSError as error:
        message = f"{files} cannot be written ({error.strerror}); name another folder with --files"
        raise Failure(Reason.VOLUME_UNAVAILABLE, message) from None
    if found:
        message = f"{files} is not empty and is not touched; name another folder with --files"
        raise Failure(Reason.NAME_TAKEN, message)
    top = files.resolve()
    return [jobs.Volume(name, str(top / name), os.geteuid(), os.getegid()) for name in names]


def _job(chosen: Chosen, target: Target | None, volumes: list[jobs.Volume]) -> jobs.Restore:
    manifest = chosen.manifest
    tenant = _tenant(manifest)
    name = target.database if target else ""
    # The same restore again gets the same name, and so finds and clears what a killed one left.
    uid = uuid.uuid5(_SPACE, f"{chosen.sha256}/{name}")
    return jobs.Restore(
        uid=str(uid),
        name="command-line",
        strategy="NewDatabase",
        source=tenant,
        tenant=tenant,
        database=target.server.database(name) if target else jobs.NO_DATABASE,
        target_database=name,
        store=chosen.opened.where.store,
        backup_id=manifest.backup_id,
        manifest_sha256=chosen.sha256,
        signing_key=chosen.trust,
        files=volumes,
    )


def _tenant(manifest: Manifest) -> jobs.Tenant:
    owner = manifest.tenant
    return jobs.Tenant(owner.cluster_id, owner.namespace, owner.name, owner.slug)
