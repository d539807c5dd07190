"""A control plane for the session, a namespace per test, and operators to start in it."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.operator.control_plane import Api, control_plane
from tests.operator.processes import Process, Start, forked, fresh

GROUP = "/apis/tenantbackup.dev/v1alpha1"
PLURALS = {
    "Tenant": "tenants",
    "BackupStore": "backupstores",
    "TenantBackup": "tenantbackups",
    "TenantRestore": "tenantrestores",
    "BackupSchedule": "backupschedules",
    "BackupNotifier": "backupnotifiers",
}


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    """The API server of this session."""
    with control_plane(tmp_path_factory.mktemp("control-plane")) as running:
        yield running


@dataclass
class Space:
    """A namespace, and the operator processes started for it."""

    api: Api
    name: str
    folder: Path
    start: Start = fresh
    processes: list[Process] = field(default_factory=list)

    def path(self, kind: str, name: str = "") -> str:
        """The path of our kinds."""
        return f"{GROUP}/namespaces/{self.name}/{PLURALS[kind]}" + (f"/{name}" if name else "")

    def core(self, plural: str, name: str = "") -> str:
        """The path of Secrets, Events and pods."""
        return f"/api/v1/namespaces/{self.name}/{plural}" + (f"/{name}" if name else "")

    @property
    def jobs(self) -> str:
        """The path of Jobs."""
        return f"/apis/batch/v1/namespaces/{self.name}/jobs"

    def create(self, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        """Create one of our objects."""
        body = {
            "apiVersion": GROUP.removeprefix("/apis/"),
            "kind": kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
        return self.api.do("POST", self.path(kind), body)

    def get(self, kind: str, name: str) -> dict[str, Any] | None:
        """Return one of our objects, or None."""
        answer = self.api.call("GET", self.path(kind, name))
        return None if answer.status_code == 404 else dict(answer.json())

    def until(self, true: Callable[[], Any], what: str, seconds: float = 60) -> Any:
        """Wait until something is true, and return it. Fails with the operator's log."""
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            found = true()
            if found:
                return found
            time.sleep(0.2)  # what is asked meanwhile is processor time that others wait for
        log = self.log.read_text()[-4000:] if self.log.exists() else ""
        pytest.fail(f"it did not come true within {seconds} s that {what}\n{log}")

    def until_condition(self, kind: str, name: str, condition: str, status: str = "True") -> dict[str, Any]:
        """Wait until an object has a condition, and return the object."""

        def there() -> dict[str, Any] | None:
            found = self.get(kind, name)
            conditions = (found or {}).get("status", {}).get("conditions", ())
            true = any(item["type"] == condition and item["status"] == status for item in conditions)
            return found if true else None

        return dict(self.until(there, f"{kind} {name} is {condition}={status}: {self.get(kind, name)}"))

    @property
    def log(self) -> Path:
        """What the operators said."""
        return self.folder / "operator.log"

    @property
    def writes(self) -> list[str]:
        """Every write of every operator: method and path."""
        file = self.folder / "writes"
        return file.read_text().splitlines() if file.exists() else []

    def operator(
        self, crash_at: str = "never:0", metrics: str = "", ahead: float = 0, **settings: str
    ) -> Process:
        """Start a real operator process for this namespace.

        `metrics` is the URL to serve them at, `ahead` by how many seconds its clock is, `settings` are further
        variables of its environment.
        """
        environment = {
            "PATH": os.environ["PATH"],
            "KUBECONFIG": str(self.api.kubeconfig),
            "TENANT_BACKUP_RUNNER_IMAGE": "runner:test",
            "TENANT_BACKUP_NAMESPACES": self.name,
            "TENANT_BACKUP_LIVENESS": "",
            "TENANT_BACKUP_METRICS": metrics,
            "WRITES": str(self.folder / "writes"),
            "CRASH_AT": crash_at,
            "AHEAD": str(ahead),
            **settings,
        }
        process = self.start(environment, self.log)
        self.processes.append(process)
        return process

    def close(self) -> None:
        """Stop what was started.

        The namespace stays: nobody is left to take finalizers away, and a namespace that cannot go is tried again
        and again, which was most of what the API server had to do.
        """
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            process.wait(20)


@pytest.fixture
def new_space(api: Api, tmp_path: Path) -> Iterator[Callable[[], Space]]:
    """Make namespaces with operators that start in a moment and end with the test."""
    made: list[Space] = []

    def make() -> Space:
        name = f"t-{uuid.uuid4().hex[:10]}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        api.do("POST", "/api/v1/namespaces", body)
        folder = tmp_path / name
        folder.mkdir()
        made.append(Space(api, name, folder, forked))
        return made[-1]

    yield make
    for space in made:
        space.close()


@pytest.fixture
def space(new_space: Callable[[], Space]) -> Space:
    """One namespace."""
    return new_space()
