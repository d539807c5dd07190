"""Where a server is and who we are there: the door to every connection and every client program.

No password is kept here: libpq reads it from a passfile of mode 0600 in the scratch folder, so it is neither
in an argument, nor in the environment, nor in an error. The host is resolved once, because a name that stands
for several servers would open the workers of one snapshot on different ones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
from psycopg.conninfo import make_conninfo

from tenant_backup.contract import paths
from tenant_backup.contract.job import Database
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines import reaching

from . import failures, session

PATIENCE = 15.0  # seconds a server may take to come up before it counts as unreachable
_CONNECT_TIMEOUT = 5  # seconds for one try
SSL_MODES = {"Disable": "disable", "Prefer": "prefer", "Require": "require", "VerifyFull": "verify-full"}

Connection = psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True)
class Login:
    """A name at a server and the passfile that holds its password."""

    user: str
    passfile: Path


@dataclass(frozen=True)
class Endpoint:
    """One database at one resolved address, with one login."""

    host: str
    address: str  # resolved; empty for a Unix socket
    port: int
    database: str
    login: Login
    sslmode: str = "prefer"
    sslrootcert: str = ""

    def on(self, database: str) -> Endpoint:
        """The same server and login, another database."""
        return replace(self, database=database)

    def as_login(self, login: Login) -> Endpoint:
        """The same server and database, another login."""
        return replace(self, login=login)

    def conninfo(self, settings: Mapping[str, str] | None = None, **more: str) -> str:
        """Return a connection string without any secret; `settings` are added to the session's."""
        values = {
            "host": self.host,
            "hostaddr": self.address,
            "port": str(self.port),
            "dbname": self.database,
            "user": self.login.user,
            "passfile": str(self.login.passfile),
            "sslmode": self.sslmode,
            "sslrootcert": self.sslrootcert,
            "connect_timeout": str(_CONNECT_TIMEOUT),
            # A server that vanished without a word is noticed within half a minute of silence, and an idle
            # control connection outlives a firewall's patience.
            "keepalives_idle": "10",
            "keepalives_interval": "5",
            "keepalives_count": "3",
            "application_name": "tenant-backup",
            "options": session.options(**(settings or {})),
            **more,
        }
        return make_conninfo("", **{key: value for key, value in values.items() if value})

    def connect(self, settings: Mapping[str, str] | None = None, patience: float = PATIENCE) -> Connection:
        """Open an autocommit connection with every session setting explicit.

        Waits up to `patience` seconds for a server that is coming up. Raises Failure, INVALID_SPEC when a
        connection pooler stands before the server.
        """
        give_up = time.monotonic() + patience
        while True:
            try:
                return self._opened(settings)
            except psycopg.OperationalError as error:
                text = str(error)
            if failures.is_of_a_pooler(text):
                raise self._pooler()
            if not failures.may_come_up(text):
                raise failures.of_text(text, Reason.DATABASE_UNREACHABLE, self._what())
            if time.monotonic() > give_up:
                raise reaching.unreachable(self.host, self.port, failures.error_line(text))
            time.sleep(0.3)

    def _opened(self, settings: Mapping[str, str] | None) -> Connection:
        connection = psycopg.connect(self.conninfo(settings), autocommit=True, prepare_threshold=None)
        try:
            # Before anything is set: a pooler would hand our settings on to the application.
            self._refuse_pooler(connection)
            _prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _refuse_pooler(self, connection: Connection) -> None:
        """The process we were told at the start of the session has to be the one that answers now."""
        row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
        if row is None or row[0] != connection.info.backend_pid:
            raise self._pooler()

    def _pooler(self) -> Failure:
        """A session of a pooler is not ours alone, or has not the settings it was opened with."""
        message = f"{self.host}:{self.port} is a connection pooler, not a PostgreSQL server"
        why = "it may change session or settings under a backup, which would not be exact any more"
        advice = "set host and port of the Tenant's database to those of the server itself"
        return Failure(Reason.INVALID_SPEC, f"{message}: {why}; {advice}")

    def _what(self) -> str:
        return f'connecting to database "{self.database}" at {self.host}:{self.port} as "{self.login.user}"'


def find(database: Database, login: Login, name: str | None = None) -> Endpoint:
    """Resolve the server's host once. Raises Failure(DATABASE_UNREACHABLE) or KEY_MISSING (no CA)."""
    return Endpoint(
        host=database.host,
        address=reaching.resolve(database.host, database.port, PATIENCE),
        port=database.port,
        database=name or database.name,
        login=login,
        sslmode=SSL_MODES[database.tls_mode],
        sslrootcert=reaching.root_certificate(database),
    )


def login_from_secret(folder: str, secret: str) -> Login:
    """Read username and password below paths.SECRETS. Raises SECRET_NOT_FOUND or KEY_MISSING by name."""
    return write_passfile(folder, *reaching.credentials(folder, secret))


def write_passfile(name: str, user: str, password: str) -> Login:
    """Put a password where libpq reads it, readable by nobody else."""
    path = paths.SCRATCH / f"{name}.pgpass"
    path.unlink(missing_ok=True)
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"*:*:*:*:{escaped}\n")
    return Login(user, path)


def apply(connection: Connection, settings: Mapping[str, str]) -> None:
    """Change settings of an open session."""
    for name, value in settings.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


def _prepare(connection: Connection) -> None:
    apply(connection, session.for_version(connection.info.server_version))
    encoding = connection.info.parameter_status("server_encoding") or "UTF8"
    # Names of a database without an encoding are bytes: Latin-1 carries each one through unchanged.
    wanted = "LATIN1" if encoding == "SQL_ASCII" else encoding
    if connection.info.parameter_status("client_encoding") != wanted:
        apply(connection, {"client_encoding": wanted})
