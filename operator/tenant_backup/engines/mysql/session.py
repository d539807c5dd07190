"""The settings of every session we open, always explicit.

What somebody set for the server or by init_connect never changes what a backup reads or how a restore
understands it. Text is never converted: names and definitions are UTF-8 as the server keeps them, values have
the bytes of their column's character set.
"""

from __future__ import annotations

from .dialects import Dialect

_ALWAYS = {
    "sql_mode": "''",
    "time_zone": "'+00:00'",  # of TIMESTAMP columns
    "autocommit": "1",
    "completion_type": "'NO_CHAIN'",
    "sql_select_limit": "18446744073709551615",
    "sql_big_selects": "1",
    "sql_safe_updates": "0",
    "sql_auto_is_null": "0",
    "sql_quote_show_create": "1",
    "lock_wait_timeout": "10",  # longer than any statement of an application; a migration is for the next try
    "wait_timeout": "86400",
    "net_read_timeout": "3600",  # an archive that waits for its store does not lose the server
    "net_write_timeout": "3600",
}

# A load meets rows that were allowed when they were written: zero dates, 0 in AUTO_INCREMENT columns, rows
# older than a constraint. Circular foreign keys have no order in which they could be checked.
ROWS_MODE = "'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES'"
_LOADING = {
    "sql_mode": ROWS_MODE,
    "foreign_key_checks": "0",
    "unique_checks": "0",
    # Who first writes to an empty table has it alone until its commit: others wait, and not for nothing.
    "innodb_lock_wait_timeout": "3600",
}
# Nobody can log in meanwhile. A foreign key goes with its tables, whether or not the other one has followed.
_EXCHANGING = {"lock_wait_timeout": "5", "foreign_key_checks": "0"}
# Whoever waits for a lock on all tables makes others wait.
_GUARDING = {
    "autocommit": "0",  # with InnoDB's own locks: of prepared transactions that no session has
    "innodb_table_locks": "1",
    "lock_wait_timeout": "2",
    "innodb_lock_wait_timeout": "2",
}
_TRANSACTIONS = "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE"


def for_reading(dialect: Dialect) -> list[str]:
    """Return the statements that make a session fit for reading."""
    return ["SET NAMES binary", _set({**_ALWAYS, **dialect.always}), _TRANSACTIONS]


def for_loading(dialect: Dialect) -> list[str]:
    """Return the statements that make a session fit for loading."""
    return [
        "SET NAMES binary",
        _set({**_ALWAYS, **dialect.always, **_LOADING, **dialect.loading}),
        _TRANSACTIONS,
    ]


def for_guarding(dialect: Dialect) -> list[str]:
    """Return the statements that make a session fit for keeping tables as they are for a moment."""
    return ["SET NAMES binary", _set({**_ALWAYS, **dialect.always, **_GUARDING}), _TRANSACTIONS]


def for_exchanging(dialect: Dialect) -> list[str]:
    """Return the statements that make a session fit for exchanging what two databases hold."""
    return ["SET NAMES binary", _set({**_ALWAYS, **dialect.always, **_EXCHANGING}), _TRANSACTIONS]


def _set(values: dict[str, str]) -> str:
    return "SET SESSION " + ", ".join(f"{name} = {value}" for name, value in values.items())
