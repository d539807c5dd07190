"""The last container of a backup: what `archive` spooled goes to the store, and then is committed.

Sees only ciphertext. The order is the promise: every pack acknowledged with its checksum, every older
pack looked for once more, then the manifest, create-only, then the manifest read back and compared; only
then success. Dying anywhere before leaves no manifest, so no backup; dying anywhere after is found by the
next `prepare`. A store that is away for a while is waited for: the database is not asked again for that.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tenant_backup.archive import names
from tenant_backup.archive.collector import check_committed, check_references
from tenant_backup.archive.manifest import parse
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import progress_line
from tenant_backup.stores import connect
from tenant_backup.stores.base import (
    AlreadyExistsError,
    Digest,
    NotFoundError,
    Store,
    digest_of,
    put_once,
    read,
    require_digest,
)

from . import commits, wire
from .crew import Crew, Patience
from .progress import Progress
from .rate import Brake
from .verification import verify

IN_FLIGHT = 3  # packs sent at once: 3 x 64 MiB of request bodies at most
PATIENCE = 300.0  # seconds that one object waits in the spool for a store that is unavailable
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0  # seconds between two tries
_FOLDERS = ("packs/", "lists/", "keys/")
_T = TypeVar("_T")
pause = time.sleep


def run(
    job: jobs.Backup,
    *,
    run: Path = paths.RUN,
    spool: Path = paths.SPOOL,
    secrets: Path = paths.SECRETS,
    volume: Path = paths.VOLUME,
) -> dict[str, Any]:
    """Serve upload.sock until the commit; return the backup's facts with `location` and `health`.

    Raises Failure: what the store raises; NameTaken; PackMissing when an older pack is gone;
    DeadlineExceeded when the run took too long to rely on older packs; ChecksumMismatch when the store
    gives back another manifest than it was given; PeerFailed when `archive` ends before its commit.
    """
    prepared = json.loads((run / paths.PREPARED).read_text())
    if prepared["committed"] is not None:
        return dict(prepared["committed"])
    store = connect(job.store, job.tenant.slug, secrets=secrets, volume=volume)
    crew = Crew()
    try:
        with Progress("Upload") as progress:
            session = _Session(store, spool, crew, progress, Brake(job.upload_rate))
            request = session.receive(run)
            run_age = _RunAge(prepared["began"], job.max_run_seconds)
            facts = _commit(store, request, prepared["backupId"], job.uid, session.stored, run_age)
        session.acknowledge(request)
    finally:
        crew.close()
    if not job.verify or facts["checksum"] != f"sha256:{request.digest.sha256}":
        return facts
    return facts | verify(store, parse(request.source.read_bytes()), session.stored)


@dataclass(frozen=True)
class _Request:
    """One object `archive` wants stored: `source` is in the spool."""

    name: str
    source: Path
    digest: Digest
    facts: dict[str, Any]


class _Session:
    """The conversation with `archive`: a few PUTs at a time, each acknowledged when it is durable."""

    def __init__(self, store: Store, spool: Path, crew: Crew, progress: Progress, brake: Brake) -> None:
        self._store = store
        self._spool = spool.resolve()
        self._crew = crew
        self._progress = progress
        self._brake = brake
        self._slots = threading.Semaphore(IN_FLIGHT)
        self._changed = threading.Lock()  # also: one message at a time goes to archive
        self._unstored: set[str] = set()
        self._connection: socket.socket | None = None
        self._commit: _Request | None = None
        self.stored: dict[str, Digest] = {}

    def receive(self, run: Path) -> _Request:
        """Store what `archive` asks for; return its commit request once all of that is stored."""
        patience = Patience(run, "archive")

        def serve(connection: socket.socket) -> None:
            patience.came = True
            self._connection = self._crew.adopt(connection)
            self._crew.start(lambda: self._read(connection))

        with wire.listen(run / paths.UPLOAD_SOCKET) as server:
            # A PUT that failed stays unstored and fails the crew: this never ends well without it.
            self._crew.wait(self._is_complete, patience.check, server, serve)
        assert self._commit is not None
        return self._commit

    def acknowledge(self, request: _Request) -> None:
        """Tell `archive` that its work is committed, by its manifest or by a second pod's."""
        assert self._connection is not None
        with suppress(OSError):  # archive may be dead by now; the backup is not
            wire.send(self._connection, {"committed": {"sha256": request.digest.sha256}})

    def _is_complete(self) -> bool:
        with self._changed:
            return self._commit is not None and not self._unstored

    def _read(self, connection: socket.socket) -> None:
        reader = wire.Reader(connection, "archive")
        while "put" in (message := reader.message()):
            self._begin(self._request(message["put"]))
        with self._changed:
            self._commit = self._request(message["commit"])
        self._crew.wake()

    def _request(self, asked: dict[str, Any]) -> _Request:
        source = (self._spool / asked["path"]).resolve()
        if not source.is_relative_to(self._spool):
            # `archive` holds no store credentials; it must not have ours uploaded either.
            raise ValueError(f"{asked['path']} is not in the spool")
        digest = Digest(asked["length"], asked["sha256"])
        return _Request(asked["name"], source, digest, asked.get("facts", {}))

    def _begin(self, request: _Request) -> None:
        if not request.name.startswith(_FOLDERS):
            raise ValueError(f"{request.name} is not for put")
        self._slots.acquire()
        with self._changed:
            self._unstored.add(request.name)
        self._crew.start(lambda: self._put(request))

    def _put(self, request: _Request) -> None:
        assert self._connection is not None
        try:
            self._brake.spend(request.digest.length)
            own = _patiently(lambda: _put(self._store, request))
        finally:
            self._slots.release()
        request.source.unlink()
        self._progress.add(request.digest.length)
        with self._changed:
            if own:
                self.stored[request.name] = request.digest
            self._unstored.discard(request.name)
            with suppress(OSError):  # archive is gone: whoever reads from it says so
                wire.send(self._connection, {"stored": request.name})
        self._crew.wake()


