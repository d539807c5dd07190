"""First container of a backup: whose prefix is it, is this backup committed already, what is it called.

Holds the store's credentials and nothing else. All questions are asked before anything is dumped.
"""

from __future__ import annotations

import json
import os
import re
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from tenant_backup.archive import names
from tenant_backup.contract import job as jobs
from tenant_backup.contract import paths
from tenant_backup.contract.reasons import Failure, Reason
from tenant_backup.stores import connect
from tenant_backup.stores.base import Store

from . import commits
from .ownership import claim


def run(
    job: jobs.Backup,
    *,
    run: Path = paths.RUN,
    secrets: Path = paths.SECRETS,
    volume: Path = paths.VOLUME,
    spool: Path = paths.SPOOL,
) -> dict[str, Any]:
    """Write {run}/prepared.json, fetch the base; return the backupId and whether it is committed.

    Raises Failure: StoreForeign when the prefix is another tenant's, and whatever the store raises.
    """
    began = time.clock_gettime(time.CLOCK_BOOTTIME)  # before anything is looked at; it counts sleep too
    store = connect(job.store, job.tenant.slug, secrets=secrets, volume=volume)
    claim(store, job.tenant, job.adopt)
    backup_id, committed = settle(store, job.backup_id, job.uid)
    document = {
        "backupId": backup_id,
        "committed": committed,
        "keys": [entry.name for entry in store.entries("keys")],
        "base": None if committed else _base(store, job, spool),
        "began": began,
    }
    _write(run / paths.PREPARED, document)
    return {"backupId": backup_id, "committed": committed is not None}


def settle(store: Store, wished: str, uid: str) -> tuple[str, dict[str, Any] | None]:
    """Return the backup id to use, and the facts of the commit if there is one with this `uid`.

    An earlier attempt may have committed under `-2` and died before it was seen, and the wished name
    may be free again since: so every candidate is asked for our uid before a name is chosen.
    """
    taken = set()
    for candidate in _candidates(store, wished):
        commit = commits.find(store, candidate)
        if commit is not None and commit.uid == uid and _is_whole(store, commit):
            return candidate, commit.facts
        taken.add(candidate)
    choices = (wished if number == 1 else f"{wished}-{number}" for number in count(1))
    return next(choice for choice in choices if choice not in taken), None


def _candidates(store: Store, wished: str) -> list[str]:
    ours = re.compile(re.escape(wished) + r"(-\d+)?")
    found = []
    # Names begin with slug and time: from just before the wished one on there are few.
    for entry in store.entries("manifests", names.manifest(wished[:-1])):
        backup_id = entry.name.removeprefix(names.manifest(""))
        if ours.fullmatch(backup_id):
            found.append(backup_id)
        elif backup_id > wished and not backup_id.startswith(wished):
            break
    return found


def _is_whole(store: Store, commit: commits.Commit) -> bool:
    """Say whether all that a commit of ours needs is there; one that came too late may have lost packs."""
    from tenant_backup.archive.collector import check_committed

    assert commit.manifest
    try:
        check_committed(store, commit.manifest)
    except Failure as failure:
        if failure.reason is not Reason.PACK_MISSING:
            raise
        # Nobody was told of it: the run that wrote it did not end well. It may stay where we may not delete.
        with suppress(Failure):
            store.delete(names.manifest(commit.manifest.backup_id))
        return False
    return True


def _base(store: Store, job: jobs.Backup, spool: Path) -> dict[str, Any] | None:
    # Late: keys and packs cost start-up time, and a first backup has no base.
    if job.mode == "Full" or next(store.entries("manifests"), None) is None:
        return None
    from .base import fetch_base

    return fetch_base(store, job, spool / paths.BASE)


def _write(target: Path, document: dict[str, Any]) -> None:
    # Renamed whole: a killed prepare leaves no half document for a restarted container to read.
    temporary = target.with_suffix(".writing")
    temporary.write_text(json.dumps(document))
    os.replace(temporary, target)  # noqa: PTH105 - the atomic one by its usual name
