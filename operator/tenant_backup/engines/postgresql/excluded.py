"""What a restore puts into columns that are not in the backup.

Before the rows come, the column's default becomes the wished value, so that loading fills it in one pass;
rows of a live database are copied by primary key afterwards; then default and NOT NULL are as they were.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import psycopg

from tenant_backup.contract.job import Column
from tenant_backup.contract.reasons import Reason

from . import failures
from .endpoint import Connection
from .names import literal, quoted

_COLUMN = """
SELECT pg_get_expr(d.adbin, d.adrelid), a.attnotnull, a.attidentity <> ''
FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = %s::regclass AND a.attname = %s
"""

# NOT NULL of a partition belongs to the table on top of it.
_TOP = """
WITH RECURSIVE up (oid) AS (
  SELECT %s::regclass::oid UNION SELECT i.inhparent FROM pg_inherits i JOIN up ON i.inhrelid = up.oid
  WHERE EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = i.inhparent AND a.attname = %s))
SELECT n.nspname, c.relname FROM up JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT EXISTS (SELECT FROM pg_inherits i JOIN up p ON p.oid = i.inhparent WHERE i.inhrelid = up.oid)
"""

# From version 18 on NOT NULL is a constraint with a name.
_REQUIRED = """
SELECT k.conname, pg_get_constraintdef(k.oid) FROM pg_constraint k
JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
WHERE k.contype = 'n' AND k.conrelid = %s::regclass AND a.attname = %s
"""

_HAS_COLUMNS = """
SELECT count(*) FROM pg_attribute
WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attname = ANY(%s)
"""


@dataclass(frozen=True)
class Gap:
    """One excluded column of one table in the side database, as it was before we changed it."""

    table: str  # quoted
    full_name: str
    column: str
    keeps_live: bool
    default: str | None  # SQL
    top: str  # quoted: the table that declares NOT NULL
    required: str | None  # what declares it, after ALTER TABLE; None: it does not, or we left it


@dataclass(frozen=True)
class Kept:
    """How many rows got their value from the live database, and how many did not."""

    kept: int = 0
    without_match: int = 0


def open_gaps(connection: Connection, tables: list[dict[str, Any]], policy: list[Column]) -> list[Gap]:
    """Prepare every excluded column for loading. Raises Failure."""
    try:
        return [
            gap
            for table in tables
            for excluded in table["excluded"]
            if (gap := _open(connection, table, _rule(table["name"], excluded, policy)))
        ]
    except psycopg.Error as error:
        raise failures.of_error(error, Reason.LOAD_FAILED, "preparing excluded columns") from error


def close_gaps(connection: Connection, gaps: list[Gap]) -> list[str]:
    """Put defaults and NOT NULL back; return what stays different because rows have no value."""
    told: list[str] = []
    for gap in gaps:
        column = quoted(gap.column)
        default = f"SET DEFAULT {gap.default}" if gap.default else "DROP DEFAULT"
        _run(connection, f"ALTER TABLE ONLY {gap.table} ALTER COLUMN {column} {default}")
    for top, name, required in dict.fromkeys((gap.top, gap.column, gap.required) for gap in gaps):
        if required is None:
            continue
        try:
            _run(connection, f"ALTER TABLE {top} {required}")
        except psycopg.errors.NotNullViolation:
            told.append(f"NOT NULL of {top}.{quoted(name)} is off: rows came back without a value")
    return told


def keep_live(
    side: Connection, live: Connection | None, table: dict[str, Any], gaps: list[Gap], encoding: str
) -> Kept:
    """Copy the excluded columns of one table from the live database, row by primary key. Raises Failure."""
    columns = [gap.column for gap in gaps if gap.keeps_live and gap.full_name == table["name"]]
    if not columns:
        return Kept()
    kept = _keep(side, live, table, columns, encoding) if live and _is_there(live, table, columns) else 0
    return Kept(kept, table["rows"] - kept)


def _rule(table: str, excluded: dict[str, Any], policy: list[Column]) -> Column:
    """The tenant's present rule for a column; without one, the rule of the day of the backup."""
    recorded = Column(excluded["rule"], excluded["column"], excluded["onRestore"], excluded["value"])
    names = (table, excluded["rule"])
    return next((rule for rule in policy if rule.column == recorded.column and rule.table in names), recorded)


