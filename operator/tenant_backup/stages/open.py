"""Stage `open`: verified plaintext for `load` and `place`. Holds identity and index key, nothing else.

Signature, tenant, keys and the presence of every pack are checked before they get their first answer;
each chunk is checked against its keyed id before it is sent.
"""

from __future__ import annotations

import socket
from typing import Any

from tenant_backup.archive import names
from tenant_backup.archive.lists import Catalogue
from tenant_backup.archive.manifest import document
from tenant_backup.archive.reader import ArchiveReader, open_index_key, open_manifest
from tenant_backup.contract import paths
from tenant_backup.contract.job import Restore

from . import wire
from .crew import Crew, Patience, peers
from .downloads import Downloads
from .meeting import Meeting
from .mounted import mounted_identity, mounted_key_or_none


def run(job: Restore) -> dict[str, Any]:
    """Serve one backup to those who restore it until they are done.

    Raises Failure: KEY_MISSING, WRONG_KEY, SIGNATURE_INVALID, CHECKSUM_MISMATCH, PACK_MISSING,
    CROSS_TENANT_ACCESS, UNSUPPORTED_CONTENT, BACKUP_NOT_FOUND, PEER_FAILED.
    """
    crew = Crew()
    server = wire.listen(paths.RUN / paths.OPEN_SOCKET)
    objects = Downloads(crew)
    reader = _open(job, objects)
    try:
        _Service(reader, crew, peers(job, "load", "place")).serve(server)
        objects.finish()
    finally:
        crew.close()
        reader.close()
    return {}


def _open(job: Restore, objects: Downloads) -> ArchiveReader:
    """Check everything that can be checked before a row is asked for."""
    data = objects.manifest(names.manifest(job.backup_id))
    source = job.source
    tenant = (source.slug, source.namespace, source.name)
    manifest = open_manifest(
        data,
        job.signing_key,
        job.backup_id,
        tenant,
        job.manifest_sha256,
        earlier_keys=job.trusted_keys,
    )
    encrypted = manifest.encryption.mode != "None"
    identity = mounted_identity(job.identity_secret) if encrypted else None
    index = open_index_key(manifest, mounted_key_or_none("indexKey"), identity, objects)
    reader = ArchiveReader(manifest, index, identity, objects)
    reader.check_presence()
    reader.check_identity()
    return reader


class _Service:
    """Answers `load`, and each `place`: the catalogue once, then segments over as many connections."""

    def __init__(self, reader: ArchiveReader, crew: Crew, clients: dict[str, str]) -> None:
        """Serve these stages, by volume; who names no volume is `load`."""
        self._reader, self._crew, self._clients = reader, crew, clients
        self._catalogue: Catalogue = reader.catalogue()
        self._patience = {volume: Patience(paths.RUN, stage) for volume, stage in clients.items()}
        self._done: set[str] = set()
        self._meeting = Meeting(list(clients))

    def serve(self, server: socket.socket) -> None:
        """Serve until all have said that they are done. Raises Failure."""

        def tick() -> None:
            for patience in self._patience.values():
                patience.check()

        def serve(connection: socket.socket) -> None:
            self._crew.adopt(connection)
            self._crew.start(lambda: self._answer_all(connection))

        self._crew.wait(lambda: self._done == self._clients.keys(), tick, server, serve)

    def _answer_all(self, connection: socket.socket) -> None:
        reader = wire.Reader(connection, "load")
        volume: str | None = None  # whose control connection it is, if it is one
        while (question := reader.message_or_end()) is not None:
            if question.get("get") == "catalogue":
                volume = question.get("volume", "")
                self._patience[volume].came = True
            if "come" in question:
                self._come(volume or "", connection, question)
                continue
            if question.get("done"):
                self._done.add(volume or "")
                self._crew.wake()
                return
            self._answer(connection, question)
        if volume is not None:
            raise wire.peer_failed(self._clients[volume])

    def _come(self, volume: str, connection: socket.socket, message: dict[str, Any]) -> None:
        try:
            self._meeting.come(volume, connection, message)
        except (BrokenPipeError, ConnectionResetError):
            raise wire.peer_failed("place") from None

    def _answer(self, connection: socket.socket, question: dict[str, Any]) -> None:
        try:
            if question["get"] == "catalogue":
                manifest = document(self._reader.manifest)
                wire.send(connection, {"catalogue": self._catalogue.engine, "manifest": manifest})
            else:
                self._send_segment(connection, question["segment"])
        except (BrokenPipeError, ConnectionResetError):
            raise wire.peer_failed("load") from None

    def _send_segment(self, connection: socket.socket, segment_id: str) -> None:
        segment = self._catalogue.segments[segment_id]
        wire.send_blocks(connection, self._reader.blocks(segment))
        wire.send(connection, {"rows": segment.rows, "bytes": segment.bytes})
