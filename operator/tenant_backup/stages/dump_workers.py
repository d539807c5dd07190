"""The workers of one dump: each owns a connection to `archive`, and one session at the server.

Python writes the message before a segment and marker and verdict after it; the session writes what is between
to the same socket. The first failure wins, and ends every session, so that no worker waits for a peer or a
server that is gone.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import progress_line
from tenant_backup.engines.progress import report_until_over
from tenant_backup.engines.seam import Piece, Reading, Sent

from . import wire

PEER = "archive"
_BYTES_PER_WORKER = 32 << 20  # a small database is not worth more sessions


@dataclass
class Dump:
    """What the workers share. Fields after `total` change, under `lock`."""

    reading: Reading
    waiting: Iterator[Piece]  # for one at a time
    total: int  # bytes, an estimate
    done: int = 0  # bytes
    rows: dict[str, int] = field(default_factory=dict)
    segments: list[str] = field(default_factory=list)
    failure: Failure | None = None
    kills: list[Callable[[], None]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    turn: threading.Lock = field(default_factory=threading.Lock)  # of whoever takes a piece

    def fail(self, failure: Failure) -> None:
        """Keep the first failure and end every session; each worker then notices that its own has."""
        with self.lock:
            self.failure = self.failure or failure
            kills = list(self.kills)
        for kill in kills:
            kill()

    def started(self, kill: Callable[[], None]) -> None:
        """Remember how to end a session; one that starts after a failure ends at once."""
        with self.lock:
            self.kills.append(kill)
            too_late = self.failure is not None
        if too_late:
            kill()

    def take(self) -> Piece | None:
        """Return what is to be read next. Raises Failure."""
        with self.turn:
            return next(self.waiting, None) if self.failure is None else None

    def sent(self, piece: Piece, rows: int | None) -> None:
        """Count a segment that went out whole, verdict included, or is stored already."""
        with self.lock:
            self.segments.append(piece.segment)
            self.done += piece.bytes
            if rows is not None:
                self.rows[piece.segment] = rows


def planned(reading: Reading) -> Dump:
    """Have what there is to read in order."""
    return Dump(reading, iter(reading.pieces), total=reading.size)


def read_all(dump: Dump, sessions: int) -> None:
    """Read everything that is queued with at most `sessions` sessions. Raises the first Failure."""
    # Two feed what a core can compress; more readers than that only take the processor from each other.
    worth = min(2 + dump.total // _BYTES_PER_WORKER, max(2, os.cpu_count() or 1))
    count = min(max(1, sessions), worth)
    threads = [threading.Thread(target=_work, args=(dump,), daemon=True) for _ in range(count)]
    try:
        for thread in threads:
            thread.start()
        report_until_over(threads, lambda: _report(dump))
    except BaseException:
        # Asked to stop: no session may go on writing into a socket that outlives us.
        dump.fail(Failure(Reason.CANCELLED, "the dump was stopped", retriable=True))
        raise
    if dump.failure:
        raise dump.failure


def _report(dump: Dump) -> None:
    percent = 100 * dump.done // max(1, dump.total)
    values = {"phase": "Dumping", "percent": percent, "bytesRead": dump.done, "bytesTotal": dump.total}
    print(progress_line(**values), flush=True)


def _work(dump: Dump) -> None:
    try:
        with contextlib.closing(wire.connect(paths.RUN / paths.ARCHIVE_SOCKET, PEER)) as connection:
            wire.send(connection, {"connection": "data"})
            answers = wire.Reader(connection, PEER)
            session = dump.reading.session(connection.fileno(), dump.started)
            while piece := dump.take():
                sent = Sent()
                if marker := _announce(connection, answers, piece):
                    sent = session.send(piece)
                    _conclude(connection, marker, sent)
                dump.sent(piece, sent.rows)
            session.close()
            wire.send(connection, {"end": True})
    except Failure as failure:
        dump.fail(failure)
    except OSError:
        dump.fail(wire.peer_failed(PEER))
    except Exception as error:  # noqa: BLE001 - a thread must not die in silence
        dump.fail(Failure(Reason.INTERNAL_ERROR, f"a dump worker met {error!r}", retriable=True))


def _announce(connection: socket.socket, answers: wire.Reader, piece: Piece) -> bytes | None:
    """Say what comes next; return the marker that will end it, None when it is stored already."""
    marker = wire.new_marker()
    header = {"segment": piece.segment, "kind": piece.kind, "table": piece.table, "marker": marker.hex()}
    if not piece.fingerprint:
        wire.send(connection, header)
        return marker
    wire.send(connection, header | {"fingerprint": piece.fingerprint})
    return None if answers.message()["known"] else marker


def _conclude(connection: socket.socket, marker: bytes, sent: Sent) -> None:
    wire.send_marker(connection, marker)
    wire.send(
        connection, {"rows": sent.rows} | ({"fingerprint": sent.fingerprint} if sent.fingerprint else {})
    )
