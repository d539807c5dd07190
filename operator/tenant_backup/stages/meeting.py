"""Those who restore one backup wait for each other, step by step: all of it takes place, or nothing."""

from __future__ import annotations

import socket
import threading
from typing import Any

from . import wire


class Meeting:
    """Lets everybody go on when all have come; what the first of them says is the answer."""

    def __init__(self, who: list[str]) -> None:
        """Wait for these; the first of them decides."""
        self._who = who
        self._lock = threading.Lock()
        self._here: dict[str, tuple[socket.socket, dict[str, Any]]] = {}

    def come(self, who: str, connection: socket.socket, message: dict[str, Any]) -> None:
        """Keep them waiting on their connections for the last to come. Raises OSError."""
        with self._lock:
            self._here[who] = connection, message
            if len(self._here) < len(self._who):
                return
            here, self._here = self._here, {}
        answer = {"committed": here[self._who[0]][1]["committed"]}
        # Who decides goes last: another one that is not let go knows that nothing has been decided.
        for each in reversed(self._who):
            wire.send(here[each][0], answer)
