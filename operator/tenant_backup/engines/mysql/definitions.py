"""Definitions, as the server writes them (SHOW CREATE), one statement each.

A script for the server's client program would be run by that program, whose own commands (system, source) a
tenant's comment could hold; and its sessions would wait for ever behind a migration that waits for us. Single
statements say nothing to anybody but the server.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason

from . import failures, versions
from .dialects import Dialect
from .endpoint import Connection, Row, encoded
from .inventory import KeyPart, Listed
from .names import account, granted, literal, quoted

SEGMENT = "schema"
# What a definition that says nothing else is written for.
_PLAIN = {
    "sql_mode": "",
    "time_zone": "+00:00",
    "character_set_client": "utf8mb4",
    "collation_connection": "utf8mb4_general_ci",
}

_NAME = r"(?:`(?:[^`]|``)*`|\"(?:[^\"]|\"\")*\")"
_CREATE = r"(CREATE (?:OR REPLACE )?(?:ALGORITHM=\w+ )?)"
_DEFINER = re.compile(rf"{_CREATE}DEFINER=({_NAME})(?:@({_NAME}))? ")
_HEAD = re.compile(_CREATE)
_STATUS = re.compile(
    rf"(CREATE EVENT {_NAME} ON SCHEDULE (?:'(?:[^'\\]|''|\\.)*'|[^'])*? ON COMPLETION (?:NOT )?PRESERVE )"
    r"(DISABLE ON SLAVE|DISABLE ON REPLICA|DISABLE|ENABLE)\b",
    re.DOTALL,
)

# Strings and names are skipped: they may say the same.
_PRIMARY_KEY = re.compile(
    r"'(?:[^'\\]|''|\\.)*'|PRIMARY KEY \((?P<parts>`(?:[^`]|``)*`(?:[^`()]|\(\d+\)|`(?:[^`]|``)*`)*)\)"
    r"|`(?:[^`]|``)*`",
    re.DOTALL,
)
_KEY_PART = re.compile(
    r"`(?P<name>(?:[^`]|``)*)`(?P<length>\(\d+\))?(?P<descending> DESC)?(?P<period> WITHOUT OVERLAPS)?",
    re.DOTALL,
)

# Before a sequence that a default takes its values from, and before every table of a view that also reads
# from another database, the server writes the name of the database; but a string may say the same.
_OWN_NAME = r"(?P<own>(?<!\.){database}\.(?=`))|'(?:[^'\\]|''|\\.)*'|`(?:[^`]|``)*`"

_VIEWS = "SELECT table_name FROM information_schema.VIEWS WHERE table_schema = {database} ORDER BY 1"
# Packages before their bodies.
_ROUTINES = """
SELECT routine_type, routine_name FROM information_schema.ROUTINES
WHERE routine_schema = {database} ORDER BY routine_type, routine_name
"""
_EVENTS = "SELECT event_name FROM information_schema.EVENTS WHERE event_schema = {database} ORDER BY 1"
# In parts: the statement as it was typed may name its database, and so would end up in that one.
_TRIGGERS = """
SELECT trigger_name, action_timing, event_manipulation, event_object_table, action_statement, definer,
       sql_mode, collation_connection
FROM information_schema.TRIGGERS WHERE trigger_schema = {database}
ORDER BY event_object_table, event_manipulation, action_timing, action_order
"""

_NOT_YET = {1054, 1146, 1305, 1356, 1449}  # what a view names is not there (yet)
# An ordinary account may not create it here.
NOT_OURS = frozenset({1044, 1142, 1143, 1227, 1370, 1418, 1419})


@dataclass(frozen=True)
class Definition:
    """One statement, with the session it was written for."""

    kind: str  # SEQUENCE, TABLE, VIEW, FUNCTION, PROCEDURE, PACKAGE, PACKAGE BODY, TRIGGER, EVENT
    name: str
    sql: str  # without definer
    definer: str = ""  # user@host
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def session(self) -> str:
        """The statement that makes a session the one it was written for."""
        values = {**_PLAIN, **self.settings}.items()
        return "SET SESSION " + ", ".join(f"{name} = {literal(value)}" for name, value in values)

    def run(self, connection: Connection) -> None:
        """Create it in the session's database. Raises Error."""
        connection.run(self.session)
        connection.run(encoded(self.sql))


def read_sequences(connection: Connection, database: str, listed: list[Listed]) -> list[Definition]:
    """Read the sequences of a listing."""
    return [_plain(connection, "SEQUENCE", database, item.name) for item in listed if not item.holds_rows]


