"""Is the tenant's database reachable, and may this login read all that a backup needs? Changes nothing."""

from __future__ import annotations

from typing import Any

import psycopg

from tenant_backup.contract import paths
from tenant_backup.contract.job import Job, Preflight
from tenant_backup.contract.reasons import Reason
from tenant_backup.engines.postgresql import catalogue, clients, endpoint, failures, inventory, session
from tenant_backup.engines.postgresql.endpoint import Connection
from tenant_backup.engines.postgresql.selection import Policy

from .dump import check


def run(job: Job) -> dict[str, Any]:
    """Return {database: {version, sizeBytes, tables}}. Raises the Failure a backup would end with."""
    assert isinstance(job, Preflight)
    login = endpoint.login_from_secret(paths.DATABASE, job.database.secret)
    server = endpoint.find(job.database, login)
    policy = Policy(job.modules, [], job.exclude_tables, job.exclude_columns)
    with server.connect() as connection:
        clients.program("pg_dump", connection.info.server_version)
        endpoint.apply(connection, session.for_reading(connection.info.server_version))
        try:
            tables = inventory.tables(connection)
            check(connection, tables, policy, login.user)
            return {"database": _facts(connection, len([table for table in tables if table.kind == "r"]))}
        except psycopg.Error as error:
            raise failures.of_error(
                error, Reason.DATABASE_UNREACHABLE, "looking into the database"
            ) from error


def _facts(connection: Connection, tables: int) -> dict[str, Any]:
    size = inventory.scalar(connection, "SELECT pg_database_size(current_database())")
    return {"version": catalogue.server_version(connection), "sizeBytes": int(size), "tables": tables}
