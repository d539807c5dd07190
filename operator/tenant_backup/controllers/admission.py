"""Who is let in: the queue over all TenantBackups, and what it decided that nobody can see yet.

A backup that is let in becomes visible in the roster only once its status says that it runs, a moment
later; until then it is counted here. Nothing here waits for anything, so two workers never decide at once.
Nothing of it is kept across a restart: a Job that exists counts again before anybody is let in.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Iterable
from datetime import datetime

from tenant_backup.cluster import BACKUP, JOB, SCHEDULE, Cluster, Object
from tenant_backup.decisions.queue import (
    Budget,
    Budgets,
    Contender,
    Place,
    fits,
    may_start,
    turn,
    why_not,
)
from tenant_backup.decisions.summaries import BackupSummary
from tenant_backup.decisions.verdicts import Ref
from tenant_backup.jobs import labels

from .roster import Roster


class Admission:
    """One per operator; used from the event loop only. `wake` has a backup looked at at once."""

    def __init__(self, roster: Roster, budget: Budget, wake: Callable[[Ref], None]) -> None:
        self._roster = roster
        self._budget = budget
        self._wake = wake
        self._line: list[Contender] = []  # who waits, in the order of `turn`
        self._let_in: dict[str, Contender] = {}  # by UID: not in the roster as started
        self._idle: set[str] = set()  # UIDs that the roster has as started and that have no Job

    async def load(self, cluster: Cluster, namespaces: Iterable[str]) -> None:
        """Count what runs and line up what waits, before the first decision. Raises a ClusterError."""
        for namespace in tuple(namespaces) or ("",):
            async for job in cluster.pages(JOB, namespace, labels=f"{labels.PURPOSE}=backup"):
                # A previous process may have created it and died before the status said so.
                self._count(job["metadata"]["labels"].get(labels.UID, ""))
        queued = [backup for backup in self._roster.unfinished() if backup.state == "Queued"]
        self._line = sorted((self._contender(one) for one in queued if one.uid not in self._let_in), key=turn)

    def at_once(self, own: int | None) -> int | None:
        """Return the operator's total, or somebody's `own` where that is less; None: no limit."""
        return min((total for total in (own, self._budget.total) if total is not None), default=None)

    def ask(self, uid: str, now: datetime) -> Place | None:
        """Return why this backup waits; None: it may start, and its place is kept until it has."""
        backup = self._roster.backup(uid)
        if backup is None or self.holds_a_place(uid):
            return None
        one = self._contender(backup)
        self._join(one)
        if fits(self._running(), one, self._budgets):
            self.advance(asking=uid)
        if uid in self._let_in:
            return None
        return Place(self._before(one) + 1, why_not(self._running(), one, self._budgets), now)

    def at_work(self, uid: str) -> None:
        """Take note that a Job of this backup is there."""
        self._idle.discard(uid)
        self._count(uid)

    def leave(self, uid: str) -> None:
        """Take note that this backup has no Job and cannot start: its place is another's."""
        held = self.holds_a_place(uid)
        self._line = [one for one in self._line if one.uid != uid]
        self._let_in.pop(uid, None)
        if held:
            self._idle.add(uid)
            self.advance()

    def see(self, kind: str, document: Object, *, deleted: bool = False) -> None:
        """Have the roster take in an object; a place that comes free by it is another's at once.

        Whoever tells the roster of a backup does it here, or its end would go unnoticed by who waits.
        """
        uid = document["metadata"]["uid"]
        held = self.holds_a_place(uid)
        budgets = self._budgets if kind == SCHEDULE.name else None  # nobody else has one
        self._roster.see(kind, document, deleted=deleted)
        if (held and not self.holds_a_place(uid)) or (budgets and budgets != self._budgets):
            self.advance()

    def holds_a_place(self, uid: str) -> bool:
        """Return whether it counts against the budgets."""
        backup = self._roster.backup(uid)
        if backup is None or backup.finished:
            return False
        return uid in self._let_in or (backup.started is not None and uid not in self._idle)

    def advance(self, asking: str = "") -> None:
        """Let in whoever may start now, and wake them; `asking` is awake."""
        self._line = [one for one in self._line if self._waits(one.uid)]
        for one in may_start(self._running(), self._line, self._budgets):
            self._line.remove(one)
            self._let_in[one.uid] = one
            if one.uid != asking:
                self._wake(Ref(BACKUP.name, one.namespace, one.name))

    def _join(self, one: Contender) -> None:
        index = self._before(one)
        if self._line[index : index + 1] != [one]:
            self._line = [other for other in self._line if other.uid != one.uid]  # its Tenant has moved
            insort(self._line, one, key=turn)

    def _before(self, one: Contender) -> int:
        """Return how many others are before it."""
        return bisect_left(self._line, turn(one), key=turn)

    def _waits(self, uid: str) -> bool:
        backup = self._roster.backup(uid)
        return backup is not None and not backup.finished and not backup.removing

    def _count(self, uid: str) -> None:
        backup = self._roster.backup(uid)
        if backup and not backup.finished and not backup.started:
            self._let_in[uid] = self._contender(backup)

    def _running(self) -> list[Contender]:
        started = [self._contender(one) for one in self._roster.started() if one.uid not in self._idle]
        visible = {one.uid for one in started}
        self._idle.intersection_update(one.uid for one in self._roster.started())
        for uid in [*self._let_in]:
            if uid in visible or not self.holds_a_place(uid):
                del self._let_in[uid]
        return [*started, *self._let_in.values()]

    def _contender(self, backup: BackupSummary) -> Contender:
        tenant = self._roster.tenant(backup.namespace, backup.tenant)
        server = tenant.server if tenant else ""
        return Contender(backup.uid, backup.namespace, backup.name, backup.schedule, server, backup.created)

    @property
    def _budgets(self) -> Budgets:
        schedules = {(one.namespace, one.name): one.budget for one in self._roster.schedules() if one.budget}
        return Budgets(self._budget, schedules)
