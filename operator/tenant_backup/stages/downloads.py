"""The tenant's objects as the stages `open` and `examine` get them: by name, from `download`."""

from __future__ import annotations

import queue
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tenant_backup.archive.manifest import MAX_LENGTH
from tenant_backup.archive.objects import fetch_bytes
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason

from . import wire
from .crew import Crew

_CONNECTIONS = 8  # to `download`, opened when they are needed


class Downloads:
    """The tenant's objects, asked of `download` over a few connections."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._idle: queue.LifoQueue[socket.socket | None] = queue.LifoQueue()
        for _ in range(_CONNECTIONS):
            self._idle.put(None)

    def fetch(self, name: str, length: int | None, sha256: str | None) -> Path:
        """Have an object brought into the spool. Raises Failure(PEER_FAILED)."""
        return Path(self.ask({"get": name, "length": length, "sha256": sha256})["path"])

    def length(self, name: str) -> int | None:
        """Return an object's length in bytes, None when there is none. Raises Failure(PEER_FAILED)."""
        answer = self.ask({"stat": name})["length"]
        return None if answer is None else int(answer)

    def manifest(self, name: str) -> bytes:
        """Return a manifest's bytes, unchecked. Raises Failure: BACKUP_NOT_FOUND, CHECKSUM_MISMATCH."""
        length = self.length(name)
        if length is None:
            raise Failure(
                Reason.BACKUP_NOT_FOUND,
                f"the store has no {name}; the backup was deleted or is in another store or prefix",
            )
        if length > MAX_LENGTH:
            raise Failure(
                Reason.CHECKSUM_MISMATCH,
                f"{name} has {length} bytes, which no manifest has; choose another backup",
            )
        return fetch_bytes(self, name)

    def finish(self) -> None:
        """Tell `download` that its work is done."""
        with self._connection() as connection:
            wire.send(connection, {"done": True})

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to one question. Raises Failure(PEER_FAILED)."""
        with self._connection() as connection:
            wire.send(connection, question)
            return wire.Reader(connection, "download").message()

    @contextmanager
    def _connection(self) -> Iterator[socket.socket]:
        connection = self._idle.get()
        try:
            if connection is None:
                connection = self._crew.adopt(wire.connect(paths.RUN / paths.DOWNLOAD_SOCKET, "download"))
            yield connection
        except OSError:
            raise wire.peer_failed("download") from None
        finally:
            self._idle.put(connection)
