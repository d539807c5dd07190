"""Loading rows, several tables at once: each worker has a connection to the backup and one to the server."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.contract.results import progress_line

from .progress import report_until_over
from .seam import Contents, Stored

_UNEVEN = 1.25  # of a fair share: a table up to this size is loaded by one session


@dataclass(frozen=True)
class Load:
    """What one transaction loads."""

    table: dict[str, Any]  # of the catalogue
    segments: tuple[str, ...]
    whole: bool = False  # all of the table's rows: nobody else writes to it


class Loader(Protocol):
    """One worker's session at the server."""

    def transaction(self, load: Load) -> AbstractContextManager[None]:
        """Commit what is copied inside at its end, or none of it."""
        ...

    def copy(self, load: Load, blocks: Iterable[memoryview]) -> int:
        """Copy one segment; return how many rows arrived. Raises Failure."""
        ...


def loads(tables: list[dict[str, Any]], sessions: int) -> Iterator[Load]:
    """Yield what is to be loaded, the largest first, so that no long table is left for the end.

    A table goes through one session, unless it is so large that the others would wait for it in the end.
    """
    fair = _UNEVEN * sum(table["bytes"] for table in tables) / sessions
    for table in sorted(tables, key=lambda table: -table["bytes"]):
        segments = tuple(table["segments"])
        if table["bytes"] > fair and len(segments) > 1:
            yield from (Load(table, (segment,)) for segment in segments)
        elif segments:
            yield Load(table, segments, whole=True)


def refuse_difference(table: str, expected: int, found: int) -> None:
    """Raise ROWS_DIFFER unless the numbers agree."""
    if expected != found:
        message = (
            f"table {table} has {found} rows, the backup has {expected}; the restore was not put in place"
        )
        raise Failure(Reason.ROWS_DIFFER, message)


Step = Callable[[], None]  # raises Failure


def nothing_more(_table: dict[str, Any]) -> list[Step]:
    """What follows on a complete table where everything waits for all of them."""
    return []


class Transfer:
    """All row segments of a catalogue's tables."""

    def __init__(
        self,
        tables: list[dict[str, Any]],
        contents: Contents,
        loader: Callable[[], AbstractContextManager[Loader]],
        sessions: int,
        following: Callable[[dict[str, Any]], list[Step]] = nothing_more,
    ) -> None:
        """Prepare to load with at most so many sessions; what `loader` opens raises Failure only.

        `following` says what may be done on a table as soon as all its rows are committed. A session that
        finds no rows left to load does some of it, as long as others load: nobody may rely on it.
        """
        self._tables, self._contents, self._loader = tables, contents, loader
        self._following = following
        self._steps: queue.SimpleQueue[Step] = queue.SimpleQueue()
        self._left: Counter[str] = Counter()  # loads of each table that are not committed
        self._waiting: queue.SimpleQueue[Load] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._failure: Failure | None = None
        self._by_table: dict[str, int] = {}
        self.bytes = 0
        # More of them than cores would only take the processor from each other.
        self._sessions = min(sessions, max(2, os.cpu_count() or 1))
        for load in loads(tables, self._sessions):
            self._waiting.put(load)
            self._left[load.table["name"]] += 1

    @property
    def rows(self) -> int:
        """Rows loaded so far."""
        return sum(self._by_table.values())

    def run(self) -> None:
        """Load everything and compare each table's rows with the catalogue. Raises the first Failure."""
        count = min(self._sessions, self._waiting.qsize())
        threads = [threading.Thread(target=self._guarded, daemon=True) for _ in range(count)]
        for thread in threads:
            thread.start()
        report_until_over(threads, self._report)
        if self._failure:
            raise self._failure
        for table in self._tables:
            refuse_difference(table["name"], table["rows"], self._by_table.get(table["name"], 0))

    def _report(self) -> None:
        total = sum(table["rows"] for table in self._tables)
        percent = 100 * self.rows // max(1, total)
        print(progress_line(phase="Loading", percent=percent, bytesRead=self.bytes), flush=True)

    def _guarded(self) -> None:
        try:
            self._work()
        except Failure as failure:
            self._fail(failure)
        except Exception as error:  # noqa: BLE001 - a thread must not die in silence
            self._fail(Failure(Reason.INTERNAL_ERROR, f"a load worker met {error!r}", retriable=True))

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            self._failure = self._failure or failure

    def _work(self) -> None:
        with self._contents.opened() as stored, self._loader() as loader, contextlib.suppress(queue.Empty):
            while self._failure is None:
                load = self._waiting.get_nowait()
                self._load(stored, loader, load)
                self._loaded(load)
        with contextlib.suppress(queue.Empty):
            while self._failure is None and self._left.total() > 0:
                self._steps.get_nowait()()

    def _loaded(self, load: Load) -> None:
        with self._lock:
            self._left[load.table["name"]] -= 1
            is_complete = not self._left[load.table["name"]]
        for step in self._following(load.table) if is_complete else ():
            self._steps.put(step)

    def _load(self, stored: Stored, loader: Loader, load: Load) -> None:
        """Load some segments of a table; commit only after backup and server agree on each."""
        with loader.transaction(load):
            for segment in load.segments:
                loaded = loader.copy(load, stored.blocks(segment))
                verdict = stored.verdict()
                refuse_difference(load.table["name"], int(verdict["rows"]), loaded)
                with self._lock:
                    name = load.table["name"]
                    self._by_table[name] = self._by_table.get(name, 0) + loaded
                    self.bytes += int(verdict["bytes"])
