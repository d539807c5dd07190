"""Names are functions of the object and its slot: never a random suffix, never the current time."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

NAME_LIMIT = 63  # of label values and of Job names
_MINUTES, _SECONDS = "%Y%m%d%H%M", "%Y%m%d%H%M%S"


def shortened(*parts: str, limit: int = NAME_LIMIT) -> str:
    """Join `parts` with dashes; when that is too long, cut it and end with a hash of the whole."""
    whole = "-".join(part for part in parts if part)
    if len(whole) <= limit:
        return whole
    return f"{whole[: limit - 11].rstrip('-.')}-{digest(whole)}"


def digest(*parts: str) -> str:
    """Return ten hex digits that stand for `parts`."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:10]


def job_name(name: str, uid: str, purpose: str, generation: int = 0, attempt: int = 1) -> str:
    """Return the name of the Job that does `purpose` for the object with this UID.

    The UID makes a deleted and re-created object another one; the generation, where it is given,
    makes each version of a spec its own Job; the attempt each try that the operator makes.
    """
    tail = f"-{purpose}-{digest(uid, purpose, str(generation), str(attempt))}"
    head = name.replace(".", "-")[: NAME_LIMIT - len(tail)].rstrip("-")
    return head + tail


def scheduled_backup(schedule: str, tenant: str, slot: datetime, attempt: int = 1) -> str:
    """Return the name of a schedule's backup of one tenant in one slot; a label value too."""
    parts = [schedule, tenant, slot_label(slot), *([str(attempt)] if attempt > 1 else [])]
    plain = "-".join(parts).replace(".", "-")
    if len(plain) <= NAME_LIMIT and "-" not in schedule and "." not in schedule + tenant:
        return plain
    # Tenant c of schedule a-b is not tenant b-c of schedule a.
    return f"{plain[: NAME_LIMIT - 11].rstrip('-')}-{digest(*parts)}"


def slot_label(slot: datetime) -> str:
    """Return a slot as a label value, in UTC: 202401150200; with seconds where it is not on the minute."""
    return slot.astimezone(UTC).strftime(_SECONDS if slot.second else _MINUTES)


def slot_of(label: str) -> datetime:
    """Return the slot a label names. Raises ValueError."""
    return datetime.strptime(label, _SECONDS if len(label) > 12 else _MINUTES).replace(tzinfo=UTC)


def key_secret(tenant: str, signing_key: str) -> str:
    """Return the name of the Secret with the tenant's keys, by their public half (hex)."""
    known = hashlib.sha256(bytes.fromhex(signing_key)).hexdigest()[:10]
    return shortened(tenant.replace(".", "-"), "keys", known)


def backup_id(slug: str, created: datetime) -> str:
    """Return the id a backup wishes for: slug and creation time in UTC."""
    return f"{slug}_{created.astimezone(UTC):%Y-%m-%d_%H-%M-%S}"
