"""Loading rows: blocks of COPY text go to the server as they are, and are counted by it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import psycopg

from tenant_backup.contract.reasons import Reason

from . import failures
from .endpoint import Connection
from .names import quoted


def empty(connection: Connection, table: dict[str, Any]) -> None:
    """Empty a table that is empty: rows copied in the same transaction can then be frozen."""
    connection.execute(f"TRUNCATE ONLY {quoted(table['schema'], table['table'])}")


def copy_in(
    connection: Connection,
    table: dict[str, Any],
    encoding: str,
    blocks: Iterable[bytes | memoryview],
    *,
    frozen: bool = False,
) -> int:
    """Copy one segment into its table inside the running transaction; return how many rows arrived.

    `blocks` are pieces of COPY text of any length, never single rows. Rows written `frozen`, after `empty`,
    need not be written again by the first who reads them, nor by a vacuum. Raises Failure(LOAD_FAILED).
    """
    name = quoted(table["schema"], table["table"])
    columns = ", ".join(quoted(column) for column in table["columns"])
    listed = f" ({columns})" if columns else ""  # a table without columns has rows all the same
    statement = f"COPY {name}{listed} FROM STDIN (ENCODING '{encoding}', FREEZE {frozen})"
    try:
        with connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for block in blocks:
                    copy.write(block)
            return int(cursor.rowcount)
    except psycopg.Error as error:
        raise failures.of_error(error, Reason.LOAD_FAILED, f"loading {table['name']}") from error
