"""MariaDB and MySQL as the stages see it: seam.Engine. Each function imports only what it needs."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from tenant_backup.contract.job import Backup, Preflight, Restore, Swap
from tenant_backup.engines.seam import Contents, Reading


def read(job: Backup) -> AbstractContextManager[Reading]:
    """See seam.Engine."""
    from .dumping import reading

    return reading(job)


def restore(job: Restore, contents: Contents) -> dict[str, Any]:
    """See seam.Engine."""
    from . import restoring

    return restoring.restore(job, contents)


def look(job: Preflight) -> dict[str, Any]:
    """See seam.Engine."""
    from . import looking

    return looking.look(job)


def exchange(job: Swap) -> dict[str, Any]:
    """See seam.Engine."""
    from . import switching

    return switching.carry_out(job)
