"""Reading back what this run wrote, and saying whether it can be trusted.

It comes after the commit: a committed backup is Succeeded, and what is found here makes it Healthy or
Corrupt, never Failed. When the store cannot be asked its health stays Unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tenant_backup.contract.reasons import Failure
from tenant_backup.stores.base import Digest, NotFoundError, Store, digest_in

from .progress import Progress

AT_ONCE = 2
_NAMED = 3  # damaged objects in the message; the result has 2 KiB


def verify(store: Store, written: Mapping[str, Digest]) -> dict[str, Any]:
    """Return `{"health", "verification": {"level", "message"}}` for the objects `written` by this run."""
    total = sum(digest.length for digest in written.values())
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="verify")
    try:
        with Progress("Verify", total) as progress:
            checks = pool.map(lambda item: _damage(store, item[0], item[1], progress), written.items())
            return _outcome([damage for damage in checks if damage])
    except Failure as failure:
        # Also when the container is asked to stop: the commit stands.
        return _facts("Unknown", f"the packs could not be read back: {failure.message}"[:500])
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _damage(store: Store, name: str, expected: Digest, progress: Progress) -> str:
    try:
        actual = digest_in(store, name)
    except NotFoundError:
        return f"{name} is missing"
    progress.add(expected.length)
    return "" if actual == expected else f"{name} is damaged"


def _outcome(damages: list[str]) -> dict[str, Any]:
    if not damages:
        return _facts("Healthy", "")
    more = f" and {len(damages) - _NAMED} more" if len(damages) > _NAMED else ""
    found = ", ".join(damages[:_NAMED]) + more
    return _facts("Corrupt", f"{found}: the store gave back other bytes than it was given; make a new backup")


def _facts(health: str, message: str) -> dict[str, Any]:
    return {"health": health, "verification": {"level": "Checksum", "message": message}}
