r"""Statements as text for the programs `mariadb` and `mysql`, to which nothing of a tenant's is a command.

The programs look for commands of their own (\!, source, delimiter) wherever they take no string to be open,
and read quotes and comments almost, but not quite, as the server does. So only what is made of the plainest
words and strings stands there as it is, on which both agree; all else is a string, which the server executes.
MySQL executes no routines, triggers and events so: they stand between delimiters if all that they are made of
is read alike by the program and the server, and are refused otherwise.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tenant_backup.contract.reasons import Failure, Reason

from . import definitions, inserts, session
from .definitions import Definition
from .dialects import Dialect
from .endpoint import encoded
from .names import literal, quoted

# First, new programs of MariaDB give up the commands that reach their machine, as for a dump of mariadb-dump;
# then every program reads bytes: in some character sets one of ours would swallow the quote that follows it.
_HEAD = r"""/*M!999999\- enable the sandbox mode */
/*!999999\C binary */
"""
_SETTINGS = """SET SESSION time_zone = '+00:00', foreign_key_checks = 0, unique_checks = 0;
/*M!100200 SET SESSION check_constraint_checks = 0 */;
"""
_HISTORY = "SET SESSION system_versioning_insert_history = 1;\n"
_BYTES = "SET NAMES binary;\nSET SESSION sql_mode = {mode};\n"

_PRINTED = ("DATABASE", "SEQUENCE", "TABLE", "VIEW")  # what we and servers print, not what somebody typed
# Tokens, each of which matches in one way only; possessive quantifiers go wrong before Python 3.11.5.
_PLAIN = re.compile(
    r"[A-Za-z0-9_ \n(),.=<>!+%&|^~@:?]+|[-*/](?![-*/!])"
    r"|'[^'\\\r\0]*(?:''[^'\\\r\0]*)*'(?!')|`[^`\\\r\0]*(?:``[^`\\\r\0]*)*`(?!`)"
)
# What both MySQL's program and its server read alike, in a character set in which no byte of a longer
# character is one of ASCII: words, comments, names and strings. In names the program lets backslashes escape.
_WORDS = r"[A-Za-z0-9_ \t\n(),;.=<>!+%&|^~@:?$\[\]{}]+|[^\x00-\x7f]+|-(?!-)|\*(?!/)|/(?!\*)"
_COMMENTS = (
    r"(?:-- |\#)[^\n\r\0\x1a]*\n|/\*(?![!+M])[^*\r\0\x1a]*(?:\*(?!/)[^*\r\0\x1a]*)*\*/"
    r"|/\*\+[A-Za-z0-9_ (),.=@]*\*/"
)
_QUOTED = "|".join(
    rf"{quote}[^{quote}\\\r\0\x1a]*(?:{quote}{quote}[^{quote}\\\r\0\x1a]*)*{quote}(?!{quote})"
    for quote in "`\"'"
)
# Where a backslash escapes.
_ESCAPED = r"'[^'\\\r\0\x1a]*(?:(?:''|\\[^\r\0\x1a])[^'\\\r\0\x1a]*)*'(?!')"
_READ_ALIKE = re.compile(f"{_WORDS}|{_COMMENTS}|{_QUOTED}")
_READ_ALIKE_ESCAPED = re.compile(f"{_WORDS}|{_COMMENTS}|{_QUOTED}|{_ESCAPED}")
# With --named-commands the program knows its own on every line; in small letters only, after `\C binary`.
_WITH_WORDS = "charset|connect|delimiter|edit|help|pager|prompt|query_attributes|source|system|tee|use"
_ALONE = (
    r"\?|clear|ego|exit|go|nopager|notee|nowarning|print|quit|rehash|resetconnection"
    r"|ssl_session_data_print|status|warnings"
)
_COMMAND = re.compile(rf"(?m)^[ \t]*(?:(?:{_WITH_WORDS})(?:[ \t]|$)|(?:{_ALONE})[ \t]*$)")
_CHARACTER_SETS = frozenset({"utf8mb4", "utf8mb3", "latin1", "ascii"})
_NAMES = re.compile(
    r"'[^'\\]*(?:(?:''|\\.)[^'\\]*)*'(?!')|`(?P<name>[^`]*(?:``[^`]*)*)`(?![`.])|`[^`]*(?:``[^`]*)*`(?!`)",
    re.DOTALL,
)
_NO_TABLE_AFTER = (".", "AS ", "` ", ") ")  # but a column or another name for something


def opening(about: Iterable[str], database: dict[str, Any], dialect: Dialect) -> bytes:
    """Return how a script begins; `about` are lines of ours, `database` is the catalogue's."""
    comment = f" COMMENT {literal(database['comment'])}" if database["comment"] else ""
    kind = f"CHARACTER SET {literal(database['characterSet'])} COLLATE {literal(database['collation'])}"
    lines = "".join(f"-- {line}\n" for line in about)
    properties = definition(
        Definition("DATABASE", database["name"], f"ALTER DATABASE {kind}{comment}"), dialect
    )
    return encoded(f"{_HEAD}{lines}{_SETTINGS}") + properties


