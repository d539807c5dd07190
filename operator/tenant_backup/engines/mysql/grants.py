"""What a login may do, read from SHOW GRANTS, and what is missing, as the GRANT to run.

A table, trigger, event or routine that a login may not see is not listed to it: it would be missing in a
backup without a word. So rights are asked for on the whole database, before anything is read.
"""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from dataclasses import dataclass

from tenant_backup.contract.reasons import Failure, Reason

from .dialects import Dialect
from .endpoint import Connection
from .names import (
    account,
    granted,
    granted_journals,
    granted_previous,
    granted_sides,
    journal_database,
    previous_database,
    quoted,
    side_database,
)

_LINE = re.compile(
    r"(?P<verb>GRANT|REVOKE) (?P<rights>.+?) ON (?P<kind>\*\.\*|`(?P<database>(?:[^`]|``)*)`\.\*)"
    r" (?:TO|FROM) `(?:[^`]|``)*`(?P<host>@)?"  # a role has no host
    r"(?P<option>.* WITH GRANT OPTION)?"
)
_EXACT = re.compile(r"(?:\\.|[^_%\\])*", re.DOTALL)  # what comes before a pattern's first wildcard
_NEEDED = ("SELECT", "SHOW VIEW", "TRIGGER", "EVENT")
_CREATES_LOGINS = ("CREATE USER",)


@dataclass(frozen=True)
class Rights:
    """The rights of one account: on the server, and on one database with those of the server."""

    account: str  # user@host, quoted
    everywhere: frozenset[str]
    here: frozenset[str]
    pattern: str  # the one of its own that holds here, as SHOW GRANTS says it; empty: none
    dialect: Dialect

    def may(self, right: str) -> bool:
        """Whether it has a right on the database."""
        return right in self.here or ("ALL PRIVILEGES" in self.here and right != "GRANT OPTION")

    def may_everywhere(self, right: str) -> bool:
        """Whether it has a right on the whole server."""
        return right in self.everywhere or "ALL PRIVILEGES" in self.everywhere

    @property
    def beyond(self) -> list[str]:
        """Rights on the whole server that let it reach beyond its databases."""
        return sorted(self.everywhere - self.dialect.harmless)


def of_session(connection: Connection, database: str) -> Rights:
    """Read the rights of the account that is connected, its active role's included."""
    lines = [str(row[0]) for row in connection.rows("SHOW GRANTS")]
    name = account(str(connection.scalar("SELECT CURRENT_USER()")))
    return parse(lines, name, database, connection.dialect)


def parse(lines: list[str], name: str, database: str, dialect: Dialect) -> Rights:
    """Read the lines of SHOW GRANTS.

    Of the patterns that mean a database the server takes the most exact one alone: what others grant does not
    hold. It does so once for the account and once for its role, whose rights are added.
    """
    everywhere: set[str] = set()
    revoked: set[str] = set()  # here, of what it has everywhere
    own: defaultdict[str, set[str]] = defaultdict(set)
    role: defaultdict[str, set[str]] = defaultdict(set)
    for line in lines:
        found = _LINE.match(line)
        if not found:
            continue
        rights = {right.strip() for right in found["rights"].split(",")}
        rights |= {"GRANT OPTION"} if found["option"] else set()
        if found["verb"] == "REVOKE":
            revoked |= rights if matches(found["database"].replace("``", "`"), database) else set()
        elif found["kind"] == "*.*":
            everywhere |= rights
        elif matches(found["database"].replace("``", "`"), database):
            (own if found["host"] else role)[found["database"]] |= rights
    pattern = max(own, key=_exactness, default="")
    here = everywhere - revoked | own[pattern] | role[max(role, key=_exactness, default="")]
    return Rights(name, frozenset(everywhere), frozenset(here), pattern, dialect)


@dataclass(frozen=True)
class Need:
    """Rights that an administrator has to have on one database."""

    database: str
    where: str  # as GRANT takes it: the database, or all of its kind
    only: str = ""  # one right instead of all of them

    def missing(self, rights: Rights) -> str:
        """Return the GRANT to run, empty when nothing is missing."""
        if all(rights.may(right) for right in ([self.only] if self.only else rights.dialect.all_rights)):
            return ""
        # Where it has rights already: a more exact GRANT would hide those.
        where = f"`{rights.pattern}`" if rights.pattern else self.where
        what, option = (self.only, "") if self.only else ("ALL PRIVILEGES", " WITH GRANT OPTION")
        return f"GRANT {what} ON {where}.* TO {rights.account}{option}"


def refuse_weak(connection: Connection, target: str, uid: str, *, exchanges: bool) -> None:
    """Raise PERMISSION_DENIED, with each GRANT to run, unless the session's account may do a restore's work.

    That is to create the database `target`; with `exchanges` to exchange what it holds.
    """
    if connection.scalar(connection.dialect.literal_grants) == "1":
        message = "the server has partial_revokes, where GRANT takes names of databases otherwise"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; restores need it to be OFF")
    needs = [Need(target, granted(target))]
    if exchanges:
        needs += [
            Need(side_database(target, uid), granted_sides(target)),
            Need(previous_database(target, uid), granted_previous(target)),
        ]
    if exchanges or not connection.dialect.has_comments:
        needs.append(Need(journal_database(uid), granted_journals()))
    if exchanges:
        needs.append(Need("mysql", "`mysql`", "SELECT"))  # who has rights on the database
    everywhere = connection.dialect.exchanges if exchanges else _CREATES_LOGINS
    found = [of_session(connection, need.database) for need in needs]
    missing = [line for need, rights in zip(needs, found, strict=True) if (line := need.missing(rights))]
    lacks = [right for right in everywhere if not found[0].may_everywhere(right)]
    if lacks:
        missing.insert(0, f"GRANT {', '.join(lacks)} ON *.* TO {found[0].account}")
    if missing:
        message = f"{found[0].account} of adminCredentialsSecretRef lacks rights for this restore"
        raise Failure(Reason.PERMISSION_DENIED, f"{message}; run: {'; '.join(missing)}")


def refuse_blind(rights: Rights, database: str) -> None:
    """Raise PERMISSION_DENIED, with the GRANT to run, unless everything in the database is listed to it."""
    missing = [right for right in _NEEDED if not rights.may(right)]
    if not any(rights.may(right) for right in rights.dialect.sees_routines):
        missing.append("EXECUTE")
    if missing:
        # Where it has rights already: a more exact GRANT would hide those.
        where = f"`{rights.pattern}`" if rights.pattern else granted(database)
        on = f"GRANT {', '.join(missing)} ON {where}.* TO {rights.account}"
        message = f"{rights.account} would not see everything in {quoted(database)}"
        raise Failure(Reason.PERMISSION_DENIED, f"{message}; run: {on}")


def matches(pattern: str, database: str) -> bool:
    """Whether a grant's pattern, in which _ and % stand for others unless escaped, means a database."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    wild = {"_": "?", "%": "*"}
    return fnmatch.fnmatchcase(database, "".join(wild.get(part) or _exactly(part) for part in parts))


def _exactness(pattern: str) -> int:
    """How much of a pattern comes before its first wildcard; one without any is the most exact."""
    found = _EXACT.match(pattern)
    assert found
    return len(pattern) + 1 if found.end() == len(pattern) else found.end()


def _exactly(part: str) -> str:
    character = part[1:] if part.startswith("\\") and len(part) > 1 else part
    return f"[{character}]" if character in "*?[" else character
