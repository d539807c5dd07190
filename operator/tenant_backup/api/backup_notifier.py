"""BackupNotifier: who is told what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from .backup_schedule import TenantSelector
from .resource import AGE, UNIQUE, Column, Names, Resource, Rule, Status, Struct, keyed_by
from .values import Count, Reference

EventName = Literal[
    "BackupFailed",
    "BackupSucceeded",
    "BackupMissed",
    "RestoreSucceeded",
    "RestoreFailed",
    "VerificationFailed",
    "ObjectiveMissed",
    "StoreNearlyFull",
]
ReceiverName = Literal["Webhook", "Email", "Heartbeat"]
TOLD_LIMIT = 500  # ids that a status has room for
Address = Annotated[
    str, Field(max_length=254, pattern=r'^[^\s@<>,;:"()\[\]\\]+@[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$')
]


class Webhook(Struct):
    """A URL that gets a signed request for each notification."""

    url_secret_ref: Reference
    """Secret with key `url`, because whoever knows the URL can write there; with `ca.crt` when the server's
    certificate is signed by an authority of your own.
    """
    signing_secret_ref: Reference
    """Secret with key `secret`: `whsec_` and the base64 of at least 24 random bytes. It signs each request as
    Standard Webhooks say, so that the receiver knows who sent it. May be the same Secret.
    """
    format: Literal["CloudEvents"] = "CloudEvents"
    """What the body is. CloudEvents: version 1.0, as structured JSON."""


class Email(Struct):
    """Mail, in plain text; what happens within a minute comes in one."""

    smtp_secret_ref: Reference
    """Secret with keys `host`, `username` and `password`, and where needed `port` (default 587), `tls`
    (StartTLS, or Implicit, the default of port 465) and `ca.crt`. Without TLS nothing is sent.
    """
    sender: Address = Field(alias="from")
    """Address it comes from."""
    to: tuple[Address, ...] = Field(min_length=1, max_length=20, json_schema_extra=UNIQUE)
    """Addresses it goes to."""


class Heartbeat(Struct):
    """A URL that is asked for after successes: when it is not, whoever watches it raises the alarm."""

    url_secret_ref: Reference
    """Secret with key `url`, and `ca.crt` as for a webhook."""


class BackupNotifierSpec(Struct):
    """Who is told what."""

    RULES: ClassVar = (
        Rule(
            "has(self.webhook) || has(self.email) || has(self.heartbeat)",
            "set at least one of webhook, email and heartbeat",
        ),
        Rule(
            "has(self.events) || !(has(self.webhook) || has(self.email))",
            "events is needed with webhook and email: it says what they are told",
        ),
    )

    events: tuple[EventName, ...] | None = Field(
        default=None, min_length=1, max_length=8, json_schema_extra=UNIQUE
    )
    """What webhook and email are told. BackupMissed: a Tenant has no backup that is as young as its
    objectives.recoveryPoint asks. ObjectiveMissed: the same, and objectives to come. VerificationFailed: a
    backup was found damaged, or could not be verified.
    """
    tenant_selector: TenantSelector | None = None
    """Only what is about these Tenants, and StoreNearlyFull. Default: everything in this namespace."""
    webhook: Webhook | None = None
    """Told by HTTP."""
    email: Email | None = None
    """Told by mail."""
    heartbeat: Heartbeat | None = None
    """Pinged after successful backups, whatever `events` has."""


class ReceiverStatus(Struct):
    """How far one receiver is."""

    name: ReceiverName
    """Which one."""
    watermark: datetime
    """What happened until then was told, or given up."""
    through: str | None = Field(default=None, max_length=10)
    """Of what happened in the watermark's own second, until where; absent: all."""
    told: tuple[Annotated[str, Field(max_length=10)], ...] = Field(
        default=(), max_length=TOLD_LIMIT, json_schema_extra=UNIQUE
    )
    """What was told of the time after it: how the notifications' ids begin."""
    delivered: Count = 0
    """Notifications it has taken."""
    failed: Count = 0
    """Notifications that were given up, because it did not take them for a day."""
    last_delivered: datetime | None = None
    """When it took the last one."""
    last_error: str | None = Field(default=None, max_length=512)
    """Why it did not take one, the last time that happened."""


class BackupNotifierStatus(Status):
    """What was told."""

    delivered: Count | None = None
    """Notifications that were delivered, each counted once per receiver."""
    failed: Count | None = None
    """Notifications that were given up."""
    last_delivered: datetime | None = None
    """When the last one was delivered."""
    last_error: str | None = Field(default=None, max_length=512)
    """Why one was not delivered, the last time that happened; never with a URL."""
    watermark: datetime | None = None
    """What happened until then was told to every receiver, or given up."""
    receivers: tuple[ReceiverStatus, ...] = Field(
        default=(), max_length=3, json_schema_extra=keyed_by("name")
    )
    """The same for each receiver."""


class BackupNotifier(Resource):
    """Tells people and programs what happened to backups, restores and stores of its namespace.

    At least once: a receiver drops what it has by the notification's id.
    """

    NAMES: ClassVar = Names("BackupNotifier", "backupnotifiers", "bn")
    COLUMNS: ClassVar = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Delivered", ".status.delivered", "integer"),
        Column("Failed", ".status.failed", "integer"),
        Column("Last-Delivered", ".status.lastDelivered", "date"),
        AGE,
        Column("Events", ".spec.events", wide=True),
        Column("Last-Error", ".status.lastError", wide=True),
    )

    spec: BackupNotifierSpec
    """Who is told what."""
    status: BackupNotifierStatus = BackupNotifierStatus()
    """What was told."""
