"""One consistent view of a database for many sessions: locks first, then the snapshot.

The order matters. A snapshot taken before the locks would show a table that is truncated or rewritten in
between as empty. So: list without a lock, lock what was listed, take the snapshot, list again inside it, and
start over when the two lists differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg

from tenant_backup.contract.reasons import Failure, Reason

from . import failures, inventory
from .endpoint import Connection
from .inventory import Table

_TRIES = 5
_LOCK_WAIT = (
    "10s"  # longer than any statement of an application; a migration is waited for by retrying the Job
)
_BATCH = 500  # tables per LOCK statement
_MOVED = ("42P01", "3F000")  # a table or its schema was dropped between listing and locking


@dataclass(frozen=True)
class Snapshot:
    """What the leader holds: its name for other sessions, when it was taken, and the tables in it."""

    name: str
    at: datetime
    tables: list[Table]


def take(leader: Connection, accept: Callable[[list[Table]], object]) -> Snapshot:
    """Lock the database's tables in ACCESS SHARE and export a snapshot; both last as long as the transaction.

    `accept` sees the list before anything is locked, and raises to refuse it. Raises Failure(DUMP_FAILED,
    retriable) when a lock does not come or the tables keep changing.
    """
    for _ in range(_TRIES):
        listed = inventory.tables(leader)
        accept(listed)
        taken = _attempt(leader, listed)
        if taken is not None:
            return taken
    message = "tables were created, dropped or changed at every try to lock them; back up after the migration"
    raise Failure(Reason.DUMP_FAILED, message, retriable=True)


def _attempt(leader: Connection, listed: list[Table]) -> Snapshot | None:
    leader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
    try:
        lock(leader, listed)
        name, at = _export(leader)
        if inventory.tables(leader) == listed:
            return Snapshot(name, at, listed)
    except psycopg.Error as error:
        if error.sqlstate not in _MOVED:
            raise failures.of_error(
                error, Reason.DUMP_FAILED, "locking the tables", retriable=True
            ) from error
    leader.execute("ROLLBACK")
    return None


def lock(leader: Connection, tables: list[Table]) -> None:
    """Lock tables in ACCESS SHARE inside the running transaction. LOCK takes no snapshot."""
    leader.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
    for start in range(0, len(tables), _BATCH):
        names = ", ".join(f"ONLY {table.sql}" for table in tables[start : start + _BATCH])
        leader.execute(f"LOCK TABLE {names} IN ACCESS SHARE MODE")
    leader.execute("SET LOCAL lock_timeout = 0")


def _export(leader: Connection) -> tuple[str, datetime]:
    row = leader.execute(
        "SELECT pg_catalog.pg_export_snapshot(), pg_catalog.statement_timestamp()"
    ).fetchone()
    assert row
    return str(row[0]), row[1].astimezone(UTC)