def _open(connection: Connection, table: dict[str, Any], rule: Column) -> Gap | None:
    name = quoted(table["schema"], table["table"])
    found = connection.execute(_COLUMN, (name, rule.column)).fetchone()
    assert found, f"{rule.column} of {name} is in the catalogue and not in the definitions"
    default, not_null, identity = found
    if identity or rule.on_restore == "Default" or (_keeps_default(rule) and not_null and default):
        return Gap(name, table["name"], rule.column, _keeps(rule), default, name, None) if default else None
    required = None
    top = _top(connection, name, rule.column)
    if not_null and rule.value is None:
        required = _declaration(connection, top, rule.column)
        _run(connection, f"ALTER TABLE {top} ALTER COLUMN {quoted(rule.column)} DROP NOT NULL")
    wished = literal(rule.value if rule.on_restore in ("Value", "KeepLive") else None)
    _run(connection, f"ALTER TABLE ONLY {name} ALTER COLUMN {quoted(rule.column)} SET DEFAULT {wished}")
    return Gap(name, table["name"], rule.column, _keeps(rule), default, top, required)


def _keeps(rule: Column) -> bool:
    return rule.on_restore == "KeepLive"


def _keeps_default(rule: Column) -> bool:
    """Rows without a match get the column's own default where NULL is not allowed and no value is given."""
    return _keeps(rule) and rule.value is None


def _top(connection: Connection, table: str, column: str) -> str:
    found = connection.execute(_TOP, (table, column)).fetchall()
    return quoted(*found[0])


def _declaration(connection: Connection, table: str, column: str) -> str:
    """What makes a column NOT NULL again as it is now, after ALTER TABLE."""
    found = connection.execute(_REQUIRED, (table, column)).fetchone()
    if found:
        return f"ADD CONSTRAINT {quoted(found[0])} {found[1]}"
    return f"ALTER COLUMN {quoted(column)} SET NOT NULL"


def _is_there(live: Connection, table: dict[str, Any], columns: list[str]) -> bool:
    wanted = [*table["primaryKey"], *columns]
    name = quoted(table["schema"], table["table"])
    found = live.execute(_HAS_COLUMNS, (name, wanted)).fetchone()
    return bool(table["primaryKey"]) and found is not None and found[0] == len(wanted)


def _keep(
    side: Connection, live: Connection, table: dict[str, Any], columns: list[str], encoding: str
) -> int:
    name = quoted(table["schema"], table["table"])
    key = [quoted(column) for column in table["primaryKey"]]
    kept = [quoted(column) for column in columns]
    listed = ", ".join([*key, *kept])
    source = f"COPY (SELECT {listed} FROM ONLY {name}) TO STDOUT (ENCODING '{encoding}')"  # noqa: S608
    target = f"COPY pg_temp.kept FROM STDIN (ENCODING '{encoding}')"
    values = ", ".join(f"{column} = k.{column}" for column in kept)
    match = " AND ".join(f"t.{column} = k.{column}" for column in key)
    try:
        with side.transaction():
            empty = f"SELECT {listed} FROM ONLY {name} WHERE false"  # noqa: S608
            _run(side, f"CREATE TEMP TABLE kept ON COMMIT DROP AS {empty}")
            _pour(_blocks(live, source), side, target)
            _run(side, "ANALYZE pg_temp.kept")
            update = f"UPDATE ONLY {name} t SET {values} FROM pg_temp.kept k WHERE {match}"  # noqa: S608
            return _run(side, update)
    except psycopg.Error as error:
        what = f"keeping {', '.join(columns)} of {table['name']} from the live database"
        raise failures.of_error(error, Reason.LOAD_FAILED, what) from error


def _blocks(connection: Connection, statement: str) -> Iterable[bytes]:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        yield from (bytes(row) for row in copy)


def _pour(blocks: Iterable[bytes], connection: Connection, statement: str) -> None:
    with connection.cursor() as cursor, cursor.copy(statement) as copy:
        for block in blocks:
            copy.write(block)


def _run(connection: Connection, statement: str) -> int:
    return connection.execute(statement).rowcount
