"""What a database contains, read from information_schema: tables, columns, sequences, properties."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping
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
_HIDDEN = ("row_start", "row_end")  # in system-versioned tables where nobody gave them names
_VERSIONED = "SYSTEM VERSIONED"
_INTEGERS = frozenset({"tinyint", "smallint", "mediumint", "int", "bigint"})

_ESTIMATE = re.compile(r'"rows(?:_examined_per_scan)?": (\d+)')  # MariaDB's word, or MySQL's

_TABLES = """
SELECT table_name, table_type, engine FROM information_schema.TABLES
WHERE table_schema = {database} AND table_type NOT IN ('VIEW', 'SYSTEM VIEW', 'TEMPORARY')
"""
_COUNT = "SELECT count(*) FROM information_schema.TABLES WHERE table_schema = {database}"
_SIZES = """
SELECT table_name, coalesce(table_rows, 0), coalesce(data_length, 0) FROM information_schema.TABLES
WHERE table_schema = {database}{table} AND table_type NOT IN ('VIEW', 'SYSTEM VIEW', 'TEMPORARY', 'SEQUENCE')
"""
_COLUMNS = """
SELECT table_name, column_name, data_type, character_octet_length, is_nullable,
       coalesce(generation_expression, ''), extra LIKE '%on update%',
       coalesce(column_default, 'NULL') <> 'NULL' OR extra LIKE '%auto_increment%'
FROM information_schema.COLUMNS WHERE table_schema = {database} ORDER BY table_name, ordinal_position
"""
_KEYS = """
SELECT table_name, column_name, collation, sub_part FROM information_schema.STATISTICS
WHERE table_schema = {database}{table} AND index_name = 'PRIMARY' ORDER BY table_name, seq_in_index
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


@dataclass(frozen=True, order=True)
class Listed:
    """What is known of a table, or a sequence, by its mere name."""

    name: str
    kind: str  # BASE TABLE, SYSTEM VERSIONED, SEQUENCE
    engine: str

    @property
    def holds_rows(self) -> bool:
        """Whether it is a table."""
        return self.kind != "SEQUENCE"

    @property
    def in_snapshot(self) -> bool:
        """Whether a transaction sees its rows of one moment."""
        return self.engine in _SNAPSHOT_ENGINES

    @property
    def all_rows(self) -> str:
        """What follows the name in a query that means past rows, too."""
        return " FOR SYSTEM_TIME ALL" * (self.kind == _VERSIONED)


@dataclass(frozen=True)
class Table:
    """One table that holds rows; `oid` is its place in the listing."""

    oid: int
    database: str
    name: str
    kind: str  # see Listed
    engine: str
    details: tuple[Column, ...]
    generated: tuple[str, ...]
    key: tuple[KeyPart, ...]
    history: tuple[Column, ...] = ()  # from when until when a row was there, of a system-versioned table

    @property
    def primary_key(self) -> tuple[str, ...]:
        """See selection.Table."""
        return tuple(part.column for part in self.key)

    @property
    def is_ordered(self) -> bool:
        """Whether InnoDB keeps the rows in an order of columns."""
        return self.engine == "InnoDB" and bool(self.key) and all(part.whole for part in self.key)

    @property
    def number_key(self) -> str:
        """The column by whose values the rows can be cut into ranges; empty: there is none."""
        numbers = {column.name for column in self.details if column.type in _INTEGERS}
        first = self.primary_key[0] if self.is_ordered else ""
        return first if first in numbers else ""

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
    def listed(self) -> Listed:
        """What is known of it by its name."""
        return Listed(self.name, self.kind, self.engine)

    @property
    def handle(self) -> str:
        """What the ids of its segments begin with: a function of its name."""
        return f"t{hashlib.sha256(self.name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}"


@dataclass(frozen=True)
class Size:
    """How much is in a table, roughly."""

    rows: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key between two tables of the database."""

    name: str
    table: int
    references: int


def listed(connection: Connection, database: str) -> list[Listed]:
    """List the database's tables and sequences in a stable order."""
    found = connection.rows(_in(_TABLES, database))
    return sorted(Listed(str(name), str(kind), str(engine)) for name, kind, engine in found)


def tables(
    connection: Connection, database: str, among: list[Listed], keys: Mapping[str, list[KeyPart]]
) -> list[Table]:
    """Describe the tables of a listing, whose primary keys are known."""
    found = _columns(connection, database)
    return [
        Table(
            oid=place,
            database=database,
            name=item.name,
            kind=item.kind,
            engine=item.engine,
            details=tuple(column for column, made in found[item.name] if not made),
            generated=tuple(column.name for column, made in found[item.name] if made),
            key=tuple(keys.get(item.name, ())),
            history=_history(found[item.name]) if item.kind == _VERSIONED else (),
        )
        for place, item in enumerate(item for item in among if item.holds_rows)
    ]


def count(connection: Connection, database: str) -> int:
    """Return how many tables and views there are. The server opens none of them."""
    return int(connection.scalar(_in(_COUNT, database)) or 0)


def primary_keys(connection: Connection, database: str, table: str = "") -> dict[str, list[KeyPart]]:
    """Read the primary keys of all tables, or of one. To do so the server opens each."""
    keys: dict[str, list[KeyPart]] = defaultdict(list)
    for name, column, collation, length in connection.rows(_of(_KEYS, database, table)):
        keys[str(name)].append(KeyPart(str(column), collation == "D", length is None))
    return keys


