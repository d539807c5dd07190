"""The roster: a summary of every object of ours, fed by the watches.

It is read by whoever thinks about many objects at once; listing ten thousand of them for each thought would
cost seconds and memory. It is complete before the first decision (`load`), and a moment behind the API
server afterwards: creating by it is safe, because names are functions of what they are for; whoever deletes
by it reads the objects first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TypeVar

from tenant_backup.cluster import BACKUP, NOTIFIER, RESTORE, SCHEDULE, STORE, TENANT, Cluster, Object
from tenant_backup.decisions.summaries import (
    BackupSummary,
    NotifierSummary,
    RestoreSummary,
    ScheduleSummary,
    StoreSummary,
    TenantSummary,
    of_backup,
    of_notifier,
    of_restore,
    of_schedule,
    of_store,
    of_tenant,
)

_Name = tuple[str, str]  # namespace and name
_Any = TypeVar(
    "_Any", BackupSummary, TenantSummary, ScheduleSummary, StoreSummary, RestoreSummary, NotifierSummary
)
_Summary = TypeVar("_Summary", TenantSummary, ScheduleSummary, StoreSummary, RestoreSummary, NotifierSummary)


class Roster:
    """One per operator; used from the event loop only."""

    def __init__(self) -> None:
        self._backups: dict[str, BackupSummary] = {}  # by UID: a name can belong to two, one after the other
        self._tenants: dict[str, TenantSummary] = {}
        self._schedules: dict[str, ScheduleSummary] = {}
        self._stores: dict[str, StoreSummary] = {}
        self._restores: dict[str, RestoreSummary] = {}
        self._notifiers: dict[str, NotifierSummary] = {}
        self._of_schedule: defaultdict[_Name, set[str]] = defaultdict(set)
        self._of_tenant: defaultdict[_Name, set[str]] = defaultdict(set)
        self._of_store: defaultdict[_Name, set[str]] = defaultdict(set)
        self._unfinished: set[str] = set()
        self._started: set[str] = set()  # of the unfinished
        self._tenant_named: dict[_Name, str] = {}
        self._gone: set[str] = set()  # since the last `load` began: its pages may still have them

    async def load(self, cluster: Cluster, namespaces: Iterable[str]) -> None:
        """Read what there is, page by page, and forget what is not there any more. Raises a ClusterError.

        Once at the start, and now and then later: a watch that broke off does not tell what was deleted
        meanwhile.
        """
        seen: set[str] = set()
        self._gone.clear()
        known = [*self._backups, *self._tenants, *self._schedules, *self._stores]
        known += [*self._restores, *self._notifiers]
        for namespace in tuple(namespaces) or ("",):
            for kind in (TENANT, STORE, SCHEDULE, BACKUP, RESTORE, NOTIFIER):
                async for document in cluster.pages(kind, namespace):
                    self.see(kind.name, document)
                    seen.add(document["metadata"]["uid"])
        for uid in known:  # and not what a watch has reported since
            if uid not in seen:
                self._forget(uid)

    def see(self, kind: str, document: Object, *, deleted: bool = False) -> None:
        """Take in one object as a watch reports it; other kinds are no matter."""
        uid = document["metadata"]["uid"]
        if deleted:
            self._gone.add(uid)
            self._forget(uid)
        elif uid in self._gone:
            return
        elif kind == BACKUP.name:
            self._take(of_backup(document))
        elif kind == TENANT.name:
            tenant = of_tenant(document)
            _keep(self._tenants, tenant)
            self._tenant_named[tenant.namespace, tenant.name] = uid
        elif kind == SCHEDULE.name:
            _keep(self._schedules, of_schedule(document))
        elif kind == STORE.name:
            _keep(self._stores, of_store(document))
        elif kind == RESTORE.name:
            _keep(self._restores, of_restore(document))
        elif kind == NOTIFIER.name:
            _keep(self._notifiers, of_notifier(document))

    def tenants(self, namespace: str = "", labels: Mapping[str, str] | None = None) -> list[TenantSummary]:
        """Return the Tenants of a namespace (empty: of all) that have all these labels, by name."""
        wanted = (labels or {}).items()
        found = [one for one in _within(namespace, self._tenants) if wanted <= one.labels.items()]
        return sorted(found, key=lambda tenant: (tenant.namespace, tenant.name))

    def tenant(self, namespace: str, name: str) -> TenantSummary | None:
        """Return the Tenant of that name."""
        return self._tenants.get(self._tenant_named.get((namespace, name), ""))

    def schedules(self, namespace: str = "") -> list[ScheduleSummary]:
        """Return the BackupSchedules of a namespace (empty: of all)."""
        return _within(namespace, self._schedules)

    def stores(self, namespace: str = "") -> list[StoreSummary]:
        """Return the BackupStores of a namespace (empty: of all)."""
        return _within(namespace, self._stores)

    def restores(self, namespace: str = "") -> list[RestoreSummary]:
        """Return the TenantRestores of a namespace (empty: of all)."""
        return _within(namespace, self._restores)

    def notifiers(self, namespace: str) -> list[NotifierSummary]:
        """Return the BackupNotifiers of a namespace."""
        return _within(namespace, self._notifiers)

    def backups(self, namespace: str = "") -> list[BackupSummary]:
        """Return the TenantBackups of a namespace (empty: of all)."""
        return _within(namespace, self._backups)

    def of_schedule(self, namespace: str, schedule: str) -> list[BackupSummary]:
        """Return the TenantBackups that carry the schedule's label."""
        return self._named(self._of_schedule, namespace, schedule)

    def of_tenant(self, namespace: str, tenant: str) -> list[BackupSummary]:
        """Return the TenantBackups of one Tenant."""
        return self._named(self._of_tenant, namespace, tenant)

    def of_store(self, namespace: str, store: str) -> list[BackupSummary]:
        """Return the TenantBackups in one BackupStore."""
        return self._named(self._of_store, namespace, store)

    def unfinished(self) -> list[BackupSummary]:
        """Return the TenantBackups whose run is not over."""
        return [self._backups[uid] for uid in self._unfinished]

    def started(self) -> list[BackupSummary]:
        """Return the TenantBackups whose run has begun and is not over."""
        return [self._backups[uid] for uid in self._started]

    def backup(self, uid: str) -> BackupSummary | None:
        """Return the TenantBackup with that UID."""
        return self._backups.get(uid)

    def _named(self, index: Mapping[_Name, set[str]], namespace: str, name: str) -> list[BackupSummary]:
        return [self._backups[uid] for uid in index.get((namespace, name), ())]

    def _take(self, backup: BackupSummary) -> None:
        known = self._backups.get(backup.uid)
        if known and known.version > backup.version:
            return
        self._forget(backup.uid)  # its labels, and so its places, may have changed
        self._backups[backup.uid] = backup
        for index, name in self._places(backup):
            index[backup.namespace, name].add(backup.uid)
        if not backup.finished:
            self._unfinished.add(backup.uid)
            if backup.started:
                self._started.add(backup.uid)

    def _forget(self, uid: str) -> None:
        tenant = self._tenants.pop(uid, None)
        if tenant and self._tenant_named.get((tenant.namespace, tenant.name)) == uid:
            del self._tenant_named[tenant.namespace, tenant.name]
        for others in (self._schedules, self._stores, self._restores, self._notifiers):
            others.pop(uid, None)
        backup = self._backups.pop(uid, None)
        if backup is None:
            return
        self._unfinished.discard(uid)
        self._started.discard(uid)
        for index, name in self._places(backup):
            there = index[backup.namespace, name]
            there.discard(uid)
            if not there:
                del index[backup.namespace, name]

    def _places(self, backup: BackupSummary) -> list[tuple[defaultdict[_Name, set[str]], str]]:
        return [
            (self._of_schedule, backup.schedule),
            (self._of_tenant, backup.tenant),
            (self._of_store, backup.store),
        ]


def _within(namespace: str, known: Mapping[str, _Any]) -> list[_Any]:
    return [one for one in known.values() if namespace in ("", one.namespace)]


def _keep(known: dict[str, _Summary], seen: _Summary) -> None:
    """Remember the newer one of two looks at an object."""
    before = known.get(seen.uid)
    known[seen.uid] = before if before and before.version > seen.version else seen
