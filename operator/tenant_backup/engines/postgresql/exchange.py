"""Putting databases in each other's place: renames in one transaction, and what a rename would lose.

`live` is the name the application uses. Nobody ever sees it absent or half done: until the commit the old
database answers, afterwards the new one. If we die in between, the server rolls back.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.marks import noted, with_mark
from tenant_backup.engines.replacing import nothing_kept

from . import failures, names
from .administrator import Administrator
from .endpoint import Connection
from .names import literal, quoted

_TRIES = 3
_LOCK_WAIT = "5s"
_PAUSE = 0.05  # seconds between two rounds of ending sessions
_IN_USE = ("55006", "55P03")  # object_in_use, lock_not_available
# Settings whose value is a list of names that carry their own quotes.
_LISTS = ("search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries")
_ELEMENT = re.compile(r'\s*("(?:[^"]|"")*"|[^,"]+)\s*(?:,|$)')

END_SESSIONS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = ANY(%s) AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def carry_over(database: str, like: dict[str, Any], comment: str | None) -> list[str]:
    """Return the statements that give `database` the ACL, settings, comment and limit recorded in `like`."""
    name = quoted(database)
    statements = [
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
        *_grants(name, like),
        *(_setting(name, entry["role"], value) for entry in like["settings"] for value in entry["values"]),
        f"ALTER DATABASE {name} CONNECTION LIMIT {like['connectionLimit']}",
        f"COMMENT ON DATABASE {name} IS {literal(comment)}",
    ]
    return [statement for statement in statements if statement]


def apply_where_allowed(connection: Connection, statements: list[str]) -> list[str]:
    """Run statements one by one; return those this role may not run, or that name a role nobody has here."""
    skipped = []
    for statement in statements:
        try:
            connection.execute(statement)
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise failures.of_error(error, Reason.LOAD_FAILED, "carrying over settings") from error
            skipped.append(statement)
    return skipped


def take_place(
    admin: Administrator, side: str, live: str, previous: str | None, statements: list[str]
) -> None:
    """Rename `live` to `previous` and `side` to `live`, in one transaction with `statements`.

    `previous` is None when there is no live database to keep. Raises Failure.
    """
    renames = [(live, previous)] if previous else []
    _exchange(admin, statements, [*renames, (side, live)])


def switch_back(admin: Administrator, live: str) -> None:
    """Undo a swap: the previous database gets its name back, the restored one is kept under the other's.

    A second call does nothing. Raises DATABASE_NOT_FOUND when nothing is kept.
    """
    previous, side = names.previous_database(live, admin.uid), names.side_database(live, admin.uid)
    kept, present = admin.properties(previous), admin.properties(live)
    if kept is None:
        raise nothing_kept(previous)
    if admin.mark(previous) == noted("undone", admin.uid):
        return
    comments = [f"COMMENT ON DATABASE {quoted(previous)} IS {literal(kept['comment'])}"]
    if present is None:
        _exchange(admin, comments, [(previous, live)])
        return
    mark = with_mark(present["comment"], noted("undone", admin.uid))
    comments.append(f"COMMENT ON DATABASE {quoted(live)} IS {literal(mark)}")
    _exchange(admin, comments, [(live, side), (previous, live), (side, previous)])


def previous_mark(admin: Administrator, previous: str, comment: str | None) -> str:
    """The statement that notes in the kept database what it is; `switch_back` reads it."""
    mark = with_mark(comment, noted("previous", admin.uid))
    return f"COMMENT ON DATABASE {quoted(previous)} IS {literal(mark)}"


def _exchange(admin: Administrator, statements: list[str], renames: list[tuple[str, str]]) -> None:
    commands = [f"ALTER DATABASE {quoted(old)} RENAME TO {quoted(new)}" for old, new in renames]
    ours = [old for old, _ in renames]
    for attempt in range(_TRIES):
        try:
            with _sessions_ended(admin, ours), admin.connection.transaction():
                admin.connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_WAIT}'")
                for command in [*statements, *commands]:
                    admin.connection.execute(command)
            return
        except psycopg.Error as error:
            if error.sqlstate not in _IN_USE or attempt + 1 == _TRIES:
                raise _failure(error) from error


@contextlib.contextmanager
def _sessions_ended(admin: Administrator, databases: list[str]) -> Iterator[None]:
    """End the sessions of databases again and again: a rename waits for them, and applications come back."""
    over = threading.Event()
    with admin.server.connect() as connection:
        thread = threading.Thread(target=_end_sessions, args=(connection, databases, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _end_sessions(connection: Connection, databases: list[str], over: threading.Event) -> None:
    while not over.is_set():
        # Without the right to end a session the rename itself fails, and says so.
        with contextlib.suppress(psycopg.Error):
            connection.execute(END_SESSIONS, (databases,))
        time.sleep(_PAUSE)


def _failure(error: psycopg.Error) -> Failure:
    if error.sqlstate in _IN_USE:
        line = failures.error_line(str(error))
        message = f"the database is still in use: {line}; end its sessions and prepared transactions"
        return Failure(Reason.LOAD_FAILED, message, retriable=True)
    if isinstance(error, psycopg.errors.DuplicateDatabase):
        message = f"the name was taken meanwhile: {failures.error_line(str(error))}; choose another"
        return Failure(Reason.NAME_TAKEN, message)
    return failures.of_error(error, Reason.LOAD_FAILED, "exchanging the databases", retriable=True)


def _grants(name: str, like: dict[str, Any]) -> list[str]:
    return [
        f"REVOKE ALL ON DATABASE {name} FROM {quoted(like['owner'])}",
        *(_grant(name, **entry) for entry in like["acl"]),
    ]


def _grant(name: str, grantee: str, privilege: str, *, grantable: bool) -> str:
    to = quoted(grantee) if grantee else "PUBLIC"
    option = " WITH GRANT OPTION" if grantable else ""
    return f"GRANT {privilege} ON DATABASE {name} TO {to}{option}"


def _setting(name: str, role: str, setting: str) -> str:
    parameter, _, value = setting.partition("=")
    scope = f"ROLE {quoted(role)} IN DATABASE {name}" if role else f"DATABASE {name}"
    return f"ALTER {scope} SET {_parameter(parameter)} TO {_value(parameter, value)}"


def _parameter(name: str) -> str:
    return ".".join(quoted(part) for part in name.split("."))


def _value(parameter: str, value: str) -> str:
    if parameter.lower() not in _LISTS:
        return literal(value)
    elements = [found[1].strip() for found in _ELEMENT.finditer(value)]
    plain = [item[1:-1].replace('""', '"') if item.startswith('"') else item for item in elements]
    return ", ".join(literal(item) for item in plain) or "''"
