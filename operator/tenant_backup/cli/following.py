"""What the stages print while they work, on the progress bar."""

from __future__ import annotations

import json
from collections.abc import Sequence

from . import console
from .pipeline import Running

_TAIL = 4096  # bytes; a progress line has about a hundred


class Follower:
    """Shows the newest progress of one stage, and of the others until that one speaks."""

    def __init__(self, bar: console.Bar, spokesman: str) -> None:
        self._bar, self._spokesman = bar, spokesman
        self._seen: dict[str, int] = {}  # bytes of each stage's output

    def __call__(self, running: Sequence[Running]) -> None:
        """Look at every stage's output; see pipeline.Watch."""
        for item in sorted(running, key=lambda item: item.stage != self._spokesman):
            length = item.stdout.stat().st_size
            if length != self._seen.get(item.stage, 0):
                self._seen[item.stage] = length
                self._show(item)
                return

    def _show(self, item: Running) -> None:
        with item.stdout.open("rb") as file:
            file.seek(max(0, self._seen[item.stage] - _TAIL))
            lines = file.read().splitlines()
        for line in reversed(lines):
            try:
                told = json.loads(line)["progress"]
            except (ValueError, KeyError, TypeError):
                continue  # half a line, or none of ours
            if "percent" in told:
                self._bar.show(told["phase"], float(told["percent"]))
            return