def definition(item: Definition, dialect: Dialect, *, owners: bool = False) -> bytes:
    """Return what creates it: as whoever runs the script, or with `owners` as its definer.

    Raises UNSUPPORTED_CONTENT for what MySQL's program would not take as it is.
    """
    sql = definitions.owned(item).sql if owners and item.definer else item.sql
    if item.kind in _PRINTED and _made_of(_PLAIN, sql):
        return encoded(f"{item.session};\n{sql};\n")
    if item.kind not in _PRINTED and not dialect.executes_code:
        return _between_delimiters(item, sql)
    held = f"{_BYTES.format(mode=literal(''))}SET @tenant_backup = _binary{literal(sql)};\n"
    return encoded(f"{held}{item.session};\n{dialect.executed.format(text='@tenant_backup')}\n")


def rows(table: dict[str, Any], blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield what loads a table's lines; `table` is the catalogue's with `fill`."""
    history = _HISTORY * table["history"]
    yield encoded(_BYTES.format(mode=session.ROWS_MODE) + history + "START TRANSACTION;\n")
    for statement in inserts.statements(table, quoted(table["table"]), blocks):
        yield statement + b";\n"
    yield b"COMMIT;\n"


def sequence(found: dict[str, Any]) -> bytes:
    """Return what sets a sequence's next value."""
    return encoded(f"DO SETVAL({quoted(found['name'])}, {found['next']}, 0, {found['cycle']});\n")


def code_in_order(found: list[Definition]) -> Iterator[Definition]:
    """Yield what holds no rows: views at the end, so that one which was broken keeps nothing else away."""
    yield from (item for item in found if not definitions.holds_rows(item) and item.kind != "VIEW")
    yield from _views_in_order({item.name: item for item in found if item.kind == "VIEW"})


def refuse_names(engine: dict[str, Any]) -> None:
    """Raise UNSUPPORTED_CONTENT for a name that the program would change: of CR LF it leaves out the CR."""
    names = [name for table in engine["tables"] for name in (table["table"], *table["columns"])]
    for name in [*names, *(item["name"] for item in engine["sequences"])]:
        if "\r" in name:
            message = f"the name {name!r} has a carriage return, which the client program would leave out"
            raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; use `tenant-backup restore`")


def _made_of(tokens: re.Pattern[str], text: str) -> bool:
    """Whether a text is nothing but such tokens."""
    at = 0
    while at < len(text):
        found = tokens.match(text, at)
        if not found:
            return False
        at = found.end()
    return True


def _between_delimiters(item: Definition, sql: str) -> bytes:
    escapes = "NO_BACKSLASH_ESCAPES" not in item.settings.get("sql_mode", "")
    alike = _made_of(_READ_ALIKE_ESCAPED if escapes else _READ_ALIKE, f"{sql}\n")
    known = item.settings.get("character_set_client", "utf8mb4") in _CHARACTER_SETS
    if not alike or not known or _COMMAND.search(sql):
        message = (
            f"{item.kind} {item.name} has what the program mysql may change or take for its own command,"
        )
        advice = "such as a carriage return, or a backslash outside of a string; use `tenant-backup restore`"
        raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message} {advice}")
    end = next(end for end in (f"//{number}//" for number in itertools.count()) if end not in sql)
    # In small letters: after `\C binary` the program knows no others.
    return encoded(f"{item.session};\ndelimiter {end}\n{sql}\n{end}\ndelimiter ;\n")


def _views_in_order(waiting: dict[str, Definition]) -> Iterator[Definition]:
    """Yield views after those that they select from."""
    needs = {name: _tables(view.sql) - {name} for name, view in waiting.items()}
    while waiting:
        free = [name for name in waiting if needs[name].isdisjoint(waiting)]
        # There are no rings, but a name may mean something else inside a view than outside.
        for name in free or list(waiting)[:1]:
            yield waiting.pop(name)


def _tables(sql: str) -> set[str]:
    """Return the names in a view that may be tables or views."""
    found = (match for match in _NAMES.finditer(sql) if match["name"] is not None)
    return {
        match["name"].replace("``", "`")
        for match in found
        if not sql.endswith(_NO_TABLE_AFTER, 0, match.start())
    }
