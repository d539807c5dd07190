"""Container `place` of one volume: mounts it, as the user whose files they become, and holds no secret."""

from __future__ import annotations

import contextlib
from typing import Any

from tenant_backup.contract.job import Job, Restore
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.engines.files.placing import place

from .load import FromOpen


def run(job: Job, name: str) -> dict[str, Any]:
    """Put the files of a backup on the volume `name`; return {files, bytes, skipped}. Raises Failure."""
    assert isinstance(job, Restore)
    (volume,) = [one for one in job.files if one.name == name]
    with contextlib.ExitStack() as stack:
        backup = _Part(stack, {"volume": name})
        described = _described(backup.document(), name)
        with backup.opened() as stored:
            facts = place(job, volume, described, stored, backup)
        backup.let_go()
        return facts


class _Part(FromOpen):
    """See seam.Together."""

    def begin(self, *, committed: bool) -> bool:
        return self.come("begin", committed=committed)

    def meet(self, step: str) -> None:
        self.come(step, committed=False)

    def ended(self, *, committed: bool) -> bool:
        return self.come("ended", committed=committed)


def _described(catalogue: dict[str, Any], name: str) -> dict[str, Any]:
    volumes = {volume["name"]: volume for volume in catalogue.get("files", ())}
    if name not in volumes:
        has = f"it has those of {', '.join(sorted(volumes))}" if volumes else "it has no files at all"
        message = f"the backup has no files of volume {name}: {has}; name one of them in target.files"
        raise Failure(Reason.PARTIAL_BACKUP, message)
    return dict(volumes[name])
