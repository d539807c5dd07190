"""Unusual backups: much smaller, or much slower, than the last good ones of the same data.

A warning and nothing else: what was committed is as complete as the database was.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from tenant_backup.contract.reasons import Reason

from .conditions import Fact
from .instants import duration, size
from .summaries import BackupSummary

LAST = 7  # good backups that say what is usual
LEAST = 3  # of them, before anything is called unusual
SMALLER = 0.7  # of the usual
SLOWER = 2.0  # times the usual
SLOWER_BY = 300.0  # seconds; starting a pod takes now this long, now that


@dataclass(frozen=True)
class Figures:
    """What is compared of one run: rows and bytes that were read (None: nobody said), and its time."""

    rows: int | None
    logical: int | None
    seconds: float  # from start to end


def unusual(found: Figures, mode: str, earlier: Iterable[BackupSummary]) -> list[Fact]:
    """Return what is unusual; `earlier` are the others of the same tenant, store, contents and modules."""
    good = sorted((one for one in earlier if one.good and one.completed), key=_completed, reverse=True)
    rows = _usual(one.rows for one in good)
    logical = _usual(one.logical for one in good)
    seconds = _usual(one.seconds for one in good if one.mode == mode)
    facts = []
    if rows and found.rows is not None and found.rows < SMALLER * rows:
        facts.append(_smaller(f"{found.rows} rows", f"{rows:.0f}"))
    elif logical and found.logical is not None and found.logical < SMALLER * logical:
        facts.append(_smaller(f"{size(found.logical)} read", size(round(logical))))
    if seconds and found.seconds > max(SLOWER * seconds, seconds + SLOWER_BY):
        facts.append(_slower(duration(found.seconds), duration(seconds)))
    return facts


def as_condition(facts: list[Fact]) -> tuple[Fact, ...]:
    """Return the one condition that says all of them, named by the first."""
    if not facts:
        return ()
    message = ". ".join(fact.message for fact in facts)
    return (Fact(facts[0].type, facts[0].status, facts[0].reason, message),)


def _completed(backup: BackupSummary) -> float:
    return backup.completed.timestamp() if backup.completed else 0.0


def _usual(newest_first: Iterable[float]) -> float | None:
    """Return the median of the last ones, or None while there are too few; 0 stands for one nobody knows."""
    known = [figure for figure in newest_first if figure > 0][:LAST]
    return median(known) if len(known) >= LEAST else None


def _smaller(found: str, usual: str) -> Fact:
    message = (
        f"smaller than usual: {found}, where the median of the last backups is {usual}; look whether rows"
        " were deleted, and keep an older backup if they were (label tenantbackup.dev/hold)"
    )
    return Fact("Unusual", "True", Reason.SMALLER_THAN_USUAL, message)


def _slower(found: str, usual: str) -> Fact:
    message = f"slower than usual: {found}, where the median of the last backups is {usual}"
    return Fact("Unusual", "True", Reason.SLOWER_THAN_USUAL, message)
