"""What people and machines get to see: data on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import click

from tenant_backup.contract.reasons import Failure

SIGNATURE = {True: "good", False: "WRONG", None: "unchecked"}


class Bar(Protocol):
    """A progress bar, or nothing where nobody is looking."""

    def advance(self, count: int) -> None:
        """Move on by `count` bytes."""

    def show(self, phase: str, percent: float | None) -> None:
        """Say what is going on, and how far it is, 0 to 100."""


def emit(document: Any) -> None:
    """Print one JSON document, for machines."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def say(text: str) -> None:
    """Tell people something that is not data."""
    click.echo(text, err=True)


def complain(failure: Failure, *, as_json: bool) -> None:
    """Say why it did not work."""
    if as_json:
        document = {"reason": failure.reason, "message": failure.message, "retriable": failure.retriable}
        click.echo(json.dumps({"error": document}, ensure_ascii=False), err=True)
    else:
        click.echo(f"{failure.reason}: {failure.message}", err=True)


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows under headings, columns aligned; what looks like a number is to the right."""
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(heads))]
    right = [
        bool(rows) and all(row[at][:1].isdigit() and " " not in row[at][:-4] for row in rows)
        for at in range(len(heads))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def size(count: int) -> str:
    """Return bytes as people read them: 1.2 GiB."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


@contextmanager
def progress(phase: str, total: int | None = None) -> Iterator[Bar]:
    """Show a bar of `total` bytes on standard error, if it is a terminal."""
    if not sys.stderr.isatty():
        yield _Unseen()
        return
    # Late: only who looks at a terminal waits for it.
    from .bar import bar

    with bar(phase, total) as shown:
        yield shown


class _Unseen:
    def advance(self, count: int) -> None:
        """Nobody is looking."""

    def show(self, phase: str, percent: float | None) -> None:
        """Nobody is looking."""
