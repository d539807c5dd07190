"""The operator's metrics, computed at each scrape from what it remembers of its objects anyway.

So a restart loses nothing, nothing grows with time, and no request is made. Labels are names of Tenants,
BackupSchedules and BackupStores, states, and reasons of the closed list: never the name of a backup.
docs/metrics.md is made from what is declared here and in `counters`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from tenant_backup import __version__

from . import counters
from .figures import Figures, Known, ended

PREFIX = "tenant_backup_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True)
class Measure:
    """One metric: its name without the prefix, its HELP text, its value; None: no sample."""

    name: str
    help: str
    value: Callable[[Any], float | None] = float


@dataclass(frozen=True)
class Group:
    """Metrics with the same labels; `rows` gives label values, and what the values are computed from."""

    title: str
    labels: tuple[str, ...]
    rows: Callable[[Figures], Iterable[tuple[tuple[str, ...], Any]]]
    measures: tuple[Measure, ...]


def _time(moment: datetime | None) -> float | None:
    return moment.timestamp() if moment else None


def _of_good(what: str) -> Callable[[Any], float | None]:
    return lambda runs: getattr(runs.good, what) if runs.good else None


_RUNS = Group(
    "Each tenant's backups, by each schedule that chooses it",
    ("namespace", "tenant", "schedule"),
    lambda figures: figures.runs.items(),
    (
        Measure(
            "last_success_timestamp_seconds",
            "When the newest good backup ended: one that succeeded and is not Corrupt.",
            lambda runs: ended(runs.good) if runs.good else None,
        ),
        Measure(
            "last_success_or_start_timestamp_seconds",
            "When the newest good backup ended; without one, when Tenant and schedule were first both there.",
            lambda runs: ended(runs.good) if runs.good else _time(runs.since),
        ),
        Measure(
            "last_success_logical_bytes",
            "What the newest good backup read from the database.",
            _of_good("logical"),
        ),
        Measure(
            "last_success_stored_bytes",
            "All the newest good backup needs in the store, shared or not.",
            _of_good("stored"),
        ),
        Measure(
            "last_success_added_bytes", "What the newest good backup wrote to the store.", _of_good("added")
        ),
        Measure(
            "last_success_duration_seconds", "How long the newest good backup took.", _of_good("seconds")
        ),
        Measure(
            "last_verified_timestamp_seconds",
            "When one of the backups was last read back and found healthy.",
            lambda runs: _time(runs.verified),
        ),
        Measure(
            "last_run_timestamp_seconds",
            "When the newest run that ended did, well or not.",
            lambda runs: ended(runs.last) if runs.last else None,
        ),
        Measure(
            "last_run_succeeded",
            "Whether the newest run that ended succeeded: 1 or 0.",
            lambda runs: runs.last.state != "Failed" if runs.last else None,
        ),
        Measure(
            "last_run_duration_seconds",
            "How long the newest run that ended took.",
            lambda runs: runs.last.seconds if runs.last else None,
        ),
    ),
)
_FAILED = Group(
    "Newest runs that failed",
    ("namespace", "schedule", "reason"),
    Figures.failed_by_reason,
    (Measure("failed_tenants", "Tenants whose newest run failed, by reason (docs/reasons.md)."),),
)
_BACKUPS = Group(
    "Queue and history",
    ("namespace", "schedule", "state"),
    Figures.backups_by_state,
    (Measure("backups", "TenantBackups by state; the queue is what is Pending, Queued and Running."),),
)
_WAITING = Group(
    "The oldest of the queue",
    ("namespace",),
    Figures.oldest_waiting,
    (
        Measure(
            "oldest_waiting_timestamp_seconds",
            "When the oldest TenantBackup was created that has not started; none: nothing waits.",
        ),
    ),
)
_TENANTS = Group(
    "Tenants",
    ("namespace", "tenant"),
    Figures.tenants,
    (
        Measure("tenant_ready", "Whether the Tenant is Ready: 1 or 0.", lambda one: one.tenant.ready),
        Measure(
            "tenant_objectives_met",
            "Whether the Tenant's objectives are met: 1 or 0; none: it has no objectives.",
            lambda one: one.tenant.objectives_met,
        ),
        Measure(
            "tenant_recovery_point_objective_seconds",
            "How old the Tenant's newest backup may be, by spec.objectives.recoveryPoint.",
            lambda one: one.tenant.recovery_point,
        ),
        Measure(
            "tenant_schedules",
            "BackupSchedules that choose the Tenant and are not suspended.",
            lambda one: one.schedules,
        ),
        Measure(
            "tenant_corrupt_backups",
            "TenantBackups of the Tenant whose data is damaged.",
            lambda one: one.corrupt,
        ),
    ),
)
_SCHEDULES = Group(
    "Schedules",
    ("namespace", "schedule"),
    Figures.schedules,
    (
        Measure(
            "schedule_ready", "Whether the BackupSchedule is Ready: 1 or 0.", lambda one: one.schedule.ready
        ),
        Measure(
            "schedule_suspended",
            "Whether the BackupSchedule is suspended: 1 or 0.",
            lambda one: one.schedule.suspended,
        ),
        Measure("schedule_selected_tenants", "Tenants the BackupSchedule chooses.", lambda one: one.chosen),
        Measure(
            "schedule_next_run_timestamp_seconds",
            "The next slot of the BackupSchedule; none while it is suspended.",
            lambda one: _time(one.next_run),
        ),
        Measure(
            "schedule_interval_seconds",
            "The longest pause between the last slot and the next ones; none while it is suspended.",
            lambda one: one.interval,
        ),
        Measure(
            "schedule_last_run_timestamp_seconds",
            "The newest slot in which every tenant got its backup, or is counted as missed.",
            lambda one: _time(one.schedule.last_run),
        ),
        Measure(
            "schedule_last_success_timestamp_seconds",
            "The newest slot in which every tenant's backup succeeded.",
            lambda one: _time(one.schedule.last_success),
        ),
    ),
)
_OUTCOMES = Group(
    "The last slot of each schedule",
    ("namespace", "schedule", "outcome"),
    Figures.tenants_by_outcome,
    (
        Measure(
            "schedule_tenants",
            "Tenants by what became of their backup in the last slot, as in the BackupSchedule's status.",
        ),
    ),
)
_STORES = Group(
    "Stores",
    ("namespace", "store"),
    Figures.stores,
    (
        Measure("store_ready", "Whether the BackupStore is Ready: 1 or 0.", lambda store: store.ready),
        Measure(
            "store_used_bytes", "What the BackupStore held at its last collection.", lambda store: store.used
        ),
        Measure(
            "store_limit_bytes",
            "What the BackupStore may hold, by spec.capacity.limit.",
            lambda store: store.limit,
        ),
        Measure(
            "store_warning_bytes",
            "What the BackupStore holds when it is nearly full, by spec.capacity.warnAt.",
            lambda store: store.warning,
        ),
        Measure(
            "store_backups", "Backups in the BackupStore at its last collection.", lambda store: store.backups
        ),
        Measure(
            "store_tenants",
            "Tenants with data in the BackupStore at its last collection.",
            lambda store: store.tenants,
        ),
        Measure(
            "store_unlisted_backups",
            "Backups in the BackupStore that have no TenantBackup in this cluster.",
            lambda store: store.unlisted,
        ),
        Measure(
            "store_last_collection_timestamp_seconds",
            "When the last collection of the BackupStore that succeeded ended.",
            lambda store: _time(store.collected),
        ),
        Measure(
            "store_last_collection_freed_bytes",
            "What the last collection of the BackupStore deleted.",
            lambda store: store.freed,
        ),
    ),
)
_KEYS = Group(
    "The operator",
    ("state",),
    Figures.keys,
    (
        Measure(
            "work_queue_objects",
            "Objects in the work queue: ready to be looked at, active, or delayed until a time.",
        ),
    ),
)
_BUILD = Group(
    "The build",
    ("version", "python"),
    lambda _: [((__version__, platform.python_version()), 1)],
    (Measure("build_info", "Always 1; absent while no operator runs."),),
)
GROUPS = (_RUNS, _FAILED, _BACKUPS, _WAITING, _TENANTS, _SCHEDULES, _OUTCOMES, _STORES, _KEYS, _BUILD)


class _Scrape(Collector):
    def __init__(self, known: Known) -> None:
        self._known = known

    def collect(self) -> Iterator[Metric]:
        return chain(_families(Figures(self._known)), counters.REGISTRY.collect())


def _families(figures: Figures) -> Iterator[Metric]:
    for group in GROUPS:
        rows = list(group.rows(figures))
        for measure in group.measures:
            family = GaugeMetricFamily(PREFIX + measure.name, measure.help, labels=group.labels)
            for labels, subject in rows:
                value = measure.value(subject)
                if value is not None:
                    family.add_metric(labels, value)
            yield family


def exposition(known: Known) -> bytes:
    """Return all metrics in Prometheus' text format. Reads nothing that changes: safe in any thread."""
    return generate_latest(_Scrape(known))
