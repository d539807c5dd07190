"""Tenants, schedules, stores and backups as the API server sends them, and what a scrape says about them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tenant_backup.controllers.roster import Roster
from tenant_backup.telemetry.figures import Known
from tenant_backup.telemetry.metrics import PREFIX, exposition

Document = dict[str, Any]


def metadata(name: str, **labels: str) -> Document:
    """An object's metadata, with labels of ours."""
    return {
        "name": name,
        "namespace": "ns",
        "uid": f"uid-{name}",
        "resourceVersion": "1",
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "labels": {f"tenantbackup.dev/{key}": value for key, value in labels.items()},
    }


def tenant(name: str = "acme", **status: str) -> Document:
    """A Tenant with conditions."""
    conditions = [{"type": kind, "status": value, "reason": "Ready"} for kind, value in status.items()]
    spec = {"database": {"host": "pg", "port": 5432}, "objectives": {"recoveryPoint": "24h"}}
    return {"metadata": metadata(name, tier="gold"), "spec": spec, "status": {"conditions": conditions}}


def schedule(*, suspend: bool = False, **status: Any) -> Document:
    """A BackupSchedule named nightly for gold tenants."""
    selector = {"matchLabels": {"tenantbackup.dev/tier": "gold"}}
    spec = {"schedule": "0 2 * * *", "suspend": suspend, "tenantSelector": selector}
    return {"metadata": metadata("nightly"), "spec": spec, "status": status}


def store(**status: Any) -> Document:
    """A BackupStore that may hold 1000 bytes."""
    return {
        "metadata": metadata("prod"),
        "spec": {"capacity": {"limit": "1k", "warnAt": 80}},
        "status": status,
    }


def backup(name: str, *, by: str = "nightly", reason: str = "", of: str = "acme", **status: Any) -> Document:
    """A TenantBackup; times are hours of the second of January."""
    for field in ("startedAt", "completedAt"):
        if field in status:
            status[field] = f"2026-01-02T{status[field]}:00Z"
    if reason:
        status["conditions"] = [{"type": "Succeeded", "status": "False", "reason": reason}]
    spec = {"tenantRef": {"name": of}, "storeRef": {"name": "prod"}}
    return {"metadata": metadata(name, **({"schedule": by} if by else {})), "spec": spec, "status": status}


def exported() -> set[str]:
    """The names of all metrics of ours, as a rule or a dashboard uses them."""
    said = exposition(Known()).decode()
    return {name for name in re.findall(r"^# TYPE (\S+)", said, re.MULTILINE) if name.startswith(PREFIX)}


@dataclass(frozen=True)
class Said:
    """What a scrape said: samples by name, without the prefix, and label values."""

    samples: dict[str, dict[tuple[str, ...], float]]

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of one metric, by the values of its labels in the order of their names."""
        return self.samples[PREFIX + name]


def scrape(**objects: list[Document]) -> Said:
    """Return what a scrape says about objects, given by kind."""
    roster = Roster()
    for kind, documents in objects.items():
        for document in documents:
            roster.see(kind, document)
    known = Known(roster.tenants(), roster.stores(), roster.schedules(), roster.backups(), {"ready": 3})
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(exposition(known).decode()):
        samples.setdefault(family.name, {})
        for sample in family.samples:
            labels = tuple(value for _, value in sorted(sample.labels.items()))
            samples.setdefault(sample.name, {})[labels] = sample.value
    return Said(samples)
