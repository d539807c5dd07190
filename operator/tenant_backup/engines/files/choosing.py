"""What of a tar is wanted, found by reading it once: patterns choose entries, and some need others."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from . import names, tar


@dataclass
class Chosen:
    """Paths of a tar; `needed` has all of `wanted`, and the first names of hard links in it."""

    wanted: set[bytes] = field(default_factory=set)  # with the directories they are in
    needed: set[bytes] = field(default_factory=set)  # likewise
    files: int = 0  # that are wanted; everything but directories
    bytes: int = 0  # of those
    unmatched: list[str] = field(default_factory=list)  # patterns that mean nothing in it


def choose(reader: tar.Reader, patterns: list[str]) -> Chosen:
    """Read all headers and choose; what is below a directory that is meant is meant, too. Raises Failure."""
    chosen, is_meant = Chosen(), names.matcher(patterns)
    unmatched = {pattern: names.matcher([pattern]) for pattern in patterns}
    last, inside = (b"", 0), None
    for entry in reader.entries():
        path = os.fsdecode(entry.path)
        unmatched = {pattern: means for pattern, means in unmatched.items() if not means(path)}
        if inside is None or not path.startswith(inside):
            inside = None
            if not is_meant(path):
                continue
            if entry.type == "directory":
                inside = f"{path}/"
        if entry.path == last[0]:  # it changed while it was read, and was read again
            chosen.files -= 1
            chosen.bytes -= last[1]
        chosen.wanted |= _with_folders(entry.path)
        if entry.type == "hardlink":
            chosen.needed |= _with_folders(entry.target)
        if entry.type != "directory":
            last = entry.path, entry.size if entry.type == "file" else 0
            chosen.files += 1
            chosen.bytes += last[1]
    chosen.needed |= chosen.wanted
    chosen.unmatched = list(unmatched)
    return chosen


def _with_folders(path: bytes) -> set[bytes]:
    steps = path.split(b"/")
    return {b"/".join(steps[:depth]) for depth in range(1, len(steps) + 1)}
