"""What the server, psql, pg_dump and pg_restore say when they fail, as a reason and one sentence.

Errors of a statement are told apart by SQLSTATE. libpq gives none for a failed connection, and pg_dump
and pg_restore print none, so there the server's English words decide; unknown words keep the caller's reason.
"""

from __future__ import annotations

import re

import psycopg

from tenant_backup.contract.reasons import Failure, Reason

_SQLSTATE_IN_LINE = re.compile(r"(?:ERROR|FATAL|PANIC):\s+([0-9A-Z]{5}): (.*)")
_MESSAGE_LIMIT = 600  # characters of a server's line; a status is not a log

# SQLSTATE or class -> reason, may it heal by itself, what to do
_BY_STATE: dict[str, tuple[Reason, bool, str]] = {
    "28": (Reason.AUTHENTICATION_FAILED, False, "check username and password in the credentials Secret"),
    "3D000": (Reason.DATABASE_NOT_FOUND, False, "check spec.database.name"),
    "42501": (Reason.PERMISSION_DENIED, False, "grant the right it names"),
    "08": (Reason.DATABASE_UNREACHABLE, True, "the connection was lost"),
    "57P": (Reason.DATABASE_UNREACHABLE, True, "the server ended the connection"),
    "53300": (Reason.DATABASE_UNREACHABLE, True, "the server has no free connection"),
    "55P03": (Reason.DUMP_FAILED, True, "another session holds or waits for an exclusive lock"),
}

# words of a failed connection -> the SQLSTATE the server meant
_BY_WORDS: tuple[tuple[str, str], ...] = (
    (r"password authentication failed|no password supplied|authentication failed for user", "28P01"),
    (
        r"role .* does not exist|no pg_hba\.conf entry|is not permitted to log in|pg_hba\.conf rejects",
        "28000",
    ),
    (r"database .* does not exist", "3D000"),
    (r"permission denied|must be (?:superuser|owner|member)|must have (?:the|privileges|admin)", "42501"),
    (r"too many (?:clients|connections)|remaining connection slots", "53300"),
    (r"starting up|shutting down|in recovery mode|not yet accepting", "57P03"),
    (r"terminating connection|server closed the connection|connection to server was lost", "57P01"),
    (r"SSL SYSCALL|could not (?:receive|send) data", "57P01"),
    (r"lock timeout|could not obtain lock|due to statement timeout", "55P03"),
)
_NOT_THERE = re.compile(
    r"refused|could not translate host|Name or service|timeout expired|timed out|No route|unreachable"
    r"|server closed the connection|Connection reset"  # what stands before the server, without one behind it
    r"|No such file|Temporary failure|57P03|starting up|shutting down|in recovery mode|not yet accepting"
)


def may_come_up(text: str) -> bool:
    """Whether a failed connection looks like a server that is not there yet, rather than one that refuses."""
    return bool(_NOT_THERE.search(text))


def of_text(text: str, otherwise: Reason, what: str, *, retriable: bool = False) -> Failure:
    """The failure a client program's output describes; `otherwise` when its words say nothing known."""
    line = error_line(text)
    found = _SQLSTATE_IN_LINE.search(line)
    state = found[1] if found else _state_by_words(line)
    return _of_state(state, found[2] if found else line, otherwise, what, retriable)


def of_error(error: psycopg.Error, otherwise: Reason, what: str, *, retriable: bool = False) -> Failure:
    """The failure a psycopg error describes; `otherwise` when its SQLSTATE is not one we tell apart."""
    line = error_line(error.diag.message_primary or str(error))
    lost = isinstance(error, psycopg.OperationalError) and error.sqlstate is None
    state = error.sqlstate or _state_by_words(line) or ("08006" if lost else "")
    return _of_state(state, line, otherwise, what, retriable)


def error_line(text: str) -> str:
    """Return the one line of `text` that says what went wrong, without the program's own prefix."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = [line for line in lines if re.search(r"\b(ERROR|FATAL|PANIC|error):", line)]
    chosen = (told or lines or ["no message"])[0]
    return chosen[:_MESSAGE_LIMIT]


def _state_by_words(line: str) -> str:
    return next((state for words, state in _BY_WORDS if re.search(words, line)), "")


def _of_state(state: str, line: str, otherwise: Reason, what: str, retriable: bool) -> Failure:
    for length in (5, 3, 2):
        known = _BY_STATE.get(state[:length]) if state else None
        if known:
            reason, heals, advice = known
            return Failure(reason, f"{what}: {line}; {advice}", retriable=heals)
    return Failure(otherwise, f"{what}: {line}", retriable=retriable)
