"""One consistent view of a database: a snapshot, and metadata locks that keep every table as it is.

A table that was changed between snapshot and lock is refused by the server when it is read (1412), never
shown as empty. So: list, take the snapshot, touch what was listed (which locks its definition until the
transaction ends), list again, and start over when the two lists differ or a table is refused.

Several sessions see the same when they begin while one more, the guard, holds a read lock on every table:
what was changed before is committed, and nobody changes anything. Whoever writes waits for that moment. If
the lock does not come soon, one session reads alone.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime

from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason

from . import failures, inventory
from .endpoint import Connection
from .inventory import Listed
from .names import quoted

_TRIES = 5
_MOVED = {1049, 1146, 1412, 1932}  # a table was dropped or changed meanwhile
_PATIENCE = 3.0  # seconds; so long others may have to wait behind who waits for the read lock
_BEGIN = "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"


@dataclass(frozen=True)
class Company:
    """Who else reads, and how to open the session that keeps the tables still until all have begun."""

    readers: list[Connection]
    guard: Callable[[], AbstractContextManager[Connection]]


@dataclass(frozen=True)
class Snapshot:
    """What the sessions hold: when it was taken, and the tables in it."""

    at: datetime
    listed: list[Listed]
    sessions: list[Connection]


def take(leader: Connection, database: str, company: Company, visit: Callable[[Listed], None]) -> Snapshot:
    """Take the snapshot; it and the locks last as long as the transactions.

    `visit` is called with each table when the leader has just locked it, so that the server has it open.
    Raises Failure(DUMP_FAILED, retriable) when a lock does not come or the tables keep changing, and
    UNSUPPORTED_CONTENT for tables whose rows are not in them.
    """
    for _ in range(_TRIES):
        listed = inventory.listed(leader, database)
        inventory.refuse_elsewhere(database, listed)
        taken = _attempt(leader, database, listed, company, visit)
        if taken is not None:
            return taken
    message = "tables were created, dropped or changed at every try to lock them; back up after the migration"
    raise Failure(Reason.DUMP_FAILED, message, retriable=True)


def _attempt(
    leader: Connection,
    database: str,
    listed: list[Listed],
    company: Company,
    visit: Callable[[Listed], None],
) -> Snapshot | None:
    tables = [item for item in listed if item.holds_rows]
    sessions = [leader, *_begun_together(leader, database, tables, company)]
    at = _now(leader)
    try:
        with ThreadPoolExecutor(len(sessions)) as pool:
            others = [pool.submit(lock, session, database, tables) for session in sessions[1:]]
            lock(leader, database, tables, visit)
            for other in others:
                other.result()
        if inventory.listed(leader, database) == listed:
            return Snapshot(at, listed, sessions)
    except Error as error:
        if failures.number(error) not in _MOVED:
            what = "locking the tables"
            raise failures.of_error(error, Reason.DUMP_FAILED, what, retriable=True) from error
    for session in sessions:
        session.run("ROLLBACK")
    return None


def _begun_together(
    leader: Connection, database: str, tables: list[Listed], company: Company
) -> list[Connection]:
    """Begin the leader's transaction; return who has begun at the same moment."""
    still = [quoted(database, table.name) for table in tables if table.in_snapshot]
    if company.readers and still:
        with contextlib.suppress(Error, Failure):
            with company.guard() as guard, _kept_still(leader, guard, still):
                for session in (leader, *company.readers):
                    session.run(_BEGIN)
            return company.readers
        for session in company.readers:
            with contextlib.suppress(Error):  # it may be the one that was lost
                session.run("ROLLBACK")
    leader.run(_BEGIN)
    return []


@contextlib.contextmanager
def _kept_still(leader: Connection, guard: Connection, tables: list[str]) -> Iterator[None]:
    """Let nobody change a row of these tables (quoted) inside, and none be committed. Raises Error.

    If the guard was lost, and with it the lock, this ends with an error, too.
    """
    number = guard.scalar("SELECT CONNECTION_ID()")
    # Each table may be waited for; all of them together no longer than this.
    bound = threading.Timer(_PATIENCE, leader.run, [f"KILL QUERY {number}"])
    bound.start()
    try:
        guard.run("LOCK TABLES " + ", ".join(f"{table} READ" for table in tables))
    finally:
        bound.cancel()
        bound.join()
    yield
    guard.run("UNLOCK TABLES")


def lock(
    connection: Connection,
    database: str,
    tables: list[Listed],
    visit: Callable[[Listed], None] = lambda _: None,
) -> None:
    """Lock the definitions of tables for the running transaction, and see if it may read them."""
    for table in tables:
        connection.rows(f"SELECT 1 FROM {quoted(database, table.name)}{table.all_rows} LIMIT 1")  # noqa: S608
        visit(table)


def _now(connection: Connection) -> datetime:
    seconds = connection.scalar("SELECT UNIX_TIMESTAMP()")
    return datetime.fromtimestamp(int(float(seconds or 0)), UTC)
