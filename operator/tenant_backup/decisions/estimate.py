"""How long a backup of everything a tenant has takes: as those before it did, or by how much there is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any

from tenant_backup.api.values import quantity_bytes

from .instants import duration
from .observed import TenantSeen
from .summaries import BackupSummary

_LAST = 7  # backups
_TICK = 1.0  # seconds; times are kept in whole ones
_START = 5.0  # seconds until a pod reads
_RATE = 40 << 20  # bytes per second, read, compressed, encrypted and stored, on a node that has more to do


def estimate(seen: TenantSeen, status: Mapping[str, Any]) -> dict[str, str] | None:
    """Return {duration, basis} for `status` as it will be; None while nothing is known."""
    if made := _made(seen.backups):
        return {"duration": duration(median(made)), "basis": "Backups"}
    sizes = [(status.get("database") or {}).get("sizeBytes")]
    sizes += [volume.get("bytes") for volume in status.get("files") or ()]
    known = [size for size in sizes if size is not None]
    if not known:
        return None
    brake = seen.tenant.spec.database.read_rate if seen.tenant.spec.database else None
    rate = min(_RATE, quantity_bytes(brake)) if brake else _RATE
    return {"duration": duration(_START + sum(known) / rate), "basis": "Size"}


def _made(backups: Iterable[BackupSummary]) -> list[float]:
    """Return how long the newest good backups of everything took."""
    whole = [one for one in backups if one.good and one.contents == "All" and not one.modules]
    ordered = sorted((one.completed, one.seconds) for one in whole if one.started and one.completed)
    return [max(_TICK, seconds) for _, seconds in ordered[-_LAST:]]
