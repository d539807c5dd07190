"""BackupSchedule: when, for whom, and how many are kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .resource import AGE, UNIQUE, Column, Names, Resource, Rule, Status, Struct
from .tenant_backup import Compression, Mode, Parts, Verification, VerificationLevel
from .values import (
    LONG_NAME_LIMIT,
    Backoff,
    Count,
    FullEvery,
    KeepWithin,
    ModuleName,
    Name,
    Reference,
    Spread,
    StartingDeadline,
    TenantName,
)

LabelValue = Annotated[str, Field(max_length=63)]
Cron = Annotated[
    str, Field(max_length=100, pattern=r"^(@(hourly|daily|weekly|monthly)|[^\s@]+( +[^\s@]+){4})$")
]
_GOOD = ("Last", "Hourly", "Daily", "Weekly", "Monthly", "Yearly")  # each keeps good backups


class TenantSelector(Struct):
    """Tenants of this namespace by label."""

    match_labels: Mapping[str, LabelValue] = Field(min_length=1, max_length=20)
    """Labels a Tenant must have, all of them."""


class BackupTemplate(Struct):
    """What every backup of the schedule looks like."""

    store_ref: Reference
    """The BackupStore they go to."""
    contents: Parts = "All"
    """All: everything each tenant has. Database: no files. Files: no database."""
    modules: tuple[ModuleName, ...] = Field(default=(), max_length=100, json_schema_extra=UNIQUE)
    """Rows and files of these modules only. Empty: everything."""
    mode: Mode = "Incremental"
    """Incremental: store only what earlier backups have not stored. Full: everything anew."""
    compression: Compression = Compression()
    """How hard zstd tries."""
    verification: Verification = "Checksum"
    """Checksum: read everything a run wrote again before it counts as a success."""


Kept = Annotated[int, Field(ge=0, le=1000)]


class Retention(Struct):
    """Which of the schedule's backups are kept, of each tenant: whatever one of the rules keeps.

    Always kept are the newest good one, the newest verified one, and what has label tenantbackup.dev/hold.
    """

    RULES: ClassVar = (
        Rule(
            " + ".join(f"self.?keep{rule}.orValue(0)" for rule in _GOOD) + " > 0 || has(self.keepWithin)",
            f"set keepWithin, or at least one of {', '.join(f'keep{rule}' for rule in _GOOD)} to more than 0",
        ),
    )

    keep_last: Kept | None = None
    """The newest good backups, so many."""
    keep_hourly: Kept | None = None
    """The newest good backup of each of so many hours that have one."""
    keep_daily: Kept | None = None
    """The newest good backup of each of so many days of the schedule's time zone that have one."""
    keep_weekly: Kept | None = None
    """The newest good backup of each of so many ISO weeks, which begin on Monday, that have one."""
    keep_monthly: Kept | None = None
    """The newest good backup of each of so many months that have one."""
    keep_yearly: Kept | None = None
    """The newest good backup of each of so many years that have one."""
    keep_within: KeepWithin | None = None
    """Every good backup that is at most so much older than the newest good one, such as 48h."""
    keep_failed: Kept = 3
    """The newest failed ones, so many, for whoever wants to know why."""


class ScheduleBudget(Struct):
    """How many of the schedule's backups run at once; the operator's own budget comes on top."""

    RULES: ClassVar = (
        Rule("has(self.total) || has(self.perServer)", "set total, perServer or both in budget"),
    )

    total: int | None = Field(default=None, ge=1, le=1000)
    """On all database servers together."""
    per_server: int | None = Field(default=None, ge=1, le=1000)
    """On one database server, which is a host and port of spec.database of the Tenants."""


class Retries(Struct):
    """Further tries of a backup that failed for a reason that may heal by itself."""

    limit: int = Field(default=3, ge=0, le=10)
    """How many TenantBackups more in the same slot, at most; none once the tenant's next slot is due."""
    backoff: Backoff = "5m"
    """The pause after the first failure; twice as long after each further one, 6h at most."""


class ScheduleVerification(Struct):
    """When the newest good backup of each tenant is verified again, and how deeply."""

    schedule: Cron
    """When, as in spec.schedule and in the same time zone, such as "0 5 * * 0" for Sundays at five."""
    level: VerificationLevel = "Checksum"
    """Checksum: read all that the backup needs again, and compare SHA-256. Contents: also decrypt everything
    with the Tenant's identity and count the rows."""


