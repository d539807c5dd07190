"""BackupSchedule: when, for whom, and how many are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar

from pydantic import Field

from .resource import AGE, UNIQUE, Column, Names, Resource, Rule, Status, Struct
from .tenant_backup import Compression, Mode, Verification
from .values import LONG_NAME_LIMIT, Count, ModuleName, Reference, TenantName

LabelValue = Annotated[str, Field(max_length=63)]


class TenantSelector(Struct):
    """Tenants of this namespace by label."""

    match_labels: Mapping[str, LabelValue] = Field(min_length=1, max_length=20)
    """Labels a Tenant must have, all of them."""


class BackupTemplate(Struct):
    """What every backup of the schedule looks like."""

    store_ref: Reference
    """The BackupStore they go to."""
    modules: tuple[ModuleName, ...] = Field(default=(), max_length=100, json_schema_extra=UNIQUE)
    """Rows of these modules only. Empty: everything."""
    mode: Mode = "Incremental"
    """Incremental: store only what earlier backups have not stored. Full: everything anew."""
    compression: Compression = Compression()
    """How hard zstd tries."""
    verification: Verification = "Checksum"
    """Checksum: read everything a run wrote again before it counts as a success."""


class Retention(Struct):
    """Which of the schedule's backups are kept; the newest good one always is."""

    keep_last: int = Field(ge=1, le=1000)
    """How many good backups of each tenant are kept."""


class BackupScheduleSpec(Struct):
    """When, for whom, and how many are kept."""

    RULES: ClassVar = (
        Rule(
            "has(self.tenants) != has(self.tenantSelector)", "set exactly one of tenants and tenantSelector"
        ),
    )

    schedule: str = Field(max_length=100, pattern=r"^(@(hourly|daily|weekly|monthly)|[^\s@]+( +[^\s@]+){4})$")
    """Five fields (minute, hour, day of month, month, day of week) or @hourly, @daily, @weekly, @monthly."""
    time_zone: str = Field(default="Etc/UTC", max_length=64, pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$")
    """Time zone the schedule is read in, such as Europe/Rome."""
    suspend: bool = False
    """While true nothing is started."""
    tenants: tuple[TenantName, ...] | None = Field(
        default=None, min_length=1, max_length=1000, json_schema_extra=UNIQUE
    )
    """Names of the Tenants."""
    tenant_selector: TenantSelector | None = None
    """The Tenants by label."""
    template: BackupTemplate
    """What every backup looks like."""
    retention: Retention | None = None
    """Which backups are kept. Without it all are."""


class ScheduleTenants(Struct):
    """The tenants of the last run."""

    selected: Count | None = None
    """Tenants the schedule is for."""
    succeeded: Count | None = None
    """Whose backup of the last run succeeded."""
    failed: Count | None = None
    """Whose backup of the last run failed."""
    running: Count | None = None
    """Whose backup of the last run is under way."""


class ScheduleRetention(Struct):
    """What retention sees."""

    kept: Count | None = None
    """Backups that are kept."""
    to_delete: Count | None = None
    """Backups that go next."""


class BackupScheduleStatus(Status):
    """How the schedule is doing."""

    last_run: datetime | None = None
    """The newest slot that was started."""
    last_success: datetime | None = None
    """The newest slot in which every tenant's backup succeeded."""
    next_runs: tuple[datetime, ...] = Field(default=(), max_length=3)
    """The next three slots."""
    tenants: ScheduleTenants | None = None
    """The tenants of the last run."""
    retention: ScheduleRetention | None = None
    """What retention sees."""


class BackupSchedule(Resource):
    """Backs up many tenants at fixed times. Deleting it deletes no backup."""

    NAMES: ClassVar = Names("BackupSchedule", "backupschedules", "bsch")
    COLUMNS: ClassVar = (
        Column("Schedule", ".spec.schedule"),
        Column("Suspend", ".spec.suspend", "boolean"),
        Column("Last-Run", ".status.lastRun", "date"),
        Column("Next-Run", ".status.nextRuns[0]"),
        AGE,
        Column("Time-Zone", ".spec.timeZone", wide=True),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', wide=True),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
    )
    RULES: ClassVar = (
        Rule(
            f"size(self.metadata.name) <= {LONG_NAME_LIMIT}",
            f"the name of a BackupSchedule has at most {LONG_NAME_LIMIT} characters",
        ),
    )

    spec: BackupScheduleSpec
    """When, for whom, and how many are kept."""
    status: BackupScheduleStatus = BackupScheduleStatus()
    """How it is doing."""
