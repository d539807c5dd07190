"""A real store whose n-th call goes wrong: refused, done and not answered, or the last that we live to see."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores.base import AlreadyExistsError, Buffer, Digest, Entry, NotFoundError, Store


def unavailable() -> None:
    """The store does not answer."""
    raise Failure(Reason.STORE_UNAVAILABLE, "the store does not answer", retriable=True)


def refused() -> None:
    """The store refuses, and will again."""
    raise Failure(Reason.STORE_PERMISSION_DENIED, "the store refuses")


def die() -> None:
    """End as the kernel's memory killer, or the node, would have it."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass
class Faults:
    """Counts the calls of all stores of a run from 1, and strikes at one of them or from one on.

    `before` nothing has happened. `after` the effect is there and the answer is lost: a reader has half
    of the bytes, or some of the names.
    """

    at: int = 0  # 0: never
    when: Literal["before", "after"] = "before"
    strike: Callable[[], None] = unavailable
    lasting: bool = False
    calls: list[str] = field(default_factory=list)
    struck: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, call: str) -> int:
        """Count a call; return its number."""
        with self._lock:
            self.calls.append(call)
            number = len(self.calls)
        self._at(number, begins=True)
        return number

    def end(self, number: int) -> None:
        """The call's effect is there."""
        self._at(number, begins=False)

    @contextmanager
    def call(self, call: str) -> Iterator[int]:
        """A call from its begin to its end, which may also be the answer no."""
        number = self.begin(call)
        try:
            yield number
        except (AlreadyExistsError, NotFoundError):
            self.end(number)
            raise
        self.end(number)

    def _at(self, number: int, *, begins: bool) -> None:
        later = self.lasting and self.struck and begins
        if later or (number == self.at and begins is (self.when == "before")):
            self.struck = True
            self.strike()


class FaultyStore:
    """Keeps the promises of `base.Store` as long as it is let."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store, self._faults = store, faults

    @property
    def location(self) -> str:
        """See Store."""
        return self._store.location

    def put(self, name: str, source: Path | bytes, digest: Digest) -> None:
        """See Store."""
        with self._faults.call(f"put {name}"):
            self._store.put(name, source, digest)

    def chunks(self, name: str, start: int = 0) -> Iterator[Buffer]:
        """See Store."""
        with self._faults.call(f"chunks {name}") as number:
            for block in self._store.chunks(name, start):
                half = len(block) // 2
                yield block[:half]
                self._faults.end(number)
                yield block[half:]

    def stat(self, name: str) -> int | None:
        """See Store."""
        with self._faults.call(f"stat {name}"):
            return self._store.stat(name)

    def entries(self, folder: str, after: str = "") -> Iterator[Entry]:
        """See Store."""
        with self._faults.call(f"entries {folder}") as number:
            for entry in self._store.entries(folder, after):
                yield entry
                self._faults.end(number)

    def folders(self) -> Iterator[str]:
        """See Store."""
        with self._faults.call("folders") as number:
            for folder in self._store.folders():
                yield folder
                self._faults.end(number)

    def delete(self, name: str) -> None:
        """See Store."""
        with self._faults.call(f"delete {name}"):
            self._store.delete(name)
