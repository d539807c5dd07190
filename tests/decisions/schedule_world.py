"""A world in memory for one BackupSchedule: a clock that is set, and backups that end when they should."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tenant_backup.contract.reasons import Reason
from tenant_backup.decisions.names import slot_of
from tenant_backup.decisions.plan import Announce, CreateBackup, DeleteBackup, Plan, RequestVerification
from tenant_backup.decisions.schedule import decide
from tenant_backup.decisions.summaries import BackupSummary, TenantSummary, of_backup
from tests.decisions.objects import document, remembered, schedule, schedule_seen


@dataclass(frozen=True)
class Course:
    """How the run of a backup goes."""

    state: str = "Succeeded"
    reason: str = "Succeeded"
    lasts: timedelta = timedelta(minutes=1)


@dataclass(frozen=True)
class Request:
    """A verification that was asked for."""

    moment: datetime
    tenant: str
    backup: str
    value: str


def all_is_well(_backup: BackupSummary) -> Course:
    """Every backup succeeds after a minute."""
    return Course()


@dataclass
class World:
    """The schedule, its tenants, and the backups; `made` also remembers those that are gone."""

    spec: dict[str, Any]
    tenants: list[TenantSummary]
    created: datetime
    course: Callable[[BackupSummary], Course] = all_is_well
    status: dict[str, Any] = field(default_factory=dict)
    backups: dict[str, BackupSummary] = field(default_factory=dict)
    made: list[BackupSummary] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    at_once: int | None = None  # verifications
    reading: timedelta = timedelta(minutes=1)  # how long each of them takes
    asked: list[Request] = field(default_factory=list)
    passes: int = 0

    @classmethod
    def of(cls, names: Iterable[str], created: datetime, **spec: Any) -> World:
        """A schedule without retention for tenants that are older than it."""
        return cls(
            {"retention": None, "tenants": ["acme"], **spec}, [remembered(name) for name in names], created
        )

    def look(self, now: datetime, die_after: int | None = None) -> Plan:
        """Look once and carry out; or die after so many actions, before the status is written."""
        self.passes += 1
        self._end_runs(now)
        found = schedule(self.spec, creationTimestamp=self.created.isoformat())
        seen = schedule_seen(
            schedule=found,
            status=self.status,
            tenants=tuple(self.tenants),
            backups=tuple(self.backups.values()),
            at_once=self.at_once,
        )
        plan = decide(seen, now)
        for action in plan.actions[:die_after]:
            self._carry_out(action, now)
        if die_after is None or die_after > len(plan.actions):
            assert plan.status is not None
            self.status = dict(plan.status)
        return plan

    def live(self, start: datetime, end: datetime) -> None:
        """Run the operator from one moment to another."""
        now = start
        while now < end:
            plan = self.look(now)
            moments = [self._ends(backup) for backup in self.backups.values() if not backup.finished]
            moments += [one.moment + self.reading for one in self._awaited()]
            moments.append(now + timedelta(seconds=plan.retry_in if plan.retry_in is not None else 3600))
            now = max(min(moments), now + timedelta(milliseconds=50))

    def slots(self, tenant: str = "acme") -> list[datetime]:
        """The slots in which a tenant's backups were started."""
        return [backup.slot for backup in self.made if backup.tenant == tenant and backup.slot]

    def forget(self, keep: int) -> None:
        """Delete all but the newest backups of each tenant, as retention does."""
        for tenant in self.tenants:
            mine = [backup for backup in self.backups.values() if backup.tenant == tenant.name]
            for backup in sorted(mine, key=lambda one: (one.slot or one.created, one.created))[:-keep]:
                del self.backups[backup.name]

    def _carry_out(self, action: object, now: datetime) -> None:
        if isinstance(action, CreateBackup):
            assert action.name not in {backup.name for backup in self.made}, f"{action.name} is made twice"
            self._create(action, now)
        elif isinstance(action, DeleteBackup):
            del self.backups[action.name]
        elif isinstance(action, RequestVerification):
            self._ask(action, now)
        elif isinstance(action, Announce) and action.reason is Reason.SCHEDULE_MISSED:
            self.told += [action.message] if action.message not in self.told else []

    def _create(self, action: CreateBackup, now: datetime) -> None:
        found = document("TenantBackup", action.name, dict(action.spec), labels=dict(action.labels))
        found["metadata"]["creationTimestamp"] = now.astimezone(UTC).isoformat()
        backup = of_backup(found)
        assert backup.slot == slot_of(action.labels["tenantbackup.dev/slot"])
        self.backups[backup.name] = replace(backup, state="Running", started=now)
        self.made.append(backup)

    def _ask(self, action: RequestVerification, now: datetime) -> None:
        backup = self.backups[action.name]
        assert not backup.awaited, f"{action.name} is asked while it is being verified"
        assert (backup.tenant, action.value) not in {(one.tenant, one.value) for one in self.asked}
        self.backups[action.name] = replace(backup, awaited=True)
        self.asked.append(Request(now, backup.tenant, action.name, action.value))
        assert self.at_once is None or len(self._awaited()) <= self.at_once, "too many at once"

    def _awaited(self) -> list[Request]:
        known = {one.backup: one for one in self.asked}
        return [known[name] for name, backup in self.backups.items() if backup.awaited]

    def _ends(self, backup: BackupSummary) -> datetime:
        assert backup.started
        return backup.started + self.course(backup).lasts

    def _end_runs(self, now: datetime) -> None:
        for name, backup in self.backups.items():
            if not backup.finished and self._ends(backup) <= now:
                course = self.course(backup)
                fields: dict[str, Any] = {"state": course.state, "reason": course.reason}
                self.backups[name] = replace(backup, completed=self._ends(backup), health="Healthy", **fields)
        for one in self._awaited():
            if one.moment + self.reading <= now:
                read = {"verified": one.moment + self.reading, "level": one.value.split()[0]}
                backup = self.backups[one.backup]
                self.backups[one.backup] = replace(backup, awaited=False, answered=one.value, **read)
