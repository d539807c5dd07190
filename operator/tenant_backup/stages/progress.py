"""Progress lines on standard output while bytes move: one JSON line every few seconds."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

from tenant_backup.contract.results import progress_line

INTERVAL = 3.0  # seconds


class Progress:
    """Counts bytes from any thread; says so every INTERVAL and once at the end."""

    def __init__(self, phase: str, total: int | None = None) -> None:
        self._phase = phase
        self._total = total
        self._bytes = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="progress", daemon=True)

    def add(self, count: int) -> None:
        """Count `count` more bytes."""
        with self._lock:
            self._bytes += count

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._say()

    def _tell(self) -> None:
        while not self._ended.wait(INTERVAL):
            self._say()

    def _say(self) -> None:
        values: dict[str, int | str] = {"phase": self._phase, "bytesStored": self._bytes}
        if self._total:
            values["percent"] = 100 * self._bytes // self._total
        print(progress_line(**values), flush=True)
