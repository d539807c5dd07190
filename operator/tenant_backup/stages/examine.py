"""Stage `examine`: says whether a backup in the store is what was written, and if not, what is lost.

Holds the tenant's index key and no way to the store. Checksum: `download` reads and hashes, and no data
comes here. Contents: every chunk comes as in a restore, is decrypted with the identity, checked against
its id and counted. Damage is a result, not a failure: it fails when it cannot find out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from tenant_backup.archive import names
from tenant_backup.archive.lists import Catalogue, Segment, source
from tenant_backup.archive.manifest import Manifest
from tenant_backup.archive.pack import ObjectRef
from tenant_backup.archive.reader import ArchiveReader, DamagedObject, open_index_key, open_manifest
from tenant_backup.contract.job import Verify
from tenant_backup.contract.reasons import Failure, Reason

from .crew import Crew
from .downloads import Downloads
from .mounted import mounted_identity, mounted_key_or_none
from .progress import Progress
from .verification import AT_ONCE, Findings, Found, is_due, unmarked

_SEGMENTS_AT_ONCE = 3


def run(job: Verify) -> dict[str, Any]:
    """Examine one backup; return the facts of its findings.

    Raises Failure: KEY_MISSING, WRONG_KEY, SIGNATURE_INVALID, CROSS_TENANT_ACCESS, UNSUPPORTED_CONTENT,
    PEER_FAILED when `download` ends.
    """
    crew = Crew()
    evidence = _Evidence(crew)
    try:
        findings = _examine(job, evidence)
        evidence.finish()
    finally:
        crew.close()
    findings.tell()
    return findings.facts(job.level)


def _examine(job: Verify, evidence: _Evidence) -> Findings:
    try:
        manifest = _manifest(job, evidence)
    except Failure as failure:
        if failure.reason not in (Reason.BACKUP_NOT_FOUND, Reason.CHECKSUM_MISMATCH):
            raise
        return Findings(wrong=[f"nothing of it can be restored: {failure.message}"])
    findings = Findings()
    evidence.expect(manifest)
    with Progress("Verify", sum(ref.length for ref in evidence.refs.values())) as progress:
        evidence.count = progress.add
        if job.level == "Contents":
            _read_contents(job, manifest, evidence, findings)
            evidence.look_at(evidence.refs.keys() - evidence.found.keys())
        else:
            evidence.look_at(_due(job, manifest, evidence))
            evidence.miss()
    _conclude(manifest, evidence, findings)
    return findings


def _manifest(job: Verify, evidence: _Evidence) -> Manifest:
    data = evidence.manifest(names.manifest(job.backup_id))
    tenant = (job.tenant.slug, job.tenant.namespace, job.tenant.name)
    return open_manifest(
        data,
        job.signing_key,
        job.backup_id,
        tenant,
        job.manifest_sha256,
        earlier_keys=job.trusted_keys,
    )


def _due(job: Verify, manifest: Manifest, evidence: _Evidence) -> set[str]:
    """Return what is read now: what this run wrote, a seventh of the rest, and all that was ever bad."""
    if job.everything:
        return set(evidence.refs)
    older, marked = evidence.older(manifest.times.completed), evidence.marked()
    return {
        name
        for name, ref in evidence.refs.items()
        if name not in older or ref.id in marked or is_due(ref.id, job.day)
    }


def _read_contents(job: Verify, manifest: Manifest, evidence: _Evidence, findings: Findings) -> None:
    """Read every segment as a restore does, and the copy of the keys that is for the cluster's loss."""
    encrypted = manifest.encryption.mode != "None"
    identity = mounted_identity(job.identity_secret) if encrypted else None
    index = open_index_key(manifest, mounted_key_or_none("indexKey"), identity, evidence)
    with closing(ArchiveReader(manifest, index, identity, evidence)) as reader:
        try:
            catalogue = reader.catalogue()
        except DamagedObject as damage:
            evidence.condemn(damage)
            return
        counts = _Counts(reader, evidence)
        with ThreadPoolExecutor(_SEGMENTS_AT_ONCE, "segment") as pool:
            list(pool.map(counts.read, catalogue.segments, catalogue.segments.values()))
    findings.wrong, findings.tables = counts.compared(catalogue), sorted(counts.broken)
    try:
        open_index_key(manifest, None, identity, evidence)
    except Failure as failure:
        if failure.reason not in (Reason.KEY_MISSING, Reason.WRONG_KEY):
            raise
        findings.warnings.append(f"without this cluster it could not be restored: {failure.message}")


class _Counts:
    """Rows of each segment, as they come out of the archive."""

    def __init__(self, reader: ArchiveReader, evidence: _Evidence) -> None:
        self._reader, self._evidence = reader, evidence
        self._rows: dict[str, int] = {}
        self.broken: set[str] = set()  # tables of segments that cannot be read to their end

    def read(self, segment_id: str, segment: Segment) -> None:
        """Read one segment to its end, or to its first damage."""
        try:
            rows = sum(block.count(b"\n") for block in self._reader.blocks(segment))
        except DamagedObject as damage:
            self._evidence.condemn(damage)
            self.broken.add(source(segment_id, segment))
            return
        if segment.rows is not None:
            self._rows[segment_id] = rows

    def compared(self, catalogue: Catalogue) -> list[str]:
        """Return a sentence for each table that has other rows than its catalogue says."""
        wrong = []
        for table in catalogue.engine.get("tables", ()):
            if table["name"] in self.broken or table["rows"] is None:
                continue
            rows = sum(self._rows.get(segment_id, 0) for segment_id in table["segments"])
            if rows != table["rows"]:
                wrong.append(f"table {table['name']} has {rows} rows where {table['rows']} were backed up")
        return wrong


