"""A look at a database without reading its rows: what a backup would say."""

from __future__ import annotations

from typing import Any

from MySQLdb import Error

from tenant_backup.contract.job import Preflight
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines.selection import Policy

from . import failures, grants, inventory, session
from .dumping import chosen, server_of


def look(job: Preflight) -> dict[str, Any]:
    """Return {version, sizeBytes, tables}. Raises the Failure a backup would end with."""
    policy = Policy(job.modules, [], job.exclude_tables, job.exclude_columns)
    name = job.database.name
    try:
        with server_of(job).connect(name, session.for_reading) as connection:
            grants.refuse_blind(grants.of_session(connection, name), name)
            listed = inventory.listed(connection, name)
            inventory.refuse_elsewhere(name, listed)
            tables = inventory.tables(connection, name, listed)
            chosen(tables, policy)
            size = sum(size.bytes for size in inventory.sizes(connection, name).values())
            return {"version": connection.version, "sizeBytes": size, "tables": len(tables)}
    except Error as error:
        what = "looking into the database"
        raise failures.of_error(error, Reason.DATABASE_UNREACHABLE, what) from error
