"""What the server says when it fails, as a reason and one sentence: told apart by number, never by words."""

from __future__ import annotations

from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason

_MESSAGE_LIMIT = 600  # characters of a server's line; a status is not a log

_CREDENTIALS = (Reason.AUTHENTICATION_FAILED, False, "check username and password in the credentials Secret")
_HOST = (
    Reason.AUTHENTICATION_FAILED,
    False,
    "the account may not connect from the cluster: check its host part",
)
_LOCKED = (
    Reason.AUTHENTICATION_FAILED,
    True,
    "a restore does that for a moment; if none runs, start one, or ALTER USER … ACCOUNT UNLOCK",
)
_RIGHT = (Reason.PERMISSION_DENIED, False, "grant the right it names")
_LOST = (Reason.DATABASE_UNREACHABLE, True, "the connection was lost")
_FULL = (Reason.DATABASE_UNREACHABLE, True, "the server has no free connection")
_MOVED = (Reason.DUMP_FAILED, True, "a migration changed tables meanwhile; back up after it")
_WAITED = (Reason.DUMP_FAILED, True, "another session holds or waits for an exclusive lock")
_TLS = (Reason.DATABASE_UNREACHABLE, False, "check tls of the database and the server's certificate")

# error number -> reason, may it heal by itself, what to do
_BY_NUMBER: dict[int, tuple[Reason, bool, str]] = {
    1044: (
        Reason.PERMISSION_DENIED,
        False,
        "check spec.database.name; if there is such a database, GRANT the login its rights on it",
    ),
    1049: (Reason.DATABASE_NOT_FOUND, False, "check spec.database.name"),
    **dict.fromkeys((1045, 1251, 1524, 1698, 1820, 1862, 2054, 2059, 3955), _CREDENTIALS),
    **dict.fromkeys((3118, 4151), _LOCKED),
    1130: _HOST,
    **dict.fromkeys((1095, 1142, 1143, 1227, 1370, 1410), _RIGHT),
    **dict.fromkeys((1053, 1077, 1129, 1152, 1158, 1159, 1160, 1161, 1184, 1927), _LOST),
    **dict.fromkeys((2002, 2003, 2005, 2006, 2012, 2013, 2055, 4031), _LOST),
    **dict.fromkeys((1040, 1203, 1226), _FULL),
    **dict.fromkeys((2026, 3159), _TLS),
    **dict.fromkeys((1051, 1146, 1412, 1932), _MOVED),
    **dict.fromkeys((1205, 1213, 1317, 1969, 3024), _WAITED),
}
_NOT_THERE = {1040, 1053, 2002, 2003, 2005, 2006, 2013}  # of a failed connection


def number(error: Error) -> int:
    """Return the server's or the client library's error number, 0 when it has none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def line(error: Error) -> str:
    """Return the one line that says what went wrong."""
    text = str(error.args[1]) if len(error.args) > 1 else str(error)
    return " ".join(text.split())[:_MESSAGE_LIMIT] or "no message"


def may_come_up(error: Error) -> bool:
    """Whether a failed connection looks like a server that is not there yet, rather than one that refuses."""
    return number(error) in _NOT_THERE


def of_error(error: Error, otherwise: Reason, what: str, *, retriable: bool = False) -> Failure:
    """The failure a server's error describes; `otherwise` when its number is not one we tell apart."""
    known = _BY_NUMBER.get(number(error))
    if known is None or (known[0] is Reason.DUMP_FAILED and otherwise is not Reason.DUMP_FAILED):
        heals = retriable or known == _WAITED
        return Failure(otherwise, f"{what}: {line(error)} ({number(error)})", retriable=heals)
    reason, heals, advice = known
    return Failure(reason, f"{what}: {line(error)} ({number(error)}); {advice}", retriable=heals)
