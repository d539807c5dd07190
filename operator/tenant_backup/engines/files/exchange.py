"""Entries of a volume change places, one after the other, by a journal that is written before.

What comes waits in a folder of ours, what leaves goes into another one. Where an entry is says whether it has
been moved: whoever finds a journal can finish the exchange or take it back, from any point, again and again.
Only what is in the journal is touched; what came to the volume since is left where it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from tenant_backup.contract.reasons import Failure, Reason

from . import names
from .descending import make_usable, open_above, set_mode
from .ground import Ground, opened

DONE = ".done"  # the journal of an exchange that is over


class Way(NamedTuple):
    """Which exchange of a restore it is: names below ours, behind the restore's handle."""

    journal: str  # while entries are moved
    source: str  # folder of what comes
    aside: str  # folder of what leaves


PUT = Way(".moving", ".ready", ".old")
UNDO = Way(".undoing", ".old", ".undone")


class Moved(NamedTuple):
    """An entry that changes places."""

    path: bytes  # relative to the top of the volume
    mode: int | None = None  # of a directory, which may have to be another one to be moved


class Paths(NamedTuple):
    """What is to change places: relative to the top of the volume, and none of them below another one."""

    coming: list[bytes]
    leaving: list[bytes]
    whole: bool = True  # these are all there is


@dataclass(frozen=True)
class Journal:
    """What an exchange is to do."""

    coming: dict[bytes, Moved]
    leaving: dict[bytes, Moved]
    whole: bool

    def text(self) -> str:
        """Return it as JSON."""
        lists = {"coming": _listed(self.coming), "leaving": _listed(self.leaving)}
        return json.dumps({**lists, "whole": self.whole})

    @classmethod
    def of_text(cls, text: str) -> Journal:
        """Read what `text` wrote."""
        document = json.loads(text)
        return cls(_read(document["coming"]), _read(document["leaving"]), document["whole"])


class Exchange:
    """An exchange of the restore with the handle `whose`. Every method raises Failure, OSError."""

    def __init__(self, ground: Ground, whose: str, way: Way, journal: Journal) -> None:
        self._ground, self._whose, self._journal = ground, whose, journal
        self._name, self._source, self._aside = (whose + name for name in way)

    @classmethod
    def begin(cls, ground: Ground, whose: str, way: Way, paths: Paths) -> Exchange:
        """Write its journal, with the entries that are there: from now on it is found, whoever dies."""
        ground.make(whose + way.aside)
        with _folder(ground, whose + way.source) as source:
            coming, leaving = _seen(source, paths.coming, ours=True), _seen(ground.root, paths.leaving)
        journal = Journal(coming, leaving, paths.whole)
        ground.write(whose + way.journal, journal.text())
        return cls(ground, whose, way, journal)

    @classmethod
    def found(cls, ground: Ground, whose: str, way: Way) -> Exchange | None:
        """Return the one that an attempt before has begun and not ended."""
        text = ground.read(whose + way.journal)
        return cls(ground, whose, way, Journal.of_text(text)) if text else None

    def carry_out(self) -> None:
        """Let all entries change places that have not yet."""
        coming, leaving, root = self._journal.coming, self._journal.leaving, self._ground.root
        with self._folders() as (source, aside):
            for entry in leaving.values():
                if not self._is_new(entry.path, source, aside):
                    self._move(entry, root, aside)
            for entry in coming.values():
                self._move(entry, source, root)
            _finish(coming, root)
            _finish(leaving, aside)
        self._ground.sync()

    def take_back(self) -> None:
        """Bring all entries to where they were, and forget the exchange."""
        coming, leaving, root = self._journal.coming, self._journal.leaving, self._ground.root
        with self._folders() as (source, aside):
            for entry in coming.values():
                if self._is_new(entry.path, source, aside):
                    self._move(entry, root, source)
            for entry in leaving.values():
                self._move(entry, aside, root)
            _finish(coming, source)
            _finish(leaving, root)
        self._ground.sync()
        self._ground.unlink(self._name)
        with contextlib.suppress(OSError):
            os.rmdir(self._aside, dir_fd=self._ground.ours)

    def or_take_back(self) -> None:
        """Carry it out, or leave nothing of it behind."""
        try:
            self.carry_out()
        except BaseException:
            # The first error is the one to tell; what this leaves, the next attempt takes back.
            with contextlib.suppress(Failure, OSError):
                self.take_back()
            raise

    def end(self) -> None:
        """Say by the journal's name that it is over: nothing is moved any more."""
        self._ground.rename(self._name, self._whose + DONE)

    @contextlib.contextmanager
    def _folders(self) -> Iterator[tuple[int, int]]:
        ground = self._ground
        with _folder(ground, self._source) as source, _folder(ground, self._aside) as aside:
            yield source, aside

    def _is_new(self, path: bytes, source: int, aside: int) -> bool:
        """Whether what is in the tenant's place is what came."""
        if path not in self._journal.coming or self._there(source, path):
            return False
        return path not in self._journal.leaving or self._there(aside, path)

    def _move(self, entry: Moved, origin: int, target: int) -> None:
        """Move it, if it is there. Raises NAME_TAKEN, retriable, rather than replace anything."""
        if not self._there(origin, entry.path):
            return
        with (
            open_above(origin, entry.path, ours=self._is_ours(origin)) as (old, name),
            open_above(target, entry.path, make=True, ours=self._is_ours(target)) as (new, _),
        ):
            if _has(new, name):
                raise self._in_the_way(entry.path)
            if entry.mode is not None:
                make_usable(name, old, os.W_OK)
            os.rename(name, name, src_dir_fd=old, dst_dir_fd=new)

    def _is_ours(self, folder: int) -> bool:
        return folder != self._ground.root

    def _there(self, folder: int, path: bytes) -> bool:
        try:
            with open_above(folder, path, ours=self._is_ours(folder)) as (above, name):
                return _has(above, name)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _in_the_way(self, path: bytes) -> Failure:
        message = (
            f"{names.shown(os.fsdecode(path))} came to volume {self._ground.volume.name} while it was"
            " restored; stop who uses it and move that away: this tries again"
        )
        return Failure(Reason.NAME_TAKEN, message, retriable=True)


@contextlib.contextmanager
def _folder(ground: Ground, name: str) -> Iterator[int]:
    """Open a folder of ours; it is gone, and empty again, once all that was in it is elsewhere."""
    ground.make(name)
    with opened(name, ground.ours) as folder:
        yield folder


def _seen(folder: int, paths: list[bytes], *, ours: bool = False) -> dict[bytes, Moved]:
    """Look at those that are there."""
    found = {}
    for path in paths:
        with (
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
            open_above(folder, path, ours=ours) as it,
        ):
            status = os.stat(it[1], dir_fd=it[0], follow_symlinks=False)
            found[path] = Moved(path, stat.S_IMODE(status.st_mode) if stat.S_ISDIR(status.st_mode) else None)
    return found


def _has(folder: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _finish(entries: dict[bytes, Moved], folder: int) -> None:
    """Give directories that were moved the mode that they had."""
    for entry in entries.values():
        if entry.mode is None:
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), open_above(folder, entry.path) as it:
            status = os.stat(it[1], dir_fd=it[0], follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) != entry.mode:
                set_mode(it[1], it[0], entry.mode)


def _listed(entries: dict[bytes, Moved]) -> list[list[Any]]:
    return [[os.fsdecode(entry.path), entry.mode] for entry in entries.values()]


def _read(entries: list[list[Any]]) -> dict[bytes, Moved]:
    return {os.fsencode(path): Moved(os.fsencode(path), mode) for path, mode in entries}
