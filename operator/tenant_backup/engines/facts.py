"""What a stage says when it has succeeded, short enough for a termination message."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

_SHOWN = 8  # skipped entries; a termination message is small
_SHOWN_LENGTH = 100  # characters of each


_NAMES = 800  # bytes of the names of a list that may be long


@dataclass(frozen=True)
class Restored:
    """How much came back."""

    tables: int
    rows: int
    bytes: int


def of_load(
    restored: Restored,
    previous: str | None,
    kept: dict[str, int],
    told: list[str],
    *,
    constraints_valid: bool = True,
) -> dict[str, Any]:
    """Return {restored, check, previousDatabase, keepLive, skipped}; `told` is what is not as it was."""
    more = [f"and {len(told) - _SHOWN} more"] if len(told) > _SHOWN else []
    return {
        "restored": {"tables": restored.tables, "rows": restored.rows, "bytes": restored.bytes},
        "check": {"rowsMatch": True, "constraintsValid": constraints_valid},
        "previousDatabase": previous,
        "keepLive": kept,
        "skipped": [text[:_SHOWN_LENGTH] for text in told[:_SHOWN]] + more,
    }


def of_look(version: str, size: int, tables: int, unclaimed: list[str], leaving: list[str]) -> dict[str, Any]:
    """Return {version, sizeBytes, tables, unclaimedTables, leavingForeignKeys}; the last two {count, names}.

    `unclaimed` are tables that no module claims, `leaving` foreign keys that leave what is selected.
    """
    return {
        "version": version,
        "sizeBytes": size,
        "tables": tables,
        "unclaimedTables": _counted(unclaimed),
        "leavingForeignKeys": _counted(leaving),
    }


def _counted(names: list[str]) -> dict[str, Any]:
    """Return how many there are, and the first of them, as many as fit."""
    shown = [name.encode(errors="replace").decode() for name in names]
    ends = itertools.accumulate(len(json.dumps(name, ensure_ascii=False).encode()) + 1 for name in shown)
    fitting = sum(end <= _NAMES for end in ends)
    return {"count": len(names), "names": shown[:fitting]}
