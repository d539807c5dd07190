"""What a restore has to know besides rows and definitions, as one JSON document inside the archive."""

from __future__ import annotations

from typing import Any

from tenant_backup.contract import job
from tenant_backup.engines.selection import Choice, Policy, loose_foreign_keys

from . import excluded, inventory
from .endpoint import Connection
from .inventory import Table
from .ranges import Range
from .snapshot import Snapshot

FORMAT = 1


def describe(
    connection: Connection,
    database: str,
    choices: list[Choice[Table]],
    policy: Policy,
    held: Snapshot,
) -> dict[str, Any]:
    """Read everything but rows and definitions, inside the snapshot; `with_tables` adds what was counted."""
    elsewhere = [choice for choice in choices if choice.with_rows and not choice.table.listed.in_snapshot]
    found = inventory.properties(connection, database) or {}
    tables = [choice.table for choice in choices]
    # To list foreign keys the server opens every table.
    is_partial = not all(choice.with_rows for choice in choices)
    keys = inventory.foreign_keys(connection, database, tables) if is_partial else []
    loose = loose_foreign_keys(choices, keys)
    return {
        "format": FORMAT,
        "server": {"engine": connection.dialect.engine, "version": connection.version},
        "snapshotAt": held.at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "consistency": "PerTable" if elsewhere else "Snapshot",
        "database": {"name": database, **{key: value for key, value in found.items() if key != "mark"}},
        "partial": bool(policy.only_modules),
        "modules": policy.only_modules or [module.name for module in policy.modules],
        "endOfTime": inventory.end_of_time(connection),
        "sequences": inventory.sequences(connection, database, held.listed),
        "looseForeignKeys": [{"name": key.name, "table": tables[key.table].name} for key in loose],
    }


def with_tables(
    catalogue: dict[str, Any],
    choices: list[Choice[Table]],
    ranges: list[Range],
    rows: dict[str, int],
    policy: Policy,
) -> dict[str, Any]:
    """Return the catalogue with its tables; `rows` maps a segment's id to its rows."""
    segments: dict[int, list[Range]] = {}
    for part in ranges:
        segments.setdefault(part.table.oid, []).append(part)
    rules = {(rule.table, rule.column): rule for rule in policy.exclude_columns}
    return {**catalogue, "tables": [_table(c, segments.get(c.table.oid, []), rows, rules) for c in choices]}


def refuse_history(choices: list[Choice[Table]], policy: Policy) -> None:
    """Raise INVALID_SPEC for a value that is to be kept in a table that would remember that as a change."""
    versioned = {choice.table.full_name for choice in choices if choice.table.history}
    for rule in policy.exclude_columns:
        if rule.on_restore == "KeepLive" and rule.table in versioned:
            raise excluded.kept_history(rule.table, rule.column)


def _table(
    choice: Choice[Table], parts: list[Range], rows: dict[str, int], rules: dict[tuple[str, str], job.Column]
) -> dict[str, Any]:
    table = choice.table
    names = [part.segment for part in parts]
    chosen = [column for column in table.details if column.name in choice.columns]
    left_out = [column for column in table.details if column.name in choice.excluded]
    return {
        "name": table.full_name,
        "schema": table.database,
        "table": table.name,
        "rows": sum(rows[name] for name in names),
        "segments": names,
        "bytes": sum(part.bytes for part in parts),
        "withRows": choice.with_rows,
        "modules": list(choice.modules),
        "columns": [column.name for column in [*chosen, *table.history]],
        "history": bool(table.history),
        "textColumns": [column.name for column in chosen if column.written_as_text],
        "touchedColumns": [column.name for column in table.details if column.touched],
        "hasEnum": any(column.type == "enum" for column in table.details),
        "primaryKey": list(table.primary_key),
        "excluded": [
            {
                "column": column.name,
                "nullable": column.nullable,
                "onRestore": rules[table.full_name, column.name].on_restore,
                "value": rules[table.full_name, column.name].value,
            }
            for column in left_out
        ],
    }
