"""The work queue: one worker per key at a time, duplicates merged, back-off after errors, delays.

Delays are timers of the event loop, never a sleeping worker, so ten thousand waiting objects cost
ten thousand timers and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, Protocol, TypeVar

Key = TypeVar("Key", bound=Hashable)
_log = logging.getLogger(__name__)


class Timer(Protocol):
    """What `call_later` returns."""

    def cancel(self) -> None:
        """Forget the call."""

    def when(self) -> float:
        """Return the loop time of the call, in seconds."""


class WorkQueue(Generic[Key]):
    """Calls `work(key)` for every key added.

    `work` returns after how many seconds it wants the key again, or None; when it raises, the key comes
    back after a pause that doubles from `first` to `longest` seconds.
    """

    def __init__(
        self,
        work: Callable[[Key], Awaitable[float | None]],
        *,
        workers: int = 16,
        first: float = 0.2,
        longest: float = 60.0,
    ) -> None:
        self._work = work
        self._count = workers
        self._first, self._longest = first, longest
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._queued: set[Key] = set()  # in _ready
        self._active: set[Key] = set()  # being worked on
        self._again: set[Key] = set()  # added while being worked on
        self._timers: dict[Key, Timer] = {}
        self._failures: dict[Key, int] = {}
        self._workers: list[asyncio.Task[None]] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._closing = False

    def start(self) -> None:
        """Start the workers; call inside the running event loop."""
        self._workers = [asyncio.create_task(self._worker(), name=f"worker-{n}") for n in range(self._count)]

    def add(self, key: Key) -> None:
        """Have `key` worked on soon; once, however often it is added until then."""
        if self._closing:
            return
        if key in self._active:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._idle.clear()
            self._ready.put_nowait(key)

    def after(self, key: Key, delay: float) -> None:
        """Add `key` in `delay` seconds, unless it comes earlier anyway."""
        loop = asyncio.get_running_loop()
        known = self._timers.get(key)
        if self._closing or (known is not None and known.when() <= loop.time() + delay):
            return
        if known is not None:
            known.cancel()
        self._timers[key] = loop.call_later(delay, self._ring, key)

    def counts(self) -> dict[str, int]:
        """Return how many keys are ready to be worked on, being worked on, and waiting for a timer."""
        return {"ready": len(self._queued), "active": len(self._active), "delayed": len(self._timers)}

    async def drained(self) -> None:
        """Return when nothing is ready or being worked on; timers do not count."""
        await self._idle.wait()

    async def close(self) -> None:
        """Take no more keys, let running work end, and stop."""
        self._closing = True
        for timer in self._timers.values():
            timer.cancel()
        while self._active:
            self._idle.clear()
            await self._idle.wait()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)

    def _ring(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _worker(self) -> None:
        while True:
            key = await self._ready.get()
            self._queued.discard(key)
            if not self._closing:
                await self._once(key)
            if not self._active and (self._closing or not self._queued):
                self._idle.set()

    async def _once(self, key: Key) -> None:
        self._active.add(key)
        timer = self._timers.pop(key, None)  # whoever works on it now says when it comes next
        if timer is not None:
            timer.cancel()
        try:
            delay = await self._work(key)
            self._failures.pop(key, None)
        except Exception:  # noqa: BLE001 - a bug in one object must not stop the others
            delay = self._back_off(key)
            _log.exception("work on %s failed; again in %.1f s", key, delay)
        finally:
            self._active.discard(key)
        if delay is not None:
            self.after(key, delay)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _back_off(self, key: Key) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(self._first * 2.0 ** min(failures, 30), self._longest)
