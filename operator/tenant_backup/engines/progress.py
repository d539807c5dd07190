"""Waiting for workers, and saying meanwhile how far they are."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

_EVERY = 2.0  # seconds


def report_until_over(threads: Iterable[threading.Thread], report: Callable[[], None]) -> None:
    """Return when all threads have ended; call `report` every two seconds until then."""
    told = time.monotonic()
    for thread in threads:
        while thread.is_alive():
            thread.join(_EVERY)
            if time.monotonic() - told >= _EVERY:
                told = time.monotonic()
                report()
