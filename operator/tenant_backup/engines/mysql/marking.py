"""How far a restore got with a database: its mark (see engines.marks), as each family of servers can keep it.

MariaDB keeps it behind the database's comment, from the statement on that creates the database. MySQL has no
comments on databases, so there marks are rows of a table in a database of ours: a row says that a database is
about to be created, and then that it was. Who dies in between leaves one that is empty: if there is anything
in it, somebody else has created it.
"""

from __future__ import annotations

from typing import Any, Protocol

from MySQLdb import Error

from tenant_backup.engines.marks import mark_of, with_mark

from . import inventory
from .dialects import Dialect
from .endpoint import Connection
from .names import REGISTRY, literal, quoted

_TABLE = quoted(REGISTRY, "marks")
_COLUMNS = "name varbinary(256) PRIMARY KEY, mark varbinary(64) NOT NULL, created bool NOT NULL"
_REGISTRY = (
    f"CREATE DATABASE IF NOT EXISTS {quoted(REGISTRY)}",
    f"CREATE TABLE IF NOT EXISTS {_TABLE} ({_COLUMNS}) ENGINE=InnoDB",
)
_KNOWN = "SELECT 1 FROM information_schema.TABLES WHERE table_schema = {database} AND table_name = 'marks'"
_NOTED = "SELECT mark, created FROM {table} WHERE name = {name}"
_EMPTY = """
SELECT (SELECT count(*) FROM information_schema.TABLES WHERE table_schema = {name})
     + (SELECT count(*) FROM information_schema.ROUTINES WHERE routine_schema = {name})
     + (SELECT count(*) FROM information_schema.EVENTS WHERE event_schema = {name})
"""


class Marking(Protocol):
    """Where marks are. Everything raises Error."""

    def read(self, connection: Connection, database: str) -> str | None:
        """Return the mark of a database, empty when it has none, None when there is no such database."""
        ...

    def create(self, connection: Connection, database: str, like: dict[str, Any], mark: str) -> None:
        """Create a database, which is never without its mark, whoever dies."""
        ...

    def write(self, connection: Connection, database: str, comment: str | None, mark: str) -> None:
        """Change the mark of a database, whose comment is to be `comment`."""
        ...

    def drop(self, connection: Connection, database: str) -> None:
        """Drop a database, if there is one, and its mark with it."""
        ...


def of(dialect: Dialect) -> Marking:
    """Return where a family of servers has its marks."""
    return _Comments() if dialect.has_comments else _Registry()


class _Comments:
    """See Marking: behind the comments of databases."""

    def read(self, connection: Connection, database: str) -> str | None:
        found = inventory.properties(connection, database)
        return mark_of(found["mark"]) if found else None

    def create(self, connection: Connection, database: str, like: dict[str, Any], mark: str) -> None:
        comment = literal(with_mark(like["comment"], mark))
        connection.run(f"CREATE DATABASE {quoted(database)} {inventory.kind(like)} COMMENT {comment}")

    def write(self, connection: Connection, database: str, comment: str | None, mark: str) -> None:
        connection.run(f"ALTER DATABASE {quoted(database)} COMMENT {literal(with_mark(comment, mark))}")

    def drop(self, connection: Connection, database: str) -> None:
        connection.run(f"DROP DATABASE IF EXISTS {quoted(database)}")


class _Registry:
    """See Marking: in a table."""

    def read(self, connection: Connection, database: str) -> str | None:
        if inventory.properties(connection, database) is None:
            return None
        name = literal(database)
        known = connection.rows(_KNOWN.format(database=literal(REGISTRY)))
        found = connection.rows(_NOTED.format(table=_TABLE, name=name)) if known else []
        if not found:
            return ""
        mark, created = found[0]
        is_ours = created == "1" or connection.scalar(_EMPTY.format(name=name)) == "0"
        return mark if is_ours else ""

    def create(self, connection: Connection, database: str, like: dict[str, Any], mark: str) -> None:
        self._note(connection, database, mark, created=0)
        try:
            connection.run(f"CREATE DATABASE {quoted(database)} {inventory.kind(like)}")
        except Error:
            # Somebody else's, created just before.
            self._forget(connection, database)
            raise
        self._note(connection, database, mark, created=1)

    def write(self, connection: Connection, database: str, comment: str | None, mark: str) -> None:  # noqa: ARG002
        self._note(connection, database, mark, created=1)

    def drop(self, connection: Connection, database: str) -> None:
        connection.run(f"DROP DATABASE IF EXISTS {quoted(database)}")
        if connection.rows(_KNOWN.format(database=literal(REGISTRY))):
            self._forget(connection, database)

    def _note(self, connection: Connection, database: str, mark: str, *, created: int) -> None:
        for statement in _REGISTRY:
            connection.run(statement)
        values = f"({literal(database)}, {literal(mark)}, {created})"
        connection.run(f"REPLACE INTO {_TABLE} VALUES {values}")  # noqa: S608 - literals

    def _forget(self, connection: Connection, database: str) -> None:
        connection.run(f"DELETE FROM {_TABLE} WHERE name = {literal(database)}")  # noqa: S608 - a literal
