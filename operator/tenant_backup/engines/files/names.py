"""Names of files: in patterns, in messages, and those that are ours on a tenant's volume."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

OURS = ".tenant-backup"  # at the top of a volume: where a restore keeps what it has not put in place
_FILE_SYSTEMS_OWN = "lost+found"
LEFT_ALONE = frozenset((OURS, _FILE_SYSTEMS_OWN))  # at the top of a volume; neither read nor touched

_SHOWN = 100  # characters
_TOKEN = re.compile(r"(\*\*/|\*\*|\*|\?)")
_MEANING = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Return what says whether a path relative to the volume is meant by one of the patterns.

    `*` and `?` stand for what is in one name, `**` also for slashes.
    """
    found = "|".join(_expression(pattern) for pattern in patterns)
    if not found:
        return lambda _path: False
    expression = re.compile(found, re.DOTALL)
    return lambda path: expression.fullmatch(path) is not None


def _expression(pattern: str) -> str:
    return "".join(_MEANING.get(part) or re.escape(part) for part in _TOKEN.split(pattern))


def segment(volume: str, number: int) -> str:
    """Return the id of a segment with files of a volume; one after the other they are a tar."""
    return f"files/{volume}/{number}"


def shown(path: str) -> str:
    """Return a path as one short line, whatever bytes are in it."""
    text = path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    line = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 1] + "…"


def listed(paths: Iterable[str], count: int) -> str:
    """Return the paths, and how many more there are of `count`."""
    names = [shown(path) for path in paths]
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return ", ".join(names) + more
