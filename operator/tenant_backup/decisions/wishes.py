"""Which verification a TenantBackup is still to have: the first one after it was made, or the one asked for.

A schedule asks as a person does, by a value that is a function of itself and its slot: whoever dies finds on
the backups what was asked, and in their status what was answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tenant_backup.api.references import ANNOTATION_VERIFY, LABEL_SCHEDULE
from tenant_backup.api.tenant_backup import VerificationLevel

from .instants import rfc3339
from .names import shortened

REQUEST_LIMIT = 128  # characters, as in the CRD
Document = Mapping[str, Any]


@dataclass(frozen=True)
class Wish:
    """A verification that is to be done. `requested` is empty for the first one after the backup."""

    level: VerificationLevel
    requested: str


def wish(spec: Document, metadata: Document, status: Document) -> Wish | None:
    """Return what is still to be verified of a backup that succeeded, as the API server describes it."""
    asked = shortened(str(metadata.get("annotations", {}).get(ANNOTATION_VERIFY, "")), limit=REQUEST_LIMIT)
    done, level = status.get("verification", {}), spec.get("verification", "Checksum")
    if asked and asked != done.get("requested"):
        return Wish(_level_of(asked, level), asked)
    if level != "None" and "completedAt" not in done:
        return Wish(level, "")
    return None


def is_awaited(spec: Document, metadata: Document, status: Document) -> bool:
    """Whether a finished backup is to be verified, or a verification of it is not wound up."""
    if status.get("state") != "Succeeded":
        return False
    return "progress" in status or wish(spec, metadata, status) is not None


def scheduled_request(level: VerificationLevel, schedule: str, slot: datetime) -> str:
    """Return the annotation by which a schedule asks in a slot, such as `Contents nightly 2024-…Z`."""
    return f"{level} {schedule} {rfc3339(slot)}"


def is_scheduled(requested: str, labels: Mapping[str, str]) -> bool:
    """Whether the backup's own schedule asked, so that nobody waits for the answer."""
    return requested.split(" ")[1:2] == [labels.get(LABEL_SCHEDULE)]


def _level_of(asked: str, level: str) -> VerificationLevel:
    if asked.startswith("Contents"):
        return "Contents"
    return "Contents" if level == "Contents" and not asked.startswith("Checksum") else "Checksum"
