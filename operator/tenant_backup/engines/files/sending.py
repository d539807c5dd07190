"""Many small writes and few large ones to a socket, without a copy of what is large."""

from __future__ import annotations

import os

_TOGETHER = 256 << 10  # bytes that are sent at once
SMALL = 64 << 10  # bytes of a file that are read; of a larger one the kernel copies them
_AT_ONCE = 8 << 20  # bytes that the kernel copies in one call


class Out:
    """A descriptor to write to; what is small waits until there is more. Raises OSError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._waiting: list[bytes] = []
        self._length = 0

    def write(self, part: bytes) -> None:
        """Write these bytes, or keep them a while."""
        self._waiting.append(part)
        self._length += len(part)
        if self._length >= _TOGETHER:
            self.flush()

    def copy(self, source: int, offset: int, length: int) -> None:
        """Write a stretch of a file; zeros in the place of what is not there any more."""
        if length <= SMALL:
            self.write(os.pread(source, length, offset).ljust(length, b"\0"))
            return
        self.flush()
        end = offset + length
        while offset < end and (
            sent := os.sendfile(self._descriptor, source, offset, min(end - offset, _AT_ONCE))
        ):
            offset += sent
        while offset < end:
            part = bytes(min(end - offset, _TOGETHER))
            self.write(part)
            offset += len(part)

    def flush(self) -> None:
        """Write what waits."""
        view = memoryview(b"".join(self._waiting))
        self._waiting.clear()
        self._length = 0
        while view:
            view = view[os.write(self._descriptor, view) :]
