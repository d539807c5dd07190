"""Container `dump`: holds the database's credentials, and nothing else of value.

The engine holds the database still while the workers (`dump_workers`) send what is in it. The catalogue goes
out last, because it has the counts; success is `archive`'s word that the backup is committed. Container
`gather` does the same with a volume.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from contextlib import AbstractContextManager
from typing import Any

from tenant_backup.contract import paths
from tenant_backup.contract.job import Backup, Job
from tenant_backup.contract.reasons import Failure
from tenant_backup.engines import seam

from . import wire
from .dump_workers import PEER, Dump, planned, read_all


def run(job: Job) -> dict[str, Any]:
    """Dump one database into `archive`; return {tables, rows, snapshotAt, consistency}. Raises Failure."""
    assert isinstance(job, Backup)
    reading = seam.engine(job.database.engine).read(job)  # imports its driver while `archive` starts
    document = deliver({}, reading)
    return _facts(document) if document else {}


def deliver(who: dict[str, str], reading: AbstractContextManager[seam.Reading]) -> dict[str, Any] | None:
    """Send what `reading` holds still; return its catalogue once it is committed, None if it was before.

    `who` says in the first message who we are: nothing is the database. Raises Failure.
    """
    if _committed():
        return None
    with contextlib.closing(wire.connect(paths.RUN / paths.ARCHIVE_SOCKET, PEER)) as control:
        try:
            wire.send(control, {"connection": "control", **who})
            return _deliver(reading, control)
        except OSError as error:  # of the socket
            raise wire.peer_failed(PEER) from error


def _committed() -> bool:
    """Whether an earlier attempt of this Job got as far as the manifest."""
    prepared = paths.RUN / paths.PREPARED
    return prepared.exists() and json.loads(prepared.read_text()).get("committed") is not None


def _deliver(reading: AbstractContextManager[seam.Reading], control: socket.socket) -> dict[str, Any]:
    with reading as held:
        dump = planned(held)
        wire.send(control, {"plan": {"bytes": dump.total}})
        answer = _Answer(control, dump)
        read_all(dump, held.sessions)
    # The engine has let go of its locks: nobody waits while the archive finishes.
    document = held.catalogue(dump.rows)
    wire.send(control, {"catalogue": document})
    wire.send(control, {"done": True, "segments": dump.segments})
    answer.wait()
    return document


def _facts(document: dict[str, Any]) -> dict[str, Any]:
    tables = document["tables"]
    rows = sum(table["rows"] for table in tables)
    facts = {key: document[key] for key in ("snapshotAt", "consistency")}
    return {"tables": len(tables), "rows": rows, **facts}


class _Answer:
    """`archive`'s only answer, awaited in the background: its early end ends the dump within seconds."""

    def __init__(self, control: socket.socket, dump: Dump) -> None:
        self._reader = wire.Reader(control, PEER)
        self._dump = dump
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Return when the backup is committed. Raises Failure(PEER_FAILED)."""
        self._thread.join()
        if self._dump.failure:
            raise self._dump.failure

    def _read(self) -> None:
        try:
            if not self._reader.message().get("done"):
                raise wire.peer_failed(PEER)
        except Failure as failure:
            self._dump.fail(failure)
