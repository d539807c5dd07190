"""How far an earlier attempt of the same restore got, read from the names in the server: pure.

Every name is a function of the TenantRestore, so what a killed attempt left is found, and is finished or
cleared.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from tenant_backup.contract.reasons import Failure, Reason


class Next(Enum):
    """What to do now."""

    ANSWER = "the restored database is in place: say so again"
    BUILD = "clear what is left over and build the side database"


@dataclass(frozen=True)
class Standing:
    """What exists in the server."""

    replace: bool  # strategy Replace; else NewDatabase
    target: str
    target_exists: bool
    target_is_ours: bool  # its comment says that this very restore made it
    side_exists: bool
    previous_exists: bool


def decide(seen: Standing) -> Next:
    """Decide how to go on. Raises NAME_TAKEN when NewDatabase would need a name that somebody has."""
    if is_in_place(seen):
        return Next.ANSWER
    if not seen.replace and seen.target_exists:
        message = f'database "{seen.target}" exists; choose another name in spec.target.database, or drop it'
        raise Failure(Reason.NAME_TAKEN, message)
    return Next.BUILD


def is_in_place(seen: Standing) -> bool:
    """Whether the restored database is where it belongs."""
    if seen.target_exists and seen.target_is_ours:
        return True
    # Both renames are one transaction: a previous database without a side database is a finished swap.
    return seen.replace and seen.target_exists and seen.previous_exists and not seen.side_exists
