"""Container `dump`: holds the database's credentials, and nothing else of value.

The leader connection holds the locks and the snapshot while the workers (`dump_workers`) send rows. The
catalogue goes out last, because it has the counts; success is `archive`'s word that the backup is committed.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Backup, Job
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.postgresql import (
    catalogue,
    clients,
    endpoint,
    failures,
    inventory,
    ranges,
    selection,
    session,
    snapshot,
)
from tenant_backup.engines.postgresql.endpoint import Connection, Endpoint
from tenant_backup.engines.postgresql.ranges import Range
from tenant_backup.engines.postgresql.selection import Choice, Policy

from . import wire
from .dump_workers import PEER, Dump, View, planned, read_all


def run(job: Job) -> dict[str, Any]:
    """Dump one database into `archive`; return {tables, rows, snapshotAt, consistency}. Raises Failure."""
    assert isinstance(job, Backup)
    if _committed():
        return {}
    with contextlib.closing(wire.connect(paths.RUN / paths.ARCHIVE_SOCKET, PEER)) as control:
        try:
            wire.send(control, {"connection": "control"})
            return _dump(job, control)
        except psycopg.Error as error:
            raise failures.of_error(
                error, Reason.DUMP_FAILED, "reading the catalogues", retriable=True
            ) from error
        except OSError as error:  # of the socket
            raise wire.peer_failed(PEER) from error


def check(leader: Connection, tables: list[inventory.Table], policy: Policy, user: str) -> list[Choice]:
    """Choose, and refuse what could not be backed up in full, before anything is read. Raises Failure."""
    choices = selection.choose(tables, policy)
    selection.refuse_unreadable(choices, inventory.unreadable_sequences(leader), user)
    extension_rows = inventory.extension_rows(leader)
    if extension_rows:
        message = f"rows in {selection.shown(extension_rows)} cannot be backed up yet; move or remove them"
        raise Failure(Reason.UNSUPPORTED_CONTENT, message)
    return choices


def _committed() -> bool:
    """Whether an earlier attempt of this Job got as far as the manifest."""
    prepared = paths.RUN / paths.PREPARED
    return prepared.exists() and json.loads(prepared.read_text()).get("committed") is not None


def _dump(job: Backup, control: socket.socket) -> dict[str, Any]:
    login = endpoint.login_from_secret(paths.DATABASE, job.database.secret)
    server = endpoint.find(job.database, login)
    policy = Policy(job.modules, job.only_modules, job.exclude_tables, job.exclude_columns)
    with server.connect() as leader:
        clients.program("pg_dump", leader.info.server_version)
        endpoint.apply(leader, session.for_reading(leader.info.server_version))
        held = snapshot.take(leader, lambda tables: check(leader, tables, policy, login.user))
        choices = selection.choose(held.tables, policy)
        described = catalogue.describe(leader, choices, policy, held.at)
        parts = _parts(leader, choices)
        view = _view(server, leader, held.name)
        dump = planned(view, choices, parts, large_objects=described["largeObjects"] > 0)
        wire.send(control, {"plan": {"bytes": dump.total}})
        answer = _Answer(control, dump)
        read_all(dump, job.database.connections - 1)
    # The leader has let go of its locks: nobody waits while the archive finishes.
    document = catalogue.with_tables(described, choices, parts, dump.rows, policy)
    wire.send(control, {"catalogue": document})
    wire.send(control, {"done": True, "segments": dump.segments})
    answer.wait()
    return _facts(document)


def _parts(leader: Connection, choices: list[Choice]) -> list[Range]:
    with_rows = [choice.table for choice in choices if choice.with_rows]
    sizes = inventory.sizes(leader, with_rows)
    block = inventory.block_size(leader)
    return [part for table in with_rows for part in ranges.cut(table, sizes[table.oid], block)]


def _view(server: Endpoint, leader: Connection, name: str) -> View:
    encoding = leader.info.parameter_status("server_encoding") or "UTF8"
    return View(server, leader.info.server_version, (encoding, leader.info.encoding), name)


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
