"""Job descriptions for the database stages, short."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tenant_backup.contract import job as jobs
from tests.engines.peer import ArchivePeer, Kept, OpenPeer
from tests.engines.server import Server

TENANT = jobs.Tenant("cluster-1", "default", "acme", "acme")
STORE = jobs.Store("volume")


def backup(server: Server, name: str, **changes: Any) -> jobs.Backup:
    """A backup of a database."""
    values: dict[str, Any] = {"database": server.database(name), **changes}
    return jobs.Backup(
        "uid-b", "acme_2024-01-15_14-30-25", "b", TENANT, store=STORE, recipients=["age1"], **values
    )


def restore(server: Server, database: str, target: str, uid: str = "uid-r", **changes: Any) -> jobs.Restore:
    """A restore: Replace when the target is the live database, else NewDatabase."""
    values: dict[str, Any] = {
        "strategy": "Replace" if database == target else "NewDatabase",
        "source": TENANT,
        "tenant": TENANT,
        "database": server.database(database),
        **changes,
    }
    return jobs.Restore(
        uid=uid,
        name="r",
        target_database=target,
        store=STORE,
        backup_id="acme_2024-01-15_14-30-25",
        manifest_sha256="",
        signing_key="",
        **values,
    )


def swap(server: Server, database: str, action: Any, uid: str = "uid-r", **changes: Any) -> jobs.Swap:
    """What follows a Replace."""
    return jobs.Swap(uid, "r", action, server.database(database), database, **changes)


def dumped(server: Server, database: str, **changes: Any) -> Kept:
    """Run the stage dump and return what left it."""
    from tenant_backup.stages import dump

    peer = ArchivePeer()
    try:
        dump.run(backup(server, database, **changes))
    finally:
        peer.die()
    assert peer.kept.complete
    return peer.kept


def loaded(kept: Kept, job: jobs.Restore) -> dict[str, Any]:
    """Run the stage load on what a dump left."""
    from tenant_backup.stages import load

    peer = OpenPeer(kept)
    try:
        facts = load.run(job)
        assert peer.done.wait(5)
        return facts
    finally:
        peer.close()


def start(stage: str, job: jobs.Job, root: Path) -> subprocess.Popen[bytes]:
    """Run a stage as a process of its own, as a container would."""
    environment = {
        **os.environ,
        "TENANT_BACKUP_ROOT": str(root),
        "TENANT_BACKUP_JOB": jobs.to_json(job),
        "PYTHONPATH": str(Path(jobs.__file__).parents[2]),
    }
    command = [sys.executable, "-m", "tenant_backup.stages", stage]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
