"""What the server, psql, pg_dump and pg_restore say when they fail, as a reason and one sentence.

Errors of a statement are told apart by SQLSTATE. libpq gives none for a failed connection, and pg_dump
and pg_restore print none, so there the server's English words decide; unknown words, and those of a server
that speaks another language, keep the caller's reason.
"""

from __future__ import annotations

import re

import psycopg

from tenant_backup.contract.reasons import Failure, Reason

# Two blanks stand after the severity, whatever the server's language.
_SQLSTATE_IN_LINE = re.compile(r":  ([0-9A-Z]{5}): (.*)")
_MESSAGE_LIMIT = 600  # characters of a server's line; a status is not a log

_RECOVERY = (
    "a standby ends what holds up its recovery: set hot_standby_feedback or raise"
    " max_standby_streaming_delay there, or back up the primary"
)

# SQLSTATE or its first 3 or 2 characters -> reason (None: the caller's), may it heal by itself (None: as the
# caller knows), what to do. From the appendix "PostgreSQL Error Codes" of the manual; states not listed here
# say nothing that the server's own line does not.
_BY_STATE: dict[str, tuple[Reason | None, bool | None, str]] = {
    "08": (Reason.DATABASE_UNREACHABLE, True, "the connection was lost"),
    "08P01": (Reason.DATABASE_UNREACHABLE, False, "what answers there does not speak as PostgreSQL does"),
    "22": (None, False, "the value it names cannot be read or written here"),
    "23": (None, False, "rows break a rule of their table"),
    "25006": (None, False, "the server only reads: a standby cannot be restored to, its primary can"),
    "25P03": (Reason.DATABASE_UNREACHABLE, True, "a limit of the server ended the session"),
    "25P04": (Reason.DATABASE_UNREACHABLE, True, "a limit of the server ended the session"),
    "28": (Reason.AUTHENTICATION_FAILED, False, "check username and password in the credentials Secret"),
    "3D000": (Reason.DATABASE_NOT_FOUND, False, "check spec.database.name"),
    "40": (None, True, "other sessions were in the way"),
    "40001": (None, True, _RECOVERY),
    "42501": (Reason.PERMISSION_DENIED, False, "grant the right it names"),
    "53": (None, True, "the server is short of what it names"),
    "53100": (None, False, "make room on the server's disk"),
    "53300": (Reason.DATABASE_UNREACHABLE, True, "the server has no free connection"),
    "53400": (None, False, "raise the limit it names"),
    "54": (None, False, "it is larger than the server can handle at once"),
    "55006": (None, True, "end the sessions that use it"),
    "55P03": (None, True, "another session holds or waits for an exclusive lock"),
    "57014": (None, True, "somebody, or a limit of the server, cancelled it"),
    "57P": (Reason.DATABASE_UNREACHABLE, True, "the server ended the connection"),
    "57P04": (Reason.DATABASE_NOT_FOUND, False, "it was dropped meanwhile"),
    "58": (None, True, "the server's own system failed; its log says more"),
    "P0": (None, False, "a function in the database raised it"),
    "XX001": (None, False, "the database is damaged: repair it, and keep the backups there are"),
    "XX002": (None, False, "an index is damaged: REINDEX it"),
}

# words of a failed connection, pg_dump or pg_restore -> the SQLSTATE the server meant
_BY_WORDS: tuple[tuple[str, str], ...] = (
    (r"password authentication failed|no password supplied|authentication failed for user", "28P01"),
    (r"FATAL.* role .* does not exist|no pg_hba\.conf entry|pg_hba\.conf rejects", "28000"),
    (r"is not permitted to log in|OAuth|SASL authentication mechanisms", "28000"),
    (r"FATAL.* database .* does not exist", "3D000"),
    (r"permission denied|must be (?:superuser|owner|member)|must have (?:the|privileges|admin)", "42501"),
    (r"too many (?:clients|connections)|remaining connection slots", "53300"),
    (r"starting up|shutting down|in recovery mode|not (?:yet )?accepting", "57P03"),
    (r"conflict with recovery", "40001"),
    (r"deadlock detected", "40P01"),
    (r"in a read-only transaction", "25006"),
    (r"due to (?:idle-in-transaction|transaction) timeout", "25P03"),
    (r"terminating connection|server closed the connection|connection to server was lost", "57P01"),
    (r"SSL SYSCALL|could not (?:receive|send) data", "57P01"),
    (r"lock timeout|could not obtain lock", "55P03"),
    (r"canceling statement", "57014"),
    (r"No space left", "53100"),
    (r"out of memory", "53200"),
)
_NOT_THERE = re.compile(
    r"refused|could not translate host|Name or service|timeout expired|timed out|No route|unreachable"
    r"|server closed the connection|Connection reset"  # what stands before the server, without one behind it
    r"|No such file|Temporary failure|57P03|starting up|shutting down|in recovery mode|not yet accepting"
)
_POOLER = re.compile(r"unsupported startup parameter|RDS Proxy")


def is_of_a_pooler(text: str) -> bool:
    """Whether a pooler (PgBouncer, that of RDS) refuses the settings of a session, in words of its own."""
    return bool(_POOLER.search(text))


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
    said = re.compile(r"\b(?:ERROR|FATAL|PANIC|error):|:  [0-9A-Z]{5}: ")
    told = [line for line in lines if said.search(line)]
    chosen = (told or lines or ["no message"])[0]
    return chosen[:_MESSAGE_LIMIT]


def _state_by_words(line: str) -> str:
    return next((state for words, state in _BY_WORDS if re.search(words, line)), "")


def _of_state(state: str, line: str, otherwise: Reason, what: str, retriable: bool) -> Failure:
    for length in (5, 3, 2):
        known = _BY_STATE.get(state[:length]) if state else None
        if known:
            reason, heals, advice = known
            may_heal = retriable if heals is None else heals
            return Failure(reason or otherwise, f"{what}: {line}; {advice}", retriable=may_heal)
    return Failure(otherwise, f"{what}: {line}", retriable=retriable)
