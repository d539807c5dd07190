"""Capacity: what a Tenant's backups need and what a store has, against what their owners said.

It warns and refuses nothing: a limit that stops backups would lose data on the night it is reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from tenant_backup.api import BackupStore
from tenant_backup.api.values import quantity_bytes
from tenant_backup.contract.reasons import Reason

from .aspects import Aspect, begins
from .conditions import Fact
from .instants import size
from .observed import TenantSeen
from .plan import Announce
from .summaries import BackupSummary

Status = Mapping[str, Any]


def stored_bytes(backups: Iterable[BackupSummary]) -> int:
    """Return how many bytes these backups of one tenant need in their stores.

    Exact while no backup between two of them was deleted; never more than it is.
    """
    by_store: defaultdict[str, list[BackupSummary]] = defaultdict(list)
    for backup in backups:
        by_store[backup.store].append(backup)
    return sum(_in_one_store(found) for found in by_store.values())


def _in_one_store(backups: list[BackupSummary]) -> int:
    """Return the most that one of them needs, together with what the later ones wrote."""
    newest_first = sorted(backups, key=lambda backup: backup.completed or backup.created, reverse=True)
    most = later = 0
    for backup in newest_first:
        most = max(most, backup.stored + later)
        later += backup.added
    return most


def within_limits(seen: TenantSeen, _now: datetime) -> Aspect:
    """Return what the Tenant's backups need, and with a limit the condition WithinLimits."""
    needed = stored_bytes(backup for backup in seen.backups if backup.state == "Succeeded")
    fields = {"storedBytes": needed}
    limit = seen.tenant.spec.limits.stored_bytes
    if limit is None:
        return Aspect(fields=fields)
    if needed <= quantity_bytes(limit):
        message = f"the backups need no more than {limit}"
        return Aspect((Fact("WithinLimits", "True", Reason.WITHIN_LIMITS, message),), fields)
    message = (
        f"the backups need {size(needed)} of the {limit} in spec.limits.storedBytes: keep fewer of them or"
        " raise it; backups go on"
    )
    return _warned(Fact("WithinLimits", "False", Reason.STORED_BYTES_EXCEEDED, message), seen.status, fields)


def capacity(store: BackupStore, before: Status, used: int | None) -> Aspect:
    """Return the condition CapacityOk of a store; `used` is what the last collection counted, in bytes."""
    there = store.spec.capacity
    if there is None:
        return Aspect()
    if used is None:
        message = "how much is used is counted by the first collection"
        return Aspect((Fact("CapacityOk", "Unknown", Reason.PENDING, message),))
    if used * 100 < quantity_bytes(there.limit) * there.warn_at:
        message = f"less than {there.warn_at} % of {there.limit} are used"
        return Aspect((Fact("CapacityOk", "True", Reason.CAPACITY_OK, message),))
    message = (
        f"{size(used)} of {there.limit} are used, which is {there.warn_at} % or more: make room, keep fewer"
        " backups, or raise spec.capacity.limit if there is more; backups go on"
    )
    return _warned(Fact("CapacityOk", "False", Reason.STORE_NEARLY_FULL, message), before, {})


def _warned(fact: Fact, before: Status, fields: Status) -> Aspect:
    event = Announce("Warning", fact.reason, fact.message)
    return Aspect((fact,), fields, (event,) if begins(fact, before) else ())
