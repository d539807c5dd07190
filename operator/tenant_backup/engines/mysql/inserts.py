r"""Rows as INSERTs, made of the lines of an archive (see rows) by replaces on whole blocks of them.

What a line escapes means the same in a string literal; what is left is to quote its values. The bytes that a
client program would take for an end, or leave out, are escaped too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from .endpoint import encoded
from .names import quoted, text

_STATEMENT_BYTES = 1 << 20  # of one statement's lines, about; or one line that is longer
# In this order. A backslash and a u stand in no line: they mark values that have to be called text.
_QUOTED = (
    (b"'", rb"\'"),
    (b"\0", rb"\0"),
    (b"\r", rb"\r"),
    (b"\x1a", rb"\Z"),
    (b"\t", b"','"),
)
_CALLED = ((rb"'\u\N'", b"NULL"), (rb"'\N'", b"NULL"), (rb"'\u", b"_utf8mb4'"))


def statements(table: dict[str, Any], target: str, blocks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield INSERTs into `target` (quoted) that hold all lines, wherever the blocks are cut.

    `table` is the catalogue's with `fill`. They are for a session with SET NAMES binary, and an sql_mode in
    which a backslash escapes.
    """
    texts = [place for place, name in enumerate(table["columns"]) if name in table["textColumns"]]
    listed = ", ".join(quoted(name) for name in [*table["columns"], *table["fill"]])
    more = encoded("".join(f",{text(value)}" for value in table["fill"].values()))
    head = encoded(f"INSERT INTO {target} ({listed}) VALUES\n")
    for lines in whole_lines(blocks):
        yield head + tuples(lines, texts, more)


def tuples(lines: bytes, texts: list[int], more: bytes) -> bytes:
    """Return lines as (…), (…): `texts` are the places of text, `more` follows on each row's last value."""
    block = lines[:-1]
    for place in texts:
        block = re.sub(rb"(?m)^((?:[^\t\n]*\t){%d})" % place, rb"\1\\u", block)
    for found, put in _QUOTED:
        block = block.replace(found, put)
    block = b"('" + block.replace(b"\n", b"'" + more + b"),\n('") + b"'" + more + b")"
    for found, put in _CALLED:
        block = block.replace(found, put)
    return block


def whole_lines(blocks: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """Yield the same bytes, cut behind newlines only, in pieces of about a statement's size."""
    held = bytearray()
    for block in blocks:
        end = bytes(block).rfind(b"\n") + 1
        held += block[:end]
        if end and len(held) >= _STATEMENT_BYTES:
            yield bytes(held)
            held.clear()
        held += block[end:]
    if held:
        yield bytes(held)
