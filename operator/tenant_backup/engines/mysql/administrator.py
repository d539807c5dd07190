"""What a restore does with administrator rights: it creates and drops databases and one temporary login.

It never runs a statement that a tenant wrote: the temporary login and the tenant's own login do that. What it
creates again when two databases exchange their contents is what the server says is there already.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.handles import handle, temporary_login

from . import failures, inventory, marking, session
from .endpoint import Connection, Endpoint, Login
from .names import granted, literal, quoted

_LOCK_WAIT = 15.0  # seconds
_GONE = 1094  # there is no such session (any more)
_NOT_GIVEN = 1141  # there is no such grant
# What loading needs: no code is created with it, and nothing outside of the database is seen.
_LOADS = "SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES"


@dataclass(frozen=True)
class Administrator:
    """An administrator's connection, bound to one restore."""

    connection: Connection
    server: Endpoint
    uid: str  # of the TenantRestore

    def run(self, statement: str) -> None:
        """Run one statement. Raises Failure; PERMISSION_DENIED names what the administrator lacks."""
        with self._told():
            self.connection.run(statement)

    def alone(self) -> None:
        """Make this session the only one that works on this restore.

        A pod of an earlier attempt may live on, on a node nobody can reach: its session is ended.
        """
        name = literal(f"tenantbackup.dev/{handle(self.uid)}")
        give_up = time.monotonic() + _LOCK_WAIT
        while self.connection.scalar(f"SELECT GET_LOCK({name}, 0)") != "1":
            holder = self.connection.scalar(f"SELECT IS_USED_LOCK({name})")
            if holder:
                self._kill(holder)
            if time.monotonic() > give_up:
                message = (
                    "an earlier attempt of this restore still holds its lock in the server; end its session"
                )
                raise Failure(Reason.LOAD_FAILED, message, retriable=True)
            time.sleep(0.1)

    def properties(self, database: str) -> dict[str, Any] | None:
        """The properties of a database, None when it does not exist."""
        return inventory.properties(self.connection, database)

    def mark(self, database: str) -> str | None:
        """What we noted in a database's comment, empty when nothing, None when there is no such database."""
        return self._marking.read(self.connection, database)

    def create(self, database: str, like: dict[str, Any], mark: str) -> None:
        """Create an empty database, which is never without its mark. Raises Failure."""
        with self._told():
            self._marking.create(self.connection, database, like, mark)

    def note(self, database: str, comment: str | None, mark: str) -> None:
        """Change the mark of a database. Raises Failure."""
        with self._told():
            self._marking.write(self.connection, database, comment, mark)

    def drop(self, database: str) -> None:
        """Drop a database; nothing happens when there is none. Raises Failure."""
        with self._told():
            self._marking.drop(self.connection, database)

    def give(self, database: str, account: str) -> None:
        """Give an account all rights on a database. Raises Failure."""
        self.run(f"GRANT ALL PRIVILEGES ON {granted(database)}.* TO {account}")

    def take(self, database: str, account: str) -> None:
        """Take back what `give` gave, if it did. Raises Failure."""
        try:
            self.connection.run(f"REVOKE ALL PRIVILEGES ON {granted(database)}.* FROM {account}")
        except Error as error:
            if failures.number(error) != _NOT_GIVEN:
                what = "the administrator could not take back the rights on what was not completed"
                raise failures.of_error(error, Reason.LOAD_FAILED, what, retriable=True) from error

    def create_login(self, database: str) -> Login:
        """Create the temporary login, with rights on one database and a password only we know."""
        user, password = temporary_login(self.uid), secrets.token_urlsafe(32)
        # The server never sees the password, so no log of statements has it.
        proof = self.connection.dialect.identified(password)
        # Dropped at the end; if nobody lives to do that, it expires.
        self.run(f"CREATE USER {_anywhere(user)} {proof} PASSWORD EXPIRE INTERVAL 2 DAY")
        self.run(f"GRANT {_LOADS} ON {granted(database)}.* TO {_anywhere(user)}")
        return Login(user, password)

    def drop_login(self) -> None:
        """Drop the temporary login and end its sessions, which would keep its rights. Raises Failure."""
        user = temporary_login(self.uid)
        self.run(f"DROP USER IF EXISTS {_anywhere(user)}")
        self.end_sessions([user])

    def end_sessions(self, users: list[str]) -> None:
        """End all sessions of users who cannot open new ones. Raises Failure."""
        named = ", ".join(literal(user) for user in users)
        query = f"SELECT id FROM information_schema.PROCESSLIST WHERE user IN ({named})"  # noqa: S608
        give_up = time.monotonic() + _LOCK_WAIT
        while users and (living := self.connection.rows(f"{query} AND id <> CONNECTION_ID()")):
            for (number,) in living:
                self._kill(str(number))
            if time.monotonic() > give_up:
                message = (
                    f"sessions of {named} could not be ended; end them, and give the administrator PROCESS"
                )
                raise Failure(Reason.LOAD_FAILED, message, retriable=True)
            time.sleep(0.05)

    @contextlib.contextmanager
    def hold(self, database: str) -> Iterator[None]:
        """Be the only one, of all restores, that exchanges what a database holds. Raises Failure."""
        name = literal(f"tenantbackup.dev/exchange/{handle(database)}")
        if self.connection.scalar(f"SELECT GET_LOCK({name}, {_LOCK_WAIT})") != "1":
            message = f"another restore is just putting its database in the place of {quoted(database)}"
            raise Failure(Reason.LOAD_FAILED, message, retriable=True)
        try:
            yield
        finally:
            with contextlib.suppress(Error):  # a lost session holds nothing
                self.connection.run(f"DO RELEASE_LOCK({name})")

    @property
    def _marking(self) -> marking.Marking:
        return marking.of(self.connection.dialect)

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except Error as error:
            what = "the administrator of adminCredentialsSecretRef could not prepare the restore"
            raise failures.of_error(error, Reason.LOAD_FAILED, what, retriable=True) from error

    def _kill(self, number: str) -> None:
        try:
            self.connection.run(f"KILL CONNECTION {int(number)}")
        except Error as error:
            if failures.number(error) != _GONE:
                what = "the administrator could not end a session of an earlier attempt"
                raise failures.of_error(error, Reason.LOAD_FAILED, what, retriable=True) from error


@contextlib.contextmanager
def administer(server: Endpoint, login: Login, uid: str) -> Iterator[Administrator]:
    """Connect as administrator, alone for this restore. Raises Failure."""
    at = server.as_login(login)
    with at.connect("", session.for_reading) as connection:
        administrator = Administrator(connection, at, uid)
        administrator.alone()
        yield administrator


def _anywhere(user: str) -> str:
    return f"{literal(user)}@'%'"
