"""What a restore has to know besides rows and definitions, as one JSON document inside the archive."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tenant_backup.engines.selection import Choice, Policy, loose_foreign_keys

from . import inventory, properties
from .endpoint import Connection
from .inventory import Table
from .ranges import Range

FORMAT = 1


def describe(
    leader: Connection, choices: list[Choice[Table]], policy: Policy, taken_at: datetime
) -> dict[str, Any]:
    """Read everything but the rows, inside the leader's snapshot. `complete` adds what was counted later."""
    database = leader.info.dbname
    return {
        "format": FORMAT,
        "server": {
            "engine": "PostgreSQL",
            "version": server_version(leader),
            "number": leader.info.server_version,
        },
        "snapshotAt": taken_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "consistency": "Snapshot",
        "database": {"name": database, **(properties.read(leader, database) or {})},
        "partial": bool(policy.only_modules),
        "modules": policy.only_modules or [module.name for module in policy.modules],
        "sequences": inventory.sequences(leader),
        "materializedViews": inventory.populated_views(leader),
        "publicationsOfEverything": inventory.publications_of_everything(leader),
        "untrustedFunctions": inventory.untrusted_functions(leader),
        "policies": inventory.policies(leader),
        "notValidConstraints": inventory.constraints_not_valid(leader),
        "looseForeignKeys": _loose(leader, choices),
        "largeObjects": 0 if policy.only_modules else inventory.large_objects(leader),
    }


def with_tables(
    catalogue: dict[str, Any],
    choices: list[Choice[Table]],
    ranges: list[Range],
    rows: dict[str, int],
    policy: Policy,
) -> dict[str, Any]:
    """Return the catalogue with its tables; `rows` maps a segment's id to the rows psql counted in it."""
    segments: dict[int, list[Range]] = {}
    for part in sorted(ranges, key=lambda part: part.number):
        segments.setdefault(part.table.oid, []).append(part)
    leaves = [choice for choice in choices if choice.table.holds_rows]
    return {**catalogue, "tables": [_table(c, segments.get(c.table.oid, []), rows, policy) for c in leaves]}


def server_version(connection: Connection) -> str:
    """Return the server's version as people write it, such as 15.6."""
    number = connection.info.server_version
    return f"{number // 10000}.{number % 10000}"


def _table(choice: Choice[Table], parts: list[Range], rows: dict[str, int], policy: Policy) -> dict[str, Any]:
    table = choice.table
    names = [part.segment for part in parts]
    return {
        "name": table.full_name,
        "schema": table.schema,
        "table": table.name,
        "owner": table.owner,
        "rows": sum(rows[name] for name in names),
        "segments": names,
        "bytes": sum(part.bytes for part in parts),
        "withRows": choice.with_rows,
        "extension": table.extension,
        "condition": table.condition,
        "modules": list(choice.modules),
        "columns": list(choice.columns),
        "primaryKey": list(table.primary_key),
        "excluded": [_excluded(name, table.full_name, policy) for name in choice.excluded],
    }


def _excluded(column: str, table: str, policy: Policy) -> dict[str, Any]:
    """How a restore fills a column; a partition follows the rule of the table above it."""
    rules = [rule for rule in policy.exclude_columns if rule.column == column]
    rule = next((rule for rule in rules if rule.table == table), rules[0])
    return {"column": column, "rule": rule.table, "onRestore": rule.on_restore, "value": rule.value}


def _loose(leader: Connection, choices: list[Choice[Table]]) -> list[dict[str, Any]]:
    tables = {choice.table.oid: choice.table for choice in choices}
    keys = loose_foreign_keys(choices, [k for k in inventory.foreign_keys(leader) if k.table in tables])
    return [
        {
            "name": key.name,
            "schema": tables[key.table].schema,
            "table": tables[key.table].name,
            "definition": key.definition,
        }
        for key in keys
    ]
