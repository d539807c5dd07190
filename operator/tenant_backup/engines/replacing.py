"""What is refused alike by whoever replaces a database, or switches back to the one before."""

from __future__ import annotations

from typing import Any

from tenant_backup.contract.job import Restore
from tenant_backup.contract.reasons import Failure, Reason


def refuse_partial(job: Restore, catalogue: dict[str, Any]) -> None:
    """Raise PARTIAL_BACKUP when a Replace would lose the rows that the backup has not."""
    if catalogue["partial"] and job.replaces:
        modules = ", ".join(catalogue["modules"])
        message = f"the backup has only the rows of {modules}; use strategy NewDatabase, or a complete backup"
        raise Failure(Reason.PARTIAL_BACKUP, message)


def nothing_kept(previous: str) -> Failure:
    """Return why nobody can switch back to the database of that name."""
    message = f'database "{previous}" is not there: nothing was kept, or it was dropped; restore a backup'
    return Failure(Reason.DATABASE_NOT_FOUND, message)
