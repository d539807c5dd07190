"""What a stage says when it has succeeded, short enough for a termination message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

_SHOWN = 8  # skipped entries; a termination message is small
_SHOWN_LENGTH = 100  # characters of each


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
