"""The operator alone, on a real API server without a node: a thousand tenants due at once, ten thousand objects.

What ends the Jobs is a simulator that writes pod statuses as a kubelet would; no database is read. It shares
the machine with etcd, the API server and the Job controller, so its seconds are those of a busy control plane.
"""

from __future__ import annotations

import json
import tempfile
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tenant_backup.decisions.names import slot_label
from tests.operator.conftest import Space
from tests.operator.control_plane import Api, control_plane
from tests.operator.crowd import (
    AT_REST,
    Runs,
    in_parallel,
    made,
    memory,
    names,
    run_once,
    server_of,
    settle,
    stored_bytes,
    until_idle,
    until_succeeded,
)
from tests.operator.node import Node
from tests.operator.processes import Process

from .figures import Figures

SLOT = datetime(2026, 1, 1, 2, tzinfo=UTC)
SERVERS, TOTAL, PER_SERVER = 20, 20, 4
BUDGET = {"TENANT_BACKUP_BUDGET_TOTAL": str(TOTAL), "TENANT_BACKUP_BUDGET_PER_SERVER": str(PER_SERVER)}
OBJECTS = 10_000  # TenantBackups in the end


def measure(figures: Figures, tenants: int) -> None:
    """Drain, then memory, start-up and size with ten times as many TenantBackups; leaves nothing behind."""
    with (
        tempfile.TemporaryDirectory(prefix="tenant-backup-scale-") as folder,
        control_plane(Path(folder)) as api,
    ):
        space = _space(api, Path(folder) / "space")
        try:
            _measure(figures, space, tenants)
        finally:
            space.close()


def _space(api: Api, folder: Path) -> Space:
    name = f"bench-{uuid.uuid4().hex[:10]}"
    api.do(
        "POST", "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    )
    folder.mkdir()
    return Space(api, name, folder)


def _measure(figures: Figures, space: Space, tenants: int) -> None:
    print(
        f"scale: {tenants} tenants on {SERVERS} servers, {TOTAL} at once, {PER_SERVER} on a server …",
        flush=True,
    )
    settle(space, tenants, SERVERS)
    operator = space.operator(**BUDGET)
    until_idle(operator)
    with Node(space.api, space.name):
        _drain(figures, space, operator, tenants)
    _stop(space)
    seconds, rss, writes = _start(space)
    figures.add(f"operator_start_{tenants}_seconds", "seconds", [seconds])
    figures.add(f"operator_rss_{tenants}", "bytes", [rss])
    figures.add("start_writes", "count", [float(writes)])
    _stop(space)
    before = stored_bytes(space.api.etcd)
    copies = OBJECTS // tenants - 2
    _fill(space, tenants, copies)
    each = (stored_bytes(space.api.etcd) - before) / (tenants * copies)
    figures.add("etcd_bytes_per_backup", "bytes", [each])
    print(
        f"  so 1,000 tenants × 30 backups are {each * 30_000 / 2**20:.0f} MiB of etcd (extrapolated)",
        flush=True,
    )
    until_idle(space.operator(**BUDGET), AT_REST)  # each Tenant counts what it has now
    _stop(space)
    seconds, rss, writes = _start(space)
    figures.add("operator_start_10k_seconds", "seconds", [seconds])
    figures.add("operator_rss_10k", "bytes", [rss])
    figures.add("start_writes_10k", "count", [float(writes)])


def _drain(figures: Figures, space: Space, operator: Process, tenants: int) -> None:
    """One slot of a schedule, with a SIGKILL in the middle: none missed, none doubled, no budget exceeded."""
    before, began = len(space.writes), time.monotonic()
    with Runs(space) as runs:
        run_once(space)
        until_succeeded(space, tenants // 2, 300)
        operator.kill()
        operator = space.operator(**BUDGET)
        until_succeeded(space, tenants, 300)
        seconds = time.monotonic() - began
        until_idle(operator, AT_REST)
    backups = made(space)
    missed = set(names(tenants)) - {item["spec"]["tenantRef"]["name"] for item in backups}
    doubled = len(backups) - tenants + sum(runs.jobs_per_backup.values()) - len(runs.jobs_per_backup)
    most = runs.most_at_once(lambda _tenant: "")[""]
    on_one_server = max(runs.most_at_once(lambda tenant: server_of(tenant, SERVERS)).values())
    figures.add("drain_seconds", "seconds", [seconds])
    figures.add("drain_missed", "count", [float(len(missed))])
    figures.add("drain_doubled", "count", [float(doubled)])
    figures.add("drain_most_at_once", "count", [float(most)])
    figures.add("drain_most_on_a_server", "count", [float(on_one_server)])
    figures.add("scale_writes_per_backup", "count", [(len(space.writes) - before) / tenants])
    figures.add("backup_object_bytes", "bytes", [float(max(len(json.dumps(item)) for item in backups))])


def _start(space: Space) -> tuple[float, float, int]:
    """Return seconds until it has looked at everything, bytes resident then, and writes."""
    before = len(space.writes)
    operator = space.operator(**BUDGET)
    seconds = until_idle(operator)
    return seconds, memory(operator, "VmRSS"), len(space.writes) - before


def _stop(space: Space) -> None:
    space.processes[-1].kill()
    space.processes[-1].wait()


def _fill(space: Space, tenants: int, copies: int) -> None:
    """Give each tenant so many older backups, copies of the finished one."""
    finished = {item["spec"]["tenantRef"]["name"]: item for item in made(space)}

    def copy(what: tuple[str, int]) -> None:
        tenant, number = what
        original: dict[str, Any] = finished[tenant]
        metadata, slot = original["metadata"], slot_label(SLOT - timedelta(days=number))
        labels = {**metadata["labels"], "tenantbackup.dev/slot": slot}
        known = {"labels": labels, "finalizers": metadata.get("finalizers", [])}
        copied = space.create("TenantBackup", f"nightly-{tenant}-{slot}", original["spec"], **known)
        path = space.path("TenantBackup", copied["metadata"]["name"])
        space.api.do("PATCH", f"{path}/status", {"status": original["status"]})

    in_parallel(copy, [(name, number) for name in names(tenants) for number in range(copies)])
