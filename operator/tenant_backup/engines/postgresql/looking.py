"""A look at a database without reading its rows: what a backup would say."""

from __future__ import annotations

from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Preflight
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines import facts
from tenant_backup.engines.selection import Choice, Policy, leaving_keys, unclaimed

from . import catalogue, clients, endpoint, failures, inventory, session
from .dumping import check
from .endpoint import Connection
from .inventory import Table


def look(job: Preflight) -> dict[str, Any]:
    """Return what `facts.of_look` says. Raises the Failure a backup would end with."""
    login = endpoint.login_from_secret(paths.DATABASE, job.database.secret)
    server = endpoint.find(job.database, login)
    policy = Policy(job.modules, [], job.exclude_tables, job.exclude_columns)
    with server.connect() as connection:
        clients.program("pg_dump", connection.info.server_version)
        endpoint.apply(connection, session.for_reading(connection.info.server_version))
        try:
            choices = check(connection, inventory.tables(connection), policy, login.user)
            return _facts(connection, choices, policy)
        except psycopg.Error as error:
            raise failures.of_error(
                error, Reason.DATABASE_UNREACHABLE, "looking into the database"
            ) from error


def _facts(connection: Connection, choices: list[Choice[Table]], policy: Policy) -> dict[str, Any]:
    size = inventory.scalar(connection, "SELECT pg_database_size(current_database())")
    tables = {choice.table.oid for choice in choices}
    keys = [key for key in inventory.foreign_keys(connection) if key.table in tables]
    return facts.of_look(
        catalogue.server_version(connection),
        int(size),
        sum(choice.table.holds_rows for choice in choices),
        unclaimed(choices, policy),
        leaving_keys(choices, keys),
    )
