"""After a Replace, container `switch` of one volume: puts the previous files back, or deletes them."""

from __future__ import annotations

from typing import Any

from tenant_backup.contract.job import Job, Swap
from tenant_backup.engines.files import switching


def run(job: Job, name: str) -> dict[str, Any]:
    """Carry out the action on the volume `name`, however often; return {action}. Raises Failure."""
    assert isinstance(job, Swap)
    (volume,) = [one for one in job.files if one.name == name]
    return switching.carry_out(job, volume)
