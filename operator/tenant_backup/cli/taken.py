"""Whether the name of a new database is free: asked before anything is read for it.

So a wrong password or host is told at once, in the words of this command line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tenant_backup.contract import job as jobs
from tenant_backup.contract.reasons import Failure, Reason

from .private import write_private
from .server import Login, Server


def refuse_existing(server: Server, owner: Login, job: jobs.Restore, folder: Path) -> None:
    """Raise Failure(NAME_TAKEN) when the database to be created exists and is not half a restore of ours."""
    if server.ca is not None:
        write_private(folder / "ca.crt", server.ca)
    try:
        found = _exists(server, owner, job, folder)
    except Failure as failure:
        if failure.reason is not Reason.DATABASE_UNREACHABLE:
            raise
        message = f"{failure.message}; it has to be a {server.engine} server, as the backup's was"
        raise Failure(failure.reason, message, retriable=True) from None
    if found:
        message = f'database "{job.target_database}" exists on {server.host} and is not touched; choose'
        raise Failure(Reason.NAME_TAKEN, f"{message} another name with --database, or drop it")


def _exists(server: Server, owner: Login, job: jobs.Restore, folder: Path) -> bool:
    if server.engine == "PostgreSQL":
        return _in_postgresql(server, job.target_database, folder)
    return _in_mysql(server, owner, job, folder)


def _in_postgresql(server: Server, database: str, folder: Path) -> bool:
    # Late, and only where a server is met: a driver takes as long to import as all else together.
    import psycopg

    from tenant_backup.engines.postgresql import failures

    try:
        with psycopg.connect(_conninfo(server, folder), autocommit=True) as connection:
            query = "SELECT FROM pg_catalog.pg_database WHERE datname = %s"
            return connection.execute(query, (database,)).fetchone() is not None
    except psycopg.Error as error:
        what = f'connecting to {server.host}:{server.port} as "{server.login.user}"'
        found = failures.of_error(error, Reason.DATABASE_UNREACHABLE, what, retriable=True)
        if found.reason is not Reason.AUTHENTICATION_FAILED:
            raise found from None
        line = failures.error_line(str(error))
        raise Failure(found.reason, f"{what}: {line}; check --user and its password") from None


def _conninfo(server: Server, folder: Path) -> str:
    from psycopg.conninfo import make_conninfo

    from tenant_backup.engines.postgresql.endpoint import SSL_MODES

    passfile = folder / "passfile"
    escaped = server.login.password.replace("\\", "\\\\").replace(":", "\\:")
    write_private(passfile, f"*:*:*:*:{escaped}\n".encode())
    return make_conninfo(
        "",
        host=server.host,
        port=server.port,
        user=server.login.user,
        dbname="postgres",
        passfile=str(passfile),
        sslmode=SSL_MODES[server.tls],
        connect_timeout=10,
        **({"sslrootcert": str(folder / "ca.crt")} if server.ca is not None else {}),
    )


def _in_mysql(server: Server, owner: Login, job: jobs.Restore, folder: Path) -> bool:
    from tenant_backup.engines import reaching
    from tenant_backup.engines.marks import noted
    from tenant_backup.engines.mysql import dialects, endpoint, marking, session

    certificate = str(folder / "ca.crt") if server.ca is not None else ""
    address = reaching.resolve(server.host, server.port, patience=0)
    user = endpoint.Login(server.login.user, server.login.password)
    dialect = dialects.OF_ENGINE[server.engine]
    at = endpoint.Endpoint(server.host, address, server.port, user, dialect, server.tls, certificate, 0)
    with _signing_in("--user"), at.connect("", session.for_reading) as connection:
        mark = marking.of(dialect).read(connection, job.target_database)
    owned = at.as_login(endpoint.Login(owner.user, owner.password))
    with _signing_in("--owner"), owned.connect("", session.for_reading):
        pass
    # What is being restored has its name from the beginning; what a killed restore left is cleared.
    return mark not in (None, noted("restoring", job.uid))


@contextmanager
def _signing_in(option: str) -> Iterator[None]:
    try:
        yield
    except Failure as failure:
        if failure.reason is not Reason.AUTHENTICATION_FAILED:
            raise
        line = failure.message.rpartition("; ")[0]
        raise Failure(failure.reason, f"{line}; check {option} and its password") from None
