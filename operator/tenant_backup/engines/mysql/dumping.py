"""Reading a database: one session with a snapshot sends everything in it, one piece after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from MySQLdb import Error

from tenant_backup.contract import paths
from tenant_backup.contract.job import Backup, Preflight
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines import reaching, selection
from tenant_backup.engines.seam import Piece, Sent
from tenant_backup.engines.selection import Choice, Policy

from . import catalogue, definitions, endpoint, failures, grants, inventory, rows, session, snapshot
from .endpoint import Connection, Endpoint, Login
from .inventory import Table

Started = Callable[[Callable[[], None]], None]


def check(connection: Connection, database: str, tables: list[Table], policy: Policy) -> list[Choice[Table]]:
    """Choose, and refuse what could not be backed up in full, before anything is read. Raises Failure."""
    grants.refuse_blind(grants.of_session(connection, database), database)
    inventory.refuse_libraries(connection, database)
    inventory.refuse_unsupported(tables)
    return selection.choose(tables, policy)


@dataclass(frozen=True)
class Reading:
    """See seam.Reading. The snapshot belongs to one session, so one worker sends it all."""

    connection: Connection
    choices: list[Choice[Table]]
    blob: bytes
    sizes: dict[str, int]
    described: dict[str, Any]
    policy: Policy
    sessions: int = 1

    @property
    def pieces(self) -> list[Piece]:
        """Definitions first, then the largest tables."""
        with_rows = [choice.table for choice in self.choices if choice.with_rows]
        ordered = sorted(with_rows, key=lambda table: -self.sizes.get(table.name, 0))
        return [
            Piece(definitions.SEGMENT, "blob"),
            *(Piece(t.segment, "rows", t.full_name, self.sizes.get(t.name, 0)) for t in ordered),
        ]

    @property
    def size(self) -> int:
        """See seam.Reading."""
        return sum(piece.bytes for piece in self.pieces)

    def session(self, out: int, started: Started) -> Session:
        """See seam.Reading."""
        started(self.connection.cut)
        by_segment = {choice.table.segment: choice for choice in self.choices}
        return Session(self.connection, by_segment, self.blob, out)

    def catalogue(self, rows: dict[str, int]) -> dict[str, Any]:
        """See seam.Reading."""
        return catalogue.with_tables(self.described, self.choices, self.sizes, rows, self.policy)


@dataclass(frozen=True)
class Session:
    """See seam.Session."""

    connection: Connection
    choices: dict[str, Choice[Table]]
    blob: bytes
    out: int

    def send(self, piece: Piece) -> Sent:
        """See seam.Session."""
        if piece.kind == "blob":
            rows.write(self.out, self.blob)
            return Sent()
        choice = self.choices[piece.segment]
        try:
            return Sent(
                rows.read(self.connection, inventory.select(choice), inventory.widest(choice), self.out)
            )
        except Error as error:
            what = f"reading {choice.table.full_name}"
            raise failures.of_error(error, Reason.DUMP_FAILED, what, retriable=True) from error

    def close(self) -> None:
        """See seam.Session: whoever took the snapshot ends it."""


@contextlib.contextmanager
def reading(job: Backup) -> Iterator[Reading]:
    """Take the snapshot and describe everything but the rows. Raises Failure."""
    policy = Policy(job.modules, job.only_modules, job.exclude_tables, job.exclude_columns)
    name = job.database.name
    try:
        with server_of(job).connect(name, session.for_reading) as leader:
            held = snapshot.take(leader, name, lambda tables: check(leader, name, tables, policy))
            choices = selection.choose(held.tables, policy)
            described = catalogue.describe(leader, name, choices, policy, held.at)
            sequences = [item["name"] for item in described["sequences"]]
            found = definitions.read(leader, name, [table.name for table in held.tables], sequences)
            sizes = inventory.sizes(leader, name)
            yield Reading(leader, choices, definitions.to_blob(found), sizes, described, policy)
    except Error as error:
        what = "reading what the database defines"
        raise failures.of_error(error, Reason.DUMP_FAILED, what, retriable=True) from error


def server_of(job: Backup | Preflight) -> Endpoint:
    """Return the tenant's server, with the tenant's login. Raises Failure."""
    login = Login(*reaching.credentials(paths.DATABASE, job.database.secret))
    return endpoint.find(job.database, login)
