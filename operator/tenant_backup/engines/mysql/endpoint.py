"""Where a server is and who we are there: the door to every connection.

The host is resolved once, because a name that stands for several servers would open the sessions of one
restore on different ones.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from MySQLdb import Error, _mysql

from tenant_backup.contract.job import Database
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines import reaching

from . import failures, greeting, versions
from .dialects import OF_ENGINE, Dialect

PATIENCE = 15.0  # seconds a server may take to come up before it counts as unreachable
_CONNECT_TIMEOUT = 5  # seconds for one try
_NO_TLS = 2026  # a TLS connection could not be made

_KEEPALIVE = {socket.TCP_KEEPIDLE: 10, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}  # seconds, tries

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Login:
    """A name at a server and its password, which is never shown."""

    user: str
    password: str = field(repr=False)


class Connection:
    """One session. Text goes in and comes out as UTF-8; bytes that are none survive as surrogates."""

    def __init__(self, raw: Any, dialect: Dialect) -> None:
        """Take over a connection of the client library."""
        self.raw = raw
        self.dialect = dialect
        self.version = ""  # of the server, as people write it
        # Of our own: the library closes its descriptor when the server is gone, and the number is reused.
        self._socket = socket.socket(fileno=os.dup(raw.fileno()))
        # A server that vanished without a word is noticed within half a minute of silence.
        if self._socket.family != socket.AF_UNIX:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE.items():
                self._socket.setsockopt(socket.IPPROTO_TCP, option, value)

    def run(self, statement: str | bytes) -> int:
        """Run one statement, drop its rows if it has any; return how many rows it changed. Raises Error."""
        self._query(statement)
        self.raw.store_result()
        return int(self.raw.affected_rows())

    def rows(self, query: str) -> list[Row]:
        """Return all rows of a query, each value as text. Raises Error."""
        self._query(query)
        return [_texts(row) for row in self.raw.store_result().fetch_row(0)]

    def scalar(self, query: str) -> str | None:
        """Return the first column of the first row, None when there is no row."""
        found = self.rows(query)
        return found[0][0] if found else None

    def cut(self) -> None:
        """Cut the connection from any thread: whoever waits for the server gets an error at once."""
        with suppress(OSError):  # it was gone already
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the session."""
        self.raw.close()
        self._socket.close()

    def _query(self, statement: str | bytes) -> None:
        self.raw.query(statement if isinstance(statement, bytes) else encoded(statement))


@dataclass(frozen=True)
class Endpoint:
    """One server at one resolved address, with one login."""

    host: str
    address: str  # resolved; empty for a Unix socket
    port: int
    login: Login
    dialect: Dialect
    tls_mode: str = "Prefer"
    root_certificate: str = ""
    patience: float = PATIENCE  # seconds for a server that is coming up

    def as_login(self, login: Login) -> Endpoint:
        """The same server, another login."""
        return replace(self, login=login)

    @contextmanager
    def connect(
        self,
        database: str,
        settings: Callable[[Dialect], list[str]],
        *,
        sends_files: bool = False,
    ) -> Iterator[Connection]:
        """Open a session, in a database unless that is empty, and make it what `settings` (see session) says.

        With `sends_files` the server may ask for the data of LOAD DATA LOCAL. Raises Failure.
        """
        connection = self._opened({**self._arguments(database), "local_infile": int(sends_files)})
        try:
            said = str(connection.raw.get_server_info())
            connection.version = versions.supported(said, self.dialect)
            self._refuse_clear_text(connection)
            for statement in settings(self.dialect):
                connection.run(statement)
            yield connection
        finally:
            connection.close()

    def _opened(self, arguments: dict[str, Any]) -> Connection:
        give_up = time.monotonic() + self.patience
        while True:
            try:
                return Connection(_mysql.connect(**self._not_in_clear_text(arguments)), self.dialect)
            except Error as error:
                if failures.number(error) == _NO_TLS and self.tls_mode == "Prefer":
                    arguments = {**arguments, "ssl_mode": "DISABLED"}
                    continue
                what = f'connecting to {self.host}:{self.port} as "{self.login.user}"'
                if not failures.may_come_up(error):
                    raise failures.of_error(error, Reason.DATABASE_UNREACHABLE, what) from None
                line = failures.line(error)
            if time.monotonic() > give_up:
                raise reaching.unreachable(self.host, self.port, line)
            time.sleep(0.3)

    def _arguments(self, database: str) -> dict[str, Any]:
        verified = self.tls_mode == "VerifyFull"
        where: dict[str, Any] = {"host": self.host if verified else self.address, "port": self.port}
        if not self.address:
            where = {"unix_socket": self.host}
        # PREFERRED would mean no TLS to this library, and REQUIRED means it where the server has it.
        tls: dict[str, Any] = {"ssl_mode": "REQUIRED"}
        if verified:
            tls = {"ssl_mode": "VERIFY_IDENTITY", "ssl": {"ca": self.root_certificate}}
        elif self.tls_mode == "Disable":
            tls = {"ssl_mode": "DISABLED"}
        return {
            **where,
            **tls,
            "user": self.login.user,
            "password": self.login.password,
            "connect_timeout": _CONNECT_TIMEOUT,
            **({"database": database} if database else {}),
        }

    def _not_in_clear_text(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return arguments that TLS is asked for by only if there is any.

        Else the library would take the connection for protected, and MySQL's plugin send the password itself.
        """
        if not self.dialect.tells_passwords or arguments["ssl_mode"] != "REQUIRED":
            return arguments
        if greeting.offers_tls(self.address or self.host, self.port, _CONNECT_TIMEOUT):
            return arguments
        if self.tls_mode == "Require":
            raise self._without_tls()
        return {**arguments, "ssl_mode": "DISABLED"}

    def _refuse_clear_text(self, connection: Connection) -> None:
        if self.tls_mode in ("Require", "VerifyFull") and not _cipher(connection):
            raise self._without_tls()

    def _without_tls(self) -> Failure:
        message = f"{self.host}:{self.port} offers no TLS, and tls.mode is {self.tls_mode}"
        advice = "give the server a certificate, or set another mode"
        return Failure(Reason.DATABASE_UNREACHABLE, f"{message}; {advice}")


def find(database: Database, login: Login) -> Endpoint:
    """Resolve the server's host once. Raises Failure(DATABASE_UNREACHABLE) or KEY_MISSING (no CA)."""
    return Endpoint(
        host=database.host,
        address=reaching.resolve(database.host, database.port, PATIENCE),
        port=database.port,
        login=login,
        dialect=OF_ENGINE[database.engine],
        tls_mode=database.tls_mode,
        root_certificate=reaching.root_certificate(database),
        patience=PATIENCE,
    )


def _cipher(connection: Connection) -> str:
    """The cipher of the connection, empty when it is in the clear."""
    found = connection.rows("SHOW SESSION STATUS LIKE 'Ssl_cipher'")
    return (found[0][1] or "") if found else ""


def encoded(text: str) -> bytes:
    """Return what `Connection.rows` made text of as the bytes that the server sent."""
    return text.encode("utf-8", "surrogateescape")


def _texts(row: tuple[bytes | None, ...]) -> Row:
    return tuple(None if value is None else value.decode("utf-8", "surrogateescape") for value in row)
