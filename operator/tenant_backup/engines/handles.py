"""Names that a restore uses in a server: functions of the TenantRestore, so that a re-run finds its own."""

from __future__ import annotations

import hashlib


def handle(uid: str) -> str:
    """Return the 8 hex digits that stand for one TenantRestore in the names of a server."""
    return hashlib.sha256(uid.encode()).hexdigest()[:8]


def temporary_login(uid: str) -> str:
    """The login a restore loads with; it exists only while the restore runs."""
    return f"tbr_{handle(uid)}"