def sizes(connection: Connection, database: str, table: str = "") -> dict[str, Size]:
    """Return how much each table has, or one. To do so the server opens each."""
    found = connection.rows(_of(_SIZES, database, table))
    return {str(name): Size(int(rows or 0), int(size or 0)) for name, rows, size in found}


def ends(connection: Connection, table: Table) -> tuple[int, int] | None:
    """Return the lowest and the highest of its `number_key`, None when it is empty."""
    key = quoted(table.number_key)
    query = f"SELECT min({key}), max({key}) FROM {table.sql}{table.listed.all_rows}"  # noqa: S608 - quoted names
    lowest, highest = connection.rows(query)[0]
    return None if lowest is None or highest is None else (int(lowest), int(highest))


def estimate(connection: Connection, table: Table, first: int, last: int) -> int:
    """Return how many rows have a `number_key` in [first, last), as the server guesses from a few pages."""
    key = quoted(table.number_key)
    where = f"FORCE INDEX (PRIMARY) WHERE {key} >= {first} AND {key} < {last}"
    query = f"EXPLAIN FORMAT=JSON SELECT 1 FROM {table.sql}{table.listed.all_rows} {where}"  # noqa: S608
    found = _ESTIMATE.search(connection.scalar(query) or "")
    return int(found[1]) if found else 0


def refuse_elsewhere(database: str, among: list[Listed]) -> None:
    """Raise UNSUPPORTED_CONTENT for tables whose rows are not in them."""
    elsewhere = [
        f"{database}.{item.name} ({item.engine})"
        for item in among
        if item.holds_rows and item.engine not in _ENGINES
    ]
    if elsewhere:
        message = f"the rows of {shown(elsewhere)} are not in the table, or of an engine that is not known"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; they cannot be backed up yet")


def refuse_unsupported(tables: list[Table]) -> None:
    """Raise UNSUPPORTED_CONTENT for what could not come back as it is."""
    numbered = [table.full_name for table in tables if any(c.type != "timestamp" for c in table.history)]
    if numbered:
        message = f"the history of {shown(numbered)} is by transaction numbers, which mean nothing elsewhere"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; version the table by TIMESTAMP(6) columns")
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


def select(choice: Choice[Table], where: str) -> str:
    """The query that reads these rows; a value that is excluded is not even selected.

    In the order in which InnoDB keeps them: the same from run to run, and no sorting.
    """
    table = choice.table
    chosen = [column for column in table.details if column.name in choice.columns]
    columns = ", ".join(column.selected for column in [*chosen, *table.history])
    query = f"SELECT {columns} FROM {table.sql}{table.listed.all_rows}"  # noqa: S608 - quoted names
    if not table.is_ordered:
        return query + where
    order = [quoted(part.column) + " DESC" * part.descending for part in table.key]
    order += [quoted(column.name) for column in table.history[1:]]
    return f"{query} FORCE INDEX (PRIMARY){where} ORDER BY {', '.join(order)}"


def widest(choice: Choice[Table]) -> int:
    """Return how many bytes a row can have at most."""
    chosen = [column for column in choice.table.details if column.name in choice.columns]
    return sum(max(column.length, _NARROW) for column in [*chosen, *choice.table.history])


def foreign_keys(connection: Connection, database: str, tables: list[Table]) -> list[ForeignKey]:
    """List the foreign keys inside the database."""
    places = {table.name: table.oid for table in tables}
    found = connection.rows(_in(_FOREIGN_KEYS, database))
    return [
        ForeignKey(str(name), places[str(table)], places[str(other)])
        for name, table, other in found
        if table in places and other in places
    ]


def sequences(connection: Connection, database: str, among: list[Listed]) -> list[dict[str, Any]]:
    """Read a listing's sequences: {name, next, cycle}; after the snapshot, so that no row is ahead of it."""
    return [_sequence(connection, database, item.name) for item in among if not item.holds_rows]


def end_of_time(connection: Connection) -> str:
    """Return until when a present row of a system-versioned table is there: the last TIMESTAMP there is."""
    later = connection.scalar("SELECT from_unixtime(4294967295)")  # NULL before 11.5
    return "2106-02-07 06:28:15.999999" if later else "2038-01-19 03:14:07.999999"


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


def _columns(connection: Connection, database: str) -> dict[str, list[tuple[Column, str]]]:
    """Return each table's columns, and what makes the values of those that are generated."""
    columns: dict[str, list[tuple[Column, str]]] = defaultdict(list)
    for table, name, kind, length, nullable, made, *by_itself in connection.rows(_in(_COLUMNS, database)):
        width = _length(str(kind), length)
        touched, filled = (found == "1" for found in by_itself)
        column = Column(str(name), str(kind), width, nullable == "YES", touched, filled)
        columns[str(table)].append((column, str(made)))
    return columns


def _history(columns: list[tuple[Column, str]]) -> tuple[Column, ...]:
    """Return the columns with a row's begin and end; the server lists them only if somebody named them."""
    named = {made: column for column, made in columns}
    hidden = [Column(name, "timestamp", _NARROW, nullable=False, touched=False) for name in _HIDDEN]
    return named.get("ROW START", hidden[0]), named.get("ROW END", hidden[1])


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


def _of(query: str, database: str, table: str) -> str:
    one = f" AND table_name = {literal(table)}" if table else ""
    return query.format(database=literal(database), table=one)
