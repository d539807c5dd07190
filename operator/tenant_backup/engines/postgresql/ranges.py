"""Cutting tables into segments: pieces of a heap that are read at the same time and loaded at the same time.

Boundaries are fixed block numbers, so that an unchanged piece of a table is the same piece in the next
backup.
"""

from __future__ import annotations

from dataclasses import dataclass

from .inventory import Size, Table

RANGE_BLOCKS = 16384  # 128 MiB of 8 KiB blocks
_SMALLEST = 64  # blocks: below that a range costs more than it spreads


@dataclass(frozen=True)
class Range:
    """A part of one table: blocks [first, last), or to the end when `last` is None."""

    table: Table
    number: int
    first: int
    last: int | None
    bytes: int  # an estimate, for order and progress
    whole: bool

    @property
    def segment(self) -> str:
        """The segment's id: a function of table and place."""
        return f"t{self.table.oid}/{self.number}"

    def where(self) -> str:
        """The SQL condition that selects this range, empty for a whole table."""
        if self.whole:
            return ""
        begin = f"ctid >= '({self.first},0)'"
        return f" WHERE {begin}" if self.last is None else f" WHERE {begin} AND ctid < '({self.last},0)'"


def cut(table: Table, size: Size, block_bytes: int) -> list[Range]:
    """Cut one table into ranges, at least one. Only a heap has block addresses; others stay whole."""
    step = _step(size, block_bytes)
    count = max(1, -(-size.blocks // step)) if table.heap else 1
    if count == 1:
        return [Range(table, 0, 0, None, size.bytes, whole=True)]
    ends = [*((number + 1) * step for number in range(count - 1)), None]
    share = size.bytes // count
    return [Range(table, number, number * step, end, share, whole=False) for number, end in enumerate(ends)]


def largest_first(ranges: list[Range]) -> list[Range]:
    """Order ranges so that no long one is left for the end."""
    return sorted(ranges, key=lambda part: -part.bytes)


def _step(size: Size, block_bytes: int) -> int:
    """Blocks per range: halved until a range holds about 128 MiB, out-of-line values included."""
    step = RANGE_BLOCKS
    weight = size.bytes / max(1, size.blocks * block_bytes)
    while weight >= 2 and step > _SMALLEST:
        step //= 2
        weight /= 2
    return step
