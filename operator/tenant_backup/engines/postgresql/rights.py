"""What a login that makes backups may not read, with the statements that let it."""

from __future__ import annotations

from collections.abc import Sequence

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.selection import Choice, shown

from .inventory import Table
from .names import quoted

_SHOWN = 5  # names in one message


def refuse_unreadable(choices: Sequence[Choice[Table]], sequences: list[str], user: str) -> None:
    """Raise PERMISSION_DENIED, with the GRANT to run, for whatever this login cannot read in full."""
    tables = [choice.table for choice in choices]
    unreadable = [table.sql for table in tables if not table.readable]
    if unreadable or sequences:
        schemas = sorted({quoted(table.schema) for table in tables if not table.readable})
        raise Failure(Reason.PERMISSION_DENIED, _grants(unreadable, sequences, schemas, user))
    hidden = [choice.table.full_name for choice in choices if choice.with_rows and choice.table.rows_hidden]
    if hidden:
        advice = f"run: ALTER ROLE {quoted(user)} BYPASSRLS"
        message = f"row-level security would hide rows of {shown(hidden)} from {quoted(user)}; {advice}"
        raise Failure(Reason.PERMISSION_DENIED, message)


def _grants(tables: list[str], sequences: list[str], schemas: list[str], user: str) -> str:
    grants = [f"GRANT USAGE ON SCHEMA {name} TO {quoted(user)}" for name in schemas[:_SHOWN]]
    if tables:
        grants.append(f"GRANT SELECT ON {', '.join(tables[:_SHOWN])} TO {quoted(user)}")
    if sequences:
        grants.append(f"GRANT SELECT ON SEQUENCE {', '.join(sequences[:_SHOWN])} TO {quoted(user)}")
    return f"{quoted(user)} may not read {shown(tables + sequences)}; run: {'; '.join(grants)}"
