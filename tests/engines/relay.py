"""Stands between a server and whoever connects to it, and keeps every byte that goes either way."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Relay:
    """A port of this machine behind which another one is. Use it as a context, and without TLS."""

    def __init__(self, port: int) -> None:
        """Stand before `port`."""
        self._behind = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._server.getsockname()[1])
        self._heard: list[bytearray] = []

    @property
    def heard(self) -> bytes:
        """All bytes so far, those of one connection and direction together."""
        return b"\n".join(map(bytes, self._heard))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._behind))
                for pair in ((client, server), (server, client)):
                    heard = bytearray()
                    self._heard.append(heard)
                    threading.Thread(target=_pass_on, args=(*pair, heard), daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket, heard: bytearray) -> None:
    with contextlib.suppress(OSError):  # either side may be cut
        while data := source.recv(1 << 16):
            heard += data
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)
