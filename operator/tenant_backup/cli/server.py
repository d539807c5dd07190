"""A database server as a command line names it, and who we are there."""

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

from .private import write_secret

_F = TypeVar("_F", bound=Callable[..., Any])
_FILE = click.Path(path_type=Path, dir_okay=False)
PORTS = {"PostgreSQL": 5432, "MariaDB": 3306, "MySQL": 3306}
# Variables of their own client programs.
_PASSWORDS = {"PostgreSQL": "PGPASSWORD", "MariaDB": "MYSQL_PWD", "MySQL": "MYSQL_PWD"}
Engine = Literal["PostgreSQL", "MariaDB", "MySQL"]
TlsMode = Literal["Disable", "Prefer", "Require", "VerifyFull"]


@dataclass(frozen=True)
class Login:
    """A name and its password, which is never shown."""

    user: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class Server:
    """Where it is, and how to speak with it."""

    engine: Engine
    host: str
    port: int
    login: Login
    tls: TlsMode
    ca: bytes | None  # PEM; with VerifyFull only
    connections: int

    def database(self, name: str) -> jobs.Database:
        """Return what a job is told of one of its databases."""
        return jobs.Database(self.engine, self.host, self.port, name, self.tls, self.connections)

    def write_secrets(self, folder: Path, **roles: Login) -> None:
        """Write logins for the stages, each under the name of its role, and its certificate authority."""
        for role, login in roles.items():
            write_secret(folder, role, {"username": login.user, "password": login.password})
        if self.ca is not None:
            write_secret(folder, paths.DATABASE_CA, {"ca.crt": self.ca})


def server_login(function: _F) -> _F:
    """Take --user, --password-file and --tls-ca as one `sign_in`, which asks for a password if need be."""

    @functools.wraps(function)
    def call(
        *before: Any, user: str | None, password_file: Path | None, tls_ca: Path | None, **rest: Any
    ) -> Any:
        return function(*before, sign_in=SignIn(user, password_file, tls_ca), **rest)

    for option in (_TLS_CA, _PASSWORD_FILE, _USER):
        call = option(call)
    return cast(_F, call)


@dataclass(frozen=True)
class SignIn:
    """Who signs in and where the password is."""

    user: str | None
    password_file: Path | None
    tls_ca: Path | None

    def server(self, engine: Engine, host: str, port: int, connections: int) -> Server:
        """Return the server; asks for the password on a terminal. Raises Failure(KEY_MISSING)."""
        if self.user is None:
            raise click.UsageError("--user is needed: the login at the server")
        login = self._login(self.user, _PASSWORDS[engine])
        if self.tls_ca is None:
            return Server(engine, host, port, login, "Prefer", None, connections)
        return Server(engine, host, port, login, "VerifyFull", _read(self.tls_ca), connections)

    def _login(self, user: str, variable: str) -> Login:
        if self.password_file is not None:
            return Login(user, _password(self.password_file))
        password = os.environ.get(variable)
        if password is None and sys.stdin.isatty():
            password = click.prompt(f"Password of {user}", hide_input=True, err=True, default="")
        if password is None:
            message = "there is no password; put it into a file and name that with --password-file"
            raise Failure(Reason.KEY_MISSING, message)
        return Login(user, password)


def owner_of(server: Server, user: str | None, password_file: Path | None) -> Login:
    """Return whose a new database becomes. Raises Failure(KEY_MISSING)."""
    if user is None:
        return server.login
    if password_file is not None:
        return Login(user, _password(password_file))
    if server.engine != "PostgreSQL":
        message = f"{server.engine} lets only an account itself make its views and routines; put the password"
        raise Failure(Reason.KEY_MISSING, f"{message} of {user} into a file, --owner-password-file")
    return Login(user, "")


def _password(file: Path) -> str:
    return _read(file).decode(errors="replace").rstrip("\r\n")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(Reason.KEY_MISSING, f"{file} cannot be read ({error.strerror})") from None


_USER = click.option("--user", help="Login at the server.")
_PASSWORD_FILE = click.option(
    "--password-file",
    type=_FILE,
    help="File with its password; else $PGPASSWORD or $MYSQL_PWD, else it is asked for on a terminal.",
)
_TLS_CA = click.option(
    "--tls-ca", type=_FILE, help="Certificate authority (PEM); with it the host is verified."
)
