"""Many tenants at once, for the scale test and the bench; and what really ran when, from the watches.

Their Tenants are made as the operator leaves them once they are Ready, so that no preflight runs.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

import requests

from tenant_backup.controllers.watching import TALLY
from tests.operator.conftest import Space
from tests.operator.node import Node
from tests.operator.processes import Process
from tests.operator.test_end_to_end import RECIPIENT, STORE

WHEN = "2026-01-01T00:00:00Z"
AT_REST = TALLY + 1  # seconds: an operator that is quiet for longer has nothing put off
_TICKS = os.sysconf("SC_CLK_TCK")


def in_parallel(work: Callable[[Any], object], things: Iterable[Any]) -> None:
    """Do it for all of them, eight at a time."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(work, things):
            pass


def names(count: int) -> list[str]:
    """The names of so many tenants."""
    return [f"tenant-{number:04}" for number in range(count)]


def server_of(tenant: str, servers: int) -> str:
    """The database server of a tenant."""
    return f"pg-{int(tenant.removeprefix('tenant-')) % servers}"


def settle(space: Space, count: int, servers: int) -> None:
    """A store that is Ready and listed, and so many Ready tenants on so many database servers."""
    space.create("BackupStore", "prod", STORE)
    operator = space.operator()
    with Node(space.api, space.name):
        space.until_condition("BackupStore", "prod", "Ready")
        until_idle(operator)
    operator.kill()
    in_parallel(lambda name: _ready_tenant(space, name, server_of(name, servers)), names(count))


def _ready_tenant(space: Space, name: str, server: str) -> None:
    database = {
        "engine": "PostgreSQL",
        "host": server,
        "name": "app",
        "credentialsSecretRef": {"name": f"{name}-db"},
    }
    encryption = {"recipients": [RECIPIENT]}
    space.create("Tenant", name, {"database": database, "encryption": encryption}, labels={"crowd": "all"})
    secret = {"metadata": {"name": f"{name}-keys"}, "type": "Opaque"}
    space.api.do("POST", space.core("secrets"), secret)
    ready = {"type": "Ready", "status": "True", "reason": "Ready", "message": "ready"}
    ready |= {"observedGeneration": 1, "lastTransitionTime": WHEN}
    status = {"signingKey": "ab" * 32, "keySecret": f"{name}-keys", "keysReady": True}
    status |= {"observedGeneration": 1, "conditions": [ready]}
    space.api.do("PATCH", f"{space.path('Tenant', name)}/status", {"status": status})
    # Its first backup, which is told of once, was long ago.
    first = {"tenantRef": {"name": name}, "storeRef": {"name": "prod"}, "verification": "None"}
    space.create("TenantBackup", f"{name}-first", {**first, "deletionPolicy": "Retain"})
    finished = {"state": "Succeeded", "observedGeneration": 1, "completedAt": WHEN}
    space.api.do("PATCH", f"{space.path('TenantBackup', f'{name}-first')}/status", {"status": finished})


def run_once(space: Space, **spec: Any) -> None:
    """A schedule for all of them, that runs now and not again for long."""
    known = {
        "schedule": "0 0 29 2 *",
        "tenantSelector": {"matchLabels": {"crowd": "all"}},
        "template": {"storeRef": {"name": "prod"}},
        "runNow": "now",
    }
    space.create("BackupSchedule", "nightly", {**known, **spec})


def made(space: Space) -> list[dict[str, Any]]:
    """The backups that the schedule made."""
    return space.api.items(space.path("TenantBackup"), labelSelector="tenantbackup.dev/schedule=nightly")


def states(space: Space) -> Counter[str]:
    """How many of them are in each state."""
    return Counter(item.get("status", {}).get("state", "") for item in made(space))


def until_succeeded(space: Space, count: int, seconds: float) -> None:
    """Wait until so many of them have; asked once a second only, because each answer is megabytes."""
    give_up = time.monotonic() + seconds
    while (there := states(space))["Succeeded"] < count:
        if time.monotonic() > give_up:
            raise TimeoutError(f"not {count} have succeeded within {seconds} s, but {dict(there)}")
        time.sleep(1)


