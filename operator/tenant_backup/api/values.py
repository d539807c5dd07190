"""Small values with limits that several kinds share: names, durations, references, table names."""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import Field

from .resource import Rule, Status, Struct

_SUBDOMAIN = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
_DURATION = r"^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,6}s)?$"
_QUANTITY = r"^[0-9]{1,12}(\.[0-9]{1,3})?([kMGT]|[KMGT]i)?$"
_UNIT_BYTES = {"": 1} | {
    unit: base**power
    for base, units in ((1000, ("k", "M", "G", "T")), (1024, ("Ki", "Mi", "Gi", "Ti")))
    for power, unit in enumerate(units, 1)
}
_UNIT_SECONDS = {"h": 3600, "m": 60, "s": 1}

LONG_NAME_LIMIT = 52  # of Tenants and BackupSchedules: leaves room for what is appended in label values

Name = Annotated[str, Field(min_length=1, max_length=253, pattern=_SUBDOMAIN)]
TenantName = Annotated[str, Field(min_length=1, max_length=LONG_NAME_LIMIT, pattern=_SUBDOMAIN)]
ModuleName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
VolumeName = ModuleName  # a container has it in its name
VolumeGlob = Annotated[
    str, Field(min_length=3, max_length=300, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?:[^/\x00]")
]
Glob = Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[^/\x00]")]
_DOTS = r"(:|/)\\.\\.?(/|$)"
SelectedFiles = Annotated[
    VolumeGlob,
    Field(
        json_schema_extra={
            "x-kubernetes-validations": [
                Rule(
                    f'!self.matches("{_DOTS}")',
                    "paths are relative to the volume: no . or .. between slashes",
                ).document()
            ]
        },
    ),
]
TableName = Annotated[str, Field(min_length=3, max_length=127, pattern=r"^[^.]+\..+$")]
DatabaseName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[^\x00-\x1f]+$")]
Bytes = Annotated[int, Field(json_schema_extra={"format": "int64"})]
Count = Annotated[int, Field(json_schema_extra={"format": "int64"})]


def _duration(least: str, most: str, what: str) -> Any:
    rule = Rule(
        f"duration(self) >= duration('{least}') && duration(self) <= duration('{most}')",
        f"{what} must be between {least} and {most}",
    )
    extra: dict[str, Any] = {"x-kubernetes-validations": [rule.document()]}
    return Field(min_length=2, max_length=16, pattern=_DURATION, json_schema_extra=extra)


SigningKey = Annotated[str, Field(max_length=72, pattern="^(ed25519:)?[0-9a-f]{64}$")]
Recipient = Annotated[str, Field(max_length=62, pattern="^age1[02-9ac-hj-np-z]{58}$")]


def _rate(least: str, most: str, what: str) -> Any:
    rule = Rule(
        f"quantity(self).compareTo(quantity('{least}')) >= 0"
        f" && quantity(self).compareTo(quantity('{most}')) <= 0",
        f"{what} must be between {least} and {most}, in bytes per second",
    )
    extra: dict[str, Any] = {"x-kubernetes-validations": [rule.document()]}
    return Field(min_length=1, max_length=16, pattern=_QUANTITY, json_schema_extra=extra)


def _size(what: str) -> Any:
    rule = Rule("quantity(self).compareTo(quantity('1Mi')) >= 0", f"{what} must be at least 1Mi")
    extra: dict[str, Any] = {"x-kubernetes-validations": [rule.document()]}
    return Field(min_length=1, max_length=16, pattern=_QUANTITY, json_schema_extra=extra)


StoredBytes = Annotated[str, _size("storedBytes")]
CapacityLimit = Annotated[str, _size("capacity.limit")]
ReadRate = Annotated[str, _rate("64Ki", "1Ti", "readRate")]
UploadRate = Annotated[str, _rate("64Ki", "1Ti", "uploadRate")]
Deadline = Annotated[str, _duration("1m", "168h", "deadline")]
BackupDeadline = Annotated[str, _duration("1m", "24h", "deadline of a backup")]  # archive.collector.MAX_RUN
RecoveryPoint = Annotated[str, _duration("1m", "8760h", "recoveryPoint")]
KeepPrevious = Annotated[str, _duration("0s", "720h", "keepPrevious")]
FullEvery = Annotated[str, _duration("1h", "87600h", "fullEvery")]
Spread = Annotated[str, _duration("0s", "24h", "spread")]
StartingDeadline = Annotated[str, _duration("1m", "168h", "startingDeadline")]
Backoff = Annotated[str, _duration("1s", "6h", "backoff")]
ExpiresAfter = Annotated[str, _duration("1m", "87600h", "expiresAfter")]
KeepWithin = Annotated[str, _duration("1m", "87600h", "keepWithin")]


def duration_seconds(text: str) -> int:
    """Return a duration such as 90s, 30m or 1h30m in seconds. Raises ValueError on anything else."""
    if not text or not re.fullmatch(_DURATION, text):
        raise ValueError(f"{text!r} is not a duration; write it like 90s, 30m or 1h30m")
    parts = re.findall(r"([0-9]+)([hms])", text)
    return sum(int(number) * _UNIT_SECONDS[unit] for number, unit in parts)


def quantity_bytes(text: str) -> int:
    """Return a quantity such as 500k or 1.5Mi in bytes, rounded down. Raises ValueError on anything else."""
    if not re.fullmatch(_QUANTITY, text):
        raise ValueError(f"{text!r} is not a number of bytes; write it like 500k, 100Mi or 1Gi")
    number = text.rstrip("kKMGTi")
    return int(Decimal(number) * _UNIT_BYTES[text.removeprefix(number)])


class Reference(Struct):
    """The name of another object in the same namespace."""

    name: Name
    """Name of the object."""


class TenantReference(Struct):
    """The name of a Tenant in the same namespace."""

    name: TenantName
    """Name of the Tenant."""


class ClaimReference(Struct):
    """The name of a PersistentVolumeClaim in the same namespace."""

    claim_name: Name
    """Name of the PersistentVolumeClaim."""


class Progress(Struct):
    """How far a running Job is."""

    percent: int | None = Field(default=None, ge=0, le=100)
    """Of the estimated bytes."""
    phase: str | None = Field(default=None, max_length=64)
    """What it is doing."""
    bytes_read: Bytes | None = None
    """Bytes read so far."""
    bytes_total: Bytes | None = None
    """Bytes there are to read, estimated."""


class RunStatus(Status):
    """What the status of every kind has that runs once, in a Job."""

    progress: Progress | None = None
    """How far the running Job is."""
    started_at: datetime | None = None
    """When the first attempt started."""
    completed_at: datetime | None = None
    """When it ended, well or not."""
    duration: str | None = Field(default=None, max_length=16)
    """From start to end, for people."""
    attempts: int | None = None
    """How many pods have tried."""
    requested_by: str | None = Field(default=None, max_length=256)
    """The user who asked, vouched for by the admission policy; empty when nobody vouches."""
    job_ref: Reference | None = None
    """The Job that does it."""
