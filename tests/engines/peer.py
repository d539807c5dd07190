"""Stand-ins for the containers across the sockets: they keep what `dump` sends and give it to `load`.

They speak the protocol of docs/ARCHITECTURE.md and nothing more; the real chain is tested elsewhere.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure
from tenant_backup.stages import wire
from tenant_backup.stages.meeting import Meeting


@dataclass
class Kept:
    """One backup as `archive` would see it."""

    catalogue: dict[str, Any] = field(default_factory=dict)
    segments: dict[str, list[bytes]] = field(default_factory=dict)
    rows: dict[str, int | None] = field(default_factory=dict)
    tables: dict[str, str | None] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    complete: bool = False  # every segment the dump names arrived with its verdict
    size: int = 0

    def everything(self) -> bytes:
        """Every byte that left the database."""
        return b"".join(b"".join(parts) for parts in self.segments.values())


class ArchivePeer:
    """Listens where `archive` would. `keep=False` only counts bytes; `on_block` may interfere."""

    def __init__(self, *, keep: bool = True, on_block: Callable[[str, int], None] | None = None) -> None:
        self.kept = Kept()
        self.answer = True  # False: close the control connection instead of answering
        self._keep = keep
        self._on_block = on_block
        self._arrived = threading.Condition()
        self._connections: list[socket.socket] = []
        self._server = wire.listen(paths.RUN / paths.ARCHIVE_SOCKET)
        threading.Thread(target=self._accept, daemon=True).start()

    def die(self) -> None:
        """Close every connection, as a killed process would."""
        for connection in [self._server, *self._connections]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._connections.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader = wire.Reader(connection, "dump")
        try:
            kind = reader.message()["connection"]
            self._control(connection, reader) if kind == "control" else self._data(reader)
        except (Failure, OSError):
            pass
        finally:
            connection.close()

    def _data(self, reader: wire.Reader) -> None:
        while not (message := reader.message()).get("end"):
            name = message["segment"]
            parts: list[bytes] = []
            lines = 0
            for view in reader.raw(bytes.fromhex(message["marker"])):
                block = bytes(view)  # the view is only good until the next one
                if self._on_block:
                    self._on_block(name, len(block))
                self.kept.size += len(block)
                if self._keep:
                    parts.append(block)
                    lines += block.count(b"\n")
            rows = reader.message()["rows"]
            assert rows is None or not self._keep or rows == lines, f"{name}: {rows} rows, {lines} lines"
            with self._arrived:
                self.kept.segments[name] = parts
                self.kept.rows[name] = rows
                self.kept.tables[name] = message["table"]
                self._arrived.notify_all()

    def _control(self, connection: socket.socket, reader: wire.Reader) -> None:
        self.kept.plan = reader.message()["plan"]
        self.kept.catalogue = reader.message()["catalogue"]
        done = reader.message()
        assert done["done"]
        with self._arrived:
            self._arrived.wait_for(lambda: set(done["segments"]) <= set(self.kept.segments), timeout=60)
        self.kept.complete = set(done["segments"]) == set(self.kept.segments)
        if self.answer:
            wire.send(connection, {"done": True})


class OpenPeer:
    """Listens where `open` would and gives out one kept backup. `on_segment` may interfere before the verdict.

    `parts` are those who restore it together; when one of them goes away, it leaves the others, too.
    """

    def __init__(
        self, kept: Kept, *, on_segment: Callable[[str], None] | None = None, parts: Sequence[str] = ("",)
    ) -> None:
        self.kept = kept
        self._parts, self._meeting = parts, Meeting(list(parts))
        self._connections: list[socket.socket] = []
        self._left = False  # a part went away, and the others are left alone
        self.done = threading.Event()
        self._on_segment = on_segment
        self._server = wire.listen(paths.RUN / paths.OPEN_SOCKET)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            self._connections.append(connection)
            if self._left:
                connection.close()
                continue
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        reader, part, done = wire.Reader(connection, "load"), None, False
        try:
            while (message := reader.message_or_end()) is not None:
                if message.get("get") == "catalogue":
                    part = message.get("volume", "")
                done = done or "done" in message
                if "come" in message:
                    self._meeting.come(str(part), connection, message)
                else:
                    self._answer(connection, message)
        except (Failure, OSError):
            pass
        finally:
            if part is not None and not done and len(self._parts) > 1:
                self._left = True
                for each in self._connections:
                    with contextlib.suppress(OSError):
                        each.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _answer(self, connection: socket.socket, message: dict[str, Any]) -> None:
        if message.get("done"):
            self.done.set()
        elif message["get"] == "catalogue":
            wire.send(connection, {"catalogue": self.kept.catalogue, "manifest": {}})
        else:
            name = message["segment"]
            wire.send_blocks(connection, self._blocks(name))
            size = sum(len(part) for part in self.kept.segments[name])
            wire.send(connection, {"rows": self.kept.rows[name], "bytes": size})

    def _blocks(self, name: str) -> Iterator[bytes | memoryview]:
        yield from self.kept.segments[name]
        if self._on_segment:
            self._on_segment(name)


def write_secrets(base: Path, **logins: tuple[str, str]) -> None:
    """Write mounted Secrets: folder=(username, password)."""
    for folder, (user, password) in logins.items():
        (base / folder).mkdir(parents=True, exist_ok=True)
        (base / folder / "username").write_text(user)
        (base / folder / "password").write_text(password)
