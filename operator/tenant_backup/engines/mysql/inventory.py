"""What a database contains, read from information_schema: tables, columns, sequences, properties."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.marks import without_mark
from tenant_backup.engines.selection import Choice, shown

from .endpoint import Connection
from .names import literal, quoted

# Tables whose rows are in them, all of them, and which anybody may create.
_ENGINES = frozenset({"InnoDB", "MyISAM", "Aria", "MEMORY", "CSV", "ARCHIVE", "BLACKHOLE"})
_SNAPSHOT_ENGINES = frozenset({"InnoDB", "BLACKHOLE"})
# Types whose bytes, read as text and loaded as text, are the same value again.
_TYPES = frozenset(
    {
        "tinyint",
        "smallint",
        "mediumint",
        "int",
        "bigint",
        "decimal",
        "float",
        "double",
        "bit",
        "year",
        "date",
        "time",
        "datetime",
        "timestamp",
        "char",
        "varchar",
        "binary",
        "varbinary",
        "tinyblob",
        "blob",
        "mediumblob",
        "longblob",
        "tinytext",
        "text",
        "mediumtext",
        "longtext",
        "enum",
        "set",
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
        "geomcollection",
        "inet4",
        "inet6",
        "uuid",
        "json",
        "vector",
    }
)
# Bytes without a character set would be taken for the type's own binary form, or refused.
_WRITTEN_AS_TEXT = frozenset({"inet4", "inet6", "uuid", "json"})
_NARROW = 32  # bytes; a number or a time has no more

_TABLES = """
SELECT table_name, table_type, engine, coalesce(data_length, 0) FROM information_schema.TABLES
WHERE table_schema = {database} AND table_type NOT IN ('VIEW', 'SYSTEM VIEW', 'TEMPORARY', 'SEQUENCE')
"""
_COLUMNS = """
SELECT table_name, column_name, data_type, character_octet_length, is_nullable,
       coalesce(generation_expression, '') <> '', extra LIKE '%on update%',
       coalesce(column_default, 'NULL') <> 'NULL' OR extra LIKE '%auto_increment%'
