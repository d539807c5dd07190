"""Who has rights on a database: the accounts that are locked out while it changes its contents."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tenant_backup.contract.reasons import Failure, Reason

from . import grants
from .definitions import Definition
from .endpoint import Connection
from .names import granted, literal, quoted

_ROLE = re.compile(r"[`'\"]?(?P<user>[^`'\",@ ]+)[`'\"]?(?:@[`'\"]?(?P<host>[^`'\", ]+)[`'\"]?)?")
_PATTERNS = "SELECT user, host, db FROM mysql.db"
# Rights on single tables and routines name the database as it is.
_PARTS = """
SELECT user, host FROM mysql.tables_priv WHERE db = {database}
UNION SELECT user, host FROM mysql.procs_priv WHERE db = {database}
"""


@dataclass(frozen=True, order=True)
class Account:
    """An account of the server; a role of MariaDB has no host."""

    user: str
    host: str

    @property
    def sql(self) -> str:
        """The account as statements name it."""
        return f"{literal(self.user)}@{literal(self.host)}"


def of_applications(connection: Connection, database: str) -> list[Account]:
    """List the accounts that are not locked and have rights on a database, by whatever grant on it or role.

    Rights on the whole server are an administrator's, who is not locked out. Raises PERMISSION_DENIED when
    everybody has rights.
    """
    having = {
        Account(str(user), str(host))
        for user, host, pattern in connection.rows(_PATTERNS)
        if grants.matches(str(pattern), database)
    }
    parts = connection.rows(_PARTS.format(database=literal(database)))
    having |= {Account(str(user), str(host)) for user, host in parts}
    found = connection.rows(connection.dialect.members)
    members = [(Account(str(r), str(at)), Account(str(u), str(h))) for r, at, u, h in found]
    while more := {account for role, account in members if role in having} - having:
        having |= more
    for role in _everybodys(connection) & having:
        name = role.sql if role.host else role.user
        message = f"everybody ({role.user}) has rights on {quoted(database)}, and cannot be locked out of it"
        advice = f"give them to accounts, and run: REVOKE ALL PRIVILEGES ON {granted(database)}.* FROM {name}"
        raise Failure(Reason.PERMISSION_DENIED, f"{message}; {advice}")
    lockable = {Account(str(user), str(host)) for user, host in connection.rows(connection.dialect.lockable)}
    return sorted(having & lockable)


def _everybodys(connection: Connection) -> set[Account]:
    """List the roles that every account has."""
    said = connection.scalar(connection.dialect.everybodys) or ""
    named = [(found["user"], found["host"]) for found in _ROLE.finditer(said)]
    return {Account(user, at) for user, host in named for at in ([host] if host else ["", "%"])}


def definers_of_views(connection: Connection, code: Iterable[Definition]) -> list[Account]:
    """List the accounts that views belong to and that exist."""
    wanted = {item.definer for item in code if item.kind == "VIEW"}
    existing = [Account(str(user), str(host)) for user, host in connection.rows(connection.dialect.existing)]
    return [account for account in existing if f"{account.user}@{account.host}" in wanted]


def lock(connection: Connection, accounts: list[Account]) -> None:
    """Let nobody log in with these accounts; sessions stay. Raises Error."""
    _alter(connection, accounts, "LOCK")


def unlock(connection: Connection, accounts: list[Account]) -> None:
    """Let them log in again. Raises Error."""
    _alter(connection, accounts, "UNLOCK")


def _alter(connection: Connection, accounts: list[Account], how: str) -> None:
    if accounts:
        named = ", ".join(account.sql for account in accounts)
        connection.run(f"ALTER USER IF EXISTS {named} ACCOUNT {how}")
