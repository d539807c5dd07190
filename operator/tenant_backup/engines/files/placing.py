"""Putting the files of a backup on a volume, so that whoever dies, the next attempt ends it.

All is unpacked below `.tenant-backup` at the top of the volume and counted; only then it changes places with
what is there, together with the database and the other volumes of the same restore. How far it is say names,
`{h}` being of the restore: `{h}.new` is being unpacked, `{h}.ready` is complete, `{h}.moving` is the journal
of the exchange, and becomes `{h}.done` when all of the restore is in place. `{h}.old` has what was there.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tenant_backup.contract.job import Restore, Volume
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.handles import handle
from tenant_backup.engines.seam import Stored, Together

from . import names, tar
from .choosing import Chosen, choose
from .exchange import DONE, PUT, UNDO, Exchange, Paths
from .ground import FULL, Ground, opened, working_on
from .merging import merged
from .unpacking import Unpacker

NEW, FACTS = ".new", ".facts"
_UNFINISHED = re.compile(r".*\.(new|ready)(\.\d+)?|.*\.tmp")
_TOLD = 5  # paths in a message


def place(
    job: Restore, volume: Volume, described: dict[str, Any], stored: Stored, together: Together
) -> dict[str, Any]:
    """Restore a volume, however often; return {files, bytes, skipped: sentences}.

    `described` is what the catalogue says of the volume. Raises Failure.
    """
    with working_on(volume) as ground:
        return _Placing(job, ground, described, stored).run(together)


def settle_others(ground: Ground, mine: str) -> None:
    """Take back what other restores began and did not end, and remove what they had not put in place."""
    for name in sorted(ground.there()):
        for way in (PUT, UNDO):
            theirs = name.removesuffix(way.journal)
            if theirs not in (name, mine) and (found := Exchange.found(ground, theirs, way)):
                found.take_back()
    for name in sorted(ground.there()):
        theirs = name.partition(".")[0]
        if theirs == mine:
            continue
        if _UNFINISHED.fullmatch(name):
            ground.remove(name)
        elif theirs + DONE in ground.there():
            continue
        elif name == theirs + FACTS:
            ground.unlink(name)
        else:
            with contextlib.suppress(OSError):
                os.rmdir(name, dir_fd=ground.ours)  # it was to take what leaves, and took nothing


@dataclass
class _Placing:
    """One restore of one volume."""

    job: Restore
    ground: Ground
    described: dict[str, Any]
    stored: Stored

    @property
    def _handle(self) -> str:
        return handle(self.job.uid)

    @property
    def _fills(self) -> bool:
        return self.job.strategy == "NewDatabase"

    @property
    def _merges(self) -> bool:
        return self.job.strategy == "Merge"

    def _name(self, state: str) -> str:
        return self._handle + state

    def _stands(self, state: str) -> bool:
        return self._name(state) in self.ground.there()

    def run(self, together: Together) -> dict[str, Any]:
        """Go on where an earlier attempt was; return what `place` does."""
        settle_others(self.ground, self._handle)
        if together.begin(committed=self._stands(DONE)):
            self._go_on()
        else:
            self._put(together)
        return dict(json.loads(self.ground.read(self._name(FACTS)) or "{}"))

    def _put(self, together: Together) -> None:
        if found := Exchange.found(self.ground, self._handle, PUT):
            found.take_back()
        self._prepare()
        together.meet("ready")
        exchange = self._begin()
        exchange.or_take_back()
        self._commit(exchange, together)

    def _go_on(self) -> None:
        """The restore has taken place already: do here what is left to do."""
        if self._stands(DONE):
            self._clear()
            return
        exchange = Exchange.found(self.ground, self._handle, PUT)
        if exchange is None:
            self._prepare()
            exchange = self._begin()
        exchange.carry_out()
        self._end(exchange)

    def _commit(self, exchange: Exchange, together: Together) -> None:
        try:
            together.meet("placed")
        except BaseException:
            # Whoever decides is the last to hear that all are in place: it has not decided.
            exchange.take_back()
            raise
        decides = self.job.decided_by == self.ground.volume.name
        if decides:
            self._end(exchange)
        # If it cannot be known how it ended, the next attempt is told.
        if not together.ended(committed=decides):
            exchange.take_back()
            raise Failure(Reason.PEER_FAILED, "the database could not be replaced, so no files were")
        if not decides:
            self._end(exchange)

    def _prepare(self) -> None:
        """Have everything that is to come on the volume, complete and on disk."""
        if self._stands(PUT.source) and not self._merges:
            return
        self.ground.remove(self._name(PUT.source))  # directories that were not to be moved may have changed
        if self._fills:
            self._refuse_unless_empty("is not empty: it has")
        for name in self.ground.there():
            if name.startswith(self._name(NEW)):
                self.ground.remove(name)
        self.ground.write(self._name(FACTS), json.dumps(self._unpack_or_make_room()))
        self.ground.rename(self._name(NEW), self._name(PUT.source))

    def _begin(self) -> Exchange:
        if self._fills:
            self._refuse_unless_empty("was empty before it was restored, and has now")
        with opened(self._name(PUT.source), self.ground.ours) as ready:
            if self._merges:
                paths = merged(ready, self.ground.root)
            else:
                leaving = [] if self._fills else self.ground.top()
                paths = Paths(sorted(map(os.fsencode, os.listdir(ready))), leaving)
        return Exchange.begin(self.ground, self._handle, PUT, paths)

    def _end(self, exchange: Exchange) -> None:
        exchange.end()
        self._clear()

    def _clear(self) -> None:
        self.ground.remove(self._name(PUT.source))
        if self._fills:
            self.ground.remove(self._name(PUT.aside))

    def _refuse_unless_empty(self, how: str) -> None:
        found = [os.fsdecode(name) for name in self.ground.top()]
        if found:
            volume = self.ground.volume
            message = (
                f"volume {volume.name} (claim {volume.claim}) {how}"
                f" {names.listed(found[:_TOLD], len(found))}; use strategy Replace, name an empty claim in"
                " target.files, or empty this one"
            )
            raise Failure(Reason.NAME_TAKEN, message)

    def _unpack_or_make_room(self) -> dict[str, Any]:
        try:
            return self._unpack()
        except OSError as error:
            if error.errno in FULL:
                self.ground.remove(self._name(NEW))  # whoever uses the volume needs the room
            raise

    def _unpack(self) -> dict[str, Any]:
        chosen = self._choose() if self.ground.volume.select else None
        files = chosen.files if chosen else int(self.described["files"])
        size = chosen.bytes if chosen else int(self.described["bytes"])
        self.ground.make(self._name(NEW))
        with opened(self._name(NEW), self.ground.ours) as top:
            unpacker = Unpacker(top)
            unpacker.unpack(self._tar(), chosen)
        found = unpacker.done
        if found.files != files or (found.bytes != size and not chosen):
            message = (
                f"volume {self.ground.volume.name} got {found.files} files with {found.bytes} bytes, the"
                f" backup has {files} with {size}; nothing was put in place: report this"
            )
            raise Failure(Reason.LOAD_FAILED, message)
        return {"files": found.files, "bytes": found.bytes, "skipped": found.told()}

    def _choose(self) -> Chosen:
        """Read all of it once: nothing is unpacked for patterns that mean nothing."""
        volume = self.ground.volume
        chosen = choose(self._tar(), volume.select)
        if chosen.unmatched:
            told = ", ".join(f"{volume.name}:{pattern}" for pattern in chosen.unmatched[:_TOLD])
            message = (
                f"no file of volume {volume.name} in the backup is meant by {told}; correct select.files in a"
                " new TenantRestore (* stays within one name, ** goes on below)"
            )
            raise Failure(Reason.FILES_NOT_FOUND, message)
        return chosen

    def _tar(self) -> tar.Reader:
        return tar.Reader(_blocks(self.described["segments"], self.stored))


def _blocks(segments: Iterable[str], stored: Stored) -> Iterator[memoryview]:
    """Yield the bytes of segments, one after the other."""
    for segment in segments:
        yield from stored.blocks(segment)
        stored.verdict()
