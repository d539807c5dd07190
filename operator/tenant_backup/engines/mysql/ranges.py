"""Cutting large tables into segments: ranges of the primary key, read and loaded at the same time.

All whole numbers are halved, and halved again, where the server estimates too many rows. So boundaries are
the same in the next backup, and an unchanged piece of a table is the same piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .inventory import Size, Table
from .names import quoted

RANGE_BYTES = 64 << 20

Count = Callable[[int, int], int]  # estimates the rows whose key is in [first, last)


@dataclass(frozen=True)
class Range:
    """A part of one table: keys in [first, last); None: no bound."""

    table: Table
    number: int
    first: int | None
    last: int | None
    bytes: int  # an estimate, for order and progress

    @property
    def segment(self) -> str:
        """The segment's id: a function of table and place."""
        return f"{self.table.handle}/{self.number}"

    @property
    def where(self) -> str:
        """The SQL condition that selects this range, empty for a whole table."""
        key = quoted(self.table.number_key)
        lower = [] if self.first is None else [f"{key} >= {self.first}"]
        upper = [] if self.last is None else [f"{key} < {self.last}"]
        return " WHERE " + " AND ".join([*lower, *upper]) if lower or upper else ""


def whole(table: Table, size: Size) -> list[Range]:
    """Return a table as one range."""
    return [Range(table, 0, None, None, size.bytes)]


def cut(table: Table, size: Size, ends: tuple[int, int], count: Count) -> list[Range]:
    """Cut a table whose keys lie between `ends` into ranges of about RANGE_BYTES; both ends stay open."""
    most = max(1, size.rows * RANGE_BYTES // size.bytes)
    inner = boundaries(*ends, most, count)
    share = size.bytes // (len(inner) + 1)
    bounds = zip([None, *inner], [*inner, None], strict=True)
    return [Range(table, number, first, last, share) for number, (first, last) in enumerate(bounds)]


def largest_first(ranges: list[Range]) -> list[Range]:
    """Order ranges so that no long one is left for the end.

    Of equal ones those of the last tables come first: the server still has them open.
    """
    return sorted(ranges, key=lambda part: (part.bytes, part.table.oid), reverse=True)


def boundaries(lowest: int, highest: int, most: int, count: Count) -> list[int]:
    """Return the keys at which to cut what lies in [lowest, highest] into pieces of about `most` rows."""
    found: list[int] = []
    held = 0
    for first, rows in _cells(lowest, highest, most, count):
        if held and held + rows > most:
            found.append(first)
            held = 0
        held += rows
    return found


def _cells(lowest: int, highest: int, most: int, count: Count) -> Iterator[tuple[int, int]]:
    """Yield (first key, rows) of each piece; negative and other numbers have no half in common."""
    if lowest < 0 <= highest:
        yield from _cells(lowest, -1, most, count)
        lowest = 0
    length = 1 << (lowest ^ highest).bit_length()
    yield from _halves(lowest // length * length, length, most, count)


def _halves(first: int, length: int, most: int, count: Count) -> Iterator[tuple[int, int]]:
    rows = count(first, first + length)
    if length == 1 or rows <= most:
        yield first, rows
        return
    for start in (first, first + length // 2):
        yield from _halves(start, length // 2, most, count)
