"""A look at a database without reading its rows: what a backup would say."""

from __future__ import annotations

from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Preflight
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines.selection import Policy

from . import catalogue, clients, endpoint, failures, inventory, session
from .dumping import check
from .endpoint import Connection


def look(job: Preflight) -> dict[str, Any]:
    """Return {version, sizeBytes, tables}. Raises the Failure a backup would end with."""
    login = endpoint.login_from_secret(paths.DATABASE, job.database.secret)
    server = endpoint.find(job.database, login)
    policy = Policy(job.modules, [], job.exclude_tables, job.exclude_columns)
    with server.connect() as connection:
        clients.program("pg_dump", connection.info.server_version)
        endpoint.apply(connection, session.for_reading(connection.info.server_version))
        try:
            tables = inventory.tables(connection)
            check(connection, tables, policy, login.user)
            return _facts(connection, len([table for table in tables if table.holds_rows]))
        except psycopg.Error as error:
            raise failures.of_error(
                error, Reason.DATABASE_UNREACHABLE, "looking into the database"
            ) from error


def _facts(connection: Connection, tables: int) -> dict[str, Any]:
    size = inventory.scalar(connection, "SELECT pg_database_size(current_database())")
    return {"version": catalogue.server_version(connection), "sizeBytes": int(size), "tables": tables}
