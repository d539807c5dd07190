"""Stage `archive`: rows in, packs out, a signed manifest last. Holds the tenant's keys and nothing else.

The manifest is handed to `upload` only after the producer's own success (row counts, list of segments,
its `done`) and after everything the manifest names was acknowledged by the store. End of file anywhere
before is failure, so a killed producer never becomes a backup.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tenant_backup
from tenant_backup.archive import manifest as manifests
from tenant_backup.archive import names
from tenant_backup.archive.frame import Kind
from tenant_backup.archive.keys import IndexKey, TenantKeys, WriterKeys
from tenant_backup.archive.lists import Segment
from tenant_backup.archive.writer import ArchiveWriter, SegmentWriter, Spooled, Written
from tenant_backup.contract import paths
from tenant_backup.contract.job import Backup
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import progress_line

from . import wire
from .base import open_base
from .crew import Crew, Patience, peers
from .mounted import mounted_key
from .rate import Brake

OBJECTS_IN_FLIGHT = 4  # in the spool, waiting for the store; with the open ones they bound the disk
_PROGRESS_EVERY = 2.0  # seconds
_KINDS = {"rows": Kind.ROWS, "blob": Kind.BLOB}


def run(job: Backup) -> dict[str, Any]:
    """Archive what `dump` sends; return no facts, they go with the commit to `upload`.

    Raises Failure: KEY_MISSING, INVALID_SPEC, DUMP_TRUNCATED, PEER_FAILED, VOLUME_UNAVAILABLE.
    """
    prepared = json.loads((paths.RUN / paths.PREPARED).read_bytes())
    if prepared["committed"]:
        return {}  # an earlier attempt died after its commit; `upload` answers with its facts
    started = _now()
    keys = _writer_keys(job)
    crew = Crew()
    server = wire.listen(paths.RUN / paths.ARCHIVE_SOCKET)
    upload = _Upload(wire.connect(paths.RUN / paths.UPLOAD_SOCKET, "upload"), crew)
    with _spool_explained(), contextlib.closing(crew):
        known = open_base(prepared["base"], job.tenant, keys, paths.SPOOL / paths.BASE)
        level = job.compression_level
        writer = ArchiveWriter(
            keys, job.tenant.slug, paths.SPOOL, upload.put_spooled, level=level, known=known
        )
        with contextlib.closing(writer):
            _put_stored_key(keys, prepared["keys"], upload)
            intake = _Intake(writer, crew, Brake(job.read_rate), peers(job, "dump", "gather"))
            intake.receive(server)
            written = writer.finish(intake.catalogue())
            crew.wait(upload.is_drained)
            manifest = _describe(job, prepared["backupId"], started, keys, intake, written)
            upload.commit(manifest, manifests.sign(manifest, keys.tenant.signing()))
            crew.wait(upload.is_committed)
            intake.acknowledge()
    return {}


class _Upload:
    """The connection to `upload`. Objects are put by several threads, answers read by one."""

    def __init__(self, connection: socket.socket, crew: Crew) -> None:
        self._connection = crew.adopt(connection)
        self._crew = crew
        self._changed = threading.Condition()
        self._in_flight: set[str] = set()
        self._committed: str | None = None
        self._expected = ""
        crew.start(self._read_answers)

    def put_spooled(self, spooled: Spooled) -> None:
        """Hand on a finished pack; blocks while OBJECTS_IN_FLIGHT are on their way."""
        self.put(spooled.name, spooled.path, spooled.ref.length, spooled.ref.sha256)

    def put(self, name: str, path: Path, length: int, sha256: str) -> None:
        """Hand on an object; `upload` unlinks the file. Raises Failure(PEER_FAILED)."""
        with self._changed:
            while len(self._in_flight) >= OBJECTS_IN_FLIGHT:
                self._crew.check()
                self._changed.wait(0.2)
            self._in_flight.add(name)
            self._send({"put": {"name": name, "path": str(path), "length": length, "sha256": sha256}})

    def commit(self, manifest: manifests.Manifest, data: bytes) -> None:
        """Hand on the manifest. Everything it names must have been stored."""
        path = paths.SPOOL / "manifest"
        path.write_bytes(data)
        sha256 = self._expected = hashlib.sha256(data).hexdigest()
        name, facts = names.manifest(manifest.backup_id), manifests.facts(manifest, sha256)
        document = {"name": name, "path": str(path), "length": len(data), "sha256": sha256, "facts": facts}
        with self._changed:
            self._send({"commit": document})

    def is_drained(self) -> bool:
        """Say whether the store has acknowledged everything."""
        return not self._in_flight

    def is_committed(self) -> bool:
        """Say whether the manifest is in the store. Raises Failure when it is another one."""
        if self._committed is not None and self._committed != self._expected:
            raise Failure(
                Reason.CHECKSUM_MISMATCH, "the store read back another manifest; see that it is not shared"
            )
        return self._committed is not None

    def _send(self, message: dict[str, Any]) -> None:
        try:
            wire.send(self._connection, message)
        except OSError:
            raise wire.peer_failed("upload") from None

    def _read_answers(self) -> None:
        reader = wire.Reader(self._connection, "upload")
        while self._committed is None:
            answer = reader.message()
            with self._changed:
                if "committed" in answer:
                    self._committed = answer["committed"]["sha256"]
                else:
                    self._in_flight.remove(answer["stored"])
                self._changed.notify_all()
            self._crew.wake()


class _Intake:
    """All that is sent: by each producer one control connection, and a data connection per worker."""

    def __init__(self, writer: ArchiveWriter, crew: Crew, brake: Brake, producers: dict[str, str]) -> None:
        self._writer, self._crew, self._brake = writer, crew, brake
        self._producers = producers
        self._patience = {volume: Patience(paths.RUN, stage) for volume, stage in producers.items()}
        self._controls: dict[str, socket.socket] = {}
        self._catalogues: dict[str, dict[str, Any]] = {}
        self._listed: dict[str, list[str]] = {}  # every segment that a producer says it sent
        self._lock = threading.Lock()
        self._receiving = 0  # connections whose end has not come
        self._begun: set[str] = set()
        self._progress = _Progress()

    def receive(self, server: socket.socket) -> None:
        """Serve the producers until all are done and what they sent is in packs. Raises Failure."""
        self._crew.wait(self._is_listed, self._tick, server, self._serve)
        self._serve_backlog(server)
        self._crew.wait(lambda: self._receiving == 0, self._tick)
        self._check_complete()

    def acknowledge(self) -> None:
        """Tell the producers that what they sent is a backup now."""
        for control in self._controls.values():
            with contextlib.suppress(OSError):  # committed: that one of them died since does not undo it
                wire.send(control, {"done": True})

    def catalogue(self) -> dict[str, Any]:
        """What was said of the database, and of each volume."""
        files = [self._catalogues[volume] for volume in self._producers if volume]
        database = self._catalogues[""] if "" in self._producers else _no_database(files)
        return database | ({"files": files} if files else {})

    def segments(self) -> dict[str, Segment]:
        """What was received, by segment id."""
        return self._writer.segments

    def _is_listed(self) -> bool:
        return self._listed.keys() == self._producers.keys()

    def _tick(self) -> None:
        for patience in self._patience.values():
            patience.check()
        self._progress.tick()

    def _serve_backlog(self, server: socket.socket) -> None:
        # What they connected before they said done waits here; later connections are nobody's.
        server.setblocking(False)
        while True:
            try:
                connection, _ = server.accept()
            except BlockingIOError:
                return
            connection.setblocking(True)
            self._serve(connection)

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._receiving += 1
        self._crew.adopt(connection)
        self._crew.start(lambda: self._read(connection))

    def _read(self, connection: socket.socket) -> None:
        reader = wire.Reader(connection, "dump")
        hello = reader.message()
        if hello["connection"] == "control":
            self._read_control(connection, reader, hello.get("volume", ""))
        else:
            self._read_data(connection, reader)
        with self._lock:
            self._receiving -= 1
        self._crew.wake()

    def _read_control(self, connection: socket.socket, reader: wire.Reader, volume: str) -> None:
        self._patience[volume].came = True
        self._controls[volume] = connection
        while not (message := reader.message()).get("done"):
            if "plan" in message:
                self._progress.expect(int(message["plan"]["bytes"]))
            if "catalogue" in message:
                self._catalogues[volume] = message["catalogue"]
        self._listed[volume] = list(message["segments"])

    def _read_data(self, connection: socket.socket, reader: wire.Reader) -> None:
        before: SegmentWriter | None = None
        while not (header := reader.message()).get("end"):
            self._begin(header["segment"])
            if self._take_over(connection, header):
                continue
            segment = self._read_segment(reader, header)
            if before:
                before.close()  # what was still being compressed has not kept the sender waiting
            before = segment
        if before:
            before.close()

    def _begin(self, segment_id: str) -> None:
        with self._lock:
            if segment_id in self._begun:
                raise _truncated(f"segment {segment_id} was sent twice")
            self._begun.add(segment_id)

    def _take_over(self, connection: socket.socket, header: dict[str, Any]) -> bool:
        """Answer whether it is stored already, if that is the question; then nothing is sent."""
        if not header.get("fingerprint"):
            return False
        known = self._writer.take_over(header["segment"], header["fingerprint"])
        if known:
            self._progress.add(known.bytes)
        wire.send(connection, {"known": known is not None})
        return known is not None

    def _read_segment(self, reader: wire.Reader, header: dict[str, Any]) -> SegmentWriter:
        segment = self._writer.segment(header["segment"], _KINDS[header["kind"]], header["table"])
        for piece in reader.raw(bytes.fromhex(header["marker"])):
            self._brake.spend(len(piece))  # the server is slowed down by the full sockets behind us
            segment.write(piece)
            self._progress.add(len(piece))
        said = reader.message()
        seen = segment.end(said.get("fingerprint", ""))
        if seen is not None and said["rows"] != seen:
            raise _truncated(
                f"the server said it sent {said['rows']} rows of {header['table']} and {seen} arrived"
            )
        return segment

    def _check_complete(self) -> None:
        received = set(self.segments())
        listed = {segment for segments in self._listed.values() for segment in segments}
        if received != listed:
            raise _truncated(f"the dump lists {len(listed)} segments and {len(received)} arrived")
        for table in self.catalogue().get("tables", []):
            self._check_table(table)

    def _check_table(self, table: dict[str, Any]) -> None:
        missing = [name for name in table["segments"] if name not in self.segments()]
        if missing:
            raise _truncated(f"segment {missing[0]} of {table['name']} did not arrive")
        seen = sum(self.segments()[name].rows or 0 for name in table["segments"])
        if table["rows"] is not None and table["rows"] != seen:
            raise _truncated(f"the dump counted {table['rows']} rows in {table['name']} and {seen} arrived")


class _Progress:
    """Bytes read so far, as one JSON line every few seconds."""

    def __init__(self) -> None:
        self._total = 0  # bytes, estimated
        self._read = 0
        self._lock = threading.Lock()
        self._next = time.monotonic() + _PROGRESS_EVERY

    def expect(self, count: int) -> None:
        """Add to the bytes there are to read."""
        with self._lock:
            self._total += count

    def add(self, count: int) -> None:
        """Count bytes; called by several threads."""
        with self._lock:
            self._read += count

    def tick(self) -> None:
        """Print a line when it is time."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PROGRESS_EVERY
        percent = min(99, 100 * self._read // self._total) if self._total else 0
        print(
            progress_line(phase="Dump", percent=percent, bytesRead=self._read, bytesTotal=self._total),
            flush=True,
        )


def _writer_keys(job: Backup) -> WriterKeys:
    tenant = TenantKeys(IndexKey(mounted_key("indexKey")), mounted_key("signingKey"))
    return WriterKeys.fresh(tenant, job.encryption, job.recipients)


def _put_stored_key(keys: WriterKeys, existing: list[str], upload: _Upload) -> None:
    name = keys.stored_name()
    if name in existing:
        return
    data = keys.stored()
    path = paths.SPOOL / "stored-key"
    path.write_bytes(data)
    upload.put(name, path, len(data), hashlib.sha256(data).hexdigest())


def _describe(  # noqa: PLR0913, PLR0917 - all that a manifest says
    job: Backup, backup_id: str, started: str, keys: WriterKeys, intake: _Intake, written: Written
) -> manifests.Manifest:
    catalogue = intake.catalogue()
    stored = sum(ref.length for ref in (*written.packs, *written.lists))
    tenant = job.tenant
    return manifests.Manifest(
        format=manifests.FORMAT,
        format_version=manifests.FORMAT_VERSION,
        writer=tenant_backup.__version__,
        backup_id=backup_id,
        backup=manifests.BackupIdentity(job.name, job.uid),
        tenant=manifests.TenantIdentity(tenant.cluster_id, tenant.namespace, tenant.name, tenant.slug),
        times=manifests.Times(started, str(catalogue["snapshotAt"]), _now()),
        server=manifests.Server(str(catalogue["server"]["engine"]), str(catalogue["server"]["version"])),
        encryption=manifests.Encryption.of(keys),
        consistency=str(catalogue.get("consistency", "Snapshot")),
        partial=bool(job.only_modules),
        modules=manifests.Modules(tuple(module.name for module in job.modules), tuple(job.only_modules)),
        contents=job.contents,
        files=_summary(catalogue.get("files", [])),
        tables=len(catalogue["tables"]),
        rows=sum(segment.rows or 0 for segment in intake.segments().values()),
        bytes=manifests.Sizes(written.logical, stored, written.added),
        packs=written.packs,
        lists=written.lists,
        catalogue=written.catalogue,
    )


def _no_database(files: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the catalogue of a database would be."""
    return {
        "tables": [],
        "server": {"engine": "", "version": ""},
        "snapshotAt": min(volume["readFrom"] for volume in files),
        "consistency": "PerFile",
    }


def _summary(files: list[dict[str, Any]]) -> manifests.Files:
    """Return what the manifest says of the volumes; their names and paths are the tenant's business."""
    if not files:
        return manifests.NO_FILES
    return manifests.Files(
        count=sum(volume["files"] for volume in files),
        bytes=sum(volume["bytes"] for volume in files),
        changed=sum(volume["changed"]["count"] for volume in files),
        skipped=sum(volume["skipped"]["count"] for volume in files),
        read_from=min(volume["readFrom"] for volume in files),
        read_to=max(volume["readTo"] for volume in files),
    )


def _truncated(what: str) -> Failure:
    return Failure(
        Reason.DUMP_TRUNCATED,
        f"{what}: nothing was committed; the next attempt reads the database again",
        retriable=True,
    )


@contextlib.contextmanager
def _spool_explained() -> Iterator[None]:
    """Turn a full disk into the Failure that says so."""
    try:
        yield
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        raise Failure(
            Reason.VOLUME_UNAVAILABLE,
            f"the spool of the Job is full ({error.strerror}); give its node more ephemeral storage",
            retriable=True,
        ) from error


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
