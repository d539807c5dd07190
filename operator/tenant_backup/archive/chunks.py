"""Where a stream is cut into chunks, and how chunks are gathered into frames.

Cuts are content-defined (FastCDC): behind an edit the same cuts, and so the same chunks, come again. The
seed is the tenant's own secret, so that sizes of chunks tell nothing about known texts. A cut in rows is
moved to the next row end. Cuts depend on the bytes since the segment's start only.
A frame holds chunks of one segment, so that restoring a segment decompresses nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from pyfastcdc import FastCDC

from .keys import IndexKey, derive

# Not looked at for a cut, which saves time; behind it every 16 Ki-th byte is one, so chunks have 56 KiB.
CHUNK_MIN = 40 << 10  # bytes
CHUNK_MAX = 256 << 10  # bytes
FRAME_MAX = 1 << 20  # bytes of plaintext

# Pages of a fresh megabyte cost as much as filling it, so buffers are used again.
_spare: deque[bytearray] = deque(maxlen=32)


@dataclass(frozen=True)
class Frame:
    """Up to FRAME_MAX bytes of plaintext; chunk i is buffer[ends[i-1]:ends[i]]."""

    buffer: bytearray
    ends: list[int]

    @property
    def length(self) -> int:
        """Bytes of plaintext."""
        return self.ends[-1]

    def bounds(self) -> list[tuple[int, int]]:
        """Where each chunk starts and ends."""
        return list(zip([0, *self.ends[:-1]], self.ends, strict=True))

    def recycle(self) -> None:
        """Give the buffer back; nobody may look at this frame any more."""
        _spare.append(self.buffer)


def chunker_seed(index: IndexKey) -> int:
    """Return the tenant's seed of FastCDC: 63 bits, which is all it takes, and never 0, which means none."""
    return int.from_bytes(derive(index.secret, "chunker seed")[:8], "big") >> 1 or 1


class Chunker:
    """Takes one segment's bytes in pieces of any size and emits frames of whole chunks."""

    def __init__(self, emit: Callable[[Frame], None], seed: int, *, rows: bool) -> None:
        self._emit = emit
        self._rows = rows
        self._cdc = FastCDC(CHUNK_MIN, min_size=CHUNK_MIN, max_size=CHUNK_MAX, seed=seed)
        self._buffer = _buffer()
        self._filled = 0
        self.length = 0  # bytes taken so far
        self.row_ends = 0  # newlines in frames emitted so far; all of them after `close`

    def write(self, piece: bytes | memoryview) -> None:
        """Take the next bytes of the segment; calls `emit` for each full frame."""
        self.length += len(piece)
        view = memoryview(piece)
        while view:
            taken = view[: FRAME_MAX - self._filled]
            end = self._filled + len(taken)
            self._buffer[self._filled : end] = taken
            self._filled = end
            view = view[len(taken) :]
            if end == FRAME_MAX:
                self._flush(last=False)

    def close(self) -> None:
        """Emit what is left. The segment is complete."""
        if self._filled:
            self._flush(last=True)
        _spare.append(self._buffer)

    def _flush(self, *, last: bool) -> None:
        ends = self._cut(last=last)
        full, rest = self._buffer, self._filled - ends[-1]
        self._buffer = _buffer()
        self._buffer[:rest] = memoryview(full)[ends[-1] : self._filled]
        self._filled = rest
        if self._rows:
            self.row_ends += full.count(b"\n", 0, ends[-1])
        self._emit(Frame(full, ends))

    def _cut(self, *, last: bool) -> list[int]:
        """Return where chunks end. A cut needs CHUNK_MAX bytes in sight, or the segment's end."""
        ends = [0]
        with memoryview(self._buffer)[: self._filled] as view:
            while self._filled - ends[-1] >= CHUNK_MAX or (last and ends[-1] < self._filled):
                ends.append(self._chunk_end(view, ends[-1]))
        return ends[1:]

    def _chunk_end(self, view: memoryview, start: int) -> int:
        limit = min(start + CHUNK_MAX, self._filled)
        with view[start:limit] as sight:
            end: int = start + next(self._cdc.cut_buf(sight)).length
        if not self._rows:
            return end
        at = self._buffer.find(b"\n", end - 1, limit)
        return at + 1 if at >= 0 else end  # a row longer than a chunk is cut inside


def _buffer() -> bytearray:
    try:
        return _spare.pop()
    except IndexError:
        return bytearray(FRAME_MAX)
