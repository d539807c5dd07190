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
API_VERSION = "tenantbackup.dev/v1alpha1"
_AUDIT = STATE / "log" / "audit.log"  # one JSON line for each write to the API, of the local cluster only
_OPERATOR = "system:serviceaccount:tenant-backup-system:"
_QUESTIONS = {
    "leases",
    "subjectaccessreviews",
    "selfsubjectaccessreviews",
    "tokenreviews",
}  # not objects of ours


def measure(figures: Figures, runs: int) -> None:
    """Small tenant, missing database, writes, memory; leaves nothing behind."""
    kubectl = Kubectl(NAMESPACE)
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    kubectl.apply(namespace(NAMESPACE))
    try:
        print("cluster: a tenant of 1 MB …", flush=True)
        _prepare(kubectl)
        figures.add("idle_writes_per_minute", "count", [_idle_writes()])
        seconds, writes = zip(*(_back_up(kubectl, f"small-{n}", "small") for n in range(runs)), strict=True)
        figures.add("small_tenant_seconds", "seconds", list(seconds))
        figures.add("cluster_writes_per_backup", "count", [float(count.cluster) for count in writes])
        figures.add("api_writes_per_backup", "count", [float(count.operator) for count in writes])
        figures.add(
            "missing_database_seconds",
            "seconds",
            [_back_up(kubectl, f"missing-{n}", "missing")[0] for n in range(runs)],
        )
        figures.add("operator_rss", "bytes", [_operator_rss()])
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _prepare(kubectl: Kubectl) -> None:
    server = postgres(kubectl, "pg", "localhost/test-postgres:17")
    store = s3(kubectl, "s3", "localhost/test-versitygw:dev", "backups")
    server.create_database("small", "small")
    fill = "CREATE TABLE t AS SELECT i, md5(i::text) || repeat(' text', 10) x FROM generate_series(1, 9000) i"
    server.sql(f"SET ROLE small; {fill}", "small")
    kubectl.apply(secret("db", username="small", password="small"), *store.store("prod", "backups"))
    kubectl.apply(_tenant(server, "small"), _tenant(server, "missing"))
    kubectl.wait("bst", "prod", is_true("Ready"))
    kubectl.wait("tnt", "small", is_true("Ready"))


def _tenant(server: Postgres, name: str) -> dict[str, Any]:
    database = {
        "engine": "PostgreSQL",
        "host": server.host,
        "name": name,
        "credentialsSecretRef": {"name": "db"},
    }
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    spec = {"database": database, "encryption": {"recipients": [recipient]}}
    return {"apiVersion": API_VERSION, "kind": "Tenant", "metadata": {"name": name}, "spec": spec}


@dataclass(frozen=True)
class Writes:
    """Objects written through the API: by everybody, and by the operator alone."""

    cluster: int
    operator: int


def _back_up(kubectl: Kubectl, name: str, tenant: str) -> tuple[float, Writes]:
    """(seconds from apply to the end, writes meanwhile and until all has come to rest)."""
    begin = _AUDIT.stat().st_size
    started = time.perf_counter()
    spec = {"tenantRef": {"name": tenant}, "storeRef": {"name": "prod"}}
    kubectl.apply(
        {"apiVersion": API_VERSION, "kind": "TenantBackup", "metadata": {"name": name}, "spec": spec}
    )
    kubectl.wait("tb", name, is_over, 120)
    seconds = time.perf_counter() - started
    time.sleep(5)  # the tail of Events and Job status belongs to this backup
    return seconds, _writes(begin)


def _idle_writes() -> float:
    time.sleep(10)  # what was begun comes to rest
    begin = _AUDIT.stat().st_size
    time.sleep(30)
    return 2.0 * _writes(begin).operator


def _writes(begin: int) -> Writes:
    """Count the lines of the audit log from byte `begin` on."""
    with _AUDIT.open("rb") as log:
        log.seek(begin)
        events = [json.loads(line) for line in log]
    events = [event for event in events if event.get("objectRef", {}).get("resource") not in _QUESTIONS]
    ours = sum(event["user"]["username"].startswith(_OPERATOR) for event in events)
    return Writes(len(events), ours)


def _operator_rss() -> float:
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and b"tenant_backup.controllers" in (
                process / "cmdline"
            ).read_bytes().split(b"\0"):
                found = re.search(r"VmRSS:\s+(\d+) kB", (process / "status").read_text())
                return float(found[1]) * 1024 if found else 0.0
        except OSError:
            continue
    raise RuntimeError("no operator runs on this machine: make install")