FROM information_schema.COLUMNS WHERE table_schema = {database} ORDER BY table_name, ordinal_position
"""
_KEYS = """
SELECT table_name, column_name, collation, sub_part FROM information_schema.STATISTICS
WHERE table_schema = {database} AND index_name = 'PRIMARY' ORDER BY table_name, seq_in_index
"""
_SEQUENCES = """
SELECT table_name FROM information_schema.TABLES
WHERE table_schema = {database} AND table_type = 'SEQUENCE' ORDER BY table_name
"""
_HAS_LIBRARIES = """
SELECT 1 FROM information_schema.TABLES
WHERE table_schema = 'information_schema' AND table_name = 'LIBRARIES'
"""
_LIBRARIES = """
SELECT library_name FROM information_schema.LIBRARIES WHERE library_schema = {database} ORDER BY library_name
"""
_FOREIGN_KEYS = """
SELECT constraint_name, table_name, referenced_table_name FROM information_schema.REFERENTIAL_CONSTRAINTS
WHERE constraint_schema = {database} AND unique_constraint_schema = {database}
ORDER BY table_name, constraint_name
"""


@dataclass(frozen=True)
class Column:
    """One column that a backup can carry."""

    name: str
    type: str  # without length: varchar, int, …
    length: int  # bytes a value may have at most
    nullable: bool
    touched: bool  # changes by itself when another column of its row does
    filled: bool = False  # gets a value from the server when none is given

    @property
    def selected(self) -> str:
        """The expression that reads it. FLOAT is shown with 6 digits, and has more."""
        return f"{quoted(self.name)} * 1e0" if self.type == "float" else quoted(self.name)

    @property
    def written_as_text(self) -> bool:
        """Whether a load has to say that its bytes are text."""
        return self.type in _WRITTEN_AS_TEXT


@dataclass(frozen=True)
class KeyPart:
    """One column of a primary key; not `whole`: only the beginning of its values."""

    column: str
    descending: bool
    whole: bool


@dataclass(frozen=True)
class Table:
    """One table that holds rows; `oid` is its place in the listing."""

    oid: int
    database: str
    name: str
    kind: str  # BASE TABLE, SYSTEM VERSIONED
    engine: str
    details: tuple[Column, ...]
    generated: tuple[str, ...]
    key: tuple[KeyPart, ...]

    @property
    def primary_key(self) -> tuple[str, ...]:
        """See selection.Table."""
        return tuple(part.column for part in self.key)

    @property
    def order(self) -> str:
        """How InnoDB keeps the rows, as SQL; empty where that is not an order of columns."""
        if self.engine != "InnoDB" or not self.key or not all(part.whole for part in self.key):
            return ""
        listed = ", ".join(quoted(part.column) + " DESC" * part.descending for part in self.key)
        return f" FORCE INDEX (PRIMARY) ORDER BY {listed}"

    @property
    def full_name(self) -> str:
        """database.table, unquoted: how job descriptions and manifests name it."""
        return f"{self.database}.{self.name}"

    @property
    def holds_rows(self) -> bool:
        """See selection.Table."""
        return True

    @property
    def parents(self) -> tuple[int, ...]:
        """See selection.Table."""
        return ()

    @property
    def columns(self) -> tuple[str, ...]:
        """See selection.Table."""
        return tuple(column.name for column in self.details)

    @property
    def required(self) -> frozenset[str]:
        """See selection.Table."""
        return frozenset(column.name for column in self.details if not column.nullable)

    @property
    def filled(self) -> frozenset[str]:
        """See selection.Table."""
        return frozenset(column.name for column in self.details if column.filled)

    @property
    def sql(self) -> str:
        """The quoted, qualified name."""
        return quoted(self.database, self.name)

    @property
    def segment(self) -> str:
        """The id of its rows: a function of its name."""
        return f"t{hashlib.sha256(self.name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}/0"

    @property
    def in_snapshot(self) -> bool:
        """Whether a transaction sees its rows of one moment."""
        return self.engine in _SNAPSHOT_ENGINES


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key between two tables of the database."""

    name: str
    table: int
    references: int


def tables(connection: Connection, database: str) -> list[Table]:
    """List the database's tables in a stable order, without views and sequences."""
    columns, generated = _columns(connection, database)
    keys: dict[str, list[KeyPart]] = defaultdict(list)
    for table, column, collation, length in connection.rows(_in(_KEYS, database)):
        keys[str(table)].append(KeyPart(str(column), collation == "D", length is None))
    listed = sorted(connection.rows(_in(_TABLES, database)), key=lambda row: str(row[0]))
    return [
        Table(
            oid=place,
            database=database,
            name=str(name),
            kind=str(kind),
            engine=str(engine),
            details=tuple(columns[str(name)]),
            generated=tuple(generated[str(name)]),
            key=tuple(keys[str(name)]),
        )
        for place, (name, kind, engine, _) in enumerate(listed)
    ]


def sizes(connection: Connection, database: str) -> dict[str, int]:
    """Return how many bytes of rows each table has, roughly."""
    return {str(name): int(size or 0) for name, _, _, size in connection.rows(_in(_TABLES, database))}


def refuse_unsupported(tables: list[Table]) -> None:
    """Raise UNSUPPORTED_CONTENT for what could not come back as it is."""
    versioned = [table.full_name for table in tables if table.kind == "SYSTEM VERSIONED"]
    if versioned:
        message = f"the history of system-versioned tables ({shown(versioned)}) cannot be backed up yet"
        raise Failure(Reason.UNSUPPORTED_CONTENT, message)
    elsewhere = [f"{table.full_name} ({table.engine})" for table in tables if table.engine not in _ENGINES]
    if elsewhere:
        message = f"the rows of {shown(elsewhere)} are not in the table, or of an engine that is not known"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; they cannot be backed up yet")
    unknown = [
        f"{table.full_name}.{column.name} ({column.type})"
        for table in tables
        for column in table.details
        if column.type not in _TYPES
    ]
    if unknown:
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"the type of {shown(unknown)} is not known yet")


