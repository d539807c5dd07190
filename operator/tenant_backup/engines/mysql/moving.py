"""What a database holds beside rows, and how another one gets it: the tables follow a RENAME, code cannot.

Code is created again from what the server says about it, each for the definer it has: creating runs nothing,
and nobody's rights grow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.selection import shown

from . import definitions, session
from .accounts import Account
from .definitions import Definition
from .dialects import Dialect
from .endpoint import Connection
from .names import literal, quoted

_NOBODY: frozenset[int] = frozenset()

# Code that is dropped by its name alone.
_NAMED = """
SELECT 'EVENT', event_name FROM information_schema.EVENTS WHERE event_schema = {database}
UNION ALL SELECT 'VIEW', table_name FROM information_schema.VIEWS WHERE table_schema = {database}
UNION ALL SELECT 'TRIGGER', trigger_name FROM information_schema.TRIGGERS WHERE trigger_schema = {database}
"""
# What RENAME TABLE moves: sequences too.
_TABLES = """
SELECT table_name FROM information_schema.TABLES
WHERE table_schema = {database} AND table_type NOT IN ('VIEW', 'SYSTEM VIEW', 'TEMPORARY') ORDER BY table_name
"""
# The server writes the database's name into them, and a RENAME leaves it there.
_DEFAULTS = """
SELECT table_name, column_name, column_default FROM information_schema.COLUMNS
WHERE table_schema = {database} AND column_default LIKE '%val(`%' ORDER BY table_name, ordinal_position
"""
# They go with their routine.
_GRANTS = """
SELECT routine_type, routine_name, user, host, proc_priv FROM mysql.procs_priv
WHERE db = {database} ORDER BY routine_type, routine_name, user, host
"""
_COLLATION = """
SELECT default_collation_name FROM information_schema.SCHEMATA WHERE schema_name = {database}
"""
_WITH_TRIGGERS = """
SELECT DISTINCT event_object_table FROM information_schema.TRIGGERS WHERE trigger_schema = {database}
"""


@dataclass(frozen=True)
class RoutineGrant:
    """Rights of one account on one routine."""

    kind: str
    routine: str
    sql: str

    def run(self, connection: Connection) -> None:
        """Grant them in the session's database. Raises Error."""
        # Somebody who was dropped meanwhile does not come back.
        settings = {"sql_mode": connection.dialect.grants_mode}
        Definition("GRANT", self.routine, self.sql, "", settings).run(connection)


@dataclass(frozen=True)
class Holdings:
    """What a database holds, but for rows; nothing in it says which database."""

    tables: list[str]
    code: list[Definition]
    grants: list[RoutineGrant]
    defaults: list[str]  # statements
    collation: str

    @classmethod
    def of_json(cls, document: dict[str, Any]) -> Holdings:
        """Read what dataclasses.asdict wrote."""
        code = [Definition(**item) for item in document["code"]]
        return cls(**{**document, "code": code, "grants": [RoutineGrant(**g) for g in document["grants"]]})

    def parked(self, dialect: Dialect) -> Holdings:
        """The same for a database nobody works with: events do not run."""
        return dataclasses.replace(self, code=[definitions.parked(item, dialect) for item in self.code])

    def woken(self, dialect: Dialect) -> Holdings:
        """The same as it was before it was parked."""
        return dataclasses.replace(self, code=[definitions.woken(item, dialect) for item in self.code])

    def with_grants_of(self, other: Holdings) -> Holdings:
        """The same with rights that another one's accounts have on routines of the same names."""
        return dataclasses.replace(self, grants=[*self.grants, *other.grants])


def read(connection: Connection, database: str) -> Holdings:
    """Read what a database holds. Raises PERMISSION_DENIED for code that is not shown."""
    code, name = _code(connection, database), literal(database)
    return Holdings(
        tables=[str(row[0]) for row in connection.rows(_TABLES.format(database=name))],
        code=code,
        grants=_grants(connection, database, code),
        defaults=_defaults(connection, database),
        collation=str(connection.scalar(_COLLATION.format(database=name))),
    )


def put(connection: Connection, database: str, wanted: Holdings) -> list[str]:
    """Make what `wanted` says, but for its tables, what a database holds; its tables are there already.

    What is there and right is not touched. Return the views that could not be created, because they were
    broken before. Raises Failure.
    """
    found = read(connection, database)
    if found.collation != wanted.collation:
        connection.run(f"ALTER DATABASE {quoted(database)} COLLATE {literal(wanted.collation)}")
    for default in wanted.defaults:
        connection.run(default)
    _drop(connection, database, _without(found.code, wanted.code))
    told = _create(connection, database, _without(wanted.code, found.code))
    routines = {(item.kind, item.name) for item in wanted.code}
    for grant in wanted.grants:
        if (grant.kind, grant.routine) in routines:
            grant.run(connection)
    settle_session(connection)
    return told


def drop_events(connection: Connection, database: str) -> None:
    """Drop the events of a database. Raises Error."""
    _drop(connection, database, [item for item in _named(connection, database) if item.kind == "EVENT"])