class BackupScheduleSpec(Struct):
    """When, for whom, and how many are kept."""

    RULES: ClassVar = (
        Rule(
            "has(self.tenants) != has(self.tenantSelector)", "set exactly one of tenants and tenantSelector"
        ),
        Rule(
            "!has(self.fullEvery) || self.template.mode == 'Incremental'",
            "fullEvery is for template.mode Incremental; with Full every backup is one",
        ),
    )

    schedule: Cron
    """Five fields (minute, hour, day of month, month, day of week) or @hourly, @daily, @weekly, @monthly."""
    time_zone: str = Field(default="Etc/UTC", max_length=64, pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$")
    """Time zone the schedule is read in, such as Europe/Rome."""
    suspend: bool = False
    """While true nothing is started, verified or deleted; slots that pass by are not made up for."""
    tenants: tuple[TenantName, ...] | None = Field(
        default=None, min_length=1, max_length=1000, json_schema_extra=UNIQUE
    )
    """Names of the Tenants."""
    tenant_selector: TenantSelector | None = None
    """The Tenants by label."""
    template: BackupTemplate
    """What every backup looks like."""
    full_every: FullEvery | None = None
    """A Full instead of an Incremental this often, such as 720h; each tenant's at another time."""
    spread: Spread = "0s"
    """Over how long the tenants of a slot are spread: each starts after its own offset, always the same."""
    on_new_tenant: Literal["BackUpNow", "Wait"] = "BackUpNow"
    """What a tenant gets that the schedule has no backup of, once a slot has run. BackUpNow: one at once.
    Wait: one in the next slot."""
    overlap: Literal["Skip", "Queue"] = "Skip"
    """When the tenant's previous run is still going. Skip: no backup in this slot. Queue: one that waits, and
    never a second one that does."""
    missed_runs: Literal["RunOnce", "Skip"] = "RunOnce"
    """When the operator was not running. RunOnce: the newest slot is made up for within startingDeadline.
    Skip: only what is at most five minutes late."""
    starting_deadline: StartingDeadline = "4h"
    """How late a backup may start."""
    retries: Retries = Retries()
    """Further tries within the slot."""
    run_now: str = Field(default="", max_length=128)
    """Any new value, such as a date, backs all tenants up once, at once."""
    budget: ScheduleBudget | None = None
    """How many run at once; the others are Queued. Without it only the operator's own budget counts."""
    retention: Retention | None = None
    """Which backups are kept. Without it all are."""
    verification: ScheduleVerification | None = None
    """When the newest good backup of each tenant that the schedule made is verified again: as many at once as
    budget.total, or the operator's own budget, allow."""


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
    queued: Count | None = None
    """Whose backup of the last run has not started."""
    missed: Count | None = None
    """Who got no backup in the last run; Events named ScheduleMissed say why."""


class ScheduleRunNow(Struct):
    """What was asked for by spec.runNow."""

    value: str | None = Field(default=None, max_length=128)
    """The last value that was seen."""
    slot: datetime | None = None
    """The slot of its backups: when it was seen."""


class ScheduleRetention(Struct):
    """What retention keeps, and what goes.

    By new rules nothing goes before this was shown for one interval of the schedule, a day at most.
    """

    rules: str | None = Field(default=None, max_length=256)
    """The rules this was found by."""
    deletes_from: datetime | None = None
    """Nothing goes by these rules before."""
    kept: Count | None = None
    """Backups that are kept."""
    to_delete: Count | None = None
    """Backups that go."""
    next: tuple[Name, ...] = Field(default=(), max_length=20)
    """Those that go first, oldest first."""


class ScheduleVerified(Struct):
    """The last verification of the schedule, and the next one."""

    last_run: datetime | None = None
    """The newest slot that began. Until nobody is pending no other one begins."""
    next_run: datetime | None = None
    """The next slot."""
    verified: Count | None = None
    """Tenants whose backup was found Healthy."""
    failed: Count | None = None
    """Tenants whose backup was found to be otherwise, or could not be verified."""
    pending: Count | None = None
    """Tenants whose backup is being verified, or waits for it."""
    failing: tuple[TenantName, ...] = Field(default=(), max_length=20, json_schema_extra=UNIQUE)
    """Tenants that failed: twenty at most. status.verification of their backups says why."""


class BackupScheduleStatus(Status):
    """How the schedule is doing."""

    last_run: datetime | None = None
    """The newest slot whose backups are all there, well or not."""
    last_missed: datetime | None = None
    """The newest slot in which a tenant got no backup."""
    settled_through: datetime | None = None
    """Slots up to then are over: every tenant has its backup, or gets none."""
    expression: str | None = Field(default=None, max_length=168)
    """Schedule and time zone of the slots above; after a change only later slots count."""
    run_now: ScheduleRunNow | None = None
    """The last spec.runNow."""
    last_success: datetime | None = None
    """The newest slot in which every tenant's backup succeeded."""
    next_runs: tuple[datetime, ...] = Field(default=(), max_length=3)
    """The next three slots."""
    tenants: ScheduleTenants | None = None
    """The tenants, by what became of each one's last turn."""
    failing: tuple[TenantName, ...] = Field(default=(), max_length=20, json_schema_extra=UNIQUE)
    """Tenants whose last turn failed: twenty at most."""
    retention: ScheduleRetention | None = None
    """What retention keeps, and what goes."""
    verification: ScheduleVerified | None = None
    """The last verification of the schedule, and the next one."""


class BackupSchedule(Resource):
    """Backs up many tenants at fixed times. Deleting it deletes no backup."""

    NAMES: ClassVar = Names("BackupSchedule", "backupschedules", "bsch")
    COLUMNS: ClassVar = (
        Column("Schedule", ".spec.schedule"),
        Column("Suspend", ".spec.suspend", "boolean"),
        Column("Last-Run", ".status.lastRun", "date"),
        Column("Next-Run", ".status.nextRuns[0]"),
        Column("Failed", ".status.tenants.failed", "integer"),
        AGE,
        Column("Time-Zone", ".spec.timeZone", wide=True),
        Column("Missed", ".status.tenants.missed", "integer", wide=True),
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status', wide=True),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', wide=True),
        Column("Kept", ".status.retention.kept", "integer", wide=True),
        Column("To-Delete", ".status.retention.toDelete", "integer", wide=True),
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
