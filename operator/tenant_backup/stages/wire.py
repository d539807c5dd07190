"""How the containers of one pod talk: JSON messages and byte streams over Unix sockets.

A message is a 4-byte big-endian length and that many bytes of JSON. Rows follow in one of two ways:

* From `dump` to `archive` a child process (psql) writes raw bytes straight to the socket, so the
  stream cannot be framed. It ends with a marker: a zero and 31 random bytes announced in the message
  before, which no row can contain because nobody knew them. Then comes the producer's own verdict.
* From `open` to `load` both ends are ours: blocks of at most BLOCK bytes, each with a 4-byte
  length; length zero ends the stream, then comes the verdict.

End of file anywhere else is failure: a peer that dies is never mistaken for one that finished.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tenant_backup.contract.reasons import Failure, Reason

BLOCK = 1 << 20  # bytes read or sent at once
MARKER_LENGTH = 32  # bytes
PEER_TIMEOUT = 60.0  # seconds to wait for a peer that has not come up
_MESSAGE_LIMIT = 64 << 20  # bytes; a catalogue of 100,000 tables fits
_LENGTH = struct.Struct(">I")


def peer_failed(peer: str) -> Failure:
    """The failure of a stage whose neighbour went away; it never decides about retrying."""
    return Failure(Reason.PEER_FAILED, f"container {peer} ended before its work was complete")


def listen(path: Path) -> socket.socket:
    """Listen on a Unix socket at `path`, replacing what a killed attempt left there."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    temporary = path.with_suffix(".binding")
    temporary.unlink(missing_ok=True)
    server.bind(str(temporary))
    server.listen(64)
    temporary.chmod(0o666)  # a container that reads files runs as the user who can
    temporary.rename(path)  # appears only once it accepts
    return server


def connect(path: Path, peer: str, timeout: float = PEER_TIMEOUT) -> socket.socket:
    """Connect to a peer's socket, waiting up to `timeout` seconds for it to appear.

    Raises Failure(PEER_FAILED) when it does not come, or has said that it failed.
    """
    give_up = time.monotonic() + timeout
    while True:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.connect(str(path))
            return client
        except (FileNotFoundError, ConnectionRefusedError):
            client.close()
        if has_ended(path.parent, peer) or time.monotonic() > give_up:
            raise peer_failed(peer)
        time.sleep(0.02)


def hold_life(run: Path, stage: str) -> int:
    """Lock the file that says that this stage lives; the kernel lets go however the process ends.

    Returns the descriptor, to be kept open until then.
    """
    unseen = run / f"{stage}.starting"
    descriptor = os.open(unseen, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)  # other users look at it
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    unseen.rename(run / f"{stage}.alive")  # seen only once it is locked: nobody takes us for dead
    return descriptor


def has_ended(run: Path, peer: str) -> bool:
    """Whether a peer that has not connected yet never will: it said that it failed, or was killed."""
    if failed_flag(run, peer).exists():
        return True
    try:
        descriptor = os.open(run / f"{peer}.alive", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False  # it has not started yet
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)


def failed_flag(run: Path, stage: str) -> Path:
    """The file a stage leaves in the run folder when it ends badly, for peers not yet connected."""
    return run / f"{stage}.failed"


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send one message. Raises OSError when the peer is gone."""
    body = json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()
    connection.sendall(_LENGTH.pack(len(body)) + body)


def send_marker(connection: socket.socket, marker: bytes) -> None:
    """End a raw stream: to be followed by `send` of the producer's verdict."""
    connection.sendall(marker)


def new_marker() -> bytes:
    """Return a marker no stream contains; announce it as hex in the message before the stream."""
    return b"\0" + secrets.token_bytes(MARKER_LENGTH - 1)


def send_blocks(connection: socket.socket, blocks: Iterator[bytes | memoryview]) -> None:
    """Send a framed stream and its end; the verdict follows with `send`."""
    for block in blocks:
        view = memoryview(block)
        for start in range(0, len(view), BLOCK):
            part = view[start : start + BLOCK]
            connection.sendall(_LENGTH.pack(len(part)))
            connection.sendall(part)
    connection.sendall(_LENGTH.pack(0))


