"""Which of a schedule's backups may go. Pure, because this is where other people's data is lost.

Only good backups count, so a failed one never pushes a good one out; and the newest good one of a
tenant stays whatever the numbers say.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from .observed import ScheduledBackup


def surplus(backups: Iterable[ScheduledBackup], keep_last: int) -> tuple[ScheduledBackup, ...]:
    """Return the backups to delete, oldest first, when `keep_last` good ones of each tenant are kept.

    A failed backup goes once `keep_last` good ones are newer than it: until then it tells a story.
    Backups that are under way, held or being deleted are left alone.
    """
    by_tenant: dict[str, list[ScheduledBackup]] = defaultdict(list)
    for backup in backups:
        by_tenant[backup.tenant].append(backup)
    chosen = [backup for mine in by_tenant.values() for backup in _surplus_of_one(mine, keep_last)]
    return tuple(sorted(chosen, key=lambda backup: (backup.slot, backup.name)))


def _surplus_of_one(backups: list[ScheduledBackup], keep_last: int) -> list[ScheduledBackup]:
    good = sorted((backup for backup in backups if backup.good), key=_age, reverse=True)
    kept = good[: max(1, keep_last)]
    if len(kept) < max(1, keep_last):
        return []
    oldest_kept = _age(kept[-1])
    return [backup for backup in backups if _may_go(backup) and _age(backup) < oldest_kept]


def _may_go(backup: ScheduledBackup) -> bool:
    return backup.state in ("Succeeded", "Failed") and not backup.held and not backup.removing


def _age(backup: ScheduledBackup) -> tuple[object, str]:
    return (backup.slot, backup.name)
