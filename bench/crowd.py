"""On the real cluster: fifty tenants due at once, each with a real Job on the node, the operator killed in it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

from hack.lab.kubectl import Kubectl, is_true
from hack.lab.servers import namespace, postgres, s3, secret

from .cluster import API_VERSION, AUDIT, operator_process, tenant
from .figures import Figures

NAMESPACE = "tenant-backup-crowd"
TENANTS, TOTAL = 50, 4
KILLED_AFTER = 20  # backups
_ROLE = "crowd"


def measure(figures: Figures) -> None:
    """Seconds of one slot, tenants missed, backups and Jobs made twice, most at once; leaves nothing behind."""
    kubectl = Kubectl(NAMESPACE)
    kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s")
    kubectl.apply(namespace(NAMESPACE))
    try:
        _prepare(kubectl)
        _drain(figures, kubectl)
    finally:
        kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def _prepare(kubectl: Kubectl) -> None:
    """Ready tenants, each with a database of 10,000 rows on one server."""
    print(f"crowd: {TENANTS} tenants with a database each, {TOTAL} real Jobs at once …", flush=True)
    server = postgres(kubectl, "pg", "localhost/test-postgres:17")
    store = s3(kubectl, "s3", "localhost/test-versitygw:dev", "backups")
    server.create_database(_ROLE, _ROLE)
    server.sql(
        f"SET ROLE {_ROLE}; CREATE TABLE t AS SELECT i, md5(i::text) x FROM generate_series(1, 10000) i",
        _ROLE,
    )
    server.sql("".join(f"CREATE DATABASE {name} TEMPLATE {_ROLE} OWNER {_ROLE};\n" for name in _names()))
    kubectl.apply(secret("db", username=_ROLE, password=_ROLE), *store.store("prod", "backups"))
    kubectl.wait("bst", "prod", is_true("Ready"))
    kubectl.apply(*(tenant(server, name, "db", labels={"crowd": "all"}) for name in _names()))
    for name in _names():
        kubectl.wait("tnt", name, is_true("Ready"), 600)


def _names() -> Iterator[str]:
    return (f"tenant{number:02}" for number in range(TENANTS))


def _drain(figures: Figures, kubectl: Kubectl) -> None:
    begin, began = AUDIT.stat().st_size, time.monotonic()
    kubectl.apply(_schedule())
    killed, most = False, 0
    while (states := _states(kubectl))["Succeeded"] + states["Failed"] < TENANTS:
        most = max(most, states["Running"])
        if states["Succeeded"] >= KILLED_AFTER and not killed:
            os.kill(operator_process(), signal.SIGKILL)
            killed = True
        if time.monotonic() > began + 900:
            raise TimeoutError(f"after 900 s {dict(states)}")
        time.sleep(0.5)
    seconds = time.monotonic() - began
    backups = kubectl.list("tb")
    tenants = Counter(item["spec"]["tenantRef"]["name"] for item in backups)
    jobs = _jobs_created(begin)
    figures.add("node_drain_seconds", "seconds", [seconds])
    figures.add("node_drain_failed", "count", [float(states["Failed"])])
    figures.add("node_drain_missed", "count", [float(TENANTS - len(tenants))])
    figures.add("node_drain_doubled", "count", [float(max(len(backups), jobs) - len(tenants))])
    figures.add("node_drain_most_at_once", "count", [float(most)])


def _schedule() -> dict[str, Any]:
    spec = {
        "schedule": "0 0 29 2 *",
        "tenantSelector": {"matchLabels": {"crowd": "all"}},
        "template": {"storeRef": {"name": "prod"}},
        "onNewTenant": "Wait",
        "budget": {"total": TOTAL},
        "runNow": "now",
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "BackupSchedule",
        "metadata": {"name": "nightly"},
        "spec": spec,
    }


def _states(kubectl: Kubectl) -> Counter[str]:
    return Counter(item.get("status", {}).get("state", "") for item in kubectl.list("tb"))


def _jobs_created(begin: int) -> int:
    """Count the backup Jobs made in our namespace since byte `begin` of the audit log."""
    with AUDIT.open("rb") as log:
        log.seek(begin)
        references = [event["objectRef"] for event in map(json.loads, log) if event["verb"] == "create"]
    ours = [one for one in references if one.get("namespace") == NAMESPACE and one["resource"] == "jobs"]
    return sum("-backup-" in one.get("name", "") for one in ours)
