"""Tries out a store: write, read back, try to overwrite, list, delete, all under a name of its own.

A store that refuses deletion or overwrites is described, not failed; one that gives back other bytes
or hides what was written is no store.
"""

from __future__ import annotations

import hashlib
import secrets as randomness
from pathlib import Path
from typing import Any

from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores import connect
from tenant_backup.stores.base import AlreadyExistsError, NotFoundError, Store, digest_of, read

FOLDER = ".probe"  # no tenant's slug begins with a dot
_LIMIT = 1 << 16  # bytes


def run(job: jobs.Probe, *, secrets: Path = paths.SECRETS, volume: Path = paths.VOLUME) -> dict[str, Any]:
    """Return `{"location", "capabilities": {"conditionalPut", "delete"}}`. Raises what the store raises.

    Every attempt has a name of its own, so what a killed one left is in nobody's way; it is removed.
    """
    store = connect(job.store, FOLDER, secrets=secrets, volume=volume)
    folder = folder_of(job.uid)
    name = f"{folder}/{randomness.token_hex(8)}"
    first = f"written by the probe of cluster {job.cluster_id}\n".encode()
    store.put(name, first, digest_of(first))
    _require_back(store, name, first)
    conditional = _refuses_to_overwrite(store, name, first)
    _require_listed(store, folder, name, len(first))
    capabilities = {"conditionalPut": conditional, "delete": _deletes(store, folder)}
    location = store.location.removesuffix(FOLDER).rstrip("/")
    return {"location": location, "capabilities": capabilities}


def folder_of(uid: str) -> str:
    """Return where the probes of the BackupStore with this UID write."""
    return f"u{hashlib.sha256(uid.encode()).hexdigest()[:16]}"


def _refuses_to_overwrite(store: Store, name: str, first: bytes) -> bool:
    second = first.upper()  # same length: a store that compares only lengths is found out
    try:
        store.put(name, second, digest_of(second))
    except AlreadyExistsError:
        _require_back(store, name, first)
        return True
    return False


def _require_back(store: Store, name: str, data: bytes) -> None:
    try:
        same = read(store, name, _LIMIT) == data
    except NotFoundError:
        same = False
    if not same:
        message = f"{store.location}/{name} was written and then read back differently; use another store"
        raise Failure(Reason.CHECKSUM_MISMATCH, message)


def _require_listed(store: Store, folder: str, name: str, length: int) -> None:
    if (name, length) not in [(entry.name, entry.length) for entry in store.entries(folder)]:
        message = f"{store.location}/{name} was written and is not listed; use a store with listings"
        raise Failure(Reason.STORE_UNAVAILABLE, message + " that are complete at once", retriable=True)


def _deletes(store: Store, folder: str) -> bool:
    try:
        for entry in list(store.entries(folder)):
            store.delete(entry.name)
        return not list(store.entries(folder))
    except Failure as failure:
        if failure.reason is Reason.STORE_PERMISSION_DENIED:
            return False
        raise
