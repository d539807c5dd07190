"""`backup`: the pipeline of a Job for people without a cluster.

The tenant's keys, which the operator would keep in a Secret, are in a file beside the Tenant's: made once,
before anything is signed with them, and never overwritten.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tenant_backup.api import Tenant
from tenant_backup.archive.keys import TenantKeys
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.decisions import described
from tenant_backup.decisions.names import backup_id

from . import console, key_secret, pipeline
from .following import Follower
from .location import Location
from .options import Opened
from .private import write_secret
from .server import SignIn


@dataclass(frozen=True)
class Wish:
    """What is to be backed up, and how."""

    tenant: Tenant
    keys_file: Path
    mode: Literal["Incremental", "Full"]
    folders: dict[str, Path]  # of the Tenant's files, by name; none: its database alone


def back_up(opened: Opened, wish: Wish, sign_in: SignIn) -> dict[str, Any]:
    """Make one backup; return its facts, and as `trust` the key for the recovery sheet. Raises Failure."""
    tenant = wish.tenant
    _refuse_unreadable(tenant)
    _refuse_other_slug(opened.where, tenant.slug)
    if tenant.spec.database:
        spec = tenant.spec.database
        server = sign_in.server(spec.engine, spec.host, spec.tcp_port, spec.connections)
        server.write_secrets(opened.folder, **{paths.DATABASE: server.login})
    keys = _keys(wish)
    write_secret(opened.folder, paths.KEYS, {"indexKey": keys.index.secret, "signingKey": keys.signing_seed})
    job = _job(opened.where, wish, keys)
    with console.progress("Dump") as bar:
        ended = pipeline.run(
            job,
            opened.folder / "pod",
            pipeline.Mounts(opened.folder / "secrets", opened.where.volume, _mounted(opened.folder, wish)),
            Follower(bar, "archive"),
        )
    return pipeline.facts(ended, "upload") | {"trust": f"ed25519:{key_secret.public(keys)}"}


def in_words(facts: dict[str, Any]) -> str:
    """Return what was backed up, for people."""
    sizes = facts["bytes"]
    amount = f"{facts['tables']} tables, {facts['rows']} rows, "
    if "files" in facts:
        changed = facts["files"]["changed"]
        marked = f" ({changed} changed while they were read)" if changed else ""
        amount += f"{facts['files']['count']} files{marked}, "
    added = f"{console.size(sizes['stored'])} stored, {console.size(sizes['added'])} added"
    return f"{facts['backupId']} is {facts['health']}: {amount}{added}\nsigned by {facts['trust']}"


def folders(tenant: Tenant, given: Sequence[str]) -> dict[str, Path]:
    """Return the folder of each of the Tenant's files, from NAME=FOLDER, or of none. Raises Failure."""
    found = {name: Path(folder).resolve() for name, _, folder in (text.partition("=") for text in given)}
    names = [files.name for files in tenant.spec.files]
    if not given and tenant.spec.database:
        if names:
            console.say(
                "the Tenant's files are left out: this is a backup of its database (contents: Database)"
            )
        return {}
    if not names:
        raise Failure(Reason.INVALID_SPEC, "the Tenant has no spec.files; leave --files out")
    if set(found) != set(names) or len(found) != len(given):
        message = f"--files has to name each of spec.files once: {', '.join(names)}"
        raise Failure(Reason.INVALID_SPEC, f"{message}; as in {names[0]}=/srv/files")
    for folder in found.values():
        if not folder.is_dir():
            raise Failure(Reason.INVALID_SPEC, f"--files: there is no folder {folder}; correct it")
    return found


def _mounted(folder: Path, wish: Wish) -> Path:
    """Have the Tenant's files where the stages look for volumes."""
    mounts = folder / "volumes"
    mounts.mkdir(mode=0o700)
    for name, where in wish.folders.items():
        (mounts / name).symlink_to(where)
    return mounts


def _refuse_unreadable(tenant: Tenant) -> None:
    encryption = tenant.spec.encryption
    if encryption.mode == "Age" and not encryption.recipients:
        raise Failure(
            Reason.INVALID_SPEC,
            "spec.encryption.recipients is empty, so nobody could read the backup; make a key with"
            " `age-keygen -o key.txt` and put its public half (age1…) there",
        )


def _refuse_other_slug(where: Location, slug: str) -> None:
    if where.slug != slug:
        message = f'{where.url} ends with "{where.slug}" and the tenant\'s slug is "{slug}"; end it with that'
        raise Failure(Reason.INVALID_SPEC, message)


def _keys(wish: Wish) -> TenantKeys:
    found = key_secret.read(wish.keys_file)
    if found is not None:
        return found
    made = key_secret.fresh()
    metadata = wish.tenant.metadata
    try:
        ours = key_secret.keep(wish.keys_file, key_secret.manifest(metadata.namespace, metadata.name, made))
    except OSError as error:
        message = f"the keys could not be kept in {wish.keys_file} ({error.strerror}); name another file"
        raise Failure(Reason.KEY_MISSING, f"{message} with --keys") from error
    if not ours:  # a first backup at the same time was faster
        return _keys(wish)
    console.say(
        f"made the tenant's keys in {wish.keys_file}: keep that file, every later backup needs it; and keep"
        f" ed25519:{key_secret.public(made)}, by which a restore knows that a backup is yours"
    )
    return made


def _job(where: Location, wish: Wish, keys: TenantKeys) -> jobs.Backup:
    tenant = wish.tenant
    return jobs.Backup(
        uid=str(uuid.uuid4()),
        backup_id=backup_id(tenant.slug, datetime.now(UTC)),
        name="command-line",
        # Two machines with keys of their own are two owners: the second one is refused the prefix.
        tenant=described.tenant(tenant, f"command-line-{keys.index.key_id}"),
        database=described.database(tenant),
        store=where.store,
        recipients=list(tenant.spec.encryption.recipients),
        encryption=tenant.spec.encryption.mode,
        exclude_columns=described.excluded_columns(tenant),
        exclude_tables=list(tenant.spec.exclusions.tables),
        modules=described.modules(tenant),
        mode=wish.mode,
        read_rate=described.read_rate(tenant),
        contents="Database" if tenant.spec.files and not wish.folders else "All",
        files=[
            replace(volume, claim=str(wish.folders[volume.name]))
            for volume in described.volumes(tenant)
            if wish.folders
        ],
    )
