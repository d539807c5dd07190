"""What a login that makes backups may not read, with the statements that let it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.selection import Choice, shown

from .inventory import Table
from .names import quoted

_NAMED = 5  # in one GRANT; where more are missing, it is for all in their schemas
_SCHEMAS = 20  # in one GRANT; a message has its limit
_Name = tuple[str, str]  # schema and name


def refuse_unreadable(choices: Sequence[Choice[Table]], sequences: list[_Name], user: str) -> None:
    """Raise PERMISSION_DENIED, with each GRANT to run, for whatever this login cannot read in full."""
    tables = [(one.table.schema, one.table.name) for one in choices if not one.table.readable]
    if tables or sequences:
        names = shown([quoted(*name) for name in (*tables, *sequences)])
        message = f"{quoted(user)} may not read {names}; run: {'; '.join(_grants(tables, sequences, user))}"
        raise Failure(Reason.PERMISSION_DENIED, message)
    hidden = [choice.table.full_name for choice in choices if choice.with_rows and choice.table.rows_hidden]
    if hidden:
        advice = f"run: ALTER ROLE {quoted(user)} BYPASSRLS"
        message = f"row-level security would hide rows of {shown(hidden)} from {quoted(user)}; {advice}"
        raise Failure(Reason.PERMISSION_DENIED, message)


def _grants(tables: list[_Name], sequences: list[_Name], user: str) -> Iterator[str]:
    yield f"GRANT USAGE ON SCHEMA {_schemas((*tables, *sequences))} TO {quoted(user)}"
    for kind, names in (("TABLE", tables), ("SEQUENCE", sequences)):
        if len(names) > _NAMED:
            yield f"GRANT SELECT ON ALL {kind}S IN SCHEMA {_schemas(names)} TO {quoted(user)}"
        elif names:
            yield f"GRANT SELECT ON {kind} {', '.join(quoted(*name) for name in names)} TO {quoted(user)}"


def _schemas(names: Iterable[_Name]) -> str:
    return ", ".join(sorted({quoted(schema) for schema, _ in names})[:_SCHEMAS])
