"""Container `load`: holds the database's and the administrator's credentials, and sees rows in the clear.

What a restore does at the server is the engine's; here is the way to `open`, which has the backup.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

from tenant_backup.contract import paths
from tenant_backup.contract.job import Job, Restore
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines import seam

from . import wire

PEER = "open"
STEPS = ("ready", "placed")  # of those with a volume, before the database is put in place


def run(job: Job) -> dict[str, Any]:
    """Restore one backup; return {restored, check, previousDatabase, keepLive, skipped}. Raises Failure.

    `restored` is {tables, rows, bytes}, `check` {rowsMatch, constraintsValid}, `keepLive` {kept,
    withoutMatch}.
    """
    assert isinstance(job, Restore)
    with contextlib.ExitStack() as stack:
        contents = _Contents(stack, job)
        facts = seam.engine(job.database.engine).restore(job, contents)
        contents.let_go()
        return facts


class FromOpen:
    """A backup, by `open`; `who` says in the first message who we are: nothing is the database."""

    def __init__(self, stack: contextlib.ExitStack, who: dict[str, str]) -> None:
        self._stack, self._who = stack, who
        self._control: socket.socket | None = None
        self._reader: wire.Reader | None = None

    def document(self) -> dict[str, Any]:
        """Return the catalogue. Raises Failure(PEER_FAILED)."""
        with _told_as_peer_failure():
            connection = wire.connect(paths.RUN / paths.OPEN_SOCKET, PEER)
            self._control = self._stack.enter_context(contextlib.closing(connection))
            self._reader = wire.Reader(connection, PEER)
            wire.send(connection, {"get": "catalogue", **self._who})
            return dict(self._reader.message()["catalogue"])

    @contextlib.contextmanager
    def opened(self) -> Iterator[_Stored]:
        """Open one more connection: see seam.Contents."""
        with (
            _told_as_peer_failure(),
            contextlib.closing(wire.connect(paths.RUN / paths.OPEN_SOCKET, PEER)) as connection,
        ):
            yield _Stored(connection)

    def come(self, step: str, *, committed: bool) -> bool:
        """Wait until all who restore have come that far; return what is said by who decides."""
        assert self._control
        assert self._reader
        with _told_as_peer_failure():
            wire.send(self._control, {"come": step, "committed": committed})
            return bool(self._reader.message()["committed"])

    def let_go(self) -> None:
        """Say that it is done. All is in place: what becomes of `open` now changes nothing."""
        if self._control:
            with contextlib.suppress(OSError):
                wire.send(self._control, {"done": True})


class _Contents(FromOpen):
    """See seam.Contents."""

    def __init__(self, stack: contextlib.ExitStack, job: Restore) -> None:
        super().__init__(stack, {})
        self._engine, self._alone = job.database.engine, not job.files

    def catalogue(self) -> dict[str, Any]:
        found = self.document()
        made_by = found["server"]["engine"]
        if made_by != self._engine:
            message = f"a backup of {made_by or 'files alone'} cannot be restored into {self._engine}"
            raise Failure(Reason.UNSUPPORTED_CONTENT, f"{message}; name a Tenant on a server of that kind")
        return found

    def begin(self, *, committed: bool) -> None:
        if not self._alone:
            self.come("begin", committed=committed)

    @contextlib.contextmanager
    def committing(self, is_committed: Callable[[], bool]) -> Iterator[None]:
        if self._alone:
            yield
            return
        for step in STEPS:
            self.come(step, committed=False)
        try:
            yield
        except BaseException:
            # Where nobody knows, nothing is said: the next attempt looks.
            with contextlib.suppress(Exception):
                self.come("ended", committed=is_committed())
            raise
        self.come("ended", committed=True)


class _Stored:
    """See seam.Stored."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = wire.Reader(connection, PEER)

    def blocks(self, segment: str) -> Iterator[memoryview]:
        wire.send(self._connection, {"get": "segment", "segment": segment})
        yield from self._reader.blocks()

    def verdict(self) -> dict[str, Any]:
        return self._reader.message()


@contextlib.contextmanager
def _told_as_peer_failure() -> Iterator[None]:
    try:
        yield
    except OSError as error:  # of the socket
        raise wire.peer_failed(PEER) from error
