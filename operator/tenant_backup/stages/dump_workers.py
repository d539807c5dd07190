"""The sessions of one dump: each worker owns a connection to `archive`, and one client child writes to it.

Python writes the message before a segment and marker and verdict after it; the rows go from psql to the
socket. The first failure wins, and ends every child, so that no worker waits for a peer or a server that is
gone.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import progress_line
from tenant_backup.engines.postgresql import clients, ranges, schema
from tenant_backup.engines.postgresql.endpoint import Endpoint
from tenant_backup.engines.postgresql.ranges import Range
from tenant_backup.engines.postgresql.reader import Reader
from tenant_backup.engines.postgresql.selection import Choice

from . import wire

_Item = TypeVar("_Item")
PEER = "archive"
SCHEMA = "schema"
LARGE_OBJECTS = "largeobjects"
_BYTES_PER_WORKER = 32 << 20  # a small database is not worth more sessions
_PROGRESS_EVERY = 2.0  # seconds
_STARTERS = {SCHEMA: schema.start_definitions, LARGE_OBJECTS: schema.start_large_objects}


@dataclass(frozen=True)
class View:
    """How a worker gets to see what the leader sees."""

    server: Endpoint
    version: int  # server_version_num
    encoding: tuple[str, str]  # the database's: PostgreSQL's name and Python's
    snapshot: str


@dataclass
class Dump:
    """What the workers share. Fields after `blobs` change, under `lock`."""

    view: View
    choices: dict[int, Choice]
    waiting: queue.SimpleQueue[Range]
    blobs: queue.SimpleQueue[str]
    total: int  # bytes, an estimate
    done: int = 0  # bytes
    rows: dict[str, int] = field(default_factory=dict)
    segments: list[str] = field(default_factory=list)
    failure: Failure | None = None
    kills: list[Callable[[], None]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, failure: Failure) -> None:
        """Keep the first failure and end every child; each worker then notices that its own has ended."""
        with self.lock:
            self.failure = self.failure or failure
            kills = list(self.kills)
        for kill in kills:
            kill()

    def started(self, kill: Callable[[], None]) -> None:
        """Remember how to end a child; one that starts after a failure ends at once."""
        with self.lock:
            self.kills.append(kill)
            too_late = self.failure is not None
        if too_late:
            kill()

    def sent(self, segment: str, rows: int | None, size: int) -> None:
        """Count a segment that went out whole, verdict included."""
        with self.lock:
            self.segments.append(segment)
            self.done += size
            if rows is not None:
                self.rows[segment] = rows


def planned(view: View, choices: list[Choice], parts: list[Range], *, large_objects: bool) -> Dump:
    """Queue what has to be read, the largest parts first."""
    dump = Dump(
        view,
        {choice.table.oid: choice for choice in choices},
        queue.SimpleQueue(),
        queue.SimpleQueue(),
        total=sum(part.bytes for part in parts),
    )
    for part in ranges.largest_first(parts):
        dump.waiting.put(part)
    for blob in [SCHEMA, *([LARGE_OBJECTS] if large_objects else [])]:
        dump.blobs.put(blob)
    return dump


def read_all(dump: Dump, sessions: int) -> None:
    """Read everything that is queued with at most `sessions` sessions. Raises the first Failure."""
    # Two feed what a core can compress; more readers than that only take the processor from each other.
    worth = min(2 + dump.total // _BYTES_PER_WORKER, max(2, os.cpu_count() or 1))
    count = min(max(1, sessions), worth)
    threads = [threading.Thread(target=_work, args=(dump,), daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        _report_until_over(dump, threads)
    except BaseException:
        # Asked to stop: no child may go on writing into a socket that outlives us.
        dump.fail(Failure(Reason.CANCELLED, "the dump was stopped", retriable=True))
        raise
    if dump.failure:
        raise dump.failure


def _report_until_over(dump: Dump, threads: list[threading.Thread]) -> None:
    told = time.monotonic()
    for thread in threads:
        while thread.is_alive():
            thread.join(_PROGRESS_EVERY)
            if time.monotonic() - told >= _PROGRESS_EVERY:
                told = time.monotonic()
                _report(dump)


def _report(dump: Dump) -> None:
    percent = 100 * dump.done // max(1, dump.total)
    values = {"phase": "Dumping", "percent": percent, "bytesRead": dump.done, "bytesTotal": dump.total}
    print(progress_line(**values), flush=True)


def _work(dump: Dump) -> None:
    try:
        with contextlib.closing(wire.connect(paths.RUN / paths.ARCHIVE_SOCKET, PEER)) as connection:
            wire.send(connection, {"connection": "data"})
            for blob in _drain(dump, dump.blobs):
                _send_blob(dump, connection, blob)
            _send_rows(dump, connection)
            wire.send(connection, {"end": True})
    except Failure as failure:
        dump.fail(failure)
    except OSError:
        dump.fail(wire.peer_failed(PEER))
    except Exception as error:  # noqa: BLE001 - a thread must not die in silence
        dump.fail(Failure(Reason.INTERNAL_ERROR, f"a dump worker met {error!r}", retriable=True))


def _drain(dump: Dump, waiting: queue.SimpleQueue[_Item]) -> Iterator[_Item]:
    with contextlib.suppress(queue.Empty):
        while dump.failure is None:
            yield waiting.get_nowait()


def _send_blob(dump: Dump, connection: socket.socket, segment: str) -> None:
    """Send what pg_dump writes; its exit code is part of the segment's success."""
    view = dump.view
    program = clients.program("pg_dump", view.version)
    marker = _announce(connection, segment, "blob", None)
    child = _STARTERS[segment](program, view.server, view.snapshot, connection.fileno())
    dump.started(child.kill)
    schema.finish(child, f"pg_dump of {segment}")
    _conclude(connection, marker, None)
    dump.sent(segment, None, 0)


def _send_rows(dump: Dump, connection: socket.socket) -> None:
    """Send ranges until none is waiting, all through one psql."""
    reader: Reader | None = None
    for part in _drain(dump, dump.waiting):
        reader = reader or _start_reader(dump, connection)
        _send_range(dump, reader, connection, part)
    if reader:
        reader.close()


def _start_reader(dump: Dump, connection: socket.socket) -> Reader:
    view = dump.view
    program = clients.program("psql", view.version)
    reader = Reader(program, view.server, view.version, view.encoding, connection.fileno())
    dump.started(reader.kill)
    reader.join(view.snapshot)
    return reader


def _send_range(dump: Dump, reader: Reader, connection: socket.socket, part: Range) -> None:
    table = part.table
    query = dump.choices[table.oid].select(part.where())
    reader.lock(table.sql)
    marker = _announce(connection, part.segment, "rows", table.full_name)
    rows = reader.copy(query, f"reading {table.full_name}")
    _conclude(connection, marker, rows)
    dump.sent(part.segment, rows, part.bytes)


def _announce(connection: socket.socket, segment: str, kind: str, table: str | None) -> bytes:
    marker = wire.new_marker()
    wire.send(connection, {"segment": segment, "kind": kind, "table": table, "marker": marker.hex()})
    return marker


def _conclude(connection: socket.socket, marker: bytes, rows: int | None) -> None:
    wire.send_marker(connection, marker)
    wire.send(connection, {"rows": rows})
