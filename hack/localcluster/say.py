"""What the user reads: progress lines, and problems in one sentence that says what to do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Problem(Exception):
    """Something the user has to know or do; the message is the whole story."""


def say(text: str) -> None:
    """Print a line at once, also when the output is a pipe."""
    print(text, flush=True)


@contextmanager
def step(text: str) -> Iterator[None]:
    """Announce a step, and how long it took when that was worth mentioning."""
    say(f"{text} …")
    started = time.monotonic()
    yield
    took = time.monotonic() - started
    if took >= 1:
        say(f"  {text}: done in {took:.0f} s")
