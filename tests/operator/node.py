"""Plays scheduler and kubelet: pods of our Jobs end as a scenario says, and are remembered."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, Self

from tenant_backup.contract.results import Result, encode
from tests.operator.control_plane import Api

STARTED = "2024-01-01T00:00:00Z"
FACTS: dict[str, dict[str, Any]] = {
    "upload": {
        "backupId": "acme_2024-01-01_00-00-00",
        "checksum": "sha256:" + "a" * 64,
        "location": "s3://b/acme/manifests/x",
        "encryption": "Age",
        "bytes": {"logical": 10, "stored": 10, "added": 10},
        "tables": 1,
        "rows": 2,
        "consistency": "Snapshot",
        "health": "Healthy",
        "verification": {"level": "Checksum", "message": ""},
    },
    "load": {
        "restored": {"tables": 1, "rows": 2, "bytes": 10},
        "check": {"rowsMatch": True, "constraintsValid": True},
        "previousDatabase": "app_old_01234567",
    },
    "preflight": {"database": {"version": "17.2", "sizeBytes": 1234, "tables": 1}},
    # Says nothing of tenant acme, whose backups are made up.
    "catalogue": {"items": [{"slug": "acme", "skipped": True}]},
    "probe": {"location": "s3://b", "capabilities": {"conditionalPut": True, "delete": True}},
}
Answer = Callable[[str, str], tuple[int, Result]]  # (purpose, container) -> exit code and result


def all_is_well(_purpose: str, container: str) -> tuple[int, Result]:
    """Every container ends well."""
    return 0, Result(True, FACTS.get(container, {}))


class Node:
    """Runs until closed; `ran` counts pods by the name of their Job."""

    def __init__(self, api: Api, namespace: str, answer: Answer = all_is_well) -> None:
        self._api = api
        self._path = f"/api/v1/namespaces/{namespace}/pods"
        self._answer = answer
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._lock = threading.Lock()
        self.ran: Counter[str] = Counter()
        self._done: set[str] = set()

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End no more pods; the thread follows when its watch is over."""
        with self._lock:
            self._stop.set()

    def _run(self) -> None:
        # Each watch begins with what is there, so whatever one of them missed is seen a second later.
        while not self._stop.is_set():
            for event in self._api.watch(self._path, fieldSelector="status.phase=Pending"):
                if event["type"] in ("ADDED", "MODIFIED"):
                    with self._lock:
                        self._see(event["object"])

    def _see(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        if not (self._stop.is_set() or metadata["uid"] in self._done or "deletionTimestamp" in metadata):
            self._end(pod)

    def _end(self, pod: dict[str, Any]) -> None:
        metadata = pod["metadata"]
        purpose = metadata["labels"]["tenantbackup.dev/purpose"]
        status = self._status(purpose, pod["spec"])
        answer = self._api.call("PATCH", f"{self._path}/{metadata['name']}/status", {"status": status})
        if answer.ok:
            self._done.add(metadata["uid"])
            self.ran[metadata["labels"]["batch.kubernetes.io/job-name"]] += 1

    def _status(self, purpose: str, spec: dict[str, Any]) -> dict[str, Any]:
        first = [self._container(purpose, one) for one in spec.get("initContainers", ())]
        rest = [self._container(purpose, one) for one in spec["containers"]]
        good = all(one["state"]["terminated"]["exitCode"] == 0 for one in (*first, *rest))
        phase = "Succeeded" if good else "Failed"
        return {
            "phase": phase,
            "initContainerStatuses": first,
            "containerStatuses": rest,
            "startTime": STARTED,
        }

    def _container(self, purpose: str, container: dict[str, Any]) -> dict[str, Any]:
        code, result = self._answer(purpose, container["name"])
        ended = {
            "exitCode": code,
            "message": encode(result).decode(),
            "reason": "Completed" if code == 0 else "Error",
            "startedAt": STARTED,
            "finishedAt": STARTED,
        }
        return {
            "name": container["name"],
            "image": container["image"],
            "imageID": "",
            "ready": False,
            "restartCount": 0,
            "state": {"terminated": ended},
        }