def refuse_libraries(connection: Connection, database: str) -> None:
    """Raise UNSUPPORTED_CONTENT for libraries of stored programs, which newer MySQL servers have."""
    if not connection.rows(_HAS_LIBRARIES):
        return
    found = [str(row[0]) for row in connection.rows(_in(_LIBRARIES, database))]
    if found:
        message = f"libraries of stored programs ({shown(found)}) cannot be backed up yet"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; drop them, or keep them in another database")


def select(choice: Choice[Table]) -> str:
    """The query that reads a table's rows; a value that is excluded is not even selected.

    In the order in which InnoDB keeps them: the same from run to run, and no sorting.
    """
    columns = ", ".join(column.selected for column in choice.table.details if column.name in choice.columns)
    return f"SELECT {columns} FROM {choice.table.sql}{choice.table.order}"  # noqa: S608 - quoted names


def widest(choice: Choice[Table]) -> int:
    """Return how many bytes a row can have at most."""
    return sum(
        max(column.length, _NARROW) for column in choice.table.details if column.name in choice.columns
    )


def foreign_keys(connection: Connection, database: str, tables: list[Table]) -> list[ForeignKey]:
    """List the foreign keys inside the database."""
    places = {table.name: table.oid for table in tables}
    found = connection.rows(_in(_FOREIGN_KEYS, database))
    return [
        ForeignKey(str(name), places[str(table)], places[str(other)])
        for name, table, other in found
        if table in places and other in places
    ]


def sequences(connection: Connection, database: str) -> list[dict[str, Any]]:
    """Read every sequence: {name, next, cycle}; after the snapshot, so that no row is ahead of it."""
    return [
        _sequence(connection, database, str(row[0])) for row in connection.rows(_in(_SEQUENCES, database))
    ]


def properties(connection: Connection, database: str) -> dict[str, Any] | None:
    """Return {characterSet, collation, comment, encrypted, mark} of a database, None when there is none.

    `mark` is the whole comment, with what we noted behind it.
    """
    found = connection.rows(_in(connection.dialect.properties, database))
    if not found:
        return None
    character_set, collation, comment, encrypted = found[0]
    return {
        "characterSet": character_set,
        "collation": collation,
        "comment": without_mark(comment),
        "encrypted": encrypted == "YES",
        "mark": comment or "",
    }


def kind(like: dict[str, Any]) -> str:
    """Return what CREATE and ALTER DATABASE say for these properties, but for a comment."""
    encryption = " ENCRYPTION 'Y'" if like["encrypted"] else ""
    return f"CHARACTER SET {literal(like['characterSet'])} COLLATE {literal(like['collation'])}{encryption}"


def _columns(connection: Connection, database: str) -> tuple[dict[str, list[Column]], dict[str, list[str]]]:
    columns: dict[str, list[Column]] = defaultdict(list)
    generated: dict[str, list[str]] = defaultdict(list)
    for table, name, kind, length, nullable, computed, *by_itself in connection.rows(_in(_COLUMNS, database)):
        if computed == "1":
            generated[str(table)].append(str(name))
        else:
            width = _length(str(kind), length)
            touched, filled = (found == "1" for found in by_itself)
            columns[str(table)].append(
                Column(str(name), str(kind), width, nullable == "YES", touched, filled)
            )
    return columns, generated


def _length(kind: str, length: str | None) -> int:
    # Of these only their type is known, and they may be as large as any value.
    return int(length) if length else _NARROW if kind not in _ENDLESS else 1 << 32


_ENDLESS = frozenset(name for name in _TYPES if "po" in name or "line" in name or "geom" in name) | {
    "json",
    "vector",
}


def _sequence(connection: Connection, database: str, name: str) -> dict[str, Any]:
    query = f"SELECT next_not_cached_value, cycle_count FROM {quoted(database, name)}"  # noqa: S608 - quoted
    following, cycle = connection.rows(query)[0]
    return {"name": name, "next": int(following or 0), "cycle": int(cycle or 0)}


def _in(query: str, database: str) -> str:
    return query.format(database=literal(database))
