"""`rewrap`: what was done, for people and machines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tenant_backup.archive import rewrap as archive
from tenant_backup.archive.rewrap import Rewrapped

from .chosen import Chosen


def rewrap(newest: Chosen, recipients: Sequence[str]) -> Rewrapped:
    """Let `recipients` read every backup that the identity can read. Raises Failure."""
    assert newest.identity is not None
    return archive.rewrap(
        newest.opened.store, newest.manifest.tenant.slug, newest.trust, newest.identity, recipients
    )


def described(done: Rewrapped) -> dict[str, Any]:
    """Return it for machines."""
    return {
        "backups": done.backups,
        "dataKeys": done.data_keys,
        "written": list(done.written),
        "skipped": list(done.skipped),
    }


def in_words(done: Rewrapped) -> str:
    """Return it for people."""
    lines = [f"{done.backups} backups with {done.data_keys} data keys; {len(done.written)} keys were added"]
    return "\n".join(lines + [f"  not done: {text}" for text in done.skipped])
