"""Which of a schedule's backups may go. Pure, because this is where other people's data is lost.

Backups stand in for each other when they are of the same tenant, contents and modules in the same store: a
*line*.
In each line the rules keep the newest good backup of each of the newest hours, days, ISO weeks, months or
years that have one, as restic's do, by the calendar of the schedule's time zone. Whatever they say, the
newest good backup of a line stays, and so does the newest verified one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta, tzinfo

from tenant_backup.api.backup_schedule import Retention
from tenant_backup.api.values import duration_seconds

from .summaries import BackupSummary

Line = tuple[str, str, str, str, tuple[str, ...]]

_BUCKETS: tuple[tuple[str, Callable[[datetime], object]], ...] = (
    ("keep_last", lambda _local: object()),  # each backup is a bucket of its own
    # The hour that the clocks repeat in autumn is two hours.
    ("keep_hourly", lambda local: (local.date(), local.hour, local.fold)),
    ("keep_daily", lambda local: local.date()),
    ("keep_weekly", lambda local: local.isocalendar()[:2]),
    ("keep_monthly", lambda local: (local.year, local.month)),
    ("keep_yearly", lambda local: local.year),
)


def line_of(backup: BackupSummary) -> Line:
    """Return what backups have in common that can stand in for each other."""
    return (backup.namespace, backup.tenant, backup.store, backup.contents, backup.modules)


def indispensable(backups: Iterable[BackupSummary]) -> set[str]:
    """Return the UIDs of the newest good backup of each line, and of the newest verified one."""
    newest: dict[tuple[Line, bool], BackupSummary] = {}
    for backup in sorted(backups, key=moment_of):
        if backup.good:
            newest[line_of(backup), False] = backup
            if backup.verified:
                newest[line_of(backup), True] = backup
    return {backup.uid for backup in newest.values()}


def surplus(
    backups: Iterable[BackupSummary], retention: Retention, zone: tzinfo
) -> tuple[BackupSummary, ...]:
    """Return the backups of one schedule to delete, oldest first.

    Only what has ended counts or goes; never what somebody holds. Failed backups go beyond the newest
    `keep_failed` and push nothing out. While the newest run of a line failed, or is corrupt, nothing that
    was stored goes: what is there may be all there will be. A corrupt backup stays as long as a good one
    in its place would, and takes nobody's place.
    """
    lines: defaultdict[Line, list[BackupSummary]] = defaultdict(list)
    for backup in backups:
        if backup.state in ("Succeeded", "Failed") and not backup.removing:
            lines[line_of(backup)].append(backup)
    chosen = [
        backup
        for line in lines.values()
        for backup in _surplus_of_one(sorted(line, key=age, reverse=True), retention, zone)
    ]
    return tuple(sorted(chosen, key=age))


def age(backup: BackupSummary) -> tuple[datetime, datetime, str]:
    """Return the sort key of a schedule's backups, oldest first: by slot, as days are counted."""
    return (_slot(backup), *moment_of(backup))


def moment_of(backup: BackupSummary) -> tuple[datetime, str]:
    """Return the sort key of backups by the moment their data is of.

    Not the slot, which is a label that can be edited; nor the object's age, which an import makes anew.
    """
    return (backup.started or backup.created, backup.name)


def _surplus_of_one(
    newest_first: Sequence[BackupSummary], retention: Retention, zone: tzinfo
) -> list[BackupSummary]:
    newest = newest_first[0]
    failed = [backup for backup in newest_first if backup.state == "Failed"]
    # Those of the newest slot stay: by them the schedule knows how often it has tried.
    gone = [backup for backup in failed[retention.keep_failed :] if _slot(backup) != _slot(newest)]
    if newest.good:
        stored = [backup for backup in newest_first if backup.state == "Succeeded"]
        good = [backup for backup in stored if backup.good]
        kept = _kept(good, retention, zone) | indispensable(good)
        if_all_were_good = _kept(stored, retention, zone)
        gone += [one for one in stored if one.uid not in (kept if one.good else if_all_were_good)]
    return [backup for backup in gone if not backup.held]


def _kept(newest_first: Sequence[BackupSummary], retention: Retention, zone: tzinfo) -> set[str]:
    """Return the UIDs of what the rules keep."""
    moments = [_slot(backup).astimezone(zone) for backup in newest_first]
    kept: set[str] = set()
    for rule, bucket_of in _BUCKETS:
        count, buckets = getattr(retention, rule) or 0, set[object]()
        for backup, moment in zip(newest_first, moments, strict=True):
            if len(buckets) == count:
                break
            bucket = bucket_of(moment)
            if bucket not in buckets:
                buckets.add(bucket)
                kept.add(backup.uid)
    if retention.keep_within and newest_first:
        # Before the newest backup, not before now: when backups stop, what is there stays.
        since = _slot(newest_first[0]) - timedelta(seconds=duration_seconds(retention.keep_within))
        kept.update(backup.uid for backup in newest_first if _slot(backup) >= since)
    return kept


def _slot(backup: BackupSummary) -> datetime:
    return backup.slot or backup.created
