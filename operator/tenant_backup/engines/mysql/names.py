"""Identifiers, literals and accounts as SQL text, for sessions with sql_mode = ''."""

from __future__ import annotations

from tenant_backup.engines.handles import handle

_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0", "\r": "\\r", "\x1a": "\\Z"})
# No tenant's rights reach that far, not even those on all databases whose names begin like its own: what is
# in a journal is carried out with an administrator's rights.
JOURNALS = "~tenantbackup_"
REGISTRY = f"{JOURNALS}marks"  # of MySQL: what MariaDB's databases have behind their comments
_CUT = 48  # characters of a database's name kept; with the suffix it stays within MariaDB's 64


def quoted(*parts: str) -> str:
    """Return a possibly qualified identifier, each part in backticks."""
    return ".".join(f"`{part.replace('`', '``')}`" for part in parts)


def literal(value: str | None) -> str:
    """Return a string literal, or NULL. What client programs change or stop at is escaped, too."""
    return "NULL" if value is None else f"'{value.translate(_ESCAPES)}'"


def text(value: str | None) -> str:
    """Return a value that somebody wrote, as text of its own in a session without a character set."""
    return "NULL" if value is None else f"_utf8mb4{literal(value)}"


def granted(database: str) -> str:
    """Return a database as GRANT takes it, where _ and % would stand for others, too."""
    return quoted(_escaped(database))


def side_database(target: str, uid: str) -> str:
    """The database a Replace builds beside `target`, and where tables wait while others change places."""
    return f"{_side(target)}{handle(uid)}"


def previous_database(target: str, uid: str) -> str:
    """The database that takes what `target` held before a restore took its place."""
    return f"{_previous(target)}{handle(uid)}"


def journal_database(uid: str) -> str:
    """The database with the journal of an exchange."""
    return f"{JOURNALS}{handle(uid)}"


def granted_journals() -> str:
    """Return the journals of all exchanges as GRANT takes them."""
    return quoted(f"{_escaped(JOURNALS)}%")


def granted_sides(target: str) -> str:
    """Return the side databases of all restores of `target` as GRANT takes them."""
    return quoted(f"{_escaped(_side(target))}%")


def granted_previous(target: str) -> str:
    """Return the previous databases of all restores of `target` as GRANT takes them."""
    return quoted(f"{_escaped(_previous(target))}%")


def account(current_user: str) -> str:
    """Return user@host, as CURRENT_USER() says it, in quotes."""
    user, _, host = current_user.rpartition("@")
    return f"{literal(user)}@{literal(host)}"


def _side(target: str) -> str:
    return f"{target[:_CUT]}_new_"


def _previous(target: str) -> str:
    return f"{target[:_CUT]}_old_"


def _escaped(database: str) -> str:
    return database.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%")