def _put(store: Store, request: _Request) -> bool:
    """Store it; return whether these very bytes are there."""
    if not request.name.startswith("keys/"):
        put_once(store, request.name, request.source, request.digest)
        return True
    try:
        store.put(request.name, request.source, request.digest)
    except AlreadyExistsError:
        # Two first backups of a tenant at once: the same key for the same recipients, wrapped anew.
        return False
    return True


@dataclass(frozen=True)
class _RunAge:
    """How long ago `prepare` began, in seconds, by the clock that goes on while the machine sleeps."""

    began: float
    limit: float

    def __call__(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.began


def _commit(  # noqa: PLR0913, PLR0917 - the whole of a commit
    store: Store, request: _Request, backup_id: str, uid: str, own: Collection[str], age: _RunAge
) -> dict[str, Any]:
    if request.name != names.manifest(backup_id):
        raise ValueError(f"{request.name} is not the manifest of {backup_id}")
    data = request.source.read_bytes()
    require_digest(request.name, digest_of(data), request.digest)
    manifest = parse(data)
    _patiently(lambda: check_references(store, manifest, own, age(), age.limit))
    try:
        _patiently(lambda: store.put(request.name, data, request.digest))
    except AlreadyExistsError:
        other = _found_instead(store, request, backup_id, uid)
        if other is not None:
            return other
    _patiently(lambda: _read_back(store, request.name, data))
    if age() > age.limit:
        # The check before was too long ago to rely on. `prepare` of the next attempt asks the same.
        _patiently(lambda: check_committed(store, manifest))
    return {
        **request.facts,
        "checksum": f"sha256:{request.digest.sha256}",
        "location": commits.location(store, backup_id),
        "health": "Unknown",
    }


def _patiently(act: Callable[[], _T]) -> _T:
    """Return what `act` returns, trying again for PATIENCE seconds while the store is unavailable."""
    give_up, seconds = None, _FIRST_PAUSE
    while True:
        try:
            return act()
        except Failure as failure:
            give_up = give_up or time.monotonic() + PATIENCE
            if failure.reason is not Reason.STORE_UNAVAILABLE or not failure.retriable:
                raise
            if time.monotonic() + seconds > give_up:
                raise
            print(progress_line(phase="WaitingForStore", message=failure.message), flush=True)
        pause(seconds)
        seconds = min(2 * seconds, _LONGEST_PAUSE)


def _found_instead(store: Store, request: _Request, backup_id: str, uid: str) -> dict[str, Any] | None:
    """Return None when the manifest there is the one we sent, or another pod's facts of this backup."""
    there = commits.find(store, backup_id)
    if there is not None and there.sha256 == request.digest.sha256:
        return None  # our PUT arrived and its answer was lost
    if there is not None and there.uid == uid:
        return there.facts  # a second pod of this backup was faster; its packs are complete too
    raise Failure(
        Reason.NAME_TAKEN,
        f"another backup was committed as {commits.location(store, backup_id)} meanwhile; the next attempt "
        "takes another name",
        retriable=True,
    )


def _read_back(store: Store, name: str, data: bytes) -> None:
    try:
        same = read(store, name, commits.MANIFEST_LIMIT) == data
    except NotFoundError:
        same = False
    if not same:
        raise Failure(
            Reason.CHECKSUM_MISMATCH,
            f"{store.location}/{name} was acknowledged and then read back differently; this store loses "
            "or changes data, use another one",
        )
