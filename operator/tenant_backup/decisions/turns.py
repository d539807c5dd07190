"""What one tenant of a schedule gets now: its backup, another try, or nothing, and why.

What exists decides, not what was noted: a backup has a name that is a function of schedule, tenant, slot and
attempt, so whoever dies between two creations, or before the status is written, goes on where the cluster is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tenant_backup.api.backup_schedule import BackupSchedule
from tenant_backup.api.values import duration_seconds
from tenant_backup.contract.reasons import Reason

from .names import scheduled_backup
from .slots import Slots, offset, period_start
from .summaries import BackupSummary, TenantSummary

PUNCTUAL = timedelta(minutes=5)  # a restart of the operator is no missed run
LONGEST_PAUSE = timedelta(hours=6)  # between two tries
HEALING = frozenset(
    {
        Reason.DATABASE_UNREACHABLE,
        Reason.DUMP_FAILED,
        Reason.DUMP_TRUNCATED,
        Reason.STORE_UNAVAILABLE,
        Reason.CHECKSUM_MISMATCH,
        Reason.PACK_MISSING,
        Reason.NAME_TAKEN,
        Reason.UNSCHEDULABLE,
        Reason.IMAGE_PULL_FAILED,
        Reason.VOLUME_UNAVAILABLE,
        Reason.STAGE_KILLED,
        Reason.PEER_FAILED,
        Reason.DEADLINE_EXCEEDED,
        Reason.NODE_LOST,
        Reason.CANCELLED,
        Reason.INTERNAL_ERROR,
    }
)  # what may be over at the next try without anybody's help

LATE = "the operator did not run in time"
GOING = "the previous run has not ended"
FOREIGN = "another TenantBackup has the name"
OVER = "the slot is over"


@dataclass
class History:
    """What a schedule made for one tenant."""

    newest: BackupSummary | None = None  # the last try in the newest slot
    going: list[BackupSummary] = field(default_factory=list)  # whose run is not over
    good: BackupSummary | None = None  # of the newest slot that has a good one

    def add(self, backup: BackupSummary, now: datetime) -> None:
        """Take in one backup."""
        if not backup.finished:
            self.going.append(backup)
        if _age(backup)[0] > now:
            return  # somebody wrote the label, or a clock was ahead: it stands for nothing that comes before
        if self.newest is None or _age(backup) > _age(self.newest):
            self.newest = backup
        if backup.good and (self.good is None or _age(backup) > _age(self.good)):
            self.good = backup


def histories(backups: Iterable[BackupSummary], now: datetime) -> defaultdict[str, History]:
    """Return the history of each tenant by its name."""
    found: defaultdict[str, History] = defaultdict(History)
    for backup in backups:
        found[backup.tenant].add(backup, now)
    return found


@dataclass(frozen=True)
class Turn:
    """Where one tenant stands.

    `slot`: the one that is its turn, None before its first. `attempt`: to be started now in that slot, 0 for
    none. `missed`: why it gets no backup in that slot. `again_at`: when its next try is due.
    """

    tenant: str
    offset: timedelta
    slot: datetime | None
    since: datetime | None = None  # the slot of its newest backup
    last: BackupSummary | None = None  # its last try in the slot, or in a later one
    attempt: int = 0
    missed: str = ""
    again_at: datetime | None = None


@dataclass(frozen=True)
class Board:
    """What the turns of all tenants are decided from."""

    schedule: BackupSchedule
    slots: Slots
    settled: datetime  # slots up to it are over: nobody is started in them, but for newcomers
    has_run: bool  # a slot is over in which backups were started
    last_missed: datetime | None  # the newest slot in which somebody got no backup
    taken: frozenset[str]  # names of all TenantBackups of the namespace
    now: datetime

    def turn(self, tenant: TenantSummary, history: History) -> Turn:
        """Decide about one tenant."""
        newcomer = self.has_run and history.newest is None
        if newcomer and self.schedule.spec.on_new_tenant == "BackUpNow":
            return self._join(tenant)
        own, last = self._offset(tenant), history.newest
        slot = self._slot(own, history)
        turn = Turn(tenant.name, own, slot, _slot_of(last))
        if slot is None:
            return turn
        if last is not None and _age(last)[0] >= slot:
            return self._next_try(replace(turn, last=last), history)
        if tenant.created > slot:
            return turn  # that was before its time
        if slot <= self.settled:
            return self._over(turn, slot)
        return self._first_try(turn, slot, history)

    def _join(self, tenant: TenantSummary) -> Turn:
        """A newcomer takes part in the newest slot, whether that is over or not."""
        turn = Turn(tenant.name, timedelta(), self.slots.newest)
        return self._start(turn, turn.slot, 1) if turn.slot else turn

    def _first_try(self, turn: Turn, slot: datetime, history: History) -> Turn:
        if self._is_late(slot, turn.offset):
            return replace(turn, missed=LATE)
        if self._overlaps(history):
            return replace(turn, missed=GOING)
        return self._start(turn, slot, 1)

    def _offset(self, tenant: TenantSummary) -> timedelta:
        return offset(self._name, tenant.name, spread_of(self.schedule))

    def _slot(self, own: timedelta, history: History) -> datetime | None:
        due, asked = self.slots.due(own, self.now), self.slots.asked
        if asked is None or due is None or asked > due:
            return asked or due
        # A slot that is too late must not swallow what somebody asked for before it.
        last = history.newest
        pending = asked > self.settled and (last is None or _age(last)[0] < asked)
        return asked if pending and self._is_late(due, own) else due

    def _is_late(self, slot: datetime, own: timedelta) -> bool:
        if slot == self.slots.asked:
            return False
        return self.now - (slot + own) > latest_start(self.schedule)

    def _overlaps(self, history: History) -> bool:
        going = [backup for backup in history.going if self._is_wanted(backup)]
        if self.schedule.spec.overlap == "Queue":
            return any(backup.started is None for backup in going)  # one waits: that is enough
        return bool(going)

    def _is_wanted(self, backup: BackupSummary) -> bool:
        """Whether it runs, or would do what the template says.

        One that a corrected template left behind may wait for ever.
        """
        template = self.schedule.spec.template
        wanted = (template.store_ref.name, template.contents, tuple(sorted(template.modules)))
        same = (backup.store, backup.contents, backup.modules) == wanted
        return backup.started is not None or same

    def _over(self, turn: Turn, slot: datetime) -> Turn:
        if slot != self.last_missed:
            return turn  # its backup was deleted, or nobody was started
        taken = scheduled_backup(self._name, turn.tenant, slot) in self.taken
        return replace(turn, missed=FOREIGN if taken else OVER)

    def _next_try(self, turn: Turn, history: History) -> Turn:
        last, retries = turn.last, self.schedule.spec.retries
        assert last
        if last.state != "Failed" or last.reason not in HEALING or last.slot is None or history.going:
            return turn
        attempt = self._attempt(last, turn.tenant)
        if attempt > retries.limit:
            return turn
        pause = timedelta(seconds=duration_seconds(retries.backoff)) * 2 ** (attempt - 1)
        at = (last.completed or last.created) + min(pause, LONGEST_PAUSE)
        if at > self.now:
            return replace(turn, again_at=at)
        return self._start(turn, last.slot, attempt + 1)

    def _attempt(self, backup: BackupSummary, tenant: str) -> int:
        """Return which try of its slot it is, by its name; one that is named otherwise was the last."""
        limit = self.schedule.spec.retries.limit
        assert backup.slot
        for attempt in range(1, limit + 1):
            if backup.name == scheduled_backup(self._name, tenant, backup.slot, attempt):
                return attempt
        return limit + 1

    def _start(self, turn: Turn, slot: datetime, attempt: int) -> Turn:
        # A backup of ours would be in the history: whatever has the name is not ours.
        if scheduled_backup(self._name, turn.tenant, slot, attempt) in self.taken:
            return replace(turn, slot=slot, missed=FOREIGN)
        return replace(turn, slot=slot, attempt=attempt)

    @property
    def _name(self) -> str:
        return self.schedule.metadata.name


def mode_of(schedule: BackupSchedule, tenant: str, slot: datetime, good: BackupSummary | None) -> str:
    """Return the mode of a backup: Full while the tenant has no good backup in its period of `fullEvery`.

    `good` is the newest good one: the first of a period is a Full, and looking for that one would miss what
    retention has deleted, while the newest is never deleted.
    """
    template = schedule.spec.template
    if not schedule.spec.full_every or template.mode == "Full":
        return template.mode
    period = timedelta(seconds=duration_seconds(schedule.spec.full_every))
    since = period_start(schedule.metadata.name, tenant, period, slot)
    return "Incremental" if good and (good.slot or good.created) >= since else "Full"


def latest_start(schedule: BackupSchedule) -> timedelta:
    """Return how long after its time a slot may begin."""
    deadline = timedelta(seconds=duration_seconds(schedule.spec.starting_deadline))
    return deadline if schedule.spec.missed_runs == "RunOnce" else min(PUNCTUAL, deadline)


def spread_of(schedule: BackupSchedule) -> timedelta:
    """Return over how long the tenants of a slot are spread."""
    return timedelta(seconds=duration_seconds(schedule.spec.spread))


def _slot_of(backup: BackupSummary | None) -> datetime | None:
    return _age(backup)[0] if backup else None


def _age(backup: BackupSummary) -> tuple[datetime, datetime, str]:
    return (backup.slot or backup.created, backup.created, backup.name)