class Reader:
    """Reads messages and streams from one connection; keeps what it has read ahead."""

    def __init__(self, connection: socket.socket, peer: str) -> None:
        self._connection = connection
        self._peer = peer
        self._ahead = b""
        self._buffer = bytearray()  # of raw streams, made when the first one comes

    def message(self) -> dict[str, Any]:
        """Return the next message. Raises Failure(PEER_FAILED) at end of file."""
        message = self.message_or_end()
        if message is None:
            raise peer_failed(self._peer)
        return message

    def message_or_end(self) -> dict[str, Any] | None:
        """Return the next message, or None when the peer closed between two messages."""
        head = self._exactly(_LENGTH.size, may_end=True)
        if head is None:
            return None
        (length,) = _LENGTH.unpack(head)
        if length > _MESSAGE_LIMIT:
            raise Failure(Reason.INTERNAL_ERROR, f"a message of {length} bytes from {self._peer} is too long")
        body = self._exactly(length)
        assert body is not None
        return dict(json.loads(body))

    def raw(self, marker: bytes) -> Iterator[memoryview]:
        """Yield the bytes of a raw stream up to `marker`, in pieces of up to about BLOCK bytes.

        A piece is a view of the reader's own buffer: it is good until the next one is asked for.
        """
        keep = len(marker) - 1
        buffer = self._buffer = self._buffer or bytearray(BLOCK + 2 * MARKER_LENGTH)
        view = memoryview(buffer)
        filled = len(self._ahead)
        view[:filled] = self._ahead
        self._ahead = b""
        while (at := _find(buffer, marker, filled)) < 0:
            # The marker may straddle two reads: keep its longest possible beginning back.
            safe = max(0, filled - keep)
            if safe:
                yield view[:safe]
            view[: filled - safe] = bytes(view[safe:filled])
            filled -= safe
            received = self._receive_into(view[filled:])
            if not received:
                raise peer_failed(self._peer)
            filled += received
        self._ahead = bytes(view[at + len(marker) : filled])
        if at:
            yield view[:at]

    def blocks(self) -> Iterator[memoryview]:
        """Yield the bytes of a framed stream up to its end, in pieces of up to BLOCK bytes.

        A piece is a view of the reader's own buffer: it is good until the next one is asked for.
        """
        buffer = self._buffer = self._buffer or bytearray(BLOCK + 2 * MARKER_LENGTH)
        view = memoryview(buffer)
        while True:
            head = self._exactly(_LENGTH.size)
            assert head is not None
            (left,) = _LENGTH.unpack(head)
            if left == 0:
                return
            while left:
                received = self._receive_into(view[: min(left, BLOCK)])
                if not received:
                    raise peer_failed(self._peer)
                yield view[:received]
                left -= received

    def _exactly(self, length: int, *, may_end: bool = False) -> bytes | None:
        parts = [self._ahead[:length]]
        self._ahead = self._ahead[length:]
        have = len(parts[0])
        while have < length:
            block = self._receive(length - have)
            if not block:
                if may_end and have == 0:
                    return None
                raise peer_failed(self._peer)
            parts.append(block)
            have += len(block)
        return b"".join(parts)

    def _receive(self, limit: int = BLOCK) -> bytes:
        try:
            return self._connection.recv(min(limit, BLOCK))
        except ConnectionError:
            return b""

    def _receive_into(self, room: memoryview) -> int:
        if self._ahead:
            taken = self._ahead[: len(room)]
            self._ahead = self._ahead[len(taken) :]
            room[: len(taken)] = taken
            return len(taken)
        try:
            return self._connection.recv_into(room)
        except ConnectionError:
            return 0


def _find(buffer: bytearray, marker: bytes, end: int) -> int:
    # Text has no zero byte, and one byte is looked for five times as fast as thirty-two.
    zero = buffer.find(marker[:1], 0, end)
    return zero if zero < 0 else buffer.find(marker, zero, end)
