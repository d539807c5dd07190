"""Everything of the tenant's that a restore runs: definitions, rows, indexes, all as the temporary login.

Order: definitions without constraints; rows, many segments at once, each committed only after its verdict;
excluded columns; sequences; constraints and indexes; grants; materialized views; statistics; counts.
A session that finds no rows left to load begins with the indexes of large tables that are complete.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Restore
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import progress_line
from tenant_backup.engines.postgresql import clients, definitions, excluded, failures, inventory, names, rows
from tenant_backup.engines.postgresql.definitions import Definitions
from tenant_backup.engines.postgresql.endpoint import Connection, Endpoint
from tenant_backup.engines.postgresql.excluded import Gap, Kept
from tenant_backup.engines.postgresql.toc import Contents, Entry

from . import wire

PEER = "open"
_PROGRESS_EVERY = 2.0  # seconds
_UNEVEN = 1.25  # of a fair share: a table up to this size is loaded by one session
_WORTH_FREEZING = 8 << 20  # bytes; emptying a table makes new files, which small ones are not worth


@dataclass(frozen=True)
class Source:
    """What is loaded, and where to."""

    side: Endpoint  # as the temporary login
    owner: str  # the role everything belongs to
    live: Endpoint | None  # as the tenant's own login; None when there is no live database
    catalogue: dict[str, Any]
    job: Restore

    @property
    def encoding(self) -> str:
        """PostgreSQL's name of the encoding the rows are in."""
        return str(self.catalogue["database"]["encoding"])

    @property
    def sessions(self) -> int:
        """How many sessions may work at once beside the one that leads."""
        return max(1, self.job.database.connections - 1)

    def connect(self) -> Connection:
        """A session of the temporary login that acts as the owner."""
        # Losing the last commits in a crash is harmless: the rename that ends a restore is flushed, and all
        # before it.
        return self.side.connect({"role": self.owner, "synchronous_commit": "off"})


@dataclass(frozen=True)
class Loaded:
    """What came of it."""

    tables: int = 0
    rows: int = 0
    bytes: int = 0
    constraints_valid: bool = True
    kept: Kept = field(default_factory=Kept)
    skipped: list[str] = field(default_factory=list)


def load_content(source: Source) -> Loaded:
    """Fill the side database and check it. Raises Failure."""
    with source.connect() as connection:
        schema = _definitions(source, connection)
        contents = schema.contents(definitions.limits(connection, source.catalogue))
        schema.restore(contents.kept, "pre-data")
        gaps = excluded.open_gaps(connection, source.catalogue["tables"], source.job.exclude_columns)
        transfer = _Transfer(source, _Indexes(schema, contents, frozenset(gap.full_name for gap in gaps)))
        transfer.run()
        _load_large_objects(source, schema)
        kept = _keep_live(source, connection, gaps)
        told = [*contents.skipped, *excluded.close_gaps(connection, gaps)]
        definitions.set_sequences(connection, source.catalogue["sequences"])
        left = [entry for entry in contents.kept if entry not in transfer.indexed]
        schema.restore(left, "post-data", source.sessions)
        told += definitions.add_loose_keys(connection, source.catalogue)
        told += definitions.apply_grants(connection, schema.grants(contents))
        told += definitions.refresh(connection, source.catalogue["materializedViews"])
        _check(source)
        valid = _constraints_valid(source, connection)
        told += _owners_told(contents.other_owners(source.owner), source.owner)
    _leave_nothing_to_the_login(source)
    tables = source.catalogue["tables"]
    return Loaded(len(tables), transfer.rows, transfer.bytes, valid, kept, told)


def _definitions(source: Source, connection: Connection) -> Definitions:
    """Fetch the schema archive into the scratch folder."""
    file = paths.SCRATCH / "schema.dump"
    with _opened() as peer, file.open("wb") as out:
        for block in peer.blocks("schema"):
            out.write(block)
        peer.verdict()
    version = connection.info.server_version
    program = clients.program("pg_restore", version)
    return Definitions(file, program, version, source.side, source.owner, names.codec_of(source.encoding))


def _load_large_objects(source: Source, schema: Definitions) -> None:
    expected = source.catalogue["largeObjects"]
    if not expected:
        return
    with _opened() as peer:
        schema.restore_large_objects(peer.blocks("largeobjects"))
        peer.verdict()
    with source.connect() as connection:
        rows.refuse_difference("pg_largeobject", expected, inventory.large_objects(connection))


