"""The stages of one Job as plain processes on this machine, joined by the same sockets as in a pod."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tenant_backup.contract import job as jobs
from tenant_backup.contract.results import Result, decode

BACKUP = ("dump", "archive", "upload")
RESTORE = ("download", "open", "load")
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


@dataclass(frozen=True)
class Ended:
    """How one stage's process ended."""

    stage: str
    code: int
    result: Result | None
    peak_rss: int  # bytes, of the process itself without its children
    stderr: str


@dataclass
class Chain:
    """A folder that stands for a tenant's Secrets and store; every run gets a pod's folders of its own."""

    folder: Path
    index_key: bytes = field(default_factory=lambda: os.urandom(32))
    signing_seed: bytes = field(default_factory=lambda: os.urandom(32))

    @property
    def signing_key(self) -> str:
        """The public half of the signing key, hex."""
        return Ed25519PrivateKey.from_private_bytes(self.signing_seed).public_key().public_bytes_raw().hex()

    def write_secret(self, name: str, values: Mapping[str, str | bytes]) -> None:
        """Write one Secret as the kubelet would mount it."""
        where = self.folder / "secrets" / name
        where.mkdir(parents=True, exist_ok=True)
        for key, value in values.items():
            (where / key).write_bytes(value.encode() if isinstance(value, str) else value)

    def write_keys(self) -> None:
        """Write the per-tenant keys that the operator would have made."""
        self.write_secret("keys", {"indexKey": self.index_key, "signingKey": self.signing_seed})

    def run(self, job: jobs.Job, *, seconds: float = 300) -> dict[str, Ended]:
        """Run all stages of a job; return how each ended. `prepare` goes first, as in the pod."""
        root = self._pod()
        try:
            return self._run(job, root, seconds)
        finally:
            shutil.rmtree(root)

    def _run(self, job: jobs.Job, root: Path, seconds: float) -> dict[str, Ended]:
        if isinstance(job, jobs.Backup):
            prepared = self._finish([self._start("prepare", job, root)], seconds)
            if prepared["prepare"].code:
                return prepared
            return prepared | self._finish([self._start(stage, job, root) for stage in BACKUP], seconds)
        if isinstance(job, jobs.Restore):
            return self._finish([self._start(stage, job, root) for stage in RESTORE], seconds)
        return self._finish([self._start(type(job).__name__.lower(), job, root)], seconds)

    def _pod(self) -> Path:
        root = Path(tempfile.mkdtemp(prefix="tb-"))  # short: a Unix socket's path has 108 bytes at most
        for name in ("run/tenant-backup", "spool", "scratch", "dev"):
            (root / name).mkdir(parents=True)
        store = self.folder / "store"
        store.mkdir(exist_ok=True)
        (root / "store").symlink_to(store)
        (root / "secrets").symlink_to(self.folder / "secrets")
        return root

    def _start(self, stage: str, job: jobs.Job, root: Path) -> _Running:
        own = root / stage
        (own / "dev").mkdir(parents=True)
        (own / "scratch").mkdir()
        for name in ("run", "spool", "store", "secrets"):
            (own / name).symlink_to(root / name)
        message = own / "dev" / "termination-log"
        message.touch()
        environment = {
            **os.environ,
            jobs.ENVIRONMENT_VARIABLE: jobs.to_json(job),
            "TENANT_BACKUP_ROOT": str(own),
        }
        errors = (own / "stderr").open("w+b")
        output = (own / "stdout").open("w+b")
        process = subprocess.Popen(
            [sys.executable, "-m", "tenant_backup.stages", stage],
            env=environment,
            stdout=output,
            stderr=errors,
        )
        return _Running(stage, process, message, own / "stderr")

    def _finish(self, running: list[_Running], seconds: float) -> dict[str, Ended]:
        give_up = time.monotonic() + seconds
        try:
            while not all([item.look() for item in running]):  # a list: every one is looked at each time
                if time.monotonic() > give_up:
                    late = [item for item in running if item.process.poll() is None]
                    raise TimeoutError(
                        "; ".join(f"{item.stage} did not end: {item.errors.read_text()}" for item in late)
                    )
                time.sleep(0.01)
            return {item.stage: item.ended() for item in running}
        finally:
            for item in running:
                item.process.kill()


@dataclass(frozen=True)
class _Running:
    stage: str
    process: subprocess.Popen[bytes]
    message: Path
    errors: Path

    peak: list[int] = field(default_factory=lambda: [0])

    def look(self) -> bool:
        """Note the peak memory so far; return whether the process has ended."""
        with contextlib.suppress(OSError):
            found = _PEAK.search(Path(f"/proc/{self.process.pid}/status").read_text())
            self.peak[0] = int(found[1]) * 1024 if found else self.peak[0]
        return self.process.poll() is not None

    def ended(self) -> Ended:
        """How the process ended; it must have."""
        errors = self.errors.read_text(errors="replace")
        return Ended(self.stage, self.process.wait(), decode(self.message.read_text()), self.peak[0], errors)
