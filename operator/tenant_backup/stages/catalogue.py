"""Lists what is in a store: which backups of this namespace's tenants, and with `details` what they are.

Holds the store's credentials and no key: manifests are readable. Nobody's signature is checked here, so what
this says is good for listing and for nothing else; who restores or verifies checks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from tenant_backup.archive import names
from tenant_backup.archive.manifest import UNREADABLE, Manifest, data_at, parse
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import listed
from tenant_backup.stores import connect
from tenant_backup.stores.base import NotFoundError, Store, digest_of, read

from . import commits
from .ownership import owner

Whose = tuple[str, str, str]  # namespace, name and slug of a Tenant
_AT_ONCE = 8  # manifests read at the same time
_PER_LINE = 50  # backups
_SKEW = timedelta(hours=1)  # between clocks
_ID_LIMIT = 80  # characters, as in the CRD
_ID = re.compile(r"[a-z0-9][a-z0-9-]*_[0-9_-]+")  # likewise
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_LIMIT, _TENANT_LIMIT = 253, 52  # characters, likewise
_MODULE = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")


def run(job: jobs.Catalogue, *, secrets: Path = paths.SECRETS, volume: Path = paths.VOLUME) -> dict[str, Any]:
    """Return `{"backups", "next", …}`: how many are listed, and where the next page begins; "" at the end.

    The rest of the facts is a list (`results.listed`) of `{"slug", "tenant", "cluster", "backups"}`, in order
    of slug and backup id; a tenant may be in several items. `backups` are ids, and with details what
    `described` returns, or `{"id", "unreadable"}`. `{"slug", "skipped"}` is a prefix of another namespace, or
    of nobody who can be read.
    Raises what the store raises.
    """
    page = _Page(job)
    for slug in connect(job.store, "", secrets=secrets, volume=volume).folders():
        if names.is_backup_id(slug) and slug >= page.slug and not page.full:
            page.add(slug, connect(job.store, slug, secrets=secrets, volume=volume))
    return {"backups": page.count, "next": page.last if page.full else "", **listed(page.items)}


def described(store: Store, backup_id: str, whose: Whose) -> dict[str, Any]:
    """Return what a manifest says: id, location, SHA-256, times, sizes, modules and contents.

    Raises NotFoundError; Failure: ChecksumMismatch, UnsupportedContent, CrossTenantAccess.
    """
    data = read(store, names.manifest(backup_id), commits.MANIFEST_LIMIT)
    manifest = parse(data)
    owned = manifest.tenant
    if (owned.namespace, owned.name, owned.slug) != whose or manifest.backup_id != backup_id:
        moved = f"what is stored as {backup_id} is the manifest of {manifest.backup_id} or of another tenant"
        raise Failure(Reason.CROSS_TENANT_ACCESS, f"{moved}: somebody moved it; it is left alone")
    wrong = _insane(manifest)
    if wrong:
        message = f"the manifest of {backup_id} cannot be believed ({wrong}); choose another backup"
        raise Failure(Reason.CHECKSUM_MISMATCH, message)
    return {"id": backup_id, "location": commits.location(store, backup_id)} | _facts(manifest, data)


def _facts(manifest: Manifest, data: bytes) -> dict[str, Any]:
    sizes, times = manifest.bytes, manifest.times
    return {
        "sha256": digest_of(data).sha256,
        "name": _word(manifest.backup.name),
        "uid": _word(manifest.backup.uid),
        "started": times.started,
        "completed": times.completed,
        "encryption": manifest.encryption.mode,
        "consistency": manifest.consistency,
        "bytes": {"logical": sizes.logical, "stored": sizes.stored, "added": sizes.added},
        "tables": manifest.tables,
        "rows": manifest.rows,
        "modules": list(manifest.modules.only),
        "contents": manifest.contents,
        "files": manifest.files.count,
        "changedFiles": manifest.files.changed,
        "skippedFiles": manifest.files.skipped,
        "dataAt": data_at(manifest),
    }


def _insane(manifest: Manifest) -> str:
    """Whoever may write the store could write numbers and words that no API server takes: say which."""
    sizes, only = manifest.bytes, manifest.modules.only
    files = manifest.files
    counts = [sizes.logical, sizes.stored, sizes.added, manifest.tables, manifest.rows]
    counts += [files.count, files.changed, files.skipped]
    if not all(0 <= count < 1 << 63 for count in counts):
        return "a size or number in it is impossible"
    if manifest.consistency not in ("Snapshot", "PerTable", "PerFile"):
        return "its consistency is none"
    if len(only) > 100 or len(set(only)) < len(only) or not all(_MODULE.fullmatch(name) for name in only):
        return "its modules cannot be any"
    times = (manifest.times.started, manifest.times.completed, *data_at(manifest).values())
    return "" if all(_has_been(time) for time in times) else "a time in it is none, or has not come yet"


def _has_been(text: str) -> bool:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return False
    return time.tzinfo is not None and time < datetime.now(UTC) + _SKEW


@dataclass
class _Page:
    """What is listed, up to the limit."""

    job: jobs.Catalogue
    items: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0
    last: str = ""  # slug/backup id
    full: bool = False  # and there is more

    @property
    def slug(self) -> str:
        """The first tenant of this page."""
        return self.job.after.partition("/")[0]

    def add(self, slug: str, store: Store) -> None:
        """List one tenant, as far as the page goes."""
        marker = owner(store)
        marker = marker if isinstance(marker, dict) else {}
        tenant, cluster = _word(marker.get("name")), _word(marker.get("clusterId"))
        if marker.get("namespace") != self.job.namespace or not 0 < len(tenant) <= _TENANT_LIMIT:
            self.items.append({"slug": slug, "skipped": True})
            return
        head = {"slug": slug, "tenant": tenant, "cluster": cluster}
        whose = (self.job.namespace, tenant, slug)
        for ids in _batches(self._ids(slug, store)):
            found = _all_described(store, ids, whose) if self.job.details else ids
            self.items.append({**head, "backups": found})

    def _ids(self, slug: str, store: Store) -> Iterator[str]:
        begun, _, last = self.job.after.partition("/")
        after = names.manifest(last) if begun == slug and last else ""
        for entry in store.entries("manifests", after):
            backup_id = entry.name.removeprefix(names.manifest(""))
            named = _ID.fullmatch(backup_id) and backup_id.startswith(f"{slug}_")
            if not named or len(backup_id) > _ID_LIMIT:
                continue  # no backup of this tenant has such a name
            if self.count >= self.job.limit:
                self.full = True
                return
            self.count += 1
            self.last = f"{slug}/{backup_id}"
            yield backup_id


def _all_described(store: Store, ids: list[str], whose: Whose) -> list[dict[str, Any]]:
    def describe(backup_id: str) -> dict[str, Any] | None:
        try:
            return described(store, backup_id, whose)
        except NotFoundError:
            return None  # deleted meanwhile
        except Failure as failure:
            if failure.reason not in (*UNREADABLE, Reason.CROSS_TENANT_ACCESS):
                raise
            return {"id": backup_id, "unreadable": True}

    with ThreadPoolExecutor(_AT_ONCE, "manifest") as pool:
        return [each for each in pool.map(describe, ids) if each is not None]


def _word(value: object) -> str:
    """Return a name as Kubernetes has them; empty for anything else that somebody may have written."""
    fits = isinstance(value, str) and len(value) <= _NAME_LIMIT and _NAME.fullmatch(value)
    return str(value) if fits else ""


def _batches(ids: Iterator[str]) -> Iterator[list[str]]:
    while batch := list(islice(ids, _PER_LINE)):
        yield batch
