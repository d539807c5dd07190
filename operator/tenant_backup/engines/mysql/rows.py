r"""Rows as lines of tab-separated values, out of the server and into it.

The format is LOAD DATA's own: a tab between values, a newline after a row, a backslash before either of them
and before itself, \N for NULL. Values have the bytes they have in the table, whatever their character set.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from MySQLdb import Error

from tenant_backup.contract.reasons import Failure, Reason

from . import failures, inserts
from .endpoint import Connection, encoded
from .names import literal, quoted, text

_BATCH_BYTES = 8 << 20  # rows that are in memory at once, at most, but for one that is longer
_BATCH_ROWS = 5000
_FEW = 64  # rows; if not even so many fit into a batch for sure, they are fetched one by one
_BLOCK_BYTES = 256 << 10  # what is written at once, about
_PIPE_BYTES = 1 << 20
# Bytes that text does not have: joined with them, a block is escaped as a whole.
_SEPARATORS = (b"\x1f", b"\x1e", b"\x1d")
_ESCAPES = (
    (b"\\", b"\\\\"),
    (b"\t", b"\\t"),
    (b"\n", b"\\n"),
    *zip(_SEPARATORS, (b"\t", b"\n", rb"\N"), strict=True),
)
_TRUNCATED = 1265  # a warning: of ENUM it says that a value is the empty one

Values = tuple[bytes | None, ...]
Blocks = Iterable[bytes | memoryview]
Fetch = Callable[[int], Sequence[Values]]  # at most so many rows, none at the end


def read(connection: Connection, query: str, widest: int, out: int) -> int:
    """Write the rows of a query to the descriptor `out`; return how many. Raises Error, OSError.

    `widest` is how many bytes a row has at most.
    """
    connection.raw.query(encoded(query))
    fetch = connection.raw.use_result().fetch_row
    at_once = min(_BATCH_ROWS, _BATCH_BYTES // widest)
    batches = _batches(fetch, at_once) if at_once >= _FEW else _counted_batches(fetch)
    count = 0
    for rows in batches:
        write(out, lines(rows))
        count += len(rows)
    return count


def lines(rows: Sequence[Values]) -> bytes:
    """Return rows as text. Looks into single values only where nothing else helps."""
    block = _joined(rows, b"\t", b"\n", rb"\N")
    if block is None:
        block = _joined(rows, *_SEPARATORS)
        if block is None:
            return b"".join([_line(row) for row in rows])
        for found, put in _ESCAPES:
            block = block.replace(found, put)
    return block


def load(connection: Connection, table: dict[str, Any], target: str, blocks: Blocks) -> int:
    """Copy one segment into a table (quoted), with LOAD DATA where the server allows it; return its rows.

    Raises Failure(LOAD_FAILED), and whatever `blocks` raises.
    """
    then, now = table["present"]
    if table["history"] and then != now:
        blocks = _present(blocks, then.encode(), now.encode())
    try:
        if connection.scalar("SELECT @@local_infile") == "1":
            return _load_data(connection, table, target, blocks)
        return _insert(connection, table, target, blocks)
    except Error as error:
        raise failures.of_error(error, Reason.LOAD_FAILED, f"loading {table['name']}") from error


def _batches(fetch: Fetch, at_once: int) -> Iterator[Sequence[Values]]:
    while rows := fetch(at_once):
        yield rows


def _counted_batches(fetch: Fetch) -> Iterator[Sequence[Values]]:
    """Fetch rows one by one: any of them may be as large as many."""
    batch: list[Values] = []
    size = 0
    while fetched := fetch(1):
        (row,) = fetched
        batch.append(row)
        size += sum(map(len, filter(None, row)))
        if size >= _BLOCK_BYTES or len(batch) >= _BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _joined(rows: Sequence[Values], tab: bytes, newline: bytes, null: bytes) -> bytes | None:
    """Join rows, None when a value has one of the separators, or what begins `null`, in it."""
    nulls = 0
    try:
        block = newline.join([tab.join(row) for row in rows]) + newline  # type: ignore[arg-type]
    except TypeError:
        block = newline.join([tab.join([null if v is None else v for v in row]) for row in rows]) + newline
        nulls = sum(row.count(None) for row in rows)
    wanted = (len(rows), len(rows) * (len(rows[0]) - 1), nulls)
    return block if wanted == (block.count(newline), block.count(tab), block.count(null[:1])) else None


def _line(row: Values) -> bytes:
    return b"\t".join([rb"\N" if value is None else _escaped(value) for value in row]) + b"\n"


def _escaped(value: bytes) -> bytes:
    return value.replace(b"\\", b"\\\\").replace(b"\t", b"\\t").replace(b"\n", b"\\n")


def write(out: int, block: bytes | memoryview) -> None:
    """Write all of a block to a descriptor."""
    view = memoryview(block)
    while view:
        view = view[os.write(out, view) :]


def _load_data(connection: Connection, table: dict[str, Any], target: str, blocks: Blocks) -> int:
    """Let the server read from a pipe: it is sent what `blocks` yields, and no file of this machine."""
    places, sets = _assignments(table)
    into = f"INTO TABLE {target} CHARACTER SET binary FIELDS TERMINATED BY '\\t' ESCAPED BY '\\\\'"
    how = f"{into} LINES TERMINATED BY '\\n' ({', '.join(places)}){sets}"
    with _piped(blocks) as path:
        loaded = connection.run(f"LOAD DATA LOCAL INFILE {literal(path)} {how}")
    _refuse_warnings(connection, table)
    return loaded


@contextlib.contextmanager
def _piped(blocks: Blocks) -> Iterator[str]:
    """Write blocks into a pipe in a thread; raise at the end what that raised."""
    readable, writable = os.pipe()
    with contextlib.suppress(OSError):  # more than an ordinary user may have: then it stays small
        fcntl.fcntl(writable, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    broken: list[BaseException] = []

    def feed() -> None:
        try:
            for block in blocks:
                write(writable, block)
        except BrokenPipeError:
            pass  # the server has refused: it says why
        except BaseException as error:  # noqa: BLE001 - told by the thread that loads
            broken.append(error)
        finally:
            os.close(writable)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()
    try:
        yield f"/proc/self/fd/{readable}"
    finally:
        os.close(readable)
        thread.join()
        if broken:
            raise broken[0]


def _present(blocks: Blocks, then: bytes, now: bytes) -> Iterator[bytes]:
    """Yield lines in which what is there until the end of time is so here, too: that is the last value."""
    for lines in inserts.whole_lines(blocks):
        yield lines.replace(b"\t" + then + b"\n", b"\t" + now + b"\n")


def _insert(connection: Connection, table: dict[str, Any], target: str, blocks: Blocks) -> int:
    count = 0
    for statement in inserts.statements(table, target, blocks):
        count += connection.run(statement)
        _refuse_warnings(connection, table)
    return count


def _assignments(table: dict[str, Any]) -> tuple[list[str], str]:
    """Return where each value of a line goes, and what is computed: text that has to be called text."""
    places, computed = [], []
    for place, name in enumerate(table["columns"]):
        if name in table["textColumns"]:
            places.append(f"@v{place}")
            computed.append(f"{quoted(name)} = CONVERT(@v{place} USING utf8mb4)")
        else:
            places.append(quoted(name))
    computed += [f"{quoted(name)} = {text(value)}" for name, value in table["fill"].items()]
    return places, f" SET {', '.join(computed)}" if computed else ""


def _refuse_warnings(connection: Connection, table: dict[str, Any]) -> None:
    """A value that the server had to change is a value that is lost. Raises LOAD_FAILED."""
    if not connection.raw.warning_count():
        return
    # The empty value that an ENUM has for what was once wrong comes with a warning, and is what it was.
    tolerated = {str(_TRUNCATED)} if table["hasEnum"] else set()
    told = [row for row in connection.rows("SHOW WARNINGS") if row[1] not in tolerated]
    if told:
        message = f"loading {table['name']} would change values: {told[0][2]} ({told[0][1]})"
        raise Failure(Reason.LOAD_FAILED, message)