def read_table(connection: Connection, database: str, name: str) -> Definition:
    """Read one table."""
    # The server asks again of a default that is no date, such as 2023-02-31.
    item = _relative(_plain(connection, "TABLE", database, name), database)
    return dataclasses.replace(item, settings={"sql_mode": "ALLOW_INVALID_DATES"})


def primary_key(table: Definition) -> list[KeyPart] | None:
    """Return a table's primary key, empty without one; None where only the server knows its columns."""
    found = next((match for match in _PRIMARY_KEY.finditer(table.sql) if match["parts"]), None)
    if found is None:
        return []
    parts = list(_KEY_PART.finditer(found["parts"]))
    if any(part["period"] for part in parts):
        return None
    names = [part["name"].replace("``", "`") for part in parts]
    return [
        KeyPart(name, bool(part["descending"]), not part["length"])
        for name, part in zip(names, parts, strict=True)
    ]


def read_code(connection: Connection, database: str) -> list[Definition]:
    """Read the code of the session's database alone. Raises PERMISSION_DENIED for what is not shown."""
    return [
        *_routines(connection, database),
        *_views(connection, database),
        *_triggers(connection, database),
        *_events(connection, database),
    ]


def to_blob(found: Iterable[Definition]) -> bytes:
    """Return definitions as JSON, one on each line; bytes that are no UTF-8 are escaped surrogates."""
    return b"".join(json.dumps(dataclasses.asdict(item)).encode("ascii") + b"\n" for item in found)


def from_blob(blob: bytes) -> list[Definition]:
    """Read what `to_blob` wrote."""
    return [Definition(**json.loads(line)) for line in blob.splitlines()]


def holds_rows(item: Definition) -> bool:
    """Whether it is made before the rows come; all else is code."""
    return item.kind in ("SEQUENCE", "TABLE")


def create(connection: Connection, found: Iterable[Definition]) -> None:
    """Create sequences and tables. Raises Failure."""
    for item in found:
        try:
            item.run(connection)
        except Error as error:
            raise failures.of_error(error, Reason.LOAD_FAILED, _shown(item)) from error


def create_code(
    connection: Connection, found: list[Definition], tolerated: frozenset[int] = NOT_OURS
) -> list[str]:
    """Create routines, views, triggers and events as the session's account; return what could not be.

    That is views that were broken before, and what the server refused with one of the errors `tolerated`.
    Raises Failure.
    """
    routines = [item for item in found if item.kind not in ("VIEW", "TRIGGER", "EVENT")]
    views = [item for item in found if item.kind == "VIEW"]
    others = [item for item in found if item.kind in ("TRIGGER", "EVENT")]
    told = _each(connection, routines, tolerated)
    told += _views_in_turn(connection, views, tolerated)
    return told + _each(connection, others, tolerated)


def owned(item: Definition) -> Definition:
    """Return the definition of code with its definer in the statement, for whoever may create it for others.

    Without one it would become the creator's, so code that has none is a bug.
    """
    assert item.definer, f"{_shown(item)} has no definer"
    user, at, host = item.definer.rpartition("@")
    # A role has no host.
    definer = f"{quoted(user)}@{quoted(host)}" if at and host else quoted(user or host)
    head = _HEAD.match(item.sql)
    assert head, f"{_shown(item)} is not created"
    return dataclasses.replace(item, sql=f"{head[0]}DEFINER={definer} {item.sql[head.end() :]}")


def parked(item: Definition, dialect: Dialect) -> Definition:
    """Return an event that does not run, but says that it did; everything else as it is."""
    return _with_status(item, "ENABLE", dialect.parked)


def woken(item: Definition, dialect: Dialect) -> Definition:
    """Return what `parked` was given."""
    return _with_status(item, dialect.parked, "ENABLE")


def drop(connection: Connection, item: Definition) -> None:
    """Drop code of the session's database. Raises Error."""
    # In its own sql_mode: packages are known in one only.
    sql = f"DROP {item.kind} IF EXISTS {quoted(item.name)}"
    dataclasses.replace(item, sql=sql).run(connection)


def others(found: Iterable[Definition], owner: str) -> dict[str, int]:
    """Count what belonged to other accounts than `owner` (user@host), by account."""
    counted: dict[str, int] = {}
    for item in found:
        if item.definer and item.definer != owner:
            counted[item.definer] = counted.get(item.definer, 0) + 1
    return counted


def _each(connection: Connection, found: list[Definition], tolerated: frozenset[int]) -> list[str]:
    told = []
    for item in found:
        try:
            item.run(connection)
        except Error as error:
            if failures.number(error) not in tolerated:
                raise failures.of_error(error, Reason.LOAD_FAILED, _shown(item)) from error
            told.append(f"{_shown(item)}: {failures.line(error)}")
    return told


