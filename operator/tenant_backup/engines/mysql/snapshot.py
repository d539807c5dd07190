"""One consistent view of a database: a snapshot, and metadata locks that keep every table as it is.

A table that was changed between snapshot and lock is refused by the server when it is read (1412), never
shown as empty. So: list, take the snapshot, touch what was listed (which locks its definition until the
transaction ends), list again, and start over when the two lists differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason

from . import failures, inventory
from .endpoint import Connection
from .inventory import Table

_TRIES = 5
_MOVED = {1049, 1146, 1412, 1932}  # a table was dropped or changed meanwhile


@dataclass(frozen=True)
class Snapshot:
    """What the session holds: when it was taken, and the tables in it."""

    at: datetime
    tables: list[Table]


def take(connection: Connection, database: str, accept: Callable[[list[Table]], object]) -> Snapshot:
    """Take the snapshot; it and the locks last as long as the transaction.

    `accept` sees the list before, and raises to refuse it. Raises Failure(DUMP_FAILED, retriable) when a lock
    does not come or the tables keep changing.
    """
    for _ in range(_TRIES):
        listed = inventory.tables(connection, database)
        accept(listed)
        taken = _attempt(connection, database, listed)
        if taken is not None:
            return taken
    message = "tables were created, dropped or changed at every try to lock them; back up after the migration"
    raise Failure(Reason.DUMP_FAILED, message, retriable=True)


def _attempt(connection: Connection, database: str, listed: list[Table]) -> Snapshot | None:
    connection.run("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    at = _now(connection)
    try:
        lock(connection, listed)
        if inventory.tables(connection, database) == listed:
            return Snapshot(at, listed)
    except Error as error:
        if failures.number(error) not in _MOVED:
            what = "locking the tables"
            raise failures.of_error(error, Reason.DUMP_FAILED, what, retriable=True) from error
    connection.run("ROLLBACK")
    return None


def lock(connection: Connection, tables: list[Table]) -> None:
    """Lock the definitions of tables for the running transaction."""
    for table in tables:
        connection.rows(f"SELECT 1 FROM {table.sql} LIMIT 0")  # noqa: S608 - quoted name


def _now(connection: Connection) -> datetime:
    seconds = connection.scalar("SELECT UNIX_TIMESTAMP()")
    return datetime.fromtimestamp(int(float(seconds or 0)), UTC)
