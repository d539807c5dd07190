"""What metrics are computed from: everything the operator knows at one moment, put in order once."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.summaries import BackupSummary, ScheduleSummary, StoreSummary, TenantSummary

STATES = ("Pending", "Queued", "Running", "Succeeded", "Failed", "Expired")
OUTCOMES = ("succeeded", "failed", "running", "queued", "missed")
_WAITING = ("", "Pending", "Queued")  # "": nobody has looked at it yet
_REASONS = frozenset(map(str, Reason))
_Name = tuple[str, str]  # namespace and name
_Counts = Iterator[tuple[tuple[str, ...], int]]


@dataclass(frozen=True)
class Known:
    """What the operator knows at one moment; nothing in it changes any more."""

    tenants: Iterable[TenantSummary] = ()
    stores: Iterable[StoreSummary] = ()
    schedules: Iterable[ScheduleSummary] = ()
    backups: Iterable[BackupSummary] = ()
    keys: Mapping[str, int] = field(default_factory=dict)  # of the work queue, by what they wait for


@dataclass(slots=True)
class Runs:
    """The backups of one tenant by one schedule, or by none."""

    since: datetime | None = None  # when Tenant and BackupSchedule were first both there
    good: BackupSummary | None = None  # the newest one that a restore can count on
    last: BackupSummary | None = None  # the newest one that ended, well or not
    verified: datetime | None = None

    def add(self, backup: BackupSummary) -> None:
        """Take one more backup into account."""
        if backup.good and (self.good is None or ended(backup) >= ended(self.good)):
            self.good = backup
        if backup.finished and (self.last is None or ended(backup) >= ended(self.last)):
            self.last = backup
        if backup.verified and (self.verified is None or backup.verified > self.verified):
            self.verified = backup.verified


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """One Tenant; `schedules` choose it and are not suspended."""

    tenant: TenantSummary
    schedules: int
    corrupt: int


@dataclass(frozen=True, slots=True)
class ScheduleFigures:
    """One BackupSchedule, how many Tenants it chooses, and the newest slot it has begun."""

    schedule: ScheduleSummary
    chosen: int
    begun: datetime | None

    @property
    def next_run(self) -> datetime | None:
        """Its next slot; None while it is suspended."""
        return next(iter(self.schedule.next_runs), None) if not self.schedule.suspended else None

    @property
    def interval(self) -> float | None:
        """The longest pause between the last slot and the next ones, in seconds; None while suspended."""
        slots = [slot for slot in (self.begun, *self.schedule.next_runs) if slot]
        pauses = [(later - earlier).total_seconds() for earlier, later in pairwise(slots)]
        return max(pauses, default=None) if not self.schedule.suspended else None


def ended(backup: BackupSummary) -> float:
    """Return when a backup's run ended, in seconds since the epoch."""
    return (backup.completed or backup.created).timestamp()


class Figures:
    """Everything known, by what the metrics are about. Keys are label values."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._tenants = {(one.namespace, one.name): one for one in known.tenants if not one.removing}
        self._schedules = {(one.namespace, one.name): one for one in known.schedules}
        self._chosen = {name: self._chosen_by(schedule) for name, schedule in self._schedules.items()}
        self.runs = self._runs()

    def _chosen_by(self, schedule: ScheduleSummary) -> list[_Name]:
        if schedule.tenants:
            named = ((schedule.namespace, name) for name in schedule.tenants)
            return [name for name in named if name in self._tenants]
        wanted = schedule.labels.items()
        return [
            name
            for name, tenant in self._tenants.items()
            if tenant.namespace == schedule.namespace and wanted <= tenant.labels.items()
        ]

    def _runs(self) -> dict[tuple[str, str, str], Runs]:
        """Return the runs of the Tenants there are, by namespace, tenant and schedule."""
        runs: defaultdict[tuple[str, str, str], Runs] = defaultdict(Runs)
        for name, chosen in self._chosen.items():
            for tenant in chosen:
                since = max(self._schedules[name].created, self._tenants[tenant].created)
                runs[(*tenant, name[1])].since = since
        for backup in self._known.backups:
            if (backup.namespace, backup.tenant) in self._tenants:
                there = (backup.namespace, backup.schedule) in self._schedules
                runs[backup.namespace, backup.tenant, backup.schedule if there else ""].add(backup)
        return runs

    def tenants(self) -> Iterator[tuple[_Name, TenantFigures]]:
        """Yield the Tenants."""
        active = (chosen for name, chosen in self._chosen.items() if not self._schedules[name].suspended)
        schedules = Counter(tenant for chosen in active for tenant in chosen)
        corrupt = Counter(
            (one.namespace, one.tenant)
            for one in self._known.backups
            if one.health == "Corrupt" and not one.removing
        )
        for name, tenant in self._tenants.items():
            yield name, TenantFigures(tenant, schedules[name], corrupt[name])

    def schedules(self) -> Iterator[tuple[_Name, ScheduleFigures]]:
        """Yield the BackupSchedules."""
        begun = {name: schedule.last_run for name, schedule in self._schedules.items() if schedule.last_run}
        for backup in self._known.backups:  # lastRun moves on only when the slot is settled
            name = (backup.namespace, backup.schedule)
            if backup.slot:
                begun[name] = max(backup.slot, begun.get(name, backup.slot))
        for name, schedule in self._schedules.items():
            yield name, ScheduleFigures(schedule, len(self._chosen[name]), begun.get(name))

    def stores(self) -> Iterator[tuple[_Name, StoreSummary]]:
        """Yield the BackupStores."""
        return (((store.namespace, store.name), store) for store in self._known.stores)

    def backups_by_state(self) -> _Counts:
        """Yield how many TenantBackups there are, by namespace, schedule and state; zeros too."""
        counted = Counter((one.namespace, one.schedule, one.state) for one in self._known.backups)
        for namespace, schedule in {place[:2]: None for place in counted}:
            counted[namespace, schedule, "Pending"] += counted[namespace, schedule, ""]
            for state in STATES:
                yield (namespace, schedule, state), counted[namespace, schedule, state]

    def oldest_waiting(self) -> Iterator[tuple[tuple[str], float]]:
        """Yield when the oldest TenantBackup of a namespace was created that has not started."""
        oldest: dict[str, datetime] = {}
        for backup in self._known.backups:
            if backup.state in _WAITING and not backup.removing:
                oldest[backup.namespace] = min(backup.created, oldest.get(backup.namespace, backup.created))
        return (((namespace,), moment.timestamp()) for namespace, moment in oldest.items())

    def failed_by_reason(self) -> _Counts:
        """Yield how many tenants' newest run failed, by namespace, schedule and reason."""
        last = ((*name, runs.last) for name, runs in self.runs.items() if runs.last)
        counted = Counter(
            (namespace, schedule, backup.reason if backup.reason in _REASONS else Reason.INTERNAL_ERROR.value)
            for namespace, _, schedule, backup in last
            if backup.state == "Failed"
        )
        return iter(counted.items())

    def tenants_by_outcome(self) -> _Counts:
        """Yield how the last slot of each schedule went for its tenants."""
        for name, schedule in self._schedules.items():
            for outcome in OUTCOMES:
                if outcome in schedule.counts:
                    yield (*name, outcome), schedule.counts[outcome]

    def keys(self) -> _Counts:
        """Yield how many objects are in the work queue."""
        return (((state,), count) for state, count in self._known.keys.items())