def make_room(connection: Connection, database: str, tables: set[str]) -> None:
    """Drop what keeps these tables from coming and others from going. Raises Error."""
    every_view = connection.dialect.notes_broken_views
    in_the_way = [
        item
        for item in _named(connection, database)
        if item.kind == "TRIGGER" or (item.kind == "VIEW" and (every_view or item.name in tables))
    ]
    _drop(connection, database, in_the_way)


def drop_code(connection: Connection, database: str) -> None:
    """Drop all code of a database, and with routines the rights on them. Raises Failure or Error."""
    _drop(connection, database, _code(connection, database))


def refuse_foreign_keys(connection: Connection, database: str) -> None:
    """Raise UNSUPPORTED_CONTENT when tables of other databases refer to a table of this one.

    Their keys would go with it, and then keep the previous database from being dropped.
    """
    encoded = "".join(c if c.isalnum() or c == "_" else f"@{ord(c):04x}" for c in database)
    query = connection.dialect.far_keys.format(database=literal(database), file=literal(encoded))
    found = [str(row[0]).replace("/", ".") for row in connection.rows(query)]
    if found:
        message = f"foreign keys of {shown(found)} refer to tables of {quoted(database)}"
        advice = "they would stay with the previous database: drop them, and add them again after the Replace"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; {advice}")


def rehearse_triggers(connection: Connection, database: str, code: list[Definition], scratch: str) -> None:
    """Create the triggers of a database once on empty copies of its tables, and drop them again.

    So whatever keeps the server from creating them again is known before they are dropped. Raises Failure.
    """
    tables = [str(row[0]) for row in connection.rows(_WITH_TRIGGERS.format(database=literal(database)))]
    for table in tables:
        connection.run(f"CREATE TABLE {quoted(scratch, table)} LIKE {quoted(database, table)}")
    try:
        _create(connection, scratch, [item for item in code if item.kind == "TRIGGER"])
    except Failure as failure:
        message = f"{failure.message}; a restore has to create it again, so repair or drop it"
        raise Failure(failure.reason, message, retriable=failure.retriable) from failure
    for table in tables:
        connection.run(f"DROP TABLE {quoted(scratch, table)}")


def _code(connection: Connection, database: str) -> list[Definition]:
    connection.run(f"USE {quoted(database)}")
    return definitions.read_code(connection, database)


def _named(connection: Connection, database: str) -> list[Definition]:
    rows = connection.rows(_NAMED.format(database=literal(database)))
    return [Definition(str(kind), str(name), "") for kind, name in rows]


def _drop(connection: Connection, database: str, code: list[Definition]) -> None:
    """Drop code, what was created last first."""
    connection.run(f"USE {quoted(database)}")
    for item in reversed(code):
        definitions.drop(connection, item)
    settle_session(connection)


def _create(connection: Connection, database: str, code: list[Definition]) -> list[str]:
    connection.run(f"USE {quoted(database)}")
    told = definitions.create_code(connection, [definitions.owned(item) for item in code], _NOBODY)
    settle_session(connection)
    return told


def settle_session(connection: Connection) -> None:
    """Make the session ours again: each definition changes it to the one it was written for. Raises Error."""
    for statement in session.for_exchanging(connection.dialect):
        connection.run(statement)


def _without(code: Iterable[Definition], other: Iterable[Definition]) -> list[Definition]:
    known = {(item.kind, item.name): item for item in other}
    return [item for item in code if known.get((item.kind, item.name)) != item]


def _defaults(connection: Connection, database: str) -> list[str]:
    rows = connection.rows(_DEFAULTS.format(database=literal(database)))
    found = [(quoted(str(table)), quoted(str(column)), str(value)) for table, column, value in rows]
    return [
        f"ALTER TABLE {table} ALTER COLUMN {column} SET DEFAULT ({relative})"
        for table, column, value in found
        if (relative := definitions.relative(value, database)) != value
    ]


def _grants(connection: Connection, database: str, code: list[Definition]) -> list[RoutineGrant]:
    """The server gives a definer his rights by itself."""
    definers = {(item.kind, item.name, item.definer) for item in code}
    rows = [tuple(map(str, row)) for row in connection.rows(_GRANTS.format(database=literal(database)))]
    return [
        _grant(kind, routine, Account(user, host), rights)
        for kind, routine, user, host, rights in rows
        if (kind, routine, f"{user}@{host}") not in definers
    ]


def _grant(kind: str, routine: str, to: Account, rights: str) -> RoutineGrant:
    given = {right.upper() for right in rights.split(",")}
    listed = ", ".join(sorted(given - {"GRANT"})) or "USAGE"
    option = " WITH GRANT OPTION" if "GRANT" in given else ""
    grantee = to.sql if to.host else literal(to.user)  # a role
    return RoutineGrant(kind, routine, f"GRANT {listed} ON {kind} {quoted(routine)} TO {grantee}{option}")
