"""Identifiers, literals and accounts as SQL text, for sessions with sql_mode = ''."""

from __future__ import annotations

_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0", "\r": "\\r", "\x1a": "\\Z"})


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
    return quoted(database.replace("\\", "\\\\").replace("_", "\\_").replace("%", "\\%"))


def account(current_user: str) -> str:
    """Return user@host, as CURRENT_USER() says it, in quotes."""
    user, _, host = current_user.rpartition("@")
    return f"{literal(user)}@{literal(host)}"
