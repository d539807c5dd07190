"""Filling the new database as the temporary login: tables, rows, sequences, counts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from MySQLdb import Error

from tenant_backup.contract.job import Restore
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines.facts import Restored
from tenant_backup.engines.seam import Contents
from tenant_backup.engines.transfer import Load, Transfer, refuse_difference

from . import definitions, excluded, failures, inventory, rows, session
from .definitions import Definition
from .endpoint import Connection, Endpoint
from .excluded import Kept
from .names import quoted


@dataclass(frozen=True)
class Content:
    """What is loaded, and where to."""

    server: Endpoint  # as the temporary login
    database: str
    catalogue: dict[str, Any]
    contents: Contents
    job: Restore

    @property
    def tables(self) -> list[dict[str, Any]]:
        """The catalogue's tables, with what goes into columns that are not in the backup."""
        return [excluded.with_fill(table, self.job.exclude_columns) for table in self.catalogue["tables"]]

    def keep_live(self, connection: Connection) -> Kept:
        """Copy excluded columns from the live database, where they are to be kept. Raises Error."""
        total = Kept()
        for table in self.catalogue["tables"]:
            live, policy = self.job.database.name, self.job.exclude_columns
            kept = excluded.keep_live(connection, table, policy, live, self.database)
            total = Kept(total.kept + kept.kept, total.without_match + kept.without_match)
        return total


def load_rows(content: Content, found: list[Definition]) -> Restored:
    """Create sequences and tables, load every row, and let the server count them. Raises Failure."""
    with content.server.connect(content.database, session.for_loading) as connection:
        definitions.create(connection, found)
        sessions = max(1, content.job.database.connections - 1)
        present = content.catalogue["endOfTime"], inventory.end_of_time(connection)
        tables = [{**table, "present": present} for table in content.tables]
        transfer = Transfer(tables, content.contents, lambda: _loader(content), sessions)
        transfer.run()
        for sequence in content.catalogue["sequences"]:
            name = quoted(content.database, sequence["name"])
            connection.rows(f"SELECT SETVAL({name}, {sequence['next']}, 0, {sequence['cycle']})")
    _check(content, sessions)
    return Restored(len(content.catalogue["tables"]), transfer.rows, transfer.bytes)


def _check(content: Content, sessions: int) -> None:
    """Let the server count every table once more. Raises ROWS_DIFFER."""
    tables = sorted(content.catalogue["tables"], key=lambda table: -table["bytes"])
    shares = [tables[start::sessions] for start in range(min(sessions, len(tables)))]
    with ThreadPoolExecutor(max(1, len(shares))) as pool:
        list(pool.map(lambda share: _check_tables(content, share), shares))


def _check_tables(content: Content, tables: list[dict[str, Any]]) -> None:
    with content.server.connect(content.database, session.for_loading) as connection:
        for table in tables:
            everything = quoted(content.database, table["table"]) + " FOR SYSTEM_TIME ALL" * table["history"]
            found = connection.scalar(f"SELECT count(*) FROM {everything}")  # noqa: S608 - quoted name
            refuse_difference(table["name"], table["rows"], int(found or 0))


@contextlib.contextmanager
def _loader(content: Content) -> Iterator[_Loader]:
    try:
        with content.server.connect(content.database, session.for_loading, sends_files=True) as connection:
            yield _Loader(connection, content.database)
    except Error as error:
        raise failures.of_error(error, Reason.LOAD_FAILED, "loading rows", retriable=True) from error


@dataclass(frozen=True)
class _Loader:
    """See transfer.Loader."""

    connection: Connection
    database: str

    @contextlib.contextmanager
    def transaction(self, _load: Load) -> Iterator[None]:
        self.connection.run("START TRANSACTION")
        try:
            yield
        except BaseException:
            with contextlib.suppress(Error):  # a lost session is rolled back by the server
                self.connection.run("ROLLBACK")
            raise
        self.connection.run("COMMIT")

    def copy(self, load: Load, blocks: Iterable[memoryview]) -> int:
        target = quoted(self.database, load.table["table"])
        return rows.load(self.connection, load.table, target, blocks)
