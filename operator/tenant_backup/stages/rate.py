"""How fast bytes may go: a token bucket, and a brake that waits for one."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

_BURST = 1.0  # seconds' worth of bytes that go at once after a pause


@dataclass
class TokenBucket:
    """Allows `rate` bytes per second on average and `burst` at once. Knows no clock: times are arguments.

    What is too big for the bucket goes all the same and leaves a debt, which the next ones wait for.
    """

    rate: float  # bytes per second
    burst: float  # bytes
    started: float  # seconds, by the clock of all other times
    _level: float = field(init=False)  # bytes that may go at `_at`; below zero is debt
    _at: float = field(init=False)

    def __post_init__(self) -> None:
        self._level, self._at = self.burst, self.started

    def take(self, count: int, now: float) -> float:
        """Take `count` bytes at the time `now`; return how many seconds to wait before they may go."""
        elapsed = max(0.0, now - self._at)  # threads may ask in another order than they read the clock
        self._level = min(self.burst, self._level + elapsed * self.rate) - count
        self._at = max(self._at, now)
        return max(0.0, -self._level / self.rate)


class Brake:
    """Makes threads wait so that all of them together keep to a rate; a rate of 0 is no brake."""

    def __init__(self, rate: int) -> None:
        self._lock = threading.Lock()
        self._bucket = TokenBucket(rate, rate * _BURST, time.monotonic()) if rate else None

    def spend(self, count: int) -> None:
        """Return when `count` more bytes may go."""
        if self._bucket is None:
            return
        with self._lock:
            pause = self._bucket.take(count, time.monotonic())
        time.sleep(pause)