def _keep_live(source: Source, connection: Connection, gaps: list[Gap]) -> Kept:
    if not any(gap.keeps_live for gap in gaps):
        return Kept()
    total = Kept()
    with contextlib.ExitStack() as stack:
        live = stack.enter_context(source.live.connect()) if source.live else None
        for table in source.catalogue["tables"]:
            kept = excluded.keep_live(connection, live, table, gaps, source.encoding)
            total = Kept(total.kept + kept.kept, total.without_match + kept.without_match)
    return total


def _check(source: Source) -> None:
    """Let the server count every table once more, and gather statistics on the way. Raises ROWS_DIFFER."""
    tables = sorted(source.catalogue["tables"], key=lambda table: -table["bytes"])
    shares = [tables[start :: source.sessions] for start in range(min(source.sessions, len(tables)))]
    with ThreadPoolExecutor(max(1, len(shares))) as pool:
        list(pool.map(lambda share: _check_tables(source, share), shares))


def _check_tables(source: Source, tables: list[dict[str, Any]]) -> None:
    with source.connect() as connection:
        for table in tables:
            connection.execute(f"ANALYZE {names.quoted(table['schema'], table['table'])}")
            found = rows.count(connection, table)
            if found is not None:
                rows.refuse_difference(table["name"], table["rows"], found)


def _constraints_valid(source: Source, connection: Connection) -> bool:
    before = set(source.catalogue["notValidConstraints"])
    loose = {f"{key['schema']}.{key['table']}.{key['name']}" for key in source.catalogue["looseForeignKeys"]}
    return set(inventory.constraints_not_valid(connection)) <= before | loose


def _owners_told(others: dict[str, int], owner: str) -> list[str]:
    return [f"{count} objects of role {name} now belong to {owner}" for name, count in others.items()]


def _leave_nothing_to_the_login(source: Source) -> None:
    """Hand over what tenant-written code made as the login itself: an owner cannot be dropped."""
    user = names.quoted(source.side.login.user)
    with source.side.connect() as connection:
        connection.execute(f"REASSIGN OWNED BY {user} TO {names.quoted(source.owner)}")
        connection.execute(f"DROP OWNED BY {user}")


