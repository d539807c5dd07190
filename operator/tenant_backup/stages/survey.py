"""Container `survey` of one volume: says whether a backup could read it, as the user who would."""

from __future__ import annotations

from typing import Any

from tenant_backup.contract.job import Job, Preflight
from tenant_backup.engines.files.looking import look


def run(job: Job, name: str) -> dict[str, Any]:
    """Return {files, bytes, complete} of the volume `name`. Raises the Failure a backup would end with."""
    assert isinstance(job, Preflight)
    (volume,) = [one for one in job.files if one.name == name]
    return look(volume)