class _Evidence(Downloads):
    """The objects of one backup: each is looked at by `download`, and what it finds is kept."""

    def __init__(self, crew: Crew) -> None:
        super().__init__(crew)
        self._lock = threading.Lock()
        self.refs: dict[str, ObjectRef] = {}
        self.found: dict[str, Found] = {}
        self.wrong: list[str] = []  # damage that is in no one object
        self.count: Callable[[int], None] = _nobody_counts

    def expect(self, manifest: Manifest) -> None:
        """These objects are evidence; others, such as keys, are only fetched."""
        self.refs = {names.pack(ref.id): ref for ref in manifest.packs}
        self.refs |= {names.index_pack(ref.id): ref for ref in manifest.lists}

    def fetch(self, name: str, length: int | None, sha256: str | None) -> Path:
        """Have an object brought, if it is whole. Raises DamagedObject, Failure(PEER_FAILED)."""
        if name not in self.refs:
            return super().fetch(name, length, sha256)
        answer = self._look({"keep": name, "length": length, "sha256": sha256}, name)
        if answer["found"] != "ok":
            raise DamagedObject(name, f"{name} is {answer['found']}")
        return Path(answer["path"])

    def look_at(self, due: Iterable[str]) -> None:
        """Have objects read and hashed, a few at a time; their bytes stay where they are."""

        def look(name: str) -> None:
            ref = self.refs[name]
            self._look({"check": name, "length": ref.length, "sha256": ref.sha256}, name)

        with ThreadPoolExecutor(AT_ONCE, "look") as pool:
            list(pool.map(look, due))

    def miss(self) -> None:
        """Notice those that are not there, or of another length, among what is not due."""

        def stat(name: str) -> None:
            length = self.length(name)
            if length != self.refs[name].length:
                self.found[name] = "missing" if length is None else "damaged"

        with ThreadPoolExecutor(AT_ONCE, "stat") as pool:
            list(pool.map(stat, self.refs.keys() - self.found.keys()))

    def condemn(self, damage: DamagedObject) -> None:
        """Keep what only a reader with the key sees: the right SHA-256 over the wrong content."""
        with self._lock:
            if damage.name not in self.refs:
                self.wrong.append(damage.message)
            elif self.found.get(damage.name, "ok") == "ok":
                self.found[damage.name] = "damaged"

    def damage(self) -> dict[str, Found]:
        """What is not as it was written, by name."""
        return {name: found for name, found in sorted(self.found.items()) if found != "ok"}

    def marked(self) -> set[str]:
        """The ids of objects that a verification found damaged before."""
        return set(self.ask({"marked": True})["marked"])

    def older(self, than: str) -> set[str]:
        """The names of objects that backups completed before `than` need too."""
        return set(self.ask({"older": list(self.refs), "than": than})["names"])

    def backups(self, damaged: Collection[str]) -> list[str]:
        """The ids of all backups that need one of these objects."""
        return list(self.ask({"named": list(damaged)})["backups"])

    def mark(self, name: str) -> str:
        """Have no later backup refer to an object; return why that was refused, or nothing."""
        return str(self.ask({"mark": name})["refused"])

    def _look(self, question: dict[str, Any], name: str) -> dict[str, Any]:
        answer = self.ask(question)
        with self._lock:
            first = name not in self.found
            self.found[name] = answer["found"]
        if first:
            self.count(self.refs[name].length)
        return answer


def _conclude(manifest: Manifest, evidence: _Evidence, findings: Findings) -> None:
    """Say what was read, what damage means, and mark what is bad."""
    findings.wrong += evidence.wrong
    if evidence.damage():
        _name_what_is_lost(manifest, evidence, findings)
    damage = findings.damage = evidence.damage()  # the search may have come upon more
    if damage:
        findings.doubts += unmarked(damage, evidence.mark)
        findings.backups = [each for each in evidence.backups(damage) if each != manifest.backup_id]
    read = [name for name, found in evidence.found.items() if found != "missing"]
    findings.objects, findings.bytes = len(read), sum(evidence.refs[name].length for name in read)


def _name_what_is_lost(manifest: Manifest, evidence: _Evidence, findings: Findings) -> None:
    try:
        findings.tables = sorted({*findings.tables, *_tables_hit(manifest, evidence)})
    except DamagedObject as lost:
        evidence.condemn(lost)
        findings.wrong.append(f"its catalogue is in {lost.name}: nothing of it can be restored")
    except Failure as failure:
        if failure.reason not in (Reason.KEY_MISSING, Reason.WRONG_KEY):
            raise
        findings.doubts.append("which tables are hit cannot be said without the tenant's index key")


def _tables_hit(manifest: Manifest, evidence: _Evidence) -> set[str]:
    """Return the tables that have a chunk in a damaged pack, or a chunk list in a damaged list."""
    index = open_index_key(manifest, mounted_key_or_none("indexKey"), None, evidence)
    damage = evidence.damage()
    with closing(ArchiveReader(manifest, index, None, evidence)) as reader:
        segments = reader.catalogue().segments
        return {source(name, each) for name, each in segments.items() if _is_hit(reader, each, damage)}


def _is_hit(reader: ArchiveReader, segment: Segment, damage: Collection[str]) -> bool:
    for part in segment.parts:
        if names.index_pack(part.list) in damage:
            return True
        try:
            packs = {names.pack(chunk.pack) for chunk in reader.chunks(part)}
        except DamagedObject:  # found only now: it was not due
            return True
        if not packs.isdisjoint(damage):
            return True
    return False


def _nobody_counts(_count: int) -> None:
    """Before anything is looked at."""
