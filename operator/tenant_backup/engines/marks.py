"""What we note behind a database's comment: names say whose work a database is, a mark how far that got."""

from __future__ import annotations

from .handles import handle

MARK = "\ntenantbackup.dev/"  # begins what we add to a database's comment; never carried over


def noted(word: str, uid: str) -> str:
    """Return what a restore notes of a database: how far it got with it."""
    return f"{word} {handle(uid)}"


def without_mark(comment: str | None) -> str | None:
    """Return a comment as its author wrote it."""
    return (comment or "").partition(MARK)[0] or None


def mark_of(comment: str | None) -> str:
    """Return what we noted in a comment, empty when it is not ours."""
    return (comment or "").partition(MARK)[2]


def with_mark(comment: str | None, mark: str) -> str:
    """Return a comment with our note behind it."""
    return f"{without_mark(comment) or ''}{MARK}{mark}"
