"""What a new backup builds on: the newest backup's manifest and index packs, fetched as ciphertext.

`prepare` chooses and fetches without any key; `archive` checks the signature and opens them. Whatever is
wrong with a base costs space and never the backup: everything is stored anew.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

from tenant_backup.archive import names
from tenant_backup.archive.collector import unusable
from tenant_backup.archive.frame import Damaged
from tenant_backup.archive.keys import WriterKeys
from tenant_backup.archive.known import Known, open_known
from tenant_backup.archive.manifest import UNREADABLE, Manifest, parse
from tenant_backup.archive.pack import ObjectRef
from tenant_backup.archive.reader import open_manifest
from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure
from tenant_backup.stores.base import Digest, NotFoundError, Store, fetch, read

from . import commits

MANIFEST = "manifest"
LISTS_MAX = 1 << 30  # bytes of index packs, of a terabyte of rows: the spool holds them, and them sorted
_LOOK_BACK = 20  # manifests
_AT_ONCE = 4  # index packs fetched


def fetch_base(store: Store, job: jobs.Backup, folder: Path) -> dict[str, Any] | None:
    """Fetch the base of this backup into the new `folder`; return what `prepared.json` says of it.

    That is {"backupId", "unusable": names of what it needs and nobody may rely on}; None without a base.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    base = _choose(store, job, folder / MANIFEST)
    if base is None:
        return None
    if problem := _fetch_lists(store, base, folder):
        _say(base.backup_id, problem)
        return None
    return {"backupId": base.backup_id, "unusable": sorted(_lost(store, base))}


def open_base(base: dict[str, Any] | None, tenant: jobs.Tenant, keys: WriterKeys, folder: Path) -> Known:
    """Return what the base in `folder` stored, nothing if it is not one to build on; empties the folder.

    Raises OSError when the spool is full.
    """
    try:
        return _open(base, tenant, keys, folder) if base else Known.nothing()
    except (Failure, Damaged) as problem:
        assert base
        _say(base["backupId"], str(problem))
        return Known.nothing()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _choose(store: Store, job: jobs.Backup, target: Path) -> Manifest | None:
    """Write the newest manifest to build on to `target`: one that has all of it, if it is not far back."""
    partial = None
    for data, manifest in islice(_newest_first(store, job.encryption), _LOOK_BACK):
        whole = not manifest.partial and manifest.contents in ("All", job.contents)
        if not whole and partial:
            continue
        target.write_bytes(data)
        if whole:
            return manifest
        partial = manifest
    return partial


def _newest_first(store: Store, mode: str) -> Iterator[tuple[bytes, Manifest]]:
    # Names begin with slug and time.
    for name in sorted((entry.name for entry in store.entries("manifests")), reverse=True):
        try:
            data = read(store, name, commits.MANIFEST_LIMIT)
            manifest = parse(data)
        except NotFoundError:
            continue  # deleted since it was listed
        except Failure as failure:
            if failure.reason not in UNREADABLE:
                raise
            continue
        if manifest.encryption.mode == mode and names.manifest(manifest.backup_id) == name:
            yield data, manifest


def _fetch_lists(store: Store, base: Manifest, folder: Path) -> str:
    """Fetch the index packs; return what is wrong with them, or nothing."""
    total = sum(ref.length for ref in base.lists)
    if total > LISTS_MAX:
        return f"its chunk lists have {total} bytes, more than the spool holds"
    with ThreadPoolExecutor(_AT_ONCE, "base") as pool:
        problems = pool.map(lambda ref: _fetch_list(store, ref, folder), base.lists)
        return next(filter(None, problems), "")


def _fetch_list(store: Store, ref: ObjectRef, folder: Path) -> str:
    name = names.index_pack(ref.id)
    try:
        arrived = fetch(store, name, folder / ref.id)
    except NotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"the spool does not hold its chunk lists ({error.strerror})"
    return "" if arrived == Digest(ref.length, ref.sha256) else f"{name} is damaged"


def _lost(store: Store, base: Manifest) -> set[str]:
    """Return the names of what the base needs and is bad, about to be deleted, or not there as it was."""
    lengths = {names.pack(ref.id): ref.length for ref in base.packs}
    lengths |= {names.index_pack(ref.id): ref.length for ref in base.lists}
    marked = unusable(store)  # first: what a collector deletes after it is not in the list
    there = {entry.name for entry in store.entries("packs") if lengths.get(entry.name) == entry.length}
    there |= {names.index_pack(ref.id) for ref in base.lists}  # they have just been fetched
    return {name for name in lengths if name in marked or name not in there}


def _open(base: dict[str, Any], tenant: jobs.Tenant, keys: WriterKeys, folder: Path) -> Known:
    trusted = keys.tenant.signing().public_key().public_bytes_raw().hex()
    owner = (tenant.slug, tenant.namespace, tenant.name)
    manifest = open_manifest((folder / MANIFEST).read_bytes(), trusted, base["backupId"], owner)
    encryption = manifest.encryption
    if (encryption.mode, encryption.key_id) != (keys.mode, keys.index.key_id):
        raise Damaged("it was made under another key")
    if not set(keys.recipients) <= set(encryption.recipients):
        # Its packs open for its own recipients only, and this backup must open for all of ours.
        raise Damaged("it was made for other recipients")
    return open_known(manifest, keys.index, folder, base["unusable"])


def _say(backup_id: str, problem: str) -> None:
    print(f"everything is stored anew: backup {backup_id} is none to build on: {problem}", flush=True)
