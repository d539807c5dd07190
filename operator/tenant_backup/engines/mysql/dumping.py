"""Reading a database: sessions that have one snapshot send everything in it, one piece after the other."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from MySQLdb import Error

from tenant_backup.contract import paths
from tenant_backup.contract.job import Backup, Database, Preflight
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines import reaching, selection
from tenant_backup.engines.seam import Piece, Sent
from tenant_backup.engines.selection import Choice, Policy

from . import catalogue, definitions, endpoint, failures, grants, inventory, ranges, rows, session, snapshot
from .definitions import Definition
from .endpoint import Connection, Endpoint, Login
from .inventory import KeyPart, Listed, Size, Table
from .ranges import Range
from .snapshot import Company

_WORTH_LOCKING = 64 << 20  # bytes; for less nobody has to wait for a lock on all tables
_MOST_LOCKED = 500  # tables; with more of them it takes so long that others would have to wait

Started = Callable[[Callable[[], None]], None]


def refuse_blind(connection: Connection, database: str) -> None:
    """Refuse to go on where something would be missing without a word. Raises Failure."""
    grants.refuse_blind(grants.of_session(connection, database), database)
    inventory.refuse_libraries(connection, database)


def chosen(tables: list[Table], policy: Policy) -> list[Choice[Table]]:
    """Choose, and refuse what could not be backed up in full, before anything is read. Raises Failure."""
    inventory.refuse_unsupported(tables)
    choices = selection.choose(tables, policy)
    catalogue.refuse_history(choices, policy)
    return choices


@dataclass(frozen=True)
class Seen:
    """What is asked of each table while the server has it open: to open it again is what costs."""

    connection: Connection
    database: str
    definitions: dict[str, Definition] = field(default_factory=dict)
    keys: dict[str, list[KeyPart]] = field(default_factory=dict)
    sizes: dict[str, Size] = field(default_factory=dict)

    def visit(self, listed: Listed) -> None:
        """See snapshot.take."""
        name = listed.name
        found = self.definitions[name] = definitions.read_table(self.connection, self.database, name)
        self.sizes.update(inventory.sizes(self.connection, self.database, name))
        key = definitions.primary_key(found)
        if key is None:
            key = inventory.primary_keys(self.connection, self.database, name)[name]
        self.keys[name] = key


@dataclass(frozen=True)
class Reading:
    """See seam.Reading. One worker for each session that has the snapshot."""

    free: queue.SimpleQueue[Connection]
    sessions: int
    choices: list[Choice[Table]]
    parts: list[Range]
    blob: bytes
    described: dict[str, Any]
    policy: Policy

    @property
    def pieces(self) -> list[Piece]:
        """Definitions first, then the largest ranges."""
        ordered = ranges.largest_first(self.parts)
        return [
            Piece(definitions.SEGMENT, "blob"),
            *(Piece(part.segment, "rows", part.table.full_name, part.bytes) for part in ordered),
        ]

    @property
    def size(self) -> int:
        """See seam.Reading."""
        return sum(piece.bytes for piece in self.pieces)

    def session(self, out: int, started: Started) -> Session:
        """See seam.Reading."""
        connection = self.free.get_nowait()
        started(connection.cut)
        choices = {choice.table.oid: choice for choice in self.choices}
        parts = {part.segment: (choices[part.table.oid], part) for part in self.parts}
        return Session(connection, parts, self.blob, out)

    def catalogue(self, rows: dict[str, int]) -> dict[str, Any]:
        """See seam.Reading."""
        return catalogue.with_tables(self.described, self.choices, self.parts, rows, self.policy)


@dataclass(frozen=True)
class Session:
    """See seam.Session."""

    connection: Connection
    parts: dict[str, tuple[Choice[Table], Range]]
    blob: bytes
    out: int

    def send(self, piece: Piece) -> Sent:
        """See seam.Session."""
        if piece.kind == "blob":
            rows.write(self.out, self.blob)
            return Sent()
        choice, part = self.parts[piece.segment]
        try:
            query = inventory.select(choice, part.where)
            return Sent(rows.read(self.connection, query, inventory.widest(choice), self.out))
        except Error as error:
            what = f"reading {choice.table.full_name}"
            raise failures.of_error(error, Reason.DUMP_FAILED, what, retriable=True) from error

    def close(self) -> None:
        """See seam.Session: whoever took the snapshot ends it."""


@contextlib.contextmanager
def reading(job: Backup) -> Iterator[Reading]:
    """Take the snapshot and describe everything but the rows. Raises Failure."""
    policy = Policy(job.modules, job.only_modules, job.exclude_tables, job.exclude_columns)
    name, server = job.database.name, server_of(job)
    try:
        with server.connect(name, session.for_reading) as leader, contextlib.ExitStack() as stack:
            refuse_blind(leader, name)
            seen = Seen(leader, name)
            held = snapshot.take(leader, name, _company(server, job.database, leader, stack), seen.visit)
            choices = chosen(inventory.tables(leader, name, held.listed, seen.keys), policy)
            described = catalogue.describe(leader, name, choices, policy, held)
            found = definitions.read_sequences(leader, name, held.listed)
            found += [seen.definitions[choice.table.name] for choice in choices]
            found += definitions.read_code(leader, name)
            parts = _parts(leader, choices, seen.sizes)
            free: queue.SimpleQueue[Connection] = queue.SimpleQueue()
            for connection in held.sessions:
                free.put(connection)
            blob = definitions.to_blob(found)
            yield Reading(free, len(held.sessions), choices, parts, blob, described, policy)
    except Error as error:
        what = "reading what the database defines"
        raise failures.of_error(error, Reason.DUMP_FAILED, what, retriable=True) from error


def _company(
    server: Endpoint, database: Database, leader: Connection, stack: contextlib.ExitStack
) -> Company:
    """Open the sessions that read beside the leader, where there is enough to read for several."""
    readers: list[Connection] = []
    eager = replace(server, patience=0)
    if _is_worth_locking(leader, database.name):
        # The guard is one, too.
        count = min(database.connections - 2, (os.cpu_count() or 1) - 1)
        with contextlib.suppress(Failure):  # the account may have no more connections
            while len(readers) < count:
                reader = eager.connect(database.name, session.for_reading)
                readers.append(stack.enter_context(reader))
    return Company(readers, lambda: eager.connect(database.name, session.for_guarding))


def _is_worth_locking(connection: Connection, database: str) -> bool:
    if inventory.count(connection, database) > _MOST_LOCKED:
        return False
    return sum(size.bytes for size in inventory.sizes(connection, database).values()) >= _WORTH_LOCKING


def _parts(leader: Connection, choices: list[Choice[Table]], sizes: dict[str, Size]) -> list[Range]:
    with_rows = [choice.table for choice in choices if choice.with_rows]
    return [part for table in with_rows for part in _cut(leader, table, sizes.get(table.name, Size()))]


def _cut(leader: Connection, table: Table, size: Size) -> list[Range]:
    ends = inventory.ends(leader, table) if size.bytes > ranges.RANGE_BYTES and table.number_key else None
    if ends is None:
        return ranges.whole(table, size)
    return ranges.cut(table, size, ends, functools.partial(inventory.estimate, leader, table))


def server_of(job: Backup | Preflight) -> Endpoint:
    """Return the tenant's server, with the tenant's login. Raises Failure."""
    login = Login(*reaching.credentials(paths.DATABASE, job.database.secret))
    return endpoint.find(job.database, login)
