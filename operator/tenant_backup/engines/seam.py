"""What the stages ask of an engine, and what they give it. A new engine is a folder with an `engine.py`.

The stages own the sockets, the threads and the order of things; an engine owns every word that is said to a
server. What it raises is a Failure: no driver's exception leaves it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol, cast

from tenant_backup.contract.job import Backup, Preflight, Restore, Swap

_FOLDERS = {"MariaDB": "mysql", "MySQL": "mysql", "PostgreSQL": "postgresql"}


@dataclass(frozen=True)
class Piece:
    """One segment to be read: rows of a table, or a blob of the engine's own."""

    segment: str  # its id: a function of what is read, the same from run to run
    kind: Literal["rows", "blob"]
    table: str | None = None  # schema.table
    bytes: int = 0  # an estimate, for order and progress
    fingerprint: str = (
        ""  # of its source: what an earlier backup stored of one that looked the same is the same
    )


@dataclass(frozen=True)
class Sent:
    """What a session says of a piece that it has sent."""

    rows: int | None = None  # None: it is a blob
    fingerprint: str = ""  # the piece's, if its source did not change meanwhile, and could not unseen


class Session(Protocol):
    """One worker's way to the server. Used by one thread, but for what `started` was given."""

    def send(self, piece: Piece) -> Sent:
        """Write the piece to the worker's descriptor. Raises Failure.

        Rows are lines, each ended by a newline; there is no other newline in them.
        """
        ...

    def close(self) -> None:
        """End the session when nothing is left to read."""
        ...


class Reading(Protocol):
    """A database held still: everything that is read belongs to one moment, or says that it does not."""

    @property
    def pieces(self) -> Iterable[Piece]:
        """What there is to read, in the order in which it is begun. Asked for once; may raise Failure."""
        ...

    @property
    def size(self) -> int:
        """How many bytes there are to read, an estimate."""
        ...

    @property
    def sessions(self) -> int:
        """How many workers may read at once."""
        ...

    def session(self, out: int, started: Callable[[Callable[[], None]], None]) -> Session:
        """Return a session that writes to the descriptor `out`; it tells `started` how to end it at once."""
        ...

    def catalogue(self, rows: dict[str, int]) -> dict[str, Any]:
        """Return the catalogue; `rows` maps a segment's id to its rows. The server is not asked any more."""
        ...


class Stored(Protocol):
    """One connection to what was backed up."""

    def blocks(self, segment: str) -> Iterator[memoryview]:
        """Yield a segment's bytes; a block is good until the next one. It counts only with the verdict."""
        ...

    def verdict(self) -> dict[str, Any]:
        """Return {rows, bytes} of the segment just read: every chunk was whole. Raises Failure."""
        ...


class Together(Protocol):
    """The parts of one restore, which take place together: the database, and each volume.

    One of them decides: the database, or the first volume. Raises PEER_FAILED when another part has failed.
    """

    def begin(self, *, committed: bool) -> bool:
        """Say whether we see that an earlier attempt has taken place; return what is said by who decides."""
        ...

    def meet(self, step: str) -> None:
        """Wait until all have come that far; the one who decides is the last to go on."""
        ...

    def ended(self, *, committed: bool) -> bool:
        """Wait until it is decided whether the restore takes place; `committed`: what we decide."""
        ...


class Contents(Protocol):
    """A backup, as a restore sees it."""

    def catalogue(self) -> dict[str, Any]:
        """Return the catalogue of the engine that made it. Raises Failure when that is another engine."""
        ...

    def opened(self) -> AbstractContextManager[Stored]:
        """Open one more connection."""
        ...

    def begin(self, *, committed: bool) -> None:
        """Tell the volumes whether an earlier attempt has put the database in place."""
        ...

    def committing(self, is_committed: Callable[[], bool]) -> AbstractContextManager[None]:
        """Put the database in place inside: all volumes are then, and go back when it is not.

        `is_committed` is asked whether it is, when it fails.
        """
        ...


class Engine(Protocol):
    """The functions of an engine's `engine.py`."""

    def read(self, job: Backup) -> AbstractContextManager[Reading]:
        """Hold the database still as long as the context lasts. Raises Failure."""
        ...

    def restore(self, job: Restore, contents: Contents) -> dict[str, Any]:
        """Restore, however often; return the facts of stage load. Raises Failure."""
        ...

    def look(self, job: Preflight) -> dict[str, Any]:
        """Return what `facts.of_look` says. Raises the Failure a backup would end with."""
        ...

    def exchange(self, job: Swap) -> dict[str, Any]:
        """Undo a Replace or drop what it kept; return {action, previousDatabase}. Raises Failure."""
        ...


def engine(name: str) -> Engine:
    """Return the engine that a job names; its drivers are imported only now."""
    return cast(Engine, importlib.import_module(f"{__package__}.{_FOLDERS[name]}.engine"))
