"""What a restore does with administrator rights, all of it from the maintenance database.

It creates, renames and drops databases and one temporary login. It never connects to a database with
tenant-written code in it: that is the temporary login's work.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.handles import handle, temporary_login

from . import endpoint, failures, properties
from .endpoint import Connection, Endpoint, Login
from .names import literal, quoted

MAINTENANCE = "postgres"
_GRACE = timedelta(hours=1)  # the login outlives the Job's deadline by this much at most

# Whoever holds one of these could reach beyond the database being restored.
_POWERFUL = """
SELECT EXISTS (
  SELECT FROM pg_roles p WHERE pg_has_role(r.oid, p.oid, 'MEMBER')
  AND (p.rolsuper OR p.rolcreaterole OR p.rolreplication OR p.rolname = current_user OR p.rolname IN
       ('pg_execute_server_program', 'pg_write_server_files', 'pg_read_server_files')))
FROM pg_roles r WHERE r.rolname = %s
"""

_HOLDER = """
SELECT pg_terminate_backend(pid) FROM pg_locks
WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND pid <> pg_backend_pid()
"""
_ATTACHED = """
SELECT 'replication slot ' || slot_name FROM pg_replication_slots WHERE database = %(database)s
UNION ALL SELECT 'subscription ' || subname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid
WHERE d.datname = %(database)s
"""
_LOCK_CLASS = 0x7B_AC
_LOCK_WAIT = 15.0  # seconds


@dataclass(frozen=True)
class Administrator:
    """An administrator's connection to the maintenance database, bound to one restore."""

    connection: Connection
    server: Endpoint
    uid: str  # of the TenantRestore

    def run(self, statement: str) -> None:
        """Run one statement. Raises Failure; PERMISSION_DENIED names what the administrator lacks."""
        try:
            self.connection.execute(statement)
        except psycopg.Error as error:
            what = "the administrator of adminCredentialsSecretRef could not prepare the restore"
            raise failures.of_error(error, Reason.LOAD_FAILED, what, retriable=True) from error

    def alone(self) -> None:
        """Make this session the only one that works on this restore.

        A pod of an earlier attempt may live on, on a node nobody can reach. Ending its session takes its
        right to rename anything: it renames on the session that held the lock, or not at all.
        """
        key = (_LOCK_CLASS, int(handle(self.uid), 16) - (1 << 31))
        give_up = time.monotonic() + _LOCK_WAIT
        while not self._scalar("SELECT pg_try_advisory_lock(%s, %s)", key):
            self.connection.execute(_HOLDER, (key[0], key[1] & 0xFFFFFFFF))
            if time.monotonic() > give_up:
                message = (
                    "an earlier attempt of this restore still holds its lock in the server; end its session"
                )
                raise Failure(Reason.LOAD_FAILED, message, retriable=True)
            time.sleep(0.1)

    def properties(self, database: str) -> dict[str, Any] | None:
        """The properties of a database, None when it does not exist."""
        return properties.read(self.connection, database)

    def mark(self, database: str) -> str:
        """What we noted in a database's comment, empty when nothing or no such database."""
        query = "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
        return properties.mark_of(self._scalar(query, (database,)))

    def exists(self, database: str) -> bool:
        """Whether there is such a database."""
        return bool(self._scalar("SELECT true FROM pg_database WHERE datname = %s", (database,)))

    def drop(self, database: str) -> None:
        """Drop a database whoever is connected; nothing happens when there is none. Raises Failure."""
        self.run(f"DROP DATABASE IF EXISTS {quoted(database)} WITH (FORCE)")

    def owner_for(self, candidates: list[str | None]) -> str:
        """Return the first candidate that exists and has no administrator rights.

        Everything of the tenant's runs with that role's rights. Raises PERMISSION_DENIED when there is none.
        """
        for name in candidates:
            if name and self._scalar(_POWERFUL, (name,)) is False:
                return name
        tried = ", ".join(dict.fromkeys(quoted(name) for name in candidates if name))
        message = (
            f"{tried} have administrator rights or do not exist here, and what a tenant wrote must not run so"
        )
        raise Failure(Reason.PERMISSION_DENIED, f"{message}; make an ordinary role the owner of the database")

    @contextlib.contextmanager
    def speaking_for(self, owner: str) -> Iterator[None]:
        """Be a member of `owner`, as an administrator who is no superuser must be to create its databases."""
        if self._scalar("SELECT pg_has_role(%s, 'USAGE')", (owner,)):
            yield
            return
        self._grant(owner, "CURRENT_USER")
        try:
            yield
        finally:
            with contextlib.suppress(psycopg.Error):
                self.connection.execute(f"REVOKE {quoted(owner)} FROM CURRENT_USER")

    def create_login(self, owner: str, lifetime: int) -> Login:
        """Create the temporary login, a member of `owner` and nothing else, with a password only we know."""
        user, password = temporary_login(self.uid), secrets.token_urlsafe(32)
        # The server never sees the password, so no log of statements has it.
        pgconn = self.connection.pgconn
        verifier = pgconn.encrypt_password(password.encode(), user.encode(), b"scram-sha-256").decode()
        until = (datetime.now(UTC) + timedelta(seconds=lifetime) + _GRACE).isoformat()
        limits = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
        proof = f"PASSWORD {literal(verifier)} VALID UNTIL {literal(until)}"
        self.run(f"CREATE ROLE {quoted(user)} LOGIN {limits} {proof}")
        self._grant(owner, quoted(user))
        if not self._scalar("SELECT pg_has_role(%s, 'USAGE')", (user,)):
            self.run(f"GRANT {quoted(user)} TO CURRENT_USER")  # to end its sessions; goes with the role
        return endpoint.write_passfile("login", user, password)

    def drop_login(self) -> None:
        """End the temporary login's sessions and drop it. Raises Failure."""
        user = temporary_login(self.uid)
        query = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE usename = %s"
        self.connection.execute(query, (user,))
        self.run(f"DROP ROLE IF EXISTS {quoted(user)}")

    def create_side(self, database: str, owner: str, like: dict[str, Any]) -> None:
        """Create the empty side database with a recorded encoding and locale, closed to everybody else."""
        locale = _locale(like, self.connection.info.server_version)
        self.run(f"CREATE DATABASE {quoted(database)} TEMPLATE template0 OWNER {quoted(owner)} {locale}")
        self.run(f"REVOKE CONNECT ON DATABASE {quoted(database)} FROM PUBLIC")

    def attached(self, database: str) -> list[str]:
        """Name the slots and subscriptions that stay with a database when its name changes."""
        return [row[0] for row in self.connection.execute(_ATTACHED, {"database": database}).fetchall()]

    def _grant(self, role: str, to: str) -> None:
        """Make somebody a member of a role. From version 16 on CREATEROLE alone does not allow that."""
        try:
            self.connection.execute(f"GRANT {quoted(role)} TO {to}")
        except psycopg.errors.InsufficientPrivilege as error:
            us = quoted(self.connection.info.user)
            line = failures.error_line(str(error))
            message = f"the administrator may not lend the rights of the database's owner: {line}"
            advice = f"run: GRANT {quoted(role)} TO {us} WITH ADMIN OPTION"
            raise Failure(Reason.PERMISSION_DENIED, f"{message}; {advice}") from error

    def _scalar(self, query: str, parameters: tuple[Any, ...]) -> Any:
        row = self.connection.execute(query, parameters).fetchone()
        return row[0] if row else None


@contextlib.contextmanager
def administer(server: Endpoint, login: Login, uid: str) -> Iterator[Administrator]:
    """Connect to the maintenance database as administrator, alone for this restore. Raises Failure."""
    at = server.as_login(login).on(MAINTENANCE)
    with at.connect() as connection:
        administrator = Administrator(connection, at, uid)
        administrator.alone()
        yield administrator


def _locale(like: dict[str, Any], server: int) -> str:
    parts = [
        f"ENCODING {literal(like['encoding'])}",
        f"LC_COLLATE {literal(like['collate'])}",
        f"LC_CTYPE {literal(like['ctype'])}",
        f"LOCALE_PROVIDER {like['provider']}",
    ]
    if like["provider"] == "icu":
        parts.append(f"ICU_LOCALE {literal(like['locale'])}")
    if like["provider"] == "icu" and like["icuRules"] and server >= 160000:
        parts.append(f"ICU_RULES {literal(like['icuRules'])}")
    if like["provider"] == "builtin":
        parts.append(f"BUILTIN_LOCALE {literal(like['locale'])}")
    return " ".join(parts)
