"""The settings of every session we open, always explicit.

They travel as start-up options, which win over ALTER ROLE … SET and ALTER DATABASE … SET, so that a setting
somebody made for a person at a keyboard never changes what a backup reads or how a restore understands it.
"""

from __future__ import annotations

_ALWAYS = {
    "role": "none",  # ALTER ROLE … SET role would read as somebody else
    "row_security": "off",  # an error instead of missing rows
    "search_path": "",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "TimeZone": "UTC",
    "lc_monetary": "C",  # money is read and written with it
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "xmloption": "content",
    "array_nulls": "on",
    "transform_null_equals": "off",
    "exit_on_error": "off",
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "escape_string_warning": "off",
    "check_function_bodies": "off",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "default_tablespace": "",
    "default_table_access_method": "heap",
    "client_min_messages": "error",
    "max_parallel_workers_per_gather": "0",
    "synchronize_seqscans": "off",  # the same order from run to run: chunks stay known
    "enable_tidscan": "on",
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
}
_RESTRICTED = "restrict_nonsystem_relation_kind"


def options(**more: str) -> str:
    """Return the value of libpq's `options` that every supported server understands at connection time."""
    return as_options({**_ALWAYS, **more})


def for_version(version: int) -> dict[str, str]:
    """Return the settings that only some servers know, for a server_version_num."""
    settings = {"transaction_timeout": "0"} if version >= 170000 else {}
    if _knows_restrictions(version):
        settings[_RESTRICTED] = ""
    return settings


def for_reading(version: int) -> dict[str, str]:
    """Return the settings of a session that only reads tables: a dump needs no views, a restore does."""
    settings = for_version(version)
    if _RESTRICTED in settings:
        # A view put in a table's place must not run its functions as us (CVE-2024-7348).
        settings[_RESTRICTED] = "view,foreign-table"
    return settings


def _knows_restrictions(version: int) -> bool:
    return version >= 170000 or 160004 <= version < 170000 or 150008 <= version < 160000


def as_options(settings: dict[str, str]) -> str:
    """Return settings in the form of libpq's `options`: blanks and backslashes are escaped there."""
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
