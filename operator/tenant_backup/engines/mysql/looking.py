"""A look at a database without reading its rows: what a backup would say."""

from __future__ import annotations

from typing import Any

from MySQLdb import Error

from tenant_backup.contract.job import Preflight
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines import facts
from tenant_backup.engines.selection import Policy, leaving_keys, unclaimed

from . import failures, inventory, session
from .dumping import chosen, refuse_blind, server_of


def look(job: Preflight) -> dict[str, Any]:
    """Return what `facts.of_look` says. Raises the Failure a backup would end with."""
    policy = Policy(job.modules, [], job.exclude_tables, job.exclude_columns)
    name = job.database.name
    try:
        with server_of(job).connect(name, session.for_reading) as connection:
            refuse_blind(connection, name)
            listed = inventory.listed(connection, name)
            inventory.refuse_elsewhere(name, listed)
            keys = inventory.primary_keys(connection, name)
            tables = inventory.tables(connection, name, listed, keys)
            choices = chosen(tables, policy)
            size = sum(size.bytes for size in inventory.sizes(connection, name).values())
            leaving = leaving_keys(choices, inventory.foreign_keys(connection, name, tables))
            return facts.of_look(connection.version, size, len(tables), unclaimed(choices, policy), leaving)
    except Error as error:
        what = "looking into the database"
        raise failures.of_error(error, Reason.DATABASE_UNREACHABLE, what) from error
