"""`verify`: is a backup what was written, byte by byte, and whom does a damage hit.

Without an identity every object is read and hashed; with it also opened, and every row counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from tenant_backup.archive import names
from tenant_backup.archive.keys import Identity
from tenant_backup.archive.lists import Catalogue, source
from tenant_backup.archive.manifest import Manifest
from tenant_backup.archive.pack import ObjectRef
from tenant_backup.archive.reader import ArchiveReader
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores.base import Digest, NotFoundError, Store, digest_in

from . import console
from .chosen import Chosen
from .opened import kept, reading
from .options import Opened

_AT_ONCE = 4
_DAMAGE = (Reason.CHECKSUM_MISMATCH, Reason.PACK_MISSING)
Level = Literal["Checksum", "Contents"]


@dataclass(frozen=True)
class Verdict:
    """What was found. Nothing damaged: the backup is what was written."""

    level: Level
    objects: int
    damaged: dict[str, str] = field(default_factory=dict)  # object -> what is wrong
    tables: dict[str, str] = field(default_factory=dict)  # table -> why; level Contents only
    backups: list[str] = field(default_factory=list)  # others that need a damaged object
    rows: int | None = None  # counted; level Contents only

    @property
    def good(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damaged and not self.tables


def verify(chosen: Chosen) -> Verdict:
    """Check one backup. Raises Failure only when it could not be checked."""
    opened, manifest, identity = chosen.opened, chosen.manifest, chosen.identity
    objects = list(_objects(manifest))
    with console.progress("Reading objects", manifest.bytes.stored) as bar:
        damaged = _damaged(opened.store, objects, bar)
    backups = _hit(opened.store, manifest, damaged, chosen.trust) if damaged else []
    if identity is None and manifest.encryption.mode != "None":
        return Verdict("Checksum", len(objects), damaged, backups=backups)
    tables, rows = _contents(opened, manifest, identity)
    return Verdict("Contents", len(objects), damaged, tables, backups, rows)


def described(backup_id: str, verdict: Verdict) -> dict[str, Any]:
    """Return a verdict for machines."""
    return {
        "backupId": backup_id,
        "health": "Healthy" if verdict.good else "Corrupt",
        "level": verdict.level,
        "objects": verdict.objects,
        "rows": verdict.rows,
        "damagedObjects": [{"name": name, "message": what} for name, what in verdict.damaged.items()],
        "hitTables": [{"name": name, "message": what} for name, what in verdict.tables.items()],
        "hitBackups": verdict.backups,
    }


def in_words(backup_id: str, verdict: Verdict) -> str:
    """Return a verdict for people."""
    if verdict.good:
        counted = f", {verdict.rows} rows opened and counted" if verdict.rows is not None else ""
        return f"{backup_id} is healthy: {verdict.objects} objects are what was written{counted}"
    lines = [f"{backup_id} is CORRUPT"]
    lines += [f"  object {name}: {what}" for name, what in verdict.damaged.items()]
    lines += [f"  table {name}: {what}" for name, what in verdict.tables.items()]
    lines += [f"  backup {name} needs a damaged object too" for name in verdict.backups]
    if verdict.level == "Checksum":
        lines.append("with --identity you also learn which tables are hit")
    return "\n".join(lines)


def _objects(manifest: Manifest) -> Iterator[tuple[str, ObjectRef]]:
    yield from ((names.pack(ref.id), ref) for ref in manifest.packs)
    yield from ((names.index_pack(ref.id), ref) for ref in manifest.lists)


def _damaged(store: Store, objects: list[tuple[str, ObjectRef]], bar: console.Bar) -> dict[str, str]:
    def look(item: tuple[str, ObjectRef]) -> str:
        name, ref = item
        try:
            actual = digest_in(store, name)
        except NotFoundError:
            return "it is missing"
        finally:
            bar.advance(ref.length)
        return "" if actual == Digest(ref.length, ref.sha256) else "it has other bytes than were written"

    pool = ThreadPoolExecutor(_AT_ONCE, "verify")
    try:
        found = zip(objects, pool.map(look, objects), strict=True)
        return {name: what for (name, _), what in found if what}
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _hit(store: Store, manifest: Manifest, damaged: dict[str, str], trust: str) -> list[str]:
    """Return the other backups that name a damaged object."""
    others = [backup for backup in kept(store, trust) if backup.backup_id != manifest.backup_id]
    return [
        backup.backup_id
        for backup in others
        if backup.manifest and any(name in damaged for name, _ in _objects(backup.manifest))
    ]


def _contents(opened: Opened, manifest: Manifest, identity: Identity | None) -> tuple[dict[str, str], int]:
    """Open every segment; return the tables that are hit and why, and how many rows were counted."""
    with (
        console.progress("Opening contents", manifest.bytes.stored) as bar,
        reading(manifest, identity, opened.store, opened.spool, bar.advance) as reader,
    ):
        try:
            catalogue = reader.catalogue()
        except Failure as failure:
            if failure.reason not in _DAMAGE:
                raise
            return {"(all)": failure.message}, 0
        return _tables(reader, catalogue)


def _tables(reader: ArchiveReader, catalogue: Catalogue) -> tuple[dict[str, str], int]:
    hit: dict[str, str] = {}
    total = 0
    for name, segment in catalogue.segments.items():
        shown = segment.table or f"({source(name, segment)})"
        try:
            rows = sum(block.count(b"\n") for block in reader.blocks(segment))
        except Failure as failure:
            if failure.reason not in _DAMAGE:
                raise
            hit.setdefault(shown, failure.message)
            continue
        if segment.rows is not None and rows != segment.rows:
            hit.setdefault(shown, f"{rows} rows were found where {segment.rows} were written")
        total += rows if segment.rows is not None else 0
    return hit, total
