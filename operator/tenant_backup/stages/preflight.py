"""Is the tenant's database reachable, and may this login read all that a backup needs? Changes nothing."""

from __future__ import annotations

from typing import Any

from tenant_backup.contract.job import Job, Preflight
from tenant_backup.engines import seam


def run(job: Job) -> dict[str, Any]:
    """Return {database: what `facts.of_look` says}. Raises the Failure a backup would end with."""
    assert isinstance(job, Preflight)
    return {"database": seam.engine(job.database.engine).look(job)}
