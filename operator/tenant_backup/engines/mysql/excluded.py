"""What a restore puts into columns that are not in the backup."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenant_backup.contract.job import Column
from tenant_backup.contract.reasons import Failure, Reason

from .endpoint import Connection
from .names import literal, quoted

_THERE = """
SELECT count(*) FROM information_schema.COLUMNS
WHERE table_schema = {database} AND table_name = {table} AND column_name IN ({columns})
"""


@dataclass(frozen=True)
class Kept:
    """How many rows got their value from the live database, and how many did not."""

    kept: int = 0
    without_match: int = 0

    def facts(self) -> dict[str, int]:
        """Return {kept, withoutMatch}."""
        return {"kept": self.kept, "withoutMatch": self.without_match}


def with_fill(table: dict[str, Any], policy: list[Column]) -> dict[str, Any]:
    """Return a catalogue's table with `fill`: what each row gets in columns that are not in the backup."""
    filled = {}
    for excluded in table["excluded"]:
        rule = _rule(table["name"], excluded, policy)
        if rule.on_restore == "Default":
            continue
        value = rule.value if rule.on_restore in ("Value", "KeepLive") else None
        if value is not None or excluded["nullable"]:
            filled[excluded["column"]] = value
    return {**table, "fill": filled}


def refuse_history(tables: list[dict[str, Any]], policy: list[Column]) -> None:
    """Raise INVALID_SPEC for a value that is to be kept in a table that would remember that as a change."""
    for table in tables:
        for column in table["excluded"] if table["history"] else ():
            if _rule(table["name"], column, policy).on_restore == "KeepLive":
                raise kept_history(table["name"], column["column"])


def kept_history(table: str, column: str) -> Failure:
    """Return why a column of a system-versioned table cannot keep its live values."""
    message = (
        f'column "{column}" of {table} cannot keep its live values, because the table is system-versioned'
    )
    advice = "it would have a past it never had; use onRestore: Default, Null or Value"
    return Failure(Reason.INVALID_SPEC, f"{message}: {advice}")


def keep_live(
    connection: Connection, table: dict[str, Any], policy: list[Column], live: str, target: str
) -> Kept:
    """Copy excluded columns of one table from the live database, row by primary key. Raises Error.

    Nothing is kept where there is none: `live` is the target itself.
    """
    columns = [
        excluded["column"]
        for excluded in table["excluded"]
        if _rule(table["name"], excluded, policy).on_restore == "KeepLive"
    ]
    if not columns:
        return Kept()
    if live == target or not _is_there(connection, live, table, columns):
        return Kept(0, table["rows"])
    match = " AND ".join(f"n.{quoted(name)} = l.{quoted(name)}" for name in table["primaryKey"])
    joined = f"{quoted(target, table['table'])} n JOIN {quoted(live, table['table'])} l ON {match}"
    values = [f"n.{quoted(name)} = l.{quoted(name)}" for name in columns]
    # What changes by itself with any other column would be now, not then.
    values += [
        f"n.{quoted(name)} = n.{quoted(name)}" for name in table["touchedColumns"] if name not in columns
    ]
    kept = int(connection.scalar(f"SELECT count(*) FROM {joined}") or 0)  # noqa: S608 - quoted names
    connection.run(f"UPDATE {joined} SET {', '.join(values)}")  # noqa: S608 - quoted names
    return Kept(kept, table["rows"] - kept)


def _rule(table: str, excluded: dict[str, Any], policy: list[Column]) -> Column:
    """The tenant's present rule for a column; without one, the rule of the day of the backup."""
    recorded = Column(table, excluded["column"], excluded["onRestore"], excluded["value"])
    same = (rule for rule in policy if (rule.table, rule.column) == (table, recorded.column))
    return next(same, recorded)


def _is_there(connection: Connection, live: str, table: dict[str, Any], columns: list[str]) -> bool:
    wanted = [*table["primaryKey"], *columns]
    listed = ", ".join(literal(name) for name in wanted)
    query = _THERE.format(database=literal(live), table=literal(table["table"]), columns=listed)
    return bool(table["primaryKey"]) and connection.scalar(query) == str(len(wanted))
