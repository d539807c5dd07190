"""What a restore has to know besides rows and definitions, as one JSON document inside the archive."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tenant_backup.engines.selection import Choice, Policy, loose_foreign_keys

from . import inventory
from .endpoint import Connection
from .inventory import Table

FORMAT = 1


def describe(
    connection: Connection,
    database: str,
    choices: list[Choice[Table]],
    policy: Policy,
    taken_at: datetime,
) -> dict[str, Any]:
    """Read everything but rows and definitions, inside the snapshot; `with_tables` adds what was counted."""
    elsewhere = [choice for choice in choices if choice.with_rows and not choice.table.in_snapshot]
    found = inventory.properties(connection, database) or {}
    tables = [choice.table for choice in choices]
    loose = loose_foreign_keys(choices, inventory.foreign_keys(connection, database, tables))
    return {
        "format": FORMAT,
        "server": {"engine": connection.dialect.engine, "version": connection.version},
        "snapshotAt": taken_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "consistency": "PerTable" if elsewhere else "Snapshot",
        "database": {"name": database, **{key: value for key, value in found.items() if key != "mark"}},
        "partial": bool(policy.only_modules),
        "modules": policy.only_modules or [module.name for module in policy.modules],
        "sequences": inventory.sequences(connection, database),
        "looseForeignKeys": [{"name": key.name, "table": tables[key.table].name} for key in loose],
    }


def with_tables(
    catalogue: dict[str, Any],
    choices: list[Choice[Table]],
    sizes: dict[str, int],
    rows: dict[str, int],
    policy: Policy,
) -> dict[str, Any]:
    """Return the catalogue with its tables; `rows` maps a segment's id to its rows."""
    return {**catalogue, "tables": [_table(choice, sizes, rows, policy) for choice in choices]}


def _table(
    choice: Choice[Table], sizes: dict[str, int], rows: dict[str, int], policy: Policy
) -> dict[str, Any]:
    table = choice.table
    chosen = [column for column in table.details if column.name in choice.columns]
    left_out = [column for column in table.details if column.name in choice.excluded]
    rules = {(rule.table, rule.column): rule for rule in policy.exclude_columns}
    return {
        "name": table.full_name,
        "schema": table.database,
        "table": table.name,
        "rows": rows.get(table.segment, 0),
        "segments": [table.segment] if choice.with_rows else [],
        "bytes": sizes.get(table.name, 0),
        "withRows": choice.with_rows,
        "modules": list(choice.modules),
        "columns": [column.name for column in chosen],
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