class _Peer:
    """One connection to `open`."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = wire.Reader(connection, PEER)

    def blocks(self, segment: str) -> Iterator[memoryview]:
        """Yield a segment as `wire.Reader.blocks` does; it counts only with the verdict behind it."""
        wire.send(self._connection, {"get": "segment", "segment": segment})
        yield from self._reader.blocks()

    def verdict(self) -> dict[str, Any]:
        """Return {rows, bytes}: `open` found every chunk of the segment whole. Raises PEER_FAILED."""
        return self._reader.message()


@contextlib.contextmanager
def _opened() -> Iterator[_Peer]:
    with contextlib.closing(wire.connect(paths.RUN / paths.OPEN_SOCKET, PEER)) as connection:
        yield _Peer(connection)


@dataclass(frozen=True)
class _Load:
    """What one transaction loads."""

    table: dict[str, Any]
    segments: tuple[str, ...]
    frozen: bool = False


def _loads(tables: list[dict[str, Any]], sessions: int) -> Iterator[_Load]:
    """Yield what is to be loaded, the largest first, so that no long table is left for the end.

    A table goes through one session, unless it is so large that the others would wait for it in the end.
    """
    fair = _UNEVEN * sum(table["bytes"] for table in tables) / sessions
    for table in sorted(tables, key=lambda table: -table["bytes"]):
        segments = tuple(table["segments"])
        if table["bytes"] > fair and len(segments) > 1:
            yield from (_Load(table, (segment,)) for segment in segments)
        elif segments:
            yield _Load(table, segments, frozen=table["bytes"] >= _WORTH_FREEZING)


@dataclass(frozen=True)
class _Indexes:
    """What can be built on a table as soon as its rows are complete."""

    schema: Definitions
    contents: Contents
    changing: frozenset[str]  # tables whose rows are written once more: an index would be, too

    def of(self, table: dict[str, Any]) -> list[Entry]:
        """Return them for a table that is worth a program of its own."""
        if table["bytes"] < _WORTH_FREEZING or table["name"] in self.changing:
            return []
        return self.contents.own_indexes(table["schema"], table["table"])

    def build(self, entry: Entry) -> None:
        """Build one. Raises Failure."""
        self.schema.restore([entry], "post-data")


class _Transfer:
    """All row segments, several at once: each worker has its own connection to `open` and to the server."""

    def __init__(self, source: Source, indexes: _Indexes) -> None:
        self._source, self._indexes = source, indexes
        self.indexed: set[Entry] = set()
        self._to_index: queue.SimpleQueue[Entry] = queue.SimpleQueue()
        self._waiting: queue.SimpleQueue[_Load] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._failure: Failure | None = None
        self._by_table: dict[str, int] = {}
        self._left: Counter[str] = Counter()  # loads of each table that are not committed
        self.bytes = 0
        # More of them than cores would only take the processor from each other.
        self._sessions = min(source.sessions, max(2, os.cpu_count() or 1))
        for load in _loads(source.catalogue["tables"], self._sessions):
            self._waiting.put(load)
            self._left[load.table["name"]] += 1

    @property
    def rows(self) -> int:
        """Rows loaded so far."""
        return sum(self._by_table.values())

    def run(self) -> None:
        """Load everything and compare each table's rows with the catalogue. Raises the first Failure."""
        count = min(self._sessions, self._waiting.qsize())
        threads = [
            threading.Thread(target=self._guarded, args=(self._work,), daemon=True) for _ in range(count)
        ]
        for thread in threads:
            thread.start()
        self._report_until_over(threads)
        if self._failure:
            raise self._failure
        for table in self._source.catalogue["tables"]:
            rows.refuse_difference(table["name"], table["rows"], self._by_table.get(table["name"], 0))

    def _report_until_over(self, threads: list[threading.Thread]) -> None:
        total = sum(table["rows"] for table in self._source.catalogue["tables"])
        told = time.monotonic()
        for thread in threads:
            while thread.is_alive():
                thread.join(_PROGRESS_EVERY)
                if time.monotonic() - told >= _PROGRESS_EVERY:
                    told = time.monotonic()
                    percent = 100 * self.rows // max(1, total)
                    print(progress_line(phase="Loading", percent=percent, bytesRead=self.bytes), flush=True)

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Failure as failure:
            self._fail(failure)
        except OSError:
            self._fail(wire.peer_failed(PEER))
        except psycopg.Error as error:
            self._fail(failures.of_error(error, Reason.LOAD_FAILED, "loading rows", retriable=True))
        except Exception as error:  # noqa: BLE001 - a thread must not die in silence
            self._fail(Failure(Reason.INTERNAL_ERROR, f"a load worker met {error!r}", retriable=True))

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            self._failure = self._failure or failure

    def _work(self) -> None:
        with _opened() as peer, self._source.connect() as connection, contextlib.suppress(queue.Empty):
            while self._failure is None:
                load = self._waiting.get_nowait()
                self._load(peer, connection, load)
                self._loaded(load)
        self._index()

    def _loaded(self, load: _Load) -> None:
        with self._lock:
            self._left[load.table["name"]] -= 1
            complete = not self._left[load.table["name"]]
        for entry in self._indexes.of(load.table) if complete else ():
            self._to_index.put(entry)

    def _index(self) -> None:
        """Build indexes as long as others load rows; what is left then is built by all sessions together."""
        with contextlib.suppress(queue.Empty):
            while self._failure is None and self._left.total() > 0:
                entry = self._to_index.get_nowait()
                self._indexes.build(entry)
                self.indexed.add(entry)

    def _load(self, peer: _Peer, connection: Connection, load: _Load) -> None:
        """Load some segments of a table; commit only after `open` and server agree on each."""
        with connection.transaction():
            if load.frozen:
                rows.empty(connection, load.table)
            for segment in load.segments:
                self._load_segment(peer, connection, load, segment)

    def _load_segment(self, peer: _Peer, connection: Connection, load: _Load, segment: str) -> None:
        table, encoding = load.table, self._source.encoding
        loaded = rows.copy_in(connection, table, encoding, peer.blocks(segment), frozen=load.frozen)
        verdict = peer.verdict()
        rows.refuse_difference(table["name"], int(verdict["rows"]), loaded)
        with self._lock:
            self._by_table[table["name"]] = self._by_table.get(table["name"], 0) + loaded
            self.bytes += int(verdict["bytes"])