def _views_in_turn(connection: Connection, waiting: list[Definition], tolerated: frozenset[int]) -> list[str]:
    """Create views that others select from first: try until nothing changes any more."""
    while waiting:
        left = [(item, error) for item in waiting if (error := _tried(connection, item, tolerated))]
        if len(left) == len(waiting):
            return [f"{_shown(item)}: {failures.line(error)}" for item, error in left]
        waiting = [item for item, _ in left]
    return []


def _tried(connection: Connection, item: Definition, tolerated: frozenset[int]) -> Error | None:
    try:
        item.run(connection)
    except Error as error:
        if failures.number(error) in _NOT_YET | tolerated:
            return error
        raise failures.of_error(error, Reason.LOAD_FAILED, _shown(item)) from error
    return None


def _shown(item: Definition) -> str:
    return f"{item.kind} {item.name}"


def _with_status(item: Definition, status: str, wanted: str) -> Definition:
    found = _STATUS.match(item.sql) if item.kind == "EVENT" else None
    if not found or found[2] != status:
        return item
    return dataclasses.replace(item, sql=found[1] + wanted + item.sql[found.end() :])


def _plain(connection: Connection, kind: str, database: str, name: str) -> Definition:
    row = connection.rows(f"SHOW CREATE {kind} {quoted(database, name)}")[0]
    return Definition(kind, name, str(row[1]))


def relative(sql: str, database: str) -> str:
    """Return SQL that the server wrote, naming what is in `database` without that one's name."""
    pattern = _OWN_NAME.format(database=re.escape(quoted(database)))
    return re.sub(pattern, lambda found: "" if found["own"] else found[0], sql, flags=re.DOTALL)


def _relative(item: Definition, database: str) -> Definition:
    return dataclasses.replace(item, sql=relative(item.sql, database))


def _views(connection: Connection, database: str) -> Iterator[Definition]:
    for (name,) in connection.rows(_VIEWS.format(database=literal(database))):
        row = connection.rows(f"SHOW CREATE VIEW {quoted(database, str(name))}")[0]
        yield _relative(_owned("VIEW", str(name), str(row[1]), _charsets(row[2:4])), database)


def _routines(connection: Connection, database: str) -> Iterator[Definition]:
    for kind, name in connection.rows(_ROUTINES.format(database=literal(database))):
        row = connection.rows(f"SHOW CREATE {kind} {quoted(database, str(name))}")[0]
        if row[2] is None:
            raise _kept_back(connection, database, f"{kind} {name}")
        yield _owned(str(kind), str(name), row[2], {"sql_mode": str(row[1]), **_charsets(row[3:5])})


def _events(connection: Connection, database: str) -> Iterator[Definition]:
    for (name,) in connection.rows(_EVENTS.format(database=literal(database))):
        row = connection.rows(f"SHOW CREATE EVENT {quoted(database, str(name))}")[0]
        settings = {"sql_mode": str(row[1]), "time_zone": str(row[2]), **_charsets(row[4:6])}
        yield _owned("EVENT", str(name), str(row[3]), settings)


def _triggers(connection: Connection, database: str) -> Iterator[Definition]:
    for row in connection.rows(_TRIGGERS.format(database=literal(database))):
        name, timing, event, table, body, definer, mode, collation = map(str, row)
        head = f"CREATE TRIGGER {quoted(name)} {timing} {event} ON {quoted(table)} FOR EACH ROW "
        settings = {"sql_mode": mode, "collation_connection": collation}
        yield Definition("TRIGGER", name, head + body, definer, settings)


def _charsets(row: Row) -> dict[str, str]:
    return {"character_set_client": str(row[0]), "collation_connection": str(row[1])}


def _owned(kind: str, name: str, sql: str, settings: dict[str, str]) -> Definition:
    """Take the definer out of a statement: whoever creates it again becomes that."""
    found = _DEFINER.match(sql)
    if not found:
        return Definition(kind, name, sql, "", settings)
    parts = [part[1:-1].replace(part[0] * 2, part[0]) for part in found.groups()[1:] if part]
    return Definition(kind, name, found[1] + sql[found.end() :], "@".join(parts), settings)


def _kept_back(connection: Connection, database: str, what: str) -> Failure:
    who = account(str(connection.scalar("SELECT CURRENT_USER()")))
    right = connection.dialect.shows_routine(versions.major(connection.version), granted(database))
    message = f"the server does not show the text of {what} to {who}; run: GRANT {right} TO {who}"
    return Failure(Reason.PERMISSION_DENIED, message)
