"""The progress bar on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn


@contextmanager
def bar(phase: str, total: int | None) -> Iterator[_Bar]:
    """Show a bar until the block ends."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    more = (DownloadColumn(binary_units=True), TimeRemainingColumn()) if total else ()
    with Progress(*columns, *more, console=Console(stderr=True), transient=True) as shown:
        yield _Bar(shown, shown.add_task(phase, total=total or 100.0))


class _Bar:
    def __init__(self, shown: Progress, task: TaskID) -> None:
        self._shown, self._task = shown, task

    def advance(self, count: int) -> None:
        """See console.Bar."""
        self._shown.advance(self._task, count)

    def show(self, phase: str, percent: float | None) -> None:
        """See console.Bar."""
        self._shown.update(self._task, description=phase, completed=percent)
