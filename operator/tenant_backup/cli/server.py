"""A PostgreSQL server as a command line names it, and who we are there."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import click

from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason

from .private import write_private, write_secret

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)
_SSL_MODES = {"Disable": "disable", "Prefer": "prefer", "Require": "require", "VerifyFull": "verify-full"}
TlsMode = Literal["Disable", "Prefer", "Require", "VerifyFull"]


@dataclass(frozen=True)
class Login:
    """A name and its password, which is never shown."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Server:
    """Where it is, and how to speak with it."""

    host: str
    port: int
    login: Login
    tls: TlsMode
    ca: bytes | None  # PEM; with VerifyFull only
    connections: int

    def database(self, name: str) -> jobs.Database:
        """Return what a job is told of one of its databases."""
        return jobs.Database("PostgreSQL", self.host, self.port, name, self.tls, self.connections)

    def refuse_existing(self, database: str, folder: Path) -> None:
        """Raise Failure(NAME_TAKEN) when the database exists, before anything is read for it."""
        # Late, and only where a server is met: psycopg takes as long to import as all else together.
        import psycopg

        from tenant_backup.engines.postgresql import failures

        try:
            with psycopg.connect(self._conninfo("postgres", folder), autocommit=True) as connection:
                query = "SELECT FROM pg_catalog.pg_database WHERE datname = %s"
                taken = connection.execute(query, (database,)).fetchone() is not None
        except psycopg.Error as error:
            what = f'connecting to {self.host}:{self.port} as "{self.login.user}"'
            found = failures.of_error(error, Reason.DATABASE_UNREACHABLE, what, retriable=True)
            if found.reason is not Reason.AUTHENTICATION_FAILED:
                raise found from None
            line = failures.error_line(str(error))
            raise Failure(found.reason, f"{what}: {line}; check --user and its password") from None
        if taken:
            message = f'database "{database}" exists on {self.host} and is not touched; choose another name'
            raise Failure(Reason.NAME_TAKEN, f"{message} with --database, or drop it")

    def write_secrets(self, folder: Path, *roles: str, user: str = "") -> None:
        """Write its login for the stages under the names of `roles`, and its certificate authority."""
        for role in roles:
            write_secret(folder, role, {"username": user or self.login.user, "password": self.login.password})
        if self.ca is not None:
            write_secret(folder, paths.DATABASE_CA, {"ca.crt": self.ca})

    def _conninfo(self, database: str, folder: Path) -> str:
        from psycopg.conninfo import make_conninfo

        passfile = folder / "passfile"
        escaped = self.login.password.replace("\\", "\\\\").replace(":", "\\:")
        write_private(passfile, f"*:*:*:*:{escaped}\n".encode())
        more = {}
        if self.ca is not None:
            write_private(folder / "ca.crt", self.ca)
            more["sslrootcert"] = str(folder / "ca.crt")
        return make_conninfo(
            "",
            host=self.host,
            port=self.port,
            user=self.login.user,
            dbname=database,
            passfile=str(passfile),
            sslmode=_SSL_MODES[self.tls],
            connect_timeout=10,
            **more,
        )


def server_login(function: _F) -> _F:
    """Take --user, --password-file and --tls-ca as one `sign_in`, which asks for a password if need be."""

    @functools.wraps(function)
    def call(*before: Any, user: str, password_file: Path | None, tls_ca: Path | None, **rest: Any) -> Any:
        return function(*before, sign_in=SignIn(user, password_file, tls_ca), **rest)

    for option in (_TLS_CA, _PASSWORD_FILE, _USER):
        call = option(call)
    return cast(_F, call)


@dataclass(frozen=True)
class SignIn:
    """Who signs in and where the password is."""

    user: str
    password_file: Path | None
    tls_ca: Path | None

    def server(self, host: str, port: int, connections: int, tls: TlsMode = "Prefer") -> Server:
        """Return the server; asks for the password on a terminal. Raises Failure(KEY_MISSING)."""
        if self.tls_ca is None:
            return Server(host, port, self._login(), tls, None, connections)
        return Server(host, port, self._login(), "VerifyFull", _read(self.tls_ca), connections)

    def _login(self) -> Login:
        if self.password_file is not None:
            return Login(self.user, _read(self.password_file).decode(errors="replace").rstrip("\r\n"))
        password = os.environ.get("PGPASSWORD")
        if password is None and sys.stdin.isatty():
            password = click.prompt(f"Password of {self.user}", hide_input=True, err=True, default="")
        if password is None:
            message = "there is no password; put it into a file and name that with --password-file"
            raise Failure(Reason.KEY_MISSING, message)
        return Login(self.user, password)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(Reason.KEY_MISSING, f"{file} cannot be read ({error.strerror})") from None


_USER = click.option("--user", required=True, help="Login at the server.")
_PASSWORD_FILE = click.option(
    "--password-file",
    type=_FILE,
    help="File with its password; else $PGPASSWORD, else it is asked for on a terminal.",
)
_TLS_CA = click.option(
    "--tls-ca", type=_FILE, help="Certificate authority (PEM); with it the host is verified."
)