class Watch:
    """Notes each change of a collection while it is entered: resource version, kind of change, object."""

    def __init__(self, space: Space, path: str, **query: str) -> None:
        self._api, self._path, self._query = space.api, path, query
        self.seen: list[tuple[int, str, dict[str, Any]]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._stop = threading.Event()
        self._version = str(self._api.do("GET", path, **query)["metadata"]["resourceVersion"])

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop within a second."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            for event in self._api.watch(self._path, resourceVersion=self._version, **self._query):
                version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] != "BOOKMARK":
                    self.seen.append((int(version), event["type"], event["object"]))
                self._version = version


class Runs(Watch):
    """The backup Jobs of a namespace and when their pods ended: what really ran at once."""

    def __init__(self, space: Space) -> None:
        ours = {"labelSelector": "tenantbackup.dev/purpose=backup"}
        super().__init__(space, space.jobs, **ours)
        self._pods = Watch(space, space.core("pods"), **ours)

    def __enter__(self) -> Self:
        """Start."""
        self._pods.__enter__()
        return super().__enter__()

    def __exit__(self, *_: object) -> None:
        """Stop."""
        super().__exit__()
        self._pods.__exit__()

    @property
    def jobs_per_backup(self) -> Counter[str]:
        """How many Jobs each backup got, by the name of the backup."""
        created = [one["metadata"] for _, change, one in self.seen if change == "ADDED"]
        return Counter(metadata["labels"]["tenantbackup.dev/name"] for metadata in created)

    def most_at_once(self, group: Callable[[str], str]) -> dict[str, int]:
        """The most runs at once in each group of tenants; all versions are of one etcd, so they have an order."""
        steps = [(version, 1, one) for version, change, one in self.seen if change == "ADDED"]
        ended: set[str] = set()
        for version, _, pod in self._pods.seen:
            over = pod.get("status", {}).get("phase") in ("Succeeded", "Failed")
            if over and pod["metadata"]["uid"] not in ended:
                ended.add(pod["metadata"]["uid"])
                steps.append((version, -1, pod))
        running: defaultdict[str, int] = defaultdict(int)
        most: defaultdict[str, int] = defaultdict(int)
        for _, step, one in sorted(steps, key=lambda item: item[0]):
            key = group(one["metadata"]["labels"]["tenantbackup.dev/tenant"])
            running[key] += step
            most[key] = max(most[key], running[key])
        return dict(most)


def until_idle(process: Process, quiet: float = 2, seconds: float = 120) -> float:
    """Wait until the process has used no CPU time to speak of for `quiet` seconds; return when that began."""
    started, since, used = time.monotonic(), time.monotonic(), cpu_seconds(process)
    while time.monotonic() < started + seconds:
        time.sleep(0.1)
        now = cpu_seconds(process)
        if now - used > 0.03:
            since, used = time.monotonic(), now
        if time.monotonic() - since > quiet:
            return since - started
    raise TimeoutError(f"it was still busy after {seconds} s")


def cpu_seconds(process: Process) -> float:
    """The CPU time a process has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory(process: Process, field: str) -> float:
    """A line of a process's memory in bytes: VmRSS now, VmHWM at most so far."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    found = next(line for line in lines if line.startswith(f"{field}:"))
    return float(found.split()[1]) * 1024


def stored_bytes(etcd: str) -> float:
    """Bytes in use in etcd, after its history is dropped."""
    revision = requests.post(f"{etcd}/v3/kv/range", json={"key": "AA=="}, timeout=60).json()["header"][
        "revision"
    ]
    compaction = {"revision": revision, "physical": True}
    requests.post(f"{etcd}/v3/kv/compaction", json=compaction, timeout=120).raise_for_status()
    metrics = requests.get(f"{etcd}/metrics", timeout=60).text.splitlines()
    name = "etcd_mvcc_db_total_size_in_use_in_bytes "
    return float(next(line for line in metrics if line.startswith(name)).split()[1])
