"""The threads of one stage: the first to fail decides how the stage ends, and nobody keeps waiting.

Threads block on sockets. When one fails, every connection is shut down, so the others find end of
file; what they raise then is a consequence and is dropped.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

from tenant_backup.contract.job import Backup, Restore

from .wire import PEER_TIMEOUT, has_ended, peer_failed

_TICK = 0.2  # seconds between looks at the clock and at a peer's flag


class Crew:
    """Starts threads, knows their connections, and wakes the main thread when something changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._connections: list[socket.socket] = []
        self._woken, self._wake = socket.socketpair()
        self._wake.setblocking(False)

    def start(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread; what it raises fails the crew."""
        threading.Thread(target=self._run, args=(work,), daemon=True).start()

    def adopt(self, connection: socket.socket) -> socket.socket:
        """Return `connection`, to be shut down when somebody fails."""
        with self._lock:
            self._connections.append(connection)
        return connection

    def check(self) -> None:
        """Raise what the first thread that failed raised."""
        if self._failure is not None:
            raise self._failure

    def wake(self) -> None:
        """Let the main thread look again at what it waits for."""
        with contextlib.suppress(BlockingIOError):  # full: it will wake anyway
            self._wake.send(b"!")

    def wait(
        self,
        done: Callable[[], bool],
        tick: Callable[[], None] = lambda: None,
        server: socket.socket | None = None,
        serve: Callable[[socket.socket], None] = lambda _: None,
    ) -> None:
        """Wait until `done()`, in the main thread; give new connections of `server` to `serve`.

        `tick` is called several times a second. Raises what a thread raised, or what `tick` raises.
        """
        with selectors.DefaultSelector() as selector:  # select() ends at descriptor 1023
            selector.register(self._woken, selectors.EVENT_READ)
            if server is not None:
                selector.register(server, selectors.EVENT_READ)
            while self._still_waiting(done):
                for key, _ in selector.select(_TICK):
                    if key.fileobj is self._woken:
                        self._woken.recv(4096)
                    elif server is not None:
                        serve(server.accept()[0])
                tick()

    def close(self) -> None:
        """Shut every connection down; threads that still read find end of file."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def _still_waiting(self, done: Callable[[], bool]) -> bool:
        self.check()
        return not done()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the main thread raises it
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            first = self._failure is None
            if first:
                self._failure = error
        if first:
            self.close()
            self.wake()


def peers(job: Backup | Restore, of_database: str, of_volume: str) -> dict[str, str]:
    """Return the stages that talk to us, by volume; of no volume is the one of the database."""
    whole = {"": of_database} if job.database.engine else {}
    return whole | {volume.name: volume.container(of_volume) for volume in job.files}


class Patience:
    """Waits for a peer's first connection: not for ever, and not for one that has ended."""

    def __init__(self, run: Path, peer: str) -> None:
        self._run, self._peer = run, peer
        self._give_up = time.monotonic() + PEER_TIMEOUT
        self.came = False

    def check(self) -> None:
        """Raise Failure(PEER_FAILED) when the peer will not come any more."""
        if self.came:
            return
        # One that came meanwhile may have ended well by now: whether it came is asked last.
        gone = has_ended(self._run, self._peer) or time.monotonic() > self._give_up
        if gone and not self.came:
            raise peer_failed(self._peer)
