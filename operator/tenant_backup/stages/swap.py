"""After a Replace: switch back to the previous database, or drop it. Holds administrator credentials only."""

from __future__ import annotations

from typing import Any

from tenant_backup.contract.job import Job, Swap
from tenant_backup.engines import seam


def run(job: Job) -> dict[str, Any]:
    """Carry out the action, however often; return {action, previousDatabase}. Raises Failure."""
    assert isinstance(job, Swap)
    return seam.engine(job.database.engine).exchange(job)
