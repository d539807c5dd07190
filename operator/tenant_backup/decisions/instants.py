"""Times as the API writes them, and durations and sizes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime


def rfc3339(moment: datetime) -> str:
    """Return the moment in UTC with whole seconds, as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str | None) -> datetime | None:
    """Return the moment an API timestamp names; None for none."""
    return datetime.fromisoformat(text) if text else None


def duration(seconds: float) -> str:
    """Return a duration for people: 8s, 3m20s, 2h5m."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60}s"
    return f"{whole // 3600}h{whole % 3600 // 60}m"


def size(count: int) -> str:
    """Return bytes for people, in binary units: 812B, 3.4Ki, 1.2Gi."""
    amount = float(count)
    for unit in ("B", "Ki", "Mi", "Gi", "Ti"):
        if amount < 1000 or unit == "Ti":
            break
        amount /= 1024
    return f"{amount:.0f}{unit}" if unit == "B" or amount >= 100 else f"{amount:.1f}{unit}"
