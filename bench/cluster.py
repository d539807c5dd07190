"""On the real cluster: seconds and API writes from `kubectl apply` to the end of a small tenant's backup."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyrage

from hack.lab.kubectl import Kubectl, is_over, is_true
from hack.lab.servers import Postgres, namespace, postgres, s3, secret
from hack.localcluster.settings import STATE

from .figures import Figures

NAMESPACE = "tenant-backup-bench"
PASSWORD = "bench"
API_VERSION = "tenantbackup.dev/v1alpha1"
_ROWS_PER_GB = 3_760_000  # of 266 bytes
AUDIT = STATE / "log" / "audit.log"  # one JSON line for each write to the API, of the local cluster only
_OPERATOR = "system:serviceaccount:tenant-backup-system:"
_QUESTIONS = {
    "leases",
    "subjectaccessreviews",
    "selfsubjectaccessreviews",
    "tokenreviews",
}  # not objects of ours


def measure(figures: Figures, size: float, runs: int) -> None:
    """Small tenant, missing database, `size` GB, writes, memory; leaves nothing behind."""
    kubectl = Kubectl(NAMESPACE)
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    kubectl.apply(namespace(NAMESPACE))
    try:
        server = _prepare(kubectl)
        figures.add("idle_writes_per_minute", "count", [_idle_writes()])
        seconds, writes = zip(*(_back_up(kubectl, f"small-{n}", "small") for n in range(runs)), strict=True)
        figures.add("small_tenant_seconds", "seconds", list(seconds))
        figures.add("cluster_writes_per_backup", "count", [float(count.cluster) for count in writes])
        figures.add("api_writes_per_backup", "count", [float(count.operator) for count in writes])
        kubectl.apply(
            secret("missing-db", username="small", password=PASSWORD), tenant(server, "missing", "missing-db")
        )
        missing = [_back_up(kubectl, f"missing-{n}", "missing")[0] for n in range(runs)]
        figures.add("missing_database_seconds", "seconds", missing)
        _fill(kubectl, server, "large", int(size * _ROWS_PER_GB))
        large = [_back_up(kubectl, f"large-{n}", "large", mode="Full")[0] for n in range(runs)]
        figures.add("pg_800mb_seconds", "seconds", large)
        figures.add("operator_rss", "bytes", [_operator_rss()])
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _prepare(kubectl: Kubectl) -> Postgres:
    server = postgres(kubectl, "pg", "localhost/test-postgres:17")
    store = s3(kubectl, "s3", "localhost/test-versitygw:dev", "backups")
    kubectl.apply(*store.store("prod", "backups"))
    kubectl.wait("bst", "prod", is_true("Ready"))
    _fill(kubectl, server, "small", 9000)
    return server


def _fill(kubectl: Kubectl, server: Postgres, name: str, rows: int) -> None:
    """A tenant with so many rows, found ready."""
    print(f"cluster: a tenant of {rows} rows …", flush=True)
    server.create_database(name, PASSWORD)
    text = "md5(i::text) || repeat(' lorem ipsum ' || i % 100, 15)"
    server.sql(
        f"SET ROLE {name}; CREATE TABLE t AS SELECT i, {text} x FROM generate_series(1, {rows}) i", name
    )
    kubectl.apply(secret(f"{name}-db", username=name, password=PASSWORD), tenant(server, name, f"{name}-db"))
    kubectl.wait("tnt", name, is_true("Ready"))


def tenant(server: Postgres, name: str, credentials: str, **metadata: Any) -> dict[str, Any]:
    """A Tenant with the database of its name, and a key that nobody keeps."""
    database = {
        "engine": "PostgreSQL",
        "host": server.host,
        "name": name,
        "credentialsSecretRef": {"name": credentials},
    }
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    spec = {"database": database, "encryption": {"recipients": [recipient]}}
    return {"apiVersion": API_VERSION, "kind": "Tenant", "metadata": {"name": name, **metadata}, "spec": spec}


@dataclass(frozen=True)
class Writes:
    """Objects written through the API: by everybody, and by the operator alone."""

    cluster: int
    operator: int


def _back_up(kubectl: Kubectl, name: str, tenant: str, **wishes: str) -> tuple[float, Writes]:
    """(seconds from apply to the end, writes meanwhile and until all has come to rest)."""
    begin = AUDIT.stat().st_size
    started = time.perf_counter()
    spec = {"tenantRef": {"name": tenant}, "storeRef": {"name": "prod"}, **wishes}
    kubectl.apply(
        {"apiVersion": API_VERSION, "kind": "TenantBackup", "metadata": {"name": name}, "spec": spec}
    )
    kubectl.wait("tb", name, is_over, 120)
    seconds = time.perf_counter() - started
    time.sleep(5)  # the tail of Events and Job status belongs to this backup
    return seconds, _writes(begin)


def _idle_writes() -> float:
    time.sleep(10)  # what was begun comes to rest
    begin = AUDIT.stat().st_size
    time.sleep(30)
    return 2.0 * _writes(begin).operator


def _writes(begin: int) -> Writes:
    """Count the lines of the audit log from byte `begin` on."""
    with AUDIT.open("rb") as log:
        log.seek(begin)
        events = [json.loads(line) for line in log]
    events = [event for event in events if event.get("objectRef", {}).get("resource") not in _QUESTIONS]
    ours = sum(event["user"]["username"].startswith(_OPERATOR) for event in events)
    return Writes(len(events), ours)


def operator_process() -> int:
    """The process id of the operator, which runs on this machine. Raises RuntimeError when none does."""
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and b"tenant_backup.controllers" in (
                process / "cmdline"
            ).read_bytes().split(b"\0"):
                return int(process.name)
        except OSError:
            continue
    raise RuntimeError("no operator runs on this machine: make install")


def _operator_rss() -> float:
    status = Path(f"/proc/{operator_process()}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return float(found[1]) * 1024 if found else 0.0
