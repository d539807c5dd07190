"""Container `gather` of one volume: mounts it read-only, as the user who can read it, and holds no secret."""

from __future__ import annotations

import json
import resource
from typing import Any

from tenant_backup.contract.job import Backup, Job
from tenant_backup.engines.files.reading import reading

from .dump import deliver


def run(job: Job, name: str) -> dict[str, Any]:
    """Send the files of the volume `name` to `archive`; return {files, bytes, read}. Raises Failure."""
    assert isinstance(job, Backup)
    # A deep tree takes descriptors for each level: one of the walk, one of what is read.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    (volume,) = [one for one in job.files if one.name == name]
    document = deliver({"volume": name}, reading(volume))
    if document is None:
        return {}
    for what in ("changed", "skipped"):
        for path in document[what]["paths"]:
            print(json.dumps({what: path}), flush=True)
    return {key: document[key] for key in ("files", "bytes", "read")}
