"""The first container of a restore or verification: fetches objects, each checked before it is handed on.

Holds the store's credentials and no key: it sees only ciphertext and what is readable anyway.
"""

from __future__ import annotations

import secrets as randomness
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tenant_backup.archive import names
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores import connect
from tenant_backup.stores.base import Digest, NotFoundError, Store, fetch, require_digest

from . import wire
from .crew import Crew, Patience
from .progress import Progress

if TYPE_CHECKING:
    from .inspector import Inspector


def run(
    job: jobs.Restore | jobs.Verify,
    *,
    run: Path = paths.RUN,
    spool: Path = paths.SPOOL,
    secrets: Path = paths.SECRETS,
    volume: Path = paths.VOLUME,
) -> dict[str, Any]:
    """Serve download.sock until a client says `{"done": true}`; return `{"objects", "bytes"}`.

    Raises Failure: BackupNotFound, PackMissing, ChecksumMismatch, what the store raises, and PeerFailed
    when every client is gone and none was done.
    """
    verifies = isinstance(job, jobs.Verify)
    whose = job.tenant if isinstance(job, jobs.Verify) else job.source
    store = connect(job.store, whose.slug, secrets=secrets, volume=volume)
    crew = Crew()
    try:
        with Progress("Verify" if verifies else "Download") as progress:
            inspector = _inspector(store, spool, progress) if verifies else None
            desk = _Desk(store, spool, crew, progress, inspector)
            desk.serve(run)
    finally:
        crew.close()
    return {"objects": desk.objects, "bytes": desk.bytes}


def _inspector(store: Store, spool: Path, progress: Progress) -> Inspector:
    from .inspector import Inspector  # with all of the archive; a restore starts without it

    return Inspector(store, spool, progress.add)


class _Desk:
    """Several conversations at once; the first failure ends them all."""

    def __init__(
        self, store: Store, spool: Path, crew: Crew, progress: Progress, inspector: Inspector | None
    ) -> None:
        self._inspector = inspector
        self._asker = "examine" if inspector else "open"
        self._store = store
        self._spool = spool
        self._crew = crew
        self._progress = progress
        self._changed = threading.Lock()
        self._talking = 0
        self._done = False
        self.objects = 0
        self.bytes = 0

    def serve(self, run: Path) -> None:
        """Answer all who come until one says done, or all have left."""
        patience = Patience(run, self._asker)

        def serve(connection: socket.socket) -> None:
            patience.came = True
            with self._changed:
                self._talking += 1
            self._crew.adopt(connection)
            self._crew.start(lambda: self._talk(connection))

        with wire.listen(run / paths.DOWNLOAD_SOCKET) as server:
            self._crew.wait(lambda: self._is_over(came=patience.came), patience.check, server, serve)

    def _is_over(self, *, came: bool) -> bool:
        with self._changed:
            if came and not self._done and self._talking == 0:
                raise wire.peer_failed(self._asker)
            return self._done

    def _talk(self, connection: socket.socket) -> None:
        reader = wire.Reader(connection, self._asker)
        while (message := reader.message_or_end()) is not None and "done" not in message:
            answer = self._answer(message)
            try:
                wire.send(connection, answer)
            except OSError:
                break  # the asker is gone; whether that is well shows when the last one has left
        with self._changed:
            self._done = self._done or (message is not None and "done" in message)
            self._talking -= 1
        self._crew.wake()

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        if "stat" in message:
            return {"length": self._store.stat(message["stat"])}
        if self._inspector is not None and "get" not in message:
            return self._inspector.answer(message)
        return self._get(message["get"], message.get("length"), message.get("sha256"))

    def _get(self, name: str, length: int | None, sha256: str | None) -> dict[str, Any]:
        target = self._spool / randomness.token_hex(16)
        try:
            actual = fetch(self._store, name, target)
        except NotFoundError:
            raise _missing(self._store, name) from None
        expected = Digest(
            actual.length if length is None else length, actual.sha256 if sha256 is None else sha256
        )
        require_digest(f"{self._store.location}/{name}", actual, expected)
        with self._changed:
            self.objects += 1
            self.bytes += actual.length
        self._progress.add(actual.length)
        return {"path": str(target), "length": actual.length, "sha256": actual.sha256}


def _missing(store: Store, name: str) -> Failure:
    place = f"{store.location}/{name}"
    if name.startswith(names.manifest("")):
        return Failure(Reason.BACKUP_NOT_FOUND, f"there is no backup {place}; choose one that exists")
    return Failure(Reason.PACK_MISSING, f"{place} is missing from the store; restore from another backup")
