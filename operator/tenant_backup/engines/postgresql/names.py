"""Identifiers and literals as SQL text, quoted always, by psycopg's own rules."""

from __future__ import annotations

import codecs

from psycopg import sql

from tenant_backup.engines.handles import handle

_CUT = 48  # bytes of a database's name kept; with the suffix it stays within PostgreSQL's 63


def quoted(*parts: str) -> str:
    """Return a possibly qualified identifier, each part in double quotes."""
    return sql.Identifier(*parts).as_string(None)


def codec_of(encoding: str) -> str:
    """Return Python's codec for a server's encoding; without one Latin-1 carries each byte through."""
    name = {"KOI8R": "koi8-r", "KOI8U": "koi8-u", "EUC_CN": "gb2312"}.get(encoding, encoding)
    try:
        return codecs.lookup(name.replace("WIN", "cp")).name
    except LookupError:
        return "latin-1"


def literal(value: str | None) -> str:
    """Return a string literal, or NULL."""
    return sql.Literal(value).as_string(None)


def side_database(target: str, uid: str) -> str:
    """The database a restore builds beside `target`, before it gets that name."""
    return f"{_cut(target)}_new_{handle(uid)}"


def previous_database(target: str, uid: str) -> str:
    """What `target` is called after a restore took its place."""
    return f"{_cut(target)}_old_{handle(uid)}"


def _cut(name: str) -> str:
    return name.encode()[:_CUT].decode(errors="ignore")
