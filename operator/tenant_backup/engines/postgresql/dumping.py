"""Reading a database: the leader holds locks and snapshot while sessions send what is in it.

A session is one psql child for rows and one pg_dump for each blob, which write to the worker's descriptor
themselves: no row passes through Python.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Backup
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines import selection
from tenant_backup.engines.seam import Piece, Sent
from tenant_backup.engines.selection import Choice, Policy

from . import catalogue, clients, endpoint, failures, inventory, ranges, rights, schema, session, snapshot
from .endpoint import Connection, Endpoint
from .inventory import Table
from .ranges import Range
from .reader import Reader

_SCHEMA = "schema"
_LARGE_OBJECTS = "largeobjects"
_STARTERS = {_SCHEMA: schema.start_definitions, _LARGE_OBJECTS: schema.start_large_objects}

Started = Callable[[Callable[[], None]], None]


def check(leader: Connection, tables: list[Table], policy: Policy, user: str) -> list[Choice[Table]]:
    """Choose, and refuse what could not be backed up in full, before anything is read. Raises Failure."""
    choices = selection.choose(tables, policy)
    rights.refuse_unreadable(choices, inventory.unreadable_sequences(leader), user)
    _refuse_unlogged(choices, inventory.not_on_standby(leader))
    extension_rows = inventory.extension_rows(leader)
    if extension_rows:
        message = f"only an administrator could bring back rows in {selection.shown(extension_rows)}"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; move or remove them")
    return choices


def _refuse_unlogged(choices: list[Choice[Table]], elsewhere: list[tuple[int, str]]) -> None:
    without_rows = {choice.table.oid for choice in choices if not choice.with_rows}
    missed = [name for oid, name in elsewhere if oid not in without_rows]
    if missed:
        message = f"this is a standby, and only its primary has the contents of {selection.shown(missed)}"
        advice = "back up the primary, or name unlogged tables in exclusions.tables"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}, which are unlogged; {advice}")


@dataclass(frozen=True)
class View:
    """How a worker gets to see what the leader sees."""

    server: Endpoint
    version: int  # server_version_num
    encoding: tuple[str, str]  # the database's: PostgreSQL's name and Python's
    snapshot: str


@dataclass(frozen=True)
class Reading:
    """See seam.Reading."""

    view: View
    policy: Policy
    choices: list[Choice[Table]]
    parts: list[Range]
    described: dict[str, Any]
    sessions: int

    @property
    def pieces(self) -> list[Piece]:
        """Blobs first, then the largest ranges."""
        blobs = [_SCHEMA, *([_LARGE_OBJECTS] if self.described["largeObjects"] else [])]
        ordered = ranges.largest_first(self.parts)
        return [
            *(Piece(name, "blob") for name in blobs),
            *(Piece(part.segment, "rows", part.table.full_name, part.bytes) for part in ordered),
        ]

    @property
    def size(self) -> int:
        """See seam.Reading."""
        return sum(piece.bytes for piece in self.pieces)

    def session(self, out: int, started: Started) -> Session:
        """See seam.Reading."""
        chosen = {choice.table.oid: choice for choice in self.choices}
        queries = {part.segment: (part.table, _query(chosen, part)) for part in self.parts}
        return Session(self.view, queries, out, started)

    def catalogue(self, rows: dict[str, int]) -> dict[str, Any]:
        """See seam.Reading."""
        return catalogue.with_tables(self.described, self.choices, self.parts, rows, self.policy)


class Session:
    """See seam.Session: one psql for all rows, started when the first are wanted."""

    def __init__(self, view: View, queries: dict[str, tuple[Table, str]], out: int, started: Started) -> None:
        """Prepare to send; `queries` has the table and the SELECT of each segment of rows."""
        self._view, self._queries, self._out, self._started = view, queries, out, started
        self._reader: Reader | None = None

    def send(self, piece: Piece) -> Sent:
        """See seam.Session."""
        if piece.kind == "rows":
            return Sent(self._send_rows(piece))
        self._send_blob(piece.segment)
        return Sent()

    def close(self) -> None:
        """See seam.Session."""
        if self._reader:
            self._reader.close()

    def _send_rows(self, piece: Piece) -> int:
        reader = self._reader = self._reader or self._start_reader()
        table, query = self._queries[piece.segment]
        return reader.copy(table.sql, query, f"reading {table.full_name}")

    def _send_blob(self, segment: str) -> None:
        """Send what pg_dump writes; its exit code is part of the segment's success."""
        view = self._view
        program = clients.program("pg_dump", view.version)
        conninfo = view.server.conninfo(session.for_reading(view.version))
        child = _STARTERS[segment](program, conninfo, view.snapshot, self._out)
        self._started(child.kill)
        schema.finish(child, f"pg_dump of {segment}")

    def _start_reader(self) -> Reader:
        view = self._view
        program = clients.program("psql", view.version)
        reader = Reader(program, view.server, view.version, view.encoding, self._out)
        self._started(reader.kill)
        reader.join(view.snapshot)
        return reader


@contextlib.contextmanager
def reading(job: Backup) -> Iterator[Reading]:
    """Lock, take the snapshot and describe everything but the rows. Raises Failure."""
    login = endpoint.login_from_secret(paths.DATABASE, job.database.secret)
    server = endpoint.find(job.database, login)
    policy = Policy(job.modules, job.only_modules, job.exclude_tables, job.exclude_columns)
    try:
        with server.connect() as leader:
            clients.program("pg_dump", leader.info.server_version)
            endpoint.apply(leader, session.for_reading(leader.info.server_version))
            held = snapshot.take(leader, lambda tables: check(leader, tables, policy, login.user))
            choices = selection.choose(held.tables, policy)
            described = catalogue.describe(leader, choices, policy, held.at)
            view = _view(server, leader, held.name)
            parts = _parts(leader, choices)
            yield Reading(view, policy, choices, parts, described, job.database.connections - 1)
    except psycopg.Error as error:
        raise failures.of_error(
            error, Reason.DUMP_FAILED, "reading the catalogues", retriable=True
        ) from error


def _query(chosen: dict[int, Choice[Table]], part: Range) -> str:
    return inventory.select(chosen[part.table.oid], part.where())


def _parts(leader: Connection, choices: list[Choice[Table]]) -> list[Range]:
    with_rows = [choice.table for choice in choices if choice.with_rows]
    sizes = inventory.sizes(leader, with_rows)
    block = inventory.block_size(leader)
    return [part for table in with_rows for part in ranges.cut(table, sizes[table.oid], block)]


def _view(server: Endpoint, leader: Connection, name: str) -> View:
    encoding = leader.info.parameter_status("server_encoding") or "UTF8"
    return View(server, leader.info.server_version, (encoding, leader.info.encoding), name)
